"""Lungs: which voxels of a series belong to which lung, from a mask of both on the network's grid.

Arrays are [k, j, i]; places are LPS mm, where x grows to the patient's left.
"""

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from dicom_node.core.finding import Point
from workers.preprocessing import GRID_MM
from workers.volume import Volume

Mask = NDArray[np.bool_]
Labels = NDArray[np.uint8]

#: Values of a lung's voxels.
RIGHT_LUNG, LEFT_LUNG, LUNG_OF_UNKNOWN_SIDE = 1, 2, 3
#: Every so many voxels of the grid are enough to tell one lung from the other.
_SAMPLED = 2
#: So many places at least tell how a lung's voxels are spread, where it has as many.
_PLACES = 20_000
#: Both lungs hold at least this share of their volume each.
_LEAST_SHARE = 0.15
#: Where lungs touch, the bridge is thinner than so many sampled voxels to either side.
_MOST_EROSIONS = 5
#: The centres of two lungs are farther apart, those of two parts of one lung are not.
_LEAST_APART_MM = 70.0
#: Two lungs of an adult together are wider.
_ONE_LUNG_MM = 160.0
#: mm beside the middle of both lungs within which the side of a place is not told.
_MIDDLE_MM = 10.0


def lung_sides(lungs: Mask, volume: Volume) -> Labels:
    """Right and left lung on a series' own grid, from a mask of both on the network's grid whose voxel 0 is the same.

    A lung alone says nothing about its side, nor do two that do not come apart.
    """
    coarse = _coarse(lungs)
    sides = _sides(coarse, _left_of(coarse.shape, volume))
    nearest = [
        np.clip(np.floor(np.arange(n) * mm / grid + 0.5).astype(int), 0, last - 1)
        for n, mm, grid, last in zip(volume.voxels.shape, volume.spacing_mm, GRID_MM, lungs.shape, strict=True)
    ]
    result = sides[np.ix_(*(index // _SAMPLED for index in nearest))]
    result *= lungs[np.ix_(*nearest)]
    return result


def lung_places(lungs: Mask, volume: Volume) -> dict[int, NDArray[np.float64]]:
    """Places in LPS mm [n, 3] of some of the voxels of each lung, evenly drawn, by the values of lungs.

    `lungs` [k, j, i] is a mask of both on the network's grid; one value alone where they do not come apart. Where they
    touch, each lacks what had to be taken off.
    """
    coarse = _coarse(lungs)
    seeds = _seeds(coarse, _left_of(coarse.shape, volume)) if coarse.any() else None
    masks = {LUNG_OF_UNKNOWN_SIDE: coarse}
    if seeds is not None:
        masks = {value: seeds == value for value in (RIGHT_LUNG, LEFT_LUNG)}
    return {value: _some_places(mask, volume) for value, mask in masks.items() if mask.any()}


def _some_places(mask: Mask, volume: Volume) -> NDArray[np.float64]:
    index = np.argwhere(mask)
    index = index[:: max(1, len(index) // _PLACES)]
    voxels = (index * _SAMPLED * GRID_MM / volume.spacing_mm)[:, ::-1]
    return np.asarray(voxels @ volume.affine[:3, :3].T + volume.affine[:3, 3])


class Sides:
    """On which side places of the patient lie, as far as both lungs tell: where they come apart, and are two."""

    def __init__(self, lungs: Mask, volume: Volume) -> None:
        """`lungs` [k, j, i] is a mask of both on the network's grid."""
        coarse, self._volume = _coarse(lungs), volume
        x = _left_of(coarse.shape, volume)
        self._seeds = _seeds(coarse, x) if coarse.any() else None
        within = x[coarse]
        if self._seeds is None or float(np.ptp(within)) < _ONE_LUNG_MM:
            self._places = None
            return
        self._middle = (float(within.min()) + float(within.max())) / 2
        self._places = np.argwhere(self._seeds)

    def of(self, place: Point) -> int:
        """The lung that a place in LPS mm lies in or is nearest to; LUNG_OF_UNKNOWN_SIDE where that is not clear.

        It is not clear near the middle, nor where a lung reaches across it.
        """
        if self._seeds is None or self._places is None:
            return LUNG_OF_UNKNOWN_SIDE
        beside = place[0] - float(self._volume.affine[0, 3]) - self._middle
        if abs(beside) < _MIDDLE_MM:
            return LUNG_OF_UNKNOWN_SIDE
        index = np.linalg.solve(self._volume.affine, (*place, 1.0))[2::-1]
        away = (self._places - index * self._volume.spacing_mm / GRID_MM / _SAMPLED) * GRID_MM
        nearest = int(self._seeds[tuple(self._places[np.argmin((away**2).sum(axis=1))])])
        return nearest if nearest == (LEFT_LUNG if beside > 0 else RIGHT_LUNG) else LUNG_OF_UNKNOWN_SIDE


def _coarse(lungs: Mask) -> Mask:
    return np.ascontiguousarray(lungs[::_SAMPLED, ::_SAMPLED, ::_SAMPLED])


def _left_of(shape: tuple[int, ...], volume: Volume) -> NDArray[np.float32]:
    """Patient x in mm of every sampled voxel."""
    slopes = volume.affine[0, 2::-1] / volume.spacing_mm * GRID_MM * _SAMPLED
    k, j, i = ((np.arange(n, dtype=np.float32) * np.float32(slope)) for n, slope in zip(shape, slopes, strict=True))
    return np.asarray(k[:, None, None] + j[:, None] + i, dtype=np.float32)


def _sides(lungs: Mask, x: NDArray[np.float32]) -> Labels:
    """The side of every voxel, also outside the lungs: that of the nearest one inside."""
    if not lungs.any():
        return np.zeros(lungs.shape, dtype=np.uint8)
    seeds = _seeds(lungs, x)
    if seeds is not None:
        nearest = ndimage.distance_transform_edt(seeds == 0, return_distances=False, return_indices=True)
        return np.asarray(seeds[tuple(nearest)])
    # However wide: what is left after a lung was taken out, or what emphysema joined, may reach across the middle.
    return np.full(lungs.shape, LUNG_OF_UNKNOWN_SIDE, dtype=np.uint8)


def _seeds(lungs: Mask, x: NDArray[np.float32]) -> Labels | None:
    """The two lungs, less what had to be taken off until they came apart; None where they do not."""
    whole, part = int(lungs.sum()), lungs
    for _ in range(_MOST_EROSIONS):
        labels, count = ndimage.label(part)
        sizes = np.bincount(labels.ravel(), minlength=count + 1)[1:]
        large = np.flatnonzero(sizes >= _LEAST_SHARE * whole) + 1
        if len(large) > 1:
            centres = ndimage.mean(x, labels, large)
            if float(np.ptp(centres)) < _LEAST_APART_MM:
                return None
            middle = (float(centres.min()) + float(centres.max())) / 2
            sides = np.zeros(count + 1, dtype=np.uint8)
            sides[large] = np.where(centres > middle, LEFT_LUNG, RIGHT_LUNG)
            return np.asarray(sides[labels])
        part = ndimage.binary_erosion(part)
    return None
