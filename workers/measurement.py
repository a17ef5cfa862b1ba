"""Measurements of a finding from its voxels: diameters, volume, attenuation, centre and outline.

The outline is the mask's own, half way between the centres of inner and outer voxels. Diameters are taken on the
surface that the mask or the attenuation tells, and the volume is what it surrounds.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dicom_node.core.finding import Axis, Border, Outline, Point
from workers.coverage import coverage
from workers.surface import Points, Surface, axes, largest_line, largest_slice, lines
from workers.volume import Region, Volume

Mask = NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True)
class Measurements:
    """What a mask over a volume says about the finding."""

    #: Of the voxels' centres, LPS mm.
    centre: Point
    #: In the slice of largest area.
    long_axis: Axis
    short_axis: Axis
    #: Between two points of the surface (IBSI L0JK).
    maximum_3d_diameter_mm: float
    #: Of what the surface surrounds: the share of voxels that is filled or, where only the mask tells, voxels counted
    #: (IBSI YEKZ).
    volume_mm3: float
    mean_hu: float
    deviation_hu: float
    outline: Outline
    #: What told where it ends.
    border: Border


def measure(region: Region, volume: Volume, *, by_attenuation: bool = False) -> Measurements:
    """Measure a region of a volume; one without voxels is a ValueError.

    `by_attenuation` where the region was outlined by it: then a voxel counts by how much of it is filled, if inside and
    around the region it can be told what is full and what empty.
    """
    if not region.mask.any():
        raise ValueError("a region without voxels has no measurements")
    origin = np.array([part.start for part in region.box])
    level = int(origin[0]) + largest_slice(region.mask)
    surface, filled = _bounded(region, volume, level, by_attenuation)
    long_ends, short_ends = axes(surface.border_line(level), volume.spacing_mm[1:])
    values = volume.voxels[region.box][region.mask]
    return Measurements(
        centre=volume.to_patient(*(_middle(region.mask) + origin)[::-1]),
        long_axis=_axis(long_ends, level, volume),
        short_axis=_axis(short_ends, level, volume),
        maximum_3d_diameter_mm=surface.maximum_diameter_mm(volume.spacing_mm),
        volume_mm3=filled * float(np.prod(volume.spacing_mm)),
        mean_hu=float(values.mean(dtype=np.float64)),
        deviation_hu=float(values.std(dtype=np.float64)),
        outline=Outline(
            sop_instance_uid=volume.sop_instance_uids[level],
            points=_polygon(_outermost(region.mask[level - int(origin[0])]) + origin[1:]),
            frame_number=volume.frame_number(level),
        ),
        border=surface.border,
    )


def _middle(mask: Mask) -> Points:
    """The mean index of a mask's voxels: a list of them would be many times as large as the mask."""
    in_slices, in_rows = mask.sum(axis=(1, 2)), mask.sum(axis=0)
    counts = (in_slices, in_rows.sum(axis=1), in_rows.sum(axis=0))
    return np.array([float(count @ np.arange(len(count))) / float(in_slices.sum()) for count in counts])


def _bounded(region: Region, volume: Volume, level: int, by_attenuation: bool) -> tuple[Surface, float]:
    """The surface of a region, and how many voxels are filled."""
    origin = np.array([part.start for part in region.box])
    covered = coverage(region, volume) if by_attenuation else None
    if covered is not None:
        surface, filled = Surface.of_coverage(covered, volume.spacing_mm), float(covered.share.sum(dtype=np.float64))
        plane = region.mask[level - int(origin[0])]
        if surface.holds(level, plane, origin[1:]) and _is_alike(filled, region.mask):
            return surface, filled
    return Surface.of_mask(region.mask, volume.spacing_mm, origin), float(region.mask.sum())


def _is_alike(filled: float, mask: Mask) -> bool:
    """Whether as many voxels are filled as a mask may have: half of those at its border are the other half's error."""
    count, areas = int(mask.sum()), np.pad(mask.sum(axis=(1, 2)), 1)
    across, down = (int(np.count_nonzero(np.diff(np.pad(mask, 1), axis=axis))) for axis in (2, 1))
    most = max(across, down, int(np.abs(np.diff(areas)).sum())) / 2
    return abs(filled - count) <= most


def borders(plane: Mask) -> list[Points]:
    """Every border line of a plane's mask, of parts and of holes, as closed (row, column) points in voxel indices."""
    return [line - 1.0 for line in lines(np.pad(plane, 1).astype(np.float32), 0.5)]


def _outermost(plane: Mask) -> Points:
    """That which surrounds most."""
    return largest_line(np.pad(plane, 1).astype(np.float32), 0.5) - 1.0


def _polygon(border: Points) -> tuple[tuple[float, float], ...]:
    """The border as (column, row), where (0.5, 0.5) is the centre of the first pixel (PS3.3 Section C.18.6.1.1)."""
    return tuple((float(column) + 0.5, float(row) + 0.5) for row, column in border)


def _axis(ends: Points, k: int, volume: Volume) -> Axis:
    start, end = (volume.to_patient(float(column), float(row), k) for row, column in ends)
    return Axis(length_mm=float(np.linalg.norm(np.subtract(start, end))), start=start, end=end)
