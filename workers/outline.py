"""Outline: which voxels of a series a candidate of the network covers, at the series' own resolution.

The network says where something is, on its coarser grid. Where it ends is told by the attenuation around it, half way
from lung to nodule, and by its shape where it meets a vessel or the pleura.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from workers.morphology import box_around, filled, within
from workers.preprocessing import GRID_MM, Spacing, along_axis, interpolation_weights
from workers.volume import Region

Floats = NDArray[np.float32]
Mask = NDArray[np.bool_]
Box = tuple[slice, slice, slice]

#: mm around a candidate that are looked at: enough lung to know its attenuation.
_SURROUNDINGS_MM = 10.0
#: The outline is found on cubes of this size, or larger ones where the candidate is very large.
_FINE_MM = 0.7
_MOST_STEPS = 96
_SMOOTHING_MM = 0.4
#: The network's opinion above this share of the candidate's peak is where the nodule's attenuation is read.
_CORE_SHARE = 0.6
_CORE_PERCENTILE = 75.0
#: A nodule ends at most so far beyond what the network gives this share of its peak.
_REACH_SHARE = 0.4
_REACH_MM = 1.5
#: What reaches so far beyond that is something else, as a vessel.
_GOES_ON_MM = 3.0
#: Into a dent of the lungs, where something lies on the pleura, a ball of this radius does not reach as into the wall.
#: Of what lies in one, so large a share at least lies where their mask is.
_DENT_MM, _LEAST_IN_LUNG = 20.0, 0.4
#: What is thinner than this share of the thickest part is a vessel or a tail, not the nodule.
_NECK_SHARE = 0.6
#: Lung is darker; without any around, what it usually has.
_LUNG_BELOW_HU, _LUNG_HU = -500.0, -850.0
#: A solid part is blurred so far into its surroundings. If the rind beyond is mostly ground glass, that belongs to the
#: nodule, so far at most.
_BLUR_MM = 1.5
_RIND_MM = 1.5
_HALO_REACH_MM = 6.0
#: Ground glass is so much denser than the lung around it, lets vessels show, and makes up this share of the rind.
_GLASS_HU = 100.0
_GLASS_BELOW_HU = -300.0
_GLASS_SHARE = 0.6
#: Share of a voxel that must be covered.
_COVERED = 0.5


@dataclass(frozen=True, kw_only=True)
class _Steps:
    """Size of the fine cubes, and the distance of the series' slices."""

    cube_mm: float
    slice_mm: float


def outline(
    voxels: Floats, spacing_mm: Spacing, probability: Floats, lungs: Mask, candidate: Region, grid_mm: Spacing = GRID_MM
) -> Region:
    """The voxels [k, j, i] of a series (HU) that a candidate covers; possibly none.

    `probability`, `lungs` and the candidate's region are on the grid whose voxel 0 is centred on the series' voxel 0.
    """
    window = _Window.around(candidate.box, grid_mm, voxels.shape, spacing_mm)
    hu = window.read(voxels, spacing_mm)
    hu = ndimage.gaussian_filter(hu, _SMOOTHING_MM / window.step_mm)
    seen = window.read(probability, grid_mm)
    own = window.read_region(candidate, probability.shape, grid_mm) > 0.5
    lung = window.read(lungs, grid_mm) > 0.5
    covered = _covered(hu, seen, own, lung, _Steps(cube_mm=window.step_mm, slice_mm=spacing_mm[0]))
    return window.back(covered, voxels.shape, spacing_mm)


def _covered(hu: Floats, seen: Floats, own: Mask, lung: Mask, steps: _Steps) -> Mask:
    """The nodule on the fine cubes."""
    marked = np.where(own, seen, 0.0)
    peak = float(marked.max())
    if peak == 0.0:
        return own
    core = _around_peak(marked, _CORE_SHARE * peak)
    parenchyma = lung & (seen < 0.1 * peak) & (hu < _LUNG_BELOW_HU)
    half_way = (float(np.percentile(hu[core], _CORE_PERCENTILE)) + _typical(hu, parenchyma)) / 2
    tissue = (hu > half_way) & (within(lung, 1.0 / steps.cube_mm) | _on_the_pleura(core, lung, steps))
    reach = within(seen >= _REACH_SHARE * peak, _REACH_MM / steps.cube_mm)
    dense = _filled(_without_what_goes_on(tissue, reach, core, steps))
    halo = _halo(hu, dense & core, parenchyma, lung, steps)
    return _without_tails(dense if halo is None else _filled(halo | dense), core)


def _on_the_pleura(core: Mask, lung: Mask, steps: _Steps) -> Mask:
    """What the network is sure of in a dent of the lungs, which their mask leaves out.

    None where most of it lies outside: then the network marks the wall or a great vessel.
    """
    if (core & lung).sum() < _LEAST_IN_LUNG * core.sum() or not (core & ~lung).any():
        return np.zeros_like(core)
    radius = _DENT_MM / steps.cube_mm
    margin = int(np.ceil(radius))
    around = np.pad(lung, margin, mode="edge")
    # Wherever the ball fits beside the lungs.
    wall = within(~within(around, radius), radius)[(slice(margin, -margin),) * 3]
    return np.asarray(core & ~wall)


def _without_what_goes_on(tissue: Mask, reach: Mask, core: Mask, steps: _Steps) -> Mask:
    """The tissue within reach, less what is nearer to tissue that goes on beyond than to the core.

    As thick a vessel as the nodule that lies on it has no neck to be cut at, and no attenuation tells them apart. A rim
    of the nodule's own that the network did not mark goes on nowhere.
    """
    inside = tissue & reach
    beyond = _going_on(tissue & ~reach, reach, steps) & within(inside, 1.0)
    if not beyond.any():
        return inside
    return inside & (ndimage.distance_transform_edt(~beyond) >= ndimage.distance_transform_edt(~core))


def _going_on(outside: Mask, reach: Mask, steps: _Steps) -> Mask:
    """The parts of what lies out of reach that go on far beyond it."""
    parts, _ = ndimage.label(outside)
    far = ndimage.distance_transform_edt(~reach) * steps.cube_mm > _GOES_ON_MM
    return outside & np.isin(parts, np.unique(parts[outside & far]))


def _halo(hu: Floats, solid: Mask, parenchyma: Mask, lung: Mask, steps: _Steps) -> Mask | None:
    """The ground glass around a solid part, and it; None where lung begins around it."""
    if not solid.any():
        return None
    distance = _blurred_distance(solid, steps)
    rind = lung & (distance > _BLUR_MM) & (distance <= _BLUR_MM + _RIND_MM)
    outside = _typical(hu, parenchyma & (distance > _HALO_REACH_MM))
    glass = rind & (hu > outside + _GLASS_HU) & (hu < _GLASS_BELOW_HU)
    if not rind.any() or glass.sum() < _GLASS_SHARE * rind.sum():
        return None
    half_way = (float(np.median(hu[glass])) + outside) / 2
    return np.asarray((hu > half_way) & lung & (distance <= _HALO_REACH_MM))


def _typical(hu: Floats, parenchyma: Mask) -> float:
    return float(np.median(hu[parenchyma])) if parenchyma.any() else _LUNG_HU


def _blurred_distance(mask: Mask, steps: _Steps) -> Floats:
    """mm from a mask, where a slice's thickness counts as what the plane is blurred by."""
    across = steps.cube_mm * min(1.0, _BLUR_MM / steps.slice_mm)
    distance = ndimage.distance_transform_edt(~mask, sampling=(across, steps.cube_mm, steps.cube_mm))
    return np.asarray(distance, dtype=np.float32)


def _around_peak(seen: Floats, least: float) -> Mask:
    """What is connected to the highest place at or above a value: a candidate may hold more than its nodule."""
    labels, _ = ndimage.label(seen >= least)
    return np.asarray(labels == labels.flat[int(seen.argmax())])


def _filled(mask: Mask) -> Mask:
    """Holes filled in space and in each plane: an air-filled centre belongs to its nodule."""
    box = box_around(mask, margin=1)
    result = mask.copy()
    if box is not None:
        result[box] = filled(mask[box])
        for plane in result[box]:
            plane[:] = filled(plane)
    return result


def _without_tails(mask: Mask, core: Mask) -> Mask:
    """The part that holds the core, less what hangs on it by a thin neck."""
    depth = np.zeros(mask.shape)
    box = box_around(mask, margin=1)
    if box is not None:
        depth[box] = ndimage.distance_transform_edt(mask[box])
    neck = _NECK_SHARE * float((depth * core).max())
    labels, count = ndimage.label(depth > neck)
    if count == 0:
        return mask & core
    kept = 1 + int(np.argmax(ndimage.sum_labels(core, labels, np.arange(1, count + 1))))
    return mask & within(labels == kept, neck + 1.0)


@dataclass(frozen=True, kw_only=True)
class _Window:
    """Cubes around a candidate: the mm of the first one's centre from voxel 0, their size and number (k, j, i)."""

    start_mm: tuple[float, ...]
    step_mm: float
    shape: tuple[int, ...]

    @classmethod
    def around(cls, box: Box, grid_mm: Spacing, shape: tuple[int, ...], spacing_mm: Spacing) -> "_Window":
        """As far around a box of the grid as is looked at, within the series."""
        low = [max(0.0, s.start * g - _SURROUNDINGS_MM) for s, g in zip(box, grid_mm, strict=True)]
        ends = [(n - 1) * s for n, s in zip(shape, spacing_mm, strict=True)]
        high = [min(e, (s.stop - 1) * g + _SURROUNDINGS_MM) for e, s, g in zip(ends, box, grid_mm, strict=True)]
        step = max(_FINE_MM, max(h - lo for h, lo in zip(high, low, strict=True)) / _MOST_STEPS)
        count = tuple(max(1, round((h - lo) / step) + 1) for h, lo in zip(high, low, strict=True))
        return cls(start_mm=tuple(low), step_mm=step, shape=count)

    def read(self, source: Floats | Mask, source_mm: Spacing) -> Floats:
        """A volume whose voxel 0 is at 0 mm, read linearly at the cubes' centres."""
        box, weights = [], []
        for axis in range(3):
            offset, step = self.start_mm[axis] / source_mm[axis], self.step_mm / source_mm[axis]
            first = int(np.clip(np.floor(offset) - 2, 0, source.shape[axis] - 1))
            last = int(np.clip(np.ceil(offset + self.shape[axis] * step) + 2, first + 1, source.shape[axis]))
            box.append(slice(first, last))
            weights.append(interpolation_weights(last - first, self.shape[axis], step, offset - first))
        result = np.ascontiguousarray(source[tuple(box)], dtype=np.float32)
        for axis in range(3):
            result = along_axis(weights[axis], result, axis)
        return result

    def read_region(self, region: Region, shape: tuple[int, ...], grid_mm: Spacing) -> Floats:
        """A region of a grid of some shape, read at the cubes' centres: 0 to 1."""
        whole = np.zeros(shape, dtype=bool)
        whole[region.box] = region.mask
        return self.read(whole, grid_mm)

    def back(self, covered: Mask, shape: tuple[int, ...], spacing_mm: Spacing) -> Region:
        """The series' voxels that are covered by half."""
        result, box = covered.astype(np.float32), []
        for axis in range(3):
            spacing = spacing_mm[axis]
            first = int(np.ceil(self.start_mm[axis] / spacing - 1e-6))
            last = int(np.floor((self.start_mm[axis] + (self.shape[axis] - 1) * self.step_mm) / spacing + 1e-6))
            first, last = min(first, shape[axis] - 1), min(last, shape[axis] - 1)
            offset = (first * spacing - self.start_mm[axis]) / self.step_mm
            step = spacing / self.step_mm
            result = along_axis(interpolation_weights(self.shape[axis], last - first + 1, step, offset), result, axis)
            box.append(slice(first, last + 1))
        return Region(box=(box[0], box[1], box[2]), mask=result >= _COVERED)
