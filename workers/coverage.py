"""Coverage: how much of each voxel a finding fills, told by its attenuation between that inside and that around it.

A mask says of a voxel yes or no; a CT averages over it, so that a voxel half filled has half the contrast. That is
believed only where inside and surroundings are each of one attenuation and the mask ends where the CT does; elsewhere
the mask is all that is known.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from workers.morphology import box_around, grown
from workers.volume import Region, Volume

Floats = NDArray[np.float32]
Mask = NDArray[np.bool_]

#: Voxels around a mask that are looked at: one that it may fill in part, one that is left out, one of surroundings.
MARGIN = 3
_NEIGHBOURS = np.ones((3, 3, 3), dtype=bool)
#: Fewer voxels inside, or around, have no attenuation of their own.
_FEWEST_INSIDE, _FEWEST_AROUND = 8, 26
#: Less contrast is no border; nor is one where noise, or another tissue, is a larger share of it.
_LEAST_CONTRAST_HU, _MOST_SPREAD = 150.0, 0.12
#: So large a share of what is around is empty.
_MOSTLY = 2 / 3
#: Quartiles are so many standard deviations apart.
_QUARTILES = 1.349
#: Noise makes a voxel seem so much more than full, or less than empty.
_NOISE = 0.25
#: A voxel outside that is as full as this is of something else, and one inside as empty as the rest of it was not
#: outlined by attenuation; where so large a share of the border is, none of it was.
_FULL, _MOST_UNLIKE = 0.75, 0.1


@dataclass(frozen=True, kw_only=True)
class Coverage:
    """How much of the voxels [k, j, i] around a mask is filled: 0 to 1, but for noise."""

    share: Floats
    #: Of the first value in the volume; negative where that ends within the margin.
    start: NDArray[np.intp]
    #: By how much of a voxel noise makes one seem fuller or emptier: a standard deviation.
    noise: float


def coverage(region: Region, volume: Volume) -> Coverage | None:
    """What the attenuation says; None where it says no more than the mask does.

    Inside the mask it is at least a half, outside at most: whose voxel it is the mask has decided. Of what goes on
    outside, as a vessel does, nothing counts there, nor the last voxel of its stump within the mask.
    """
    start, mask = _surrounded(region)
    if not _is_within(start, mask, volume):
        return None
    core, near = ndimage.binary_erosion(mask), ndimage.binary_dilation(mask, _NEIGHBOURS)
    share, noise = _share(_read(volume, start, mask.shape), core, _around(near))
    if share is None or _is_unlike(share, mask, core):
        return None
    leading = _continuing(np.where(_there(volume, start, mask.shape), share, 0.0), mask, near)
    leading = ndimage.binary_dilation(leading, _NEIGHBOURS) & (~mask | _thin(mask, volume.spacing_mm))
    # A sharp kernel's undershoot is no less than empty, as its overshoot in the core is no more than full; but noise
    # empties as often as it fills.
    least = -min(_NOISE, 2.0 * noise)
    outside = np.where(near & (share < _FULL) & ~leading, np.clip(share, least, 0.5), 0.0)
    inside = np.where(core, 1.0, np.where(leading, 0.0, np.clip(share, 0.5, 1.0 + _NOISE)))
    return Coverage(share=np.where(mask, inside, outside).astype(np.float32), start=start, noise=noise)


def _surrounded(region: Region) -> tuple[NDArray[np.intp], Mask]:
    """A mask with a margin all round, and where that begins; the volume may end within it."""
    box = box_around(region.mask) or ()
    start = [whole.start + own.start - MARGIN for whole, own in zip(region.box, box, strict=True)]
    return np.array(start), np.pad(region.mask[box], MARGIN)


def _is_within(start: NDArray[np.intp], mask: Mask, volume: Volume) -> bool:
    """Whether there is a voxel on every side of a mask: what the volume cuts has no border there."""
    first, end = start + MARGIN, start + mask.shape - MARGIN
    return bool((first >= 1).all() and (end < volume.voxels.shape).all())


def _read(volume: Volume, start: NDArray[np.intp], shape: tuple[int, ...]) -> Floats:
    """HU from a place on; beyond the volume, those of its last voxels."""
    low, high = np.maximum(start, 0), np.minimum(start + shape, volume.voxels.shape)
    there = volume.voxels[tuple(map(slice, low, high))]
    return np.pad(there, list(zip(low - start, start + shape - high, strict=True)), mode="edge")


def _continuing(share: Floats, mask: Mask, near: Mask) -> Mask:
    """What is filled by half farther out than a border's own voxels, and what leads there.

    A mask that is a little small is surrounded by a shell of such voxels; what is attached to a nodule goes on.
    """
    outside = (share >= 0.5) & ~mask
    return grown(outside & ~near, outside)


def _there(volume: Volume, start: NDArray[np.intp], shape: tuple[int, ...]) -> Mask:
    """Which of these voxels the volume has."""
    inside = [
        (np.arange(first, first + size) >= 0) & (np.arange(first, first + size) < whole)
        for first, size, whole in zip(start, shape, volume.voxels.shape, strict=True)
    ]
    return np.asarray(np.logical_and.outer(np.logical_and.outer(inside[0], inside[1]), inside[2]))


def _thin(mask: Mask, spacing_mm: tuple[float, float, float]) -> Mask:
    """What of a mask a ball of half the radius of its largest one does not reach, as the stump of a vessel."""
    depth = ndimage.distance_transform_edt(mask, spacing_mm)
    radius = float(depth.max()) / 2
    reached = ndimage.distance_transform_edt(depth < radius, spacing_mm) < radius
    # Where a step to the next slice is longer than that, the slices at both ends are reached all the same.
    far = [3 if step >= radius else 1 for step in spacing_mm]
    reached = ndimage.binary_dilation(reached, np.ones(far, dtype=bool))
    return np.asarray(mask & ~reached)


def _around(near: Mask) -> Mask:
    """Surroundings: what begins a voxel beyond the last one that may be filled in part."""
    beyond = ndimage.binary_dilation(near, _NEIGHBOURS)
    return np.asarray(ndimage.binary_dilation(beyond, _NEIGHBOURS) & ~beyond)


def _share(hu: Floats, core: Mask, around: Mask) -> tuple[Floats | None, float]:
    """How far each voxel is on the way from the attenuation around to that inside, and the noise around.

    None where either is not one. Vessels and a wall are no surroundings, where there is lung on most sides.
    """
    if core.sum() < _FEWEST_INSIDE or around.sum() < _FEWEST_AROUND:
        return None, 0.0
    low, inside, high = np.percentile(hu[core], (25, 50, 75))
    beside = hu[around]
    empty = beside[beside < (inside + np.percentile(beside, 25)) / 2]
    if empty.size < _MOSTLY * beside.size:
        return None, 0.0
    below, outside, above = np.percentile(empty, (25, 50, 75))
    contrast = inside - outside
    if contrast < _LEAST_CONTRAST_HU or max(high - low, above - below) > _MOST_SPREAD * _QUARTILES * contrast:
        return None, 0.0
    return np.asarray((hu - outside) / contrast, dtype=np.float32), float(above - below) / _QUARTILES / float(contrast)


def _is_unlike(share: Floats, mask: Mask, core: Mask) -> bool:
    """Whether much of a mask's border is not where the attenuation changes."""
    next_to = ndimage.binary_dilation(mask) & ~mask
    edge = mask & ~core
    return bool((share[next_to] > _FULL).mean() > _MOST_UNLIKE or (share[edge] < 1.0 - _FULL).mean() > _MOST_UNLIKE)
