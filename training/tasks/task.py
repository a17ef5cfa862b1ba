"""What every clinical question gives to the loop that trains, judges and exports it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor, nn

from workers.calibration import Calibration

#: Weights of a run, averaged, in its folder; and what a run of the later verbs leaves there.
CHECKPOINT = "checkpoint.pt"
CALIBRATION = "calibration.json"
REPORT = "report.html"


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Examples side by side, on the device of the network."""

    #: What the network takes: [b, channel, ...].
    values: Tensor
    #: What it should say, 0..1, in the shape of its output.
    target: Tensor
    #: 1 where the loss counts, else 0.
    counts: Tensor

    def to(self, device: str) -> "Batch":
        """The same on a device."""
        return Batch(
            values=self.values.to(device, non_blocking=True),
            target=self.target.to(device, non_blocking=True),
            counts=self.counts.to(device, non_blocking=True),
        )


@dataclass(frozen=True, kw_only=True)
class Trained:
    """What a run came to."""

    #: The averaged network, on the CPU, in evaluation mode.
    network: nn.Module
    step: int
    #: How long its steps took, all parts of the run together.
    seconds: float


class Task(Protocol):
    """One clinical question: its data, its network, and how it is judged."""

    def network(self) -> nn.Module:
        """The network of the experiment, freshly made."""

    def batch(self, numbers: Sequence[int]) -> Batch:
        """Examples by number: the same number gives the same example, wherever and whenever it is asked for."""

    def between(self, step: int, network: nn.Module) -> Mapping[str, Any]:
        """What is to be done with the averaged network after a step; what it returns is logged."""

    def state(self) -> Mapping[str, Tensor]:
        """What a checkpoint must keep beside weights and optimiser."""

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Go on with what `state` gave."""

    def evaluate(self, network: nn.Module, calibration: Calibration | None, out: Path) -> Path:
        """Judge the network and write the evaluation report into a folder; its path."""

    def calibrate(self, network: nn.Module) -> Calibration:
        """The calibration that fits validation data best; ValueError where they are too few to say."""

    def export(self, network: nn.Module, calibration: Calibration, run: Trained, bundle: Path) -> None:
        """Write the bundle."""
