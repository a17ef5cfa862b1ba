"""Augmentation by name: MONAI's random transforms as a table, each example with a generator of its own.

An experiment's [augmentation] is read downward: `noise = {prob = 0.3, std = 0.02}`. Arrays are [channel, ...]; what
moves voxels moves the mask alike, what changes values leaves it alone.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from monai.data.meta_obj import get_track_meta, set_track_meta
from monai.transforms.compose import Compose
from monai.transforms.croppad.dictionary import RandSpatialCropd
from monai.transforms.intensity.dictionary import (
    RandAdjustContrastd,
    RandCoarseDropoutd,
    RandGaussianNoised,
    RandGaussianSharpend,
    RandGaussianSmoothd,
    RandHistogramShiftd,
    RandScaleIntensityd,
    RandShiftIntensityd,
)
from monai.transforms.spatial.dictionary import (
    Rand2DElasticd,
    Rand3DElasticd,
    RandAffined,
    RandFlipd,
    RandRotate90d,
)
from monai.transforms.transform import Randomizable
from numpy.typing import NDArray

Floats = NDArray[np.float32]

#: What moves voxels and reads between them: image linearly, mask by the nearest.
_MOVING: Mapping[str, Callable[..., Any]] = {
    "affine": RandAffined,
    "elastic_2d": Rand2DElasticd,
    "elastic_3d": Rand3DElasticd,
}
#: What moves voxels onto voxels.
_TURNING: Mapping[str, Callable[..., Any]] = {
    "crop": RandSpatialCropd,
    "flip": RandFlipd,
    "quarter_turn": RandRotate90d,
}
#: What changes values: noise is dose, blur and sharpening are kernels, contrast is gamma.
_CHANGING: Mapping[str, Callable[..., Any]] = {
    "blur": RandGaussianSmoothd,
    "contrast": RandAdjustContrastd,
    "dropout": RandCoarseDropoutd,
    "histogram": RandHistogramShiftd,
    "noise": RandGaussianNoised,
    "scale": RandScaleIntensityd,
    "sharpen": RandGaussianSharpend,
    "shift": RandShiftIntensityd,
}
NAMES = tuple(sorted({**_MOVING, **_TURNING, **_CHANGING}))


class Augmentation:
    """An experiment's transforms, in its order; the same seed and number always give the same example."""

    def __init__(self, table: Mapping[str, Mapping[str, Any]], seed: int) -> None:
        self._seed = seed
        self._transforms = Compose([_built(name, dict(arguments)) for name, arguments in table.items()])
        self._random = list(_random(self._transforms))

    def __call__(self, number: int, image: Floats, mask: Floats | None = None) -> tuple[Floats, Floats | None]:
        """Image and mask [channel, ...] of example `number`, changed as its own generator says."""
        if not self._transforms.transforms:
            return image, mask
        # One generator for all: to seed each transform anew, as Compose does, takes as long as to run it.
        state = np.random.RandomState(np.random.PCG64((self._seed, number)))
        for transform in self._random:
            transform.R = state
        example = {"image": torch.from_numpy(image)} | ({} if mask is None else {"mask": torch.from_numpy(mask)})
        # What is never undone needs no history, whose keeping takes longer than a small image's transforms.
        tracked = get_track_meta()
        set_track_meta(False)
        try:
            changed = self._transforms(example)
        finally:
            set_track_meta(tracked)
        return _array(changed["image"]), None if mask is None else _array(changed["mask"])


def _built(name: str, arguments: dict[str, Any]) -> Any:
    if name in _MOVING:
        arguments = {"mode": ("bilinear", "nearest"), "padding_mode": "border", **arguments}
        return _MOVING[name](keys=("image", "mask"), allow_missing_keys=True, **arguments)
    if name in _TURNING:
        return _TURNING[name](keys=("image", "mask"), allow_missing_keys=True, **arguments)
    if name in _CHANGING:
        return _CHANGING[name](keys=("image",), **arguments)
    raise ValueError(f"unknown transform {name!r}: [augmentation] takes {', '.join(NAMES)}")


def _random(part: Any) -> Iterator[Randomizable]:
    """Every transform that draws, also those that are parts of others."""
    if isinstance(part, Randomizable):
        yield part
    inner = part.transforms if isinstance(part, Compose) else vars(part).values()
    for each in inner:
        if isinstance(each, Randomizable):
            yield from _random(each)


def _array(tensor: Any) -> Floats:
    return np.asarray(torch.as_tensor(tensor).numpy(), dtype=np.float32)
