"""Coverage: how much of each voxel a finding fills, told by its attenuation between that inside and that around it.

A mask says of a voxel yes or no; a CT averages over it, so that a voxel half filled has half the contrast. That is
believed only where inside and surroundings are each of one attenuation and the mask ends where the CT does; elsewhere
the mask is all that is known.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

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
    #: Of the first value in the volume.
    start: NDArray[np.intp]


def coverage(region: Region, volume: Volume) -> Coverage | None:
    """What the attenuation says; None where it says no more than the mask does.

    Inside the mask it is at least a half, outside at most: whose voxel it is the mask has decided.
    """
    start, mask = _surrounded(region, volume)
    if not _is_within(mask):
        return None
    hu = volume.voxels[tuple(slice(first, first + size) for first, size in zip(start, mask.shape, strict=True))]
    core, near = ndimage.binary_erosion(mask), ndimage.binary_dilation(mask, _NEIGHBOURS)
    share = _share(hu, core, _around(near))
    if share is None or _is_unlike(share, mask, core):
        return None
    # A sharp kernel's undershoot is no less than empty, as its overshoot in the core is no more than full.
    outside = np.where(near & (share < _FULL), np.clip(share, 0.0, 0.5), 0.0)
    inside = np.where(core, 1.0, np.clip(share, 0.5, 1.0 + _NOISE))
    return Coverage(share=np.where(mask, inside, outside).astype(np.float32), start=start)


def _surrounded(region: Region, volume: Volume) -> tuple[NDArray[np.intp], Mask]:
    """A mask with a margin as far as the volume goes, and where its first voxel is."""
    there = np.argwhere(region.mask)
    origin = np.array([part.start for part in region.box])
    low = np.maximum(there.min(axis=0) + origin - MARGIN, 0)
    high = np.minimum(there.max(axis=0) + origin + 1 + MARGIN, volume.voxels.shape)
    mask = np.zeros(high - low, dtype=bool)
    mask[tuple((there + origin - low).T)] = True
    return low, mask


def _is_within(mask: Mask) -> bool:
    """Whether there is something on every side of a mask: what the volume cuts has no border there."""
    return not any(mask.take(end, axis).any() for axis in range(3) for end in (0, -1))


def _around(near: Mask) -> Mask:
    """Surroundings: what begins a voxel beyond the last one that may be filled in part."""
    beyond = ndimage.binary_dilation(near, _NEIGHBOURS)
    return np.asarray(ndimage.binary_dilation(beyond, _NEIGHBOURS) & ~beyond)


def _share(hu: Floats, core: Mask, around: Mask) -> Floats | None:
    """How far each voxel is on the way from the attenuation around to that inside; None where either is not one."""
    if core.sum() < _FEWEST_INSIDE or around.sum() < _FEWEST_AROUND:
        return None
    (low, inside, high), (below, outside, above) = (np.percentile(hu[part], (25, 50, 75)) for part in (core, around))
    contrast = inside - outside
    if contrast < _LEAST_CONTRAST_HU or max(high - low, above - below) > _MOST_SPREAD * _QUARTILES * contrast:
        return None
    return np.asarray((hu - outside) / contrast, dtype=np.float32)


def _is_unlike(share: Floats, mask: Mask, core: Mask) -> bool:
    """Whether much of a mask's border is not where the attenuation changes."""
    next_to = ndimage.binary_dilation(mask) & ~mask
    edge = mask & ~core
    return bool((share[next_to] > _FULL).mean() > _MOST_UNLIKE or (share[edge] < 1.0 - _FULL).mean() > _MOST_UNLIKE)
