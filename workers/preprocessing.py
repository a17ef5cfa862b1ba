"""The transforms that training and serving share: one grid, one grey scale, one lung mask, one notion of a candidate.

Arrays are [k, j, i] (slice, row, column); spacings are (k, j, i) in mm. The centre of voxel 0 stays at index 0, so
index t of a target grid reads source index t * target / spacing; the way back is the same rule with the
spacings exchanged.
"""

import math
import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.sparse import csr_array

from workers.morphology import box_around, filled, grown, within

Volume = NDArray[np.float32]
Mask = NDArray[np.bool_]
Spacing = tuple[float, float, float]

GRID_MM: Spacing = (1.5, 1.0, 1.0)
HU_WINDOW = (-1000.0, 300.0)

#: The lung mask is found on this coarser grid: the structures it rests on are centimetres wide.
_LUNG_GRID_MM: Spacing = (2.0, 2.0, 2.0)
_AIR_BELOW_HU = -400.0
#: Gas in bowel, between arm and chest or in a sinus has a median near -1000; the emptiest emphysema stays above this.
_GAS_MEDIAN_HU = -965.0
_SMALLEST_LUNG_ML = 120.0
_CLOSING_MM = 9.0
_LARGEST_AIRWAY_ML = 130.0
#: Dark at its core and blurred by its wall on the coarse grid.
_DISC_MEAN_HU = -750.0
#: Aerated rim this near to a lung belongs to it: the thin recesses that the opening took off.
_RECESS_MM = 7.0
#: Voxels of the coarse grid, the diagonal of two: what an opening takes off, and what an airway's wall adds.
_WALL = math.sqrt(2.0)

#: A region of fewer voxels than this scores lower than its probabilities: a speck is no nodule.
_SCORED_VOXELS = 8
_LEAST_IN_LUNG = 0.25

#: Voxels of each slice that are interpolated at a time: as many as a core's cache holds of a few hundred slices.
_COLUMNS = 1 << 14


def grid_shape(shape: tuple[int, ...], spacing_mm: Spacing, target_mm: Spacing = GRID_MM) -> tuple[int, int, int]:
    """The smallest target grid that reaches the last voxel centre of the source."""
    k, j, i = (math.ceil((n - 1) * s / t - 1e-6) + 1 for n, s, t in zip(shape, spacing_mm, target_mm, strict=True))
    return k, j, i


def resample(voxels: Volume, spacing_mm: Spacing, target_mm: Spacing = GRID_MM, order: int = 1) -> Volume:
    """Voxels [k, j, i] on the target grid; linear (1, anti-aliased where it gets coarser) or nearest (0)."""
    return resample_onto(voxels, spacing_mm, target_mm, grid_shape(voxels.shape, spacing_mm, target_mm), order)


def resample_onto(
    voxels: Volume, spacing_mm: Spacing, target_mm: Spacing, shape: tuple[int, int, int], order: int = 1
) -> Volume:
    """Voxels on a target grid of the given shape: the way back from the grid to a series; edges are held."""
    if order not in (0, 1):
        raise ValueError(f"resampling order {order} is not offered: use 1 (linear) or 0 (nearest)")
    result = np.asarray(voxels, dtype=np.float32)
    for axis in sorted(range(3), key=lambda axis: shape[axis] / voxels.shape[axis]):
        step = target_mm[axis] / spacing_mm[axis]
        if step == 1.0 and shape[axis] == voxels.shape[axis]:
            continue
        if order == 0:
            nearest = np.floor(np.arange(shape[axis]) * step + 0.5).astype(int)
            result = result.take(np.clip(nearest, 0, voxels.shape[axis] - 1), axis=axis)
        else:
            result = _interpolated(interpolation_weights(voxels.shape[axis], shape[axis], step), result, axis)
    return np.ascontiguousarray(result)


def _interpolated(weights: Volume, voxels: Volume, axis: int) -> Volume:
    """As `along_axis`, for a whole volume: of the weights only the few that are not 0 are applied, piece by piece."""
    few = csr_array(weights)
    shape = list(voxels.shape)
    shape[axis] = len(weights)
    result = np.empty(shape, dtype=np.float32)
    if axis == 0:
        source, target = voxels.reshape(len(voxels), -1), result.reshape(len(weights), -1)

        def columns(start: int) -> None:
            target[:, start : start + _COLUMNS] = few @ source[:, start : start + _COLUMNS]

        _in_parallel(columns, range(0, source.shape[1], _COLUMNS))
        return result

    def plane(k: int) -> None:
        result[k] = few @ voxels[k] if axis == 1 else (few @ voxels[k].T).T

    _in_parallel(plane, range(len(voxels)))
    return result


def _in_parallel(work: Callable[[int], None], pieces: Iterable[int]) -> None:
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        # Asked for, so that an error of a piece is raised here.
        list(pool.map(work, pieces))


def interpolation_weights(n_source: int, n_target: int, step: float, offset: float = 0.0) -> Volume:
    """Weights [target, source] of a tent about source index offset + t * step, as wide as the coarser of the grids."""
    wanted = np.clip(offset + np.arange(n_target) * step, 0.0, n_source - 1.0)
    width = max(1.0, step)
    weights = np.clip(1.0 - np.abs(wanted[:, None] - np.arange(n_source)[None, :]) / width, 0.0, None)
    return (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)


def along_axis(weights: Volume, voxels: Volume, axis: int) -> Volume:
    """Apply weights [target, source] along one axis of a volume."""
    if axis == 2:
        return np.asarray(voxels @ weights.T, dtype=np.float32)
    if axis == 1:
        return np.asarray(weights @ voxels, dtype=np.float32)
    flat = weights @ voxels.reshape(voxels.shape[0], -1)
    return np.asarray(flat.reshape(-1, *voxels.shape[1:]), dtype=np.float32)


def normalise(hu: Volume) -> Volume:
    """HU clipped to the window and mapped to 0..1."""
    low, high = HU_WINDOW
    result = np.clip(hu, np.float32(low), np.float32(high), dtype=np.float32)
    result -= np.float32(low)
    result /= np.float32(high - low)
    return result


def lung_mask(hu: Volume, spacing_mm: Spacing) -> Mask:
    """The lungs of a CT in HU, closed so that nodules at pleura and vessels lie inside; empty where there are no lungs.

    Leaves out room air, trachea and main bronchi, and gas in bowel or sinuses. Slices may run either way.
    """
    coarse = resample(np.clip(hu, -1024.0, 300.0), spacing_mm, _LUNG_GRID_MM)
    aerated = (coarse < _AIR_BELOW_HU) & ~_outside(coarse)
    # The margin spares the box's border from the edges' rules.
    box = box_around(aerated, margin=2)
    if box is None:
        return np.zeros(hu.shape, dtype=bool)
    middle = _middle(coarse)
    lungs = np.zeros(coarse.shape, dtype=bool)
    lungs[box] = _lungs(coarse[box], aerated[box], (middle[0] - box[2].start, middle[1] - box[2].start))
    if not lungs.any():
        return np.zeros(hu.shape, dtype=bool)
    shape = (hu.shape[0], hu.shape[1], hu.shape[2])
    return np.asarray(resample_onto(lungs.astype(np.float32), _LUNG_GRID_MM, spacing_mm, shape) > 0.5)


def _lungs(hu: Volume, aerated: Mask, middle: tuple[float, float]) -> Mask:
    airway = _airway(hu, aerated, middle)
    return _closed(_lung_parts(hu, aerated & ~airway), aerated) & ~airway


def _middle(hu: Volume) -> tuple[float, float]:
    """The columns between which the middle two fifths of the body's width lie."""
    body = np.flatnonzero((hu > -300.0).any(axis=(0, 1)))
    if body.size == 0:
        return 0.0, 0.0
    left, right = np.quantile(body, (0.3, 0.7))
    return float(left), float(right)


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A connected region of a probability map above the candidate threshold, by falling score."""

    score: float  #: 0..1, mean of its eight highest probabilities
    peak: tuple[int, int, int]  #: voxel [k, j, i] of the highest probability
    region: tuple[slice, slice, slice]  #: bounding box on the grid
    mask: Mask  #: the region's voxels within the box


def candidates(probability: Volume, lung: Mask, threshold: float) -> list[Candidate]:
    """Regions above the threshold with at least a quarter of their voxels in the lung, the highest score first."""
    marked = probability > threshold
    box = box_around(marked)
    if box is None:
        return []
    labels, _ = ndimage.label(marked[box], structure=np.ones((3, 3, 3), dtype=bool))
    found = []
    for number, within_box in enumerate(ndimage.find_objects(labels), start=1):
        mask = labels[within_box] == number
        k, j, i = (slice(b.start + w.start, b.start + w.stop) for b, w in zip(box, within_box, strict=True))
        where = (k, j, i)
        if lung[where][mask].mean() < _LEAST_IN_LUNG:
            continue
        found.append(candidate_in(probability, where, mask))
    return sorted(found, key=lambda candidate: -candidate.score)


def candidate_in(probability: Volume, where: tuple[slice, slice, slice], mask: Mask) -> Candidate:
    """What a probability map says of a region of it, whatever its threshold was."""
    values = np.where(mask, probability[where], 0.0)
    highest = np.sort(values, axis=None)[-_SCORED_VOXELS:]
    highest_at = np.unravel_index(values.argmax(), values.shape)
    pk, pj, pi = (int(p) + s.start for p, s in zip(highest_at, where, strict=True))
    return Candidate(score=float(highest.sum() / _SCORED_VOXELS), peak=(pk, pj, pi), region=where, mask=mask)


def _voxel_ml() -> float:
    return math.prod(_LUNG_GRID_MM) / 1000.0


def _in_plane(connected: bool = False) -> Mask:
    structure = np.zeros((3, 3, 3), dtype=bool)
    structure[1] = ndimage.generate_binary_structure(2, 2 if connected else 1)
    return structure


def _outside(hu: Volume) -> Mask:
    """Air that reaches the border within its own slice, so that an open mouth does not join the lungs to the room."""
    labels, count = ndimage.label(hu < _AIR_BELOW_HU, structure=_in_plane())
    rim = np.zeros(count + 1, dtype=bool)
    for border in (labels[:, 0], labels[:, -1], labels[:, :, 0], labels[:, :, -1]):
        rim[np.unique(border)] = True
    rim[0] = False
    return np.asarray(rim[labels])


def _airway(hu: Volume, aerated: Mask, middle: tuple[float, float]) -> Mask:
    """Trachea and main bronchi: grown from the trachea, at the brightest threshold that does not leak."""
    seed = _trachea(hu, aerated, middle)
    airway = np.zeros(hu.shape, dtype=bool)
    if not seed.any():
        return airway
    airway = seed
    for threshold in (-960.0, -945.0, -930.0, -915.0, -900.0):
        airway_or_more = grown(seed, seed | ((hu < threshold) & aerated))
        if airway_or_more.sum() * _voxel_ml() > _LARGEST_AIRWAY_ML:
            break
        airway = airway_or_more
    return within(airway, _WALL)


def _trachea(hu: Volume, aerated: Mask, middle: tuple[float, float]) -> Mask:
    """The longest stack of small, round, dark discs of air whose centres lie in the middle (columns)."""
    labels, count = ndimage.label(aerated, structure=_in_plane())
    discs = np.zeros(count + 1, dtype=bool)
    if count == 0:
        return np.zeros(hu.shape, dtype=bool)
    left, right = middle
    means = ndimage.mean(hu, labels, np.arange(count + 1))
    for number, where in enumerate(ndimage.find_objects(labels), start=1):
        height, width = (s.stop - s.start for s in where[1:])
        filled = int((labels[where] == number).sum())
        round_enough = max(height, width) <= 2.2 * min(height, width) and filled >= 0.6 * height * width
        central = left < (where[2].start + where[2].stop) / 2 < right
        discs[number] = 12 <= filled <= 170 and round_enough and central and means[number] < _DISC_MEAN_HU
    stacks, n_stacks = ndimage.label(discs[labels])
    if n_stacks == 0:
        return np.zeros(hu.shape, dtype=bool)
    lengths = [where[0].stop - where[0].start for where in ndimage.find_objects(stacks)]
    longest = int(np.argmax(lengths))
    if lengths[longest] * _LUNG_GRID_MM[0] < 20.0:
        return np.zeros(hu.shape, dtype=bool)
    return np.asarray(stacks == longest + 1)


def _lung_parts(hu: Volume, aerated: Mask) -> NDArray[np.int32]:
    """Labels of the aerated parts that are lung by their volume and their median HU."""
    # Beyond the array nothing is aerated.
    eroded = ~within(np.pad(~aerated, 1, constant_values=True), _WALL)[1:-1, 1:-1, 1:-1]
    labels, count = ndimage.label(within(eroded, _WALL))
    sizes = np.bincount(labels.ravel(), minlength=count + 1) * _voxel_ml()
    kept = np.zeros(count + 1, dtype=np.int32)
    for number in np.flatnonzero(sizes >= _SMALLEST_LUNG_ML):
        if number and np.median(hu[labels == number]) > _GAS_MEDIAN_HU:
            kept[number] = kept.max() + 1
    return np.asarray(kept[labels], dtype=np.int32)


def _closed(parts: NDArray[np.int32], aerated: Mask) -> Mask:
    """Each part closed on its own, so that the closing does not bridge the mediastinum from lung to lung."""
    closed = np.zeros(parts.shape, dtype=bool)
    cubes = 1.0 / _LUNG_GRID_MM[0]
    margin = math.ceil(_CLOSING_MM * cubes) + 1
    for number, where in enumerate(ndimage.find_objects(parts), start=1):
        part = np.pad(parts[where] == number, margin)
        inside = ~within(~within(part, _CLOSING_MM * cubes), _CLOSING_MM * cubes)
        recess = np.pad(aerated[where], margin) & within(part, _RECESS_MM * cubes)
        inner = (slice(margin, -margin),) * 3
        closed[where] |= filled(inside | part | recess)[inner]
    return closed
