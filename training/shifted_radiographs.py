"""Validation made harder: its images as other devices and other hands might have made them.

Validation images come from where the images that taught come from, and flatter. Each is also judged darker, brighter,
flatter, harder, blurred, noisy, nearer, farther, shifted and turned, by fixed amounts at the edge of what is taught or
beyond it.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from training.pneumonia_mnist import Split
from training.radiograph_augmentation import smoothed

Floats = NDArray[np.float32]

_NOISE = 0.06
_NOISE_SEED = 1
#: A third of the images of the commoner class under each shift, so that both classes weigh nearly alike.
_THIRD = 3


@dataclass(frozen=True, kw_only=True)
class Shifted:
    """Images under every shift, about as many of either class."""

    images: Floats  #: [n, row, column], 0..1, air dark
    truth: NDArray[np.float64]
    #: Of each, the image of the split that it was made of: cases of one image stand and fall together.
    of: list[str]


def shifted(split: Split) -> Shifted:
    """The images of a split under each shift; of those with pneumonia a third, and under each shift another one."""
    images, truth, of = [], [], []
    numbers = np.arange(len(split))
    for place, shift in enumerate(SHIFTS.values()):
        chosen = numbers[~split.pneumonia | ((numbers + place) % _THIRD == 0)]
        pictures = torch.from_numpy(split.images[chosen][:, None])
        images.append(shift(pictures).clamp(0.0, 1.0)[:, 0].numpy())
        truth.append(split.pneumonia[chosen].astype(np.float64))
        of += [str(number) for number in chosen]
    return Shifted(images=np.concatenate(images), truth=np.concatenate(truth), of=of)


def _contrast(factor: float) -> Callable[[Tensor], Tensor]:
    def changed(pictures: Tensor) -> Tensor:
        mean = pictures.mean(dim=(1, 2, 3), keepdim=True)
        return mean + (pictures - mean) * factor

    return changed


def _moved(*matrix: tuple[float, float, float]) -> Callable[[Tensor], Tensor]:
    """Read at other places: rows of an affine matrix in halves of the image."""

    def changed(pictures: Tensor) -> Tensor:
        theta = torch.tensor(matrix).expand(len(pictures), 2, 3)
        grid = functional.affine_grid(theta, list(pictures.shape), align_corners=False)
        return functional.grid_sample(pictures, grid, mode="bilinear", padding_mode="border", align_corners=False)

    return changed


def _noisy(pictures: Tensor) -> Tensor:
    return pictures + _NOISE * torch.randn(pictures.shape, generator=torch.Generator().manual_seed(_NOISE_SEED))


SHIFTS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "as they are": lambda pictures: pictures,
    "gamma 0.6": lambda pictures: pictures**0.6,
    "gamma 1.7": lambda pictures: pictures**1.7,
    "flatter": _contrast(0.6),
    "harder": _contrast(1.5),
    "darker": lambda pictures: pictures - 0.2,
    "brighter": lambda pictures: pictures + 0.2,
    "blurred": lambda pictures: smoothed(pictures, torch.ones(len(pictures), 1, 1, 1)),
    "noisy": _noisy,
    "nearer": _moved((0.82, 0.0, 0.0), (0.0, 0.82, 0.0)),
    "farther": _moved((1.2, 0.0, 0.0), (0.0, 1.2, 0.0)),
    "lower": _moved((1.0, 0.0, 0.0), (0.0, 1.0, 0.25)),
    "higher": _moved((1.0, 0.0, 0.0), (0.0, 1.0, -0.25)),
    "turned": _moved((0.97, -0.25, 0.0), (0.25, 0.97, 0.0)),
}
