"""Inference: a bundle's network, kept warm on its device, run over a volume on the network's grid.

Where the device's memory does not suffice the run is tried again with less, step by step; the next run begins at the
top.
"""

import copy
import gc
import re
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from dicom_node.core.errors import OutOfDeviceMemory
from workers.morphology import box_around
from workers.precision import BFLOAT16, allows_bfloat16, is_lowered, served

#: Voxels of context kept around what is asked for; half of it or more stays when windows at a border blend.
_MARGIN = 8
#: How torch names a lack of the CPU's memory, for which it has no class of its own.
_CPU_MEMORY = ("not enough memory", "can't allocate memory")
#: Sizes of windows that any of the usual networks takes, where the bundle does not say what its own needs.
_USUAL_MULTIPLE = 32
#: Share by which smaller windows overlap, so that none's border is taken alone.
_OVERLAP_OF_SMALLER = 0.5

CPU = torch.device("cpu")


class Runnable(Protocol):
    """What can be run over a volume: a bundle, or a network in training that is to become one."""

    @property
    def metadata(self) -> Mapping[str, Any]:
        """Its description, as metadata.json has it."""
        ...

    def network(self) -> torch.nn.Module:
        """The network with its weights, in evaluation mode."""
        ...

    def inferer(self) -> Any:
        """What cuts a volume into windows, and blends what the network says of them."""
        ...


def chosen_device(name: str = "auto") -> torch.device:
    """The device a setting names; "auto" takes a GPU where there is one."""
    if name != "auto":
        return torch.device(name)
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def check_device(device: torch.device) -> None:
    """Compute something on the device; RuntimeError where it does not."""
    ones = torch.ones(8, 8, device=device)
    if float((ones @ ones).sum()) != 512.0:
        raise RuntimeError(f"device {device} computes wrongly")


def device_memory(device: torch.device) -> tuple[int, int] | None:
    """Bytes of its memory that are taken, by whomever, and all it has; None where it has none of its own."""
    if device.type != "cuda":
        return None
    free, whole = torch.cuda.mem_get_info(device)
    return whole - free, whole


def release_memory() -> None:
    """Give the devices back what no tensor holds any more."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


@dataclass(frozen=True, kw_only=True)
class _Step:
    """One way to run the network; later ones need less of the device's memory."""

    device: torch.device
    #: Whether only one window at a time is on the device, and the volume and the result are in main memory.
    piecemeal: bool = False
    #: Voxels [k, j, i] of a window; None: as the bundle says.
    window: tuple[int, int, int] | None = None

    @property
    def concession(self) -> str:
        """What may change the result, to be read after "the network ran"."""
        if self.window is None:
            return "on the CPU" if self.device == CPU else ""
        sides = " x ".join(map(str, self.window))
        return f"in windows of {sides} voxels{' on the CPU' if self.device == CPU else ''}"


class Inference:
    """A network ready to run; building one reads the weights, so build it once and keep it."""

    def __init__(
        self,
        bundle: Runnable,
        device: str = "auto",
        *,
        threads: int = 0,
        beat: Callable[[str], None] = lambda _step: None,
    ) -> None:
        """Load the bundle's network onto a device; `threads` of 0 leaves the number of CPU threads to torch.

        `beat` is called before each window; what it raises ends the run.
        """
        if threads:
            torch.set_num_threads(threads)
        self.device = chosen_device(device)
        self._beat = beat
        self._lower_precision = allows_bfloat16(bundle.metadata)
        # Measured on a CPU: this layout halves the time of the default one.
        self._network = bundle.network()
        self._network.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]  # torch's types omit it
        self._inferer = bundle.inferer()
        self._multiple = window_multiple(bundle.metadata)
        #: What the network's last run took, all its tries together.
        self.seconds = 0.0
        #: What the last run did otherwise for want of memory; empty: nothing.
        self.concession = ""
        #: Where the last run ended.
        self._ran_on = self.device

    @property
    def number_format(self) -> str:
        """bfloat16 where it computes in that; empty for full precision."""
        return BFLOAT16 if is_lowered(self._ran_on, self._lower_precision) else ""

    def probability(self, voxels: NDArray[np.float32], where: NDArray[np.bool_]) -> NDArray[np.float32]:
        """Probability 0..1 [k, j, i] of normalised voxels; exact where `where` holds, as if every window had been run.

        Windows that touch nothing of `where` are not run and count as 0. Raises OutOfDeviceMemory when no step of the
        ladder suffices.
        """
        self.seconds, self.concession = 0.0, ""
        result = np.zeros(voxels.shape, dtype=np.float32)
        if not where.any():
            return result
        box = box_around(where, _MARGIN) or ()
        began = time.monotonic()
        result[box] = self._run_with_what_there_is(voxels[box], where[box])
        self.seconds = time.monotonic() - began
        return result

    def beat(self, step: str) -> None:
        """Say what is being done: for what follows the network within the same reading."""
        self._beat(step)

    def warm_up(self) -> None:
        """Run one window of zeros: what libraries prepare at the first run is not the first patient's to wait for."""
        self.probability(np.zeros((1, 1, 1), dtype=np.float32), np.ones((1, 1, 1), dtype=bool))
        self.seconds = 0.0

    def opinion(self, piece: NDArray[np.float32]) -> NDArray[np.float32]:
        """Probability 0..1 [k, j, i] of a piece of a grid in one window of its own size; its edges are held.

        For looking again at what was found: `seconds` and `concession` stay those of the last run. Raises
        OutOfDeviceMemory.
        """
        shape = piece.shape
        held = [(0, -count % self._multiple) for count in shape]
        voxels = torch.from_numpy(np.pad(piece, held, mode="edge"))[None, None]
        self._beat("network")
        try:
            self._network.to(self.device)
            with torch.inference_mode():
                probability = self._probability(voxels.to(self.device))[0, 0]
        except RuntimeError as error:
            if not lacks_memory(error):
                raise
            reason = f"{self.device} has too little memory for a piece of {shape} voxels"
        else:
            return probability.float().cpu().numpy()[tuple(slice(count) for count in shape)]
        release_memory()
        raise OutOfDeviceMemory(reason)

    def _run_with_what_there_is(self, voxels: NDArray[np.float32], where: NDArray[np.bool_]) -> NDArray[np.float32]:
        """Run at the first step for which the memory suffices."""
        for number, step in enumerate(self._steps()):
            try:
                result = self._run(step, voxels, where)
            except RuntimeError as error:
                if not lacks_memory(error):
                    raise
                # Not retried in here: the error holds the frames, and those the tensors.
            else:
                self.concession = step.concession if number else ""
                self._ran_on = step.device
                return result
            release_memory()
        raise OutOfDeviceMemory(
            f"{self.device} has too little memory for {voxels.shape} voxels, and so has the CPU; free some or add some"
        )

    def _steps(self) -> Iterator[_Step]:
        """The ladder from the top."""
        window = self._smaller_window()
        for device in dict.fromkeys((self.device, CPU)):
            yield _Step(device=device)
            if device != CPU:
                yield _Step(device=device, piecemeal=True)
            if window is not None:
                yield _Step(device=device, piecemeal=True, window=window)

    def _smaller_window(self) -> tuple[int, int, int] | None:
        """The bundle's window halved, as the network takes it; None where that is none or no smaller.

        It is halved once: a network sees less and less around each voxel, and the CPU sees it all.
        """
        sizes = getattr(self._inferer, "roi_size", None)
        whole = tuple(map(int, sizes)) if isinstance(sizes, list | tuple) else ()
        if len(whole) != 3 or min(whole) <= 0:
            return None
        multiple = self._multiple
        k, j, i = (min(size, max(multiple, size // 2 // multiple * multiple)) for size in whole)
        return (k, j, i) if (k, j, i) != whole else None

    def _run(self, step: _Step, voxels: NDArray[np.float32], where: NDArray[np.bool_]) -> NDArray[np.float32]:
        self._network.to(step.device)
        # The mask travels as a second channel, so that the bundle's own inferer cuts both into the same windows.
        both = torch.from_numpy(np.stack([voxels, where.astype(np.float32)]))[None]
        both = both.to(CPU if step.piecemeal else step.device)
        with torch.inference_mode():
            probability = self._inferer_of(step)(both, self._window)
        return np.asarray(probability[0, 0].float().cpu().numpy(), dtype=np.float32)

    def _inferer_of(self, step: _Step) -> Any:
        if step == _Step(device=self.device):
            return self._inferer
        inferer = copy.copy(self._inferer)
        changes: dict[str, Any] = {"sw_device": step.device, "device": CPU, "roi_weight_map": None, "sw_batch_size": 1}
        if step.window:
            changes |= {"roi_size": step.window, "overlap": _OVERLAP_OF_SMALLER}
        vars(inferer).update(changes)
        return inferer

    def _window(self, both: torch.Tensor) -> torch.Tensor:
        """Probabilities of a batch of windows [n, (voxels, mask), k, j, i]; 0 for those outside the mask."""
        # On a GPU this waits for what was asked of it before: a device that hangs gives no further beat.
        wanted = both[:, 1].flatten(1).any(dim=1).cpu()
        self._beat("network")
        result = torch.zeros_like(both[:, :1])
        if wanted.any():
            result[wanted] = self._probability(both[wanted, :1])
        return result

    def _probability(self, voxels: torch.Tensor) -> torch.Tensor:
        with served(voxels.device, self._lower_precision):
            logits = self._network(voxels.contiguous(memory_format=torch.channels_last_3d))
        return torch.sigmoid(logits.float())


def window_multiple(metadata: Mapping[str, Any]) -> int:
    """Of what number each side of a window must be a multiple, as the bundle's `spatial_shape` ("8*n") says."""
    inputs = (metadata.get("network_data_format") or {}).get("inputs") or {}
    shapes = [given.get("spatial_shape") or [] for given in inputs.values() if isinstance(given, Mapping)]
    found = [re.fullmatch(r"\s*(\d+)\s*\*\s*n\s*", str(size)) for shape in shapes for size in shape]
    return max((int(match[1]) for match in found if match), default=0) or _USUAL_MULTIPLE


def lacks_memory(error: RuntimeError) -> bool:
    """Whether torch gave up for want of memory."""
    return isinstance(error, torch.OutOfMemoryError) or any(words in str(error) for words in _CPU_MEMORY)
