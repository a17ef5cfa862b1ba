"""Inference: a bundle's network, kept warm on its device, run over a volume on the network's grid."""

import time

import numpy as np
import torch
from numpy.typing import NDArray

from dicom_node.core.errors import OutOfDeviceMemory
from workers.bundles import Bundle

#: Voxels of context kept around what is asked for; half of it or more stays when windows at a border blend.
_MARGIN = 8
#: How torch names a lack of the CPU's memory, for which it has no class of its own.
_CPU_MEMORY = ("not enough memory", "can't allocate memory")


def chosen_device(name: str = "auto") -> torch.device:
    """The device a setting names; "auto" takes a GPU where there is one."""
    if name != "auto":
        return torch.device(name)
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


class Inference:
    """A network ready to run; building one reads the weights, so build it once and keep it."""

    def __init__(self, bundle: Bundle, device: str = "auto", *, threads: int = 0) -> None:
        """Load the bundle's network onto a device; `threads` of 0 leaves the number of CPU threads to torch."""
        if threads:
            torch.set_num_threads(threads)
        self.device = chosen_device(device)
        # Measured on a CPU without bfloat16 units: this layout halves the time of the default one, and full precision
        # is many times faster than bfloat16.
        self._network = bundle.network().to(self.device)
        self._network.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]  # torch's types omit it
        self._inferer = bundle.inferer()
        #: What the network's last run took.
        self.seconds = 0.0

    def probability(self, voxels: NDArray[np.float32], where: NDArray[np.bool_]) -> NDArray[np.float32]:
        """Probability 0..1 [k, j, i] of normalised voxels; exact where `where` holds, as if every window had been run.

        Windows that touch nothing of `where` are not run and count as 0. Raises OutOfDeviceMemory.
        """
        self.seconds = 0.0
        result = np.zeros(voxels.shape, dtype=np.float32)
        if not where.any():
            return result
        box = _box(where)
        began = time.monotonic()
        try:
            result[box] = self._run(voxels[box], where[box])
        except RuntimeError as error:
            if not _lacks_memory(error):
                raise
            self._release()
            raise OutOfDeviceMemory(f"{self.device} has too little memory for {voxels[box].shape} voxels") from error
        self.seconds = time.monotonic() - began
        return result

    def warm_up(self) -> None:
        """Run one window of zeros: what libraries prepare at the first run is not the first patient's to wait for."""
        self.probability(np.zeros((1, 1, 1), dtype=np.float32), np.ones((1, 1, 1), dtype=bool))
        self.seconds = 0.0

    def _run(self, voxels: NDArray[np.float32], where: NDArray[np.bool_]) -> NDArray[np.float32]:
        # The mask travels as a second channel, so that the bundle's own inferer cuts both into the same windows.
        both = torch.from_numpy(np.stack([voxels, where.astype(np.float32)]))[None].to(self.device)
        with torch.inference_mode():
            probability = self._inferer(both, self._window)
        return np.asarray(probability[0, 0].float().cpu().numpy(), dtype=np.float32)

    def _window(self, both: torch.Tensor) -> torch.Tensor:
        """Probabilities of a batch of windows [n, (voxels, mask), k, j, i]; 0 for those outside the mask."""
        wanted = both[:, 1].flatten(1).any(dim=1)
        result = torch.zeros_like(both[:, :1])
        if wanted.any():
            result[wanted] = torch.sigmoid(self._network(self._laid_out(both[wanted, :1])))
        return result

    @staticmethod
    def _laid_out(voxels: torch.Tensor) -> torch.Tensor:
        return voxels.contiguous(memory_format=torch.channels_last_3d)

    def _release(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.empty_cache()


def _lacks_memory(error: RuntimeError) -> bool:
    return isinstance(error, torch.OutOfMemoryError) or any(words in str(error) for words in _CPU_MEMORY)


def _box(where: NDArray[np.bool_]) -> tuple[slice, ...]:
    """The smallest box around a mask, with a margin, within the array."""
    box = []
    for axis in range(where.ndim):
        others = tuple(a for a in range(where.ndim) if a != axis)
        there = np.flatnonzero(where.any(axis=others))
        box.append(slice(max(0, int(there[0]) - _MARGIN), min(where.shape[axis], int(there[-1]) + 1 + _MARGIN)))
    return tuple(box)
