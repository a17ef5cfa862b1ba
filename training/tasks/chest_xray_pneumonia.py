"""Pneumonia or not, on a chest radiograph of 28 x 28 pixels: the second question, to prove that the frame holds two."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.random import Generator
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn

from training import networks, pneumonia_mnist
from training.calibration import FOR_CLASSIFIERS, fit, negative_log_likelihood
from training.experiment import Experiment
from training.inference import picture_scores
from training.metrics.classification import threshold_of_both
from training.pneumonia_mnist import Split
from training.radiograph_augmentation import RadiographAugmentation
from training.shifted_radiographs import shifted
from training.tasks.chest_xray_bundle import export
from training.tasks.chest_xray_report import Judgement, report
from training.tasks.task import REPORT, Batch, Trained
from workers.calibration import Calibration

Array = NDArray[np.float64]
Floats = NDArray[np.float32]

#: Share of the examples that are mixed with another, where an experiment mixes at all.
_MIXED = 0.5


class ChestXrayPneumonia:
    """Examples drawn from PneumoniaMNIST by number, and how its network is judged."""

    def __init__(self, experiment: Experiment, data: Path) -> None:
        self._experiment = experiment
        toy = experiment.data["source"] == "synthetic"
        self._splits = pneumonia_mnist.synthetic(experiment.seed) if toy else pneumonia_mnist.load(data)
        self._augmentation = RadiographAugmentation(experiment.augmentation, experiment.seed)
        teaching = self._splits["train"].pneumonia
        self._shifted = shifted(self._splits["val"])
        self._by_class = (np.flatnonzero(~teaching), np.flatnonzero(teaching))

    def network(self) -> nn.Module:
        """The network of the experiment."""
        return networks.built(self._experiment.network, first_bias=float(self._experiment.training["first_bias"]))

    def batch(self, numbers: Sequence[int]) -> Batch:
        """Radiographs [b, 1, row, column] 0..1 with soft targets [b, 1]."""
        drawn = [self._drawn(number) for number in numbers]
        # Of each example that is mixed, its other half comes behind all the first ones.
        parts = [part for place in (0, 1) for example in drawn for part in example.parts[place : place + 1]]
        teaching = self._splits["train"]
        which = np.array([index for _, index in parts])
        images = self._augmentation([number for number, _ in parts], teaching.images[which])
        truth = teaching.pneumonia[which].astype(np.float32)
        count, mixed = len(drawn), [n for n, example in enumerate(drawn) if len(example.parts) > 1]
        share = np.array([drawn[n].share for n in mixed], dtype=np.float32)
        images[mixed] = _mixed(share[:, None, None], images[mixed], images[count:])
        truth[mixed] = _mixed(share, truth[mixed], truth[count:])
        smoothing = float(self._experiment.data["smoothing"])
        target = torch.from_numpy(truth[:count, None] * (1 - smoothing) + smoothing / 2)
        return Batch(values=torch.from_numpy(images[:count, None]), target=target, counts=torch.ones_like(target))

    def between(self, step: int, network: nn.Module) -> Mapping[str, Any]:
        """How well the averaged network does on shifted validation images, every now and then."""
        every = int(self._experiment.training["validate_every"])
        if not every or step % every:
            return {}
        said, truth = self._of_shifted(network), self._shifted.truth
        auc = float(roc_auc_score(truth, said))
        return {"shifted_auc": round(auc, 5), "shifted_nll": round(negative_log_likelihood(said, truth), 5)}

    def state(self) -> Mapping[str, Tensor]:
        """Nothing: an example is known by its number."""
        return {}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Nothing to restore."""

    def truth(self, split: str) -> Array:
        """1 for pneumonia, else 0."""
        return self._splits[split].pneumonia.astype(np.float64)

    def split(self, name: str) -> Split:
        """The images of a split."""
        return self._splits[name]

    def probabilities(self, network: nn.Module, split: str) -> Array:
        """What the network says of each image of a split, not calibrated."""
        return picture_scores(network, self._splits[split].images)[:, 0]

    def calibrate(self, network: nn.Module) -> Calibration:
        """The calibration that fits shifted validation images best; images stand for patients."""
        given = self._shifted
        return fit(self._of_shifted(network), given.truth, given.of, methods=FOR_CLASSIFIERS)

    def evaluate(self, network: nn.Module, calibration: Calibration | None, out: Path) -> Path:
        """Write the report of the test images; each look at them is one of those that the card must count."""
        said = self._judgement(network, calibration or Calibration(method="temperature"))
        images = self._splits["test"].images
        return report(said, images, self._facts(), calibration is not None, out / REPORT)

    def export(self, network: nn.Module, calibration: Calibration, run: Trained, bundle: Path) -> None:
        """Write the bundle."""
        said = self._judgement(network, calibration)
        export(self._experiment, network, calibration, said, self._facts(), run.seconds, run.step, bundle)

    def _judgement(self, network: nn.Module, calibration: Calibration) -> Judgement:
        validation, raw = self.probabilities(network, "val"), self.probabilities(network, "test")
        hard = calibration(self._of_shifted(network))
        return Judgement(
            validation_truth=self.truth("val"),
            validation=calibration(validation),
            shifted=self._shifted,
            said_of_shifted=hard,
            test_truth=self.truth("test"),
            test=calibration(raw),
            raw=raw,
            threshold=threshold_of_both(self._shifted.truth, hard),
            replicates=self._experiment.report["replicates"],
        )

    def _of_shifted(self, network: nn.Module) -> Array:
        return picture_scores(network, self._shifted.images)[:, 0]

    def _facts(self) -> Mapping[str, str]:
        counted = ", ".join(
            f"{name} {len(split)} ({int(split.pneumonia.sum())} with pneumonia)" for name, split in self._splits.items()
        )
        toy = self._experiment.data["source"] == "synthetic"
        return {
            "data": "a toy that was drawn" if toy else "PneumoniaMNIST of MedMNIST v2 (Kermany et al. 2018)",
            "images": counted,
        }

    def _drawn(self, number: int) -> "_Drawn":
        """Which images example `number` is made of, as its own generator says."""
        rng = np.random.default_rng((self._experiment.seed, number))
        alpha = float(self._experiment.data["mixup"])
        parts = [(number * 2, self._one(rng))]
        share = 1.0
        if alpha > 0 and rng.random() < _MIXED:
            share = float(rng.beta(alpha, alpha))
            parts.append((number * 2 + 1, self._one(rng)))
        return _Drawn(parts=tuple(parts), share=share)

    def _one(self, rng: Generator) -> int:
        if not self._experiment.data["balanced"]:
            return int(rng.integers(len(self._splits["train"])))
        of_class = self._by_class[int(rng.integers(2))]
        return int(of_class[rng.integers(len(of_class))])


@dataclass(frozen=True, kw_only=True)
class _Drawn:
    """One or two images that an example is made of."""

    #: The number that each is augmented by, and its place in the split.
    parts: tuple[tuple[int, int], ...]
    #: How much of the first there is.
    share: float


def _mixed(share: Floats, one: Floats, other: Floats) -> Floats:
    return share * one + (1 - share) * other
