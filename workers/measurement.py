"""Measurements of a finding from its voxels: diameters, volume, attenuation, centre and outline.

The outline is the border halfway between the centres of inner and outer voxels, so that one voxel has its own extent
and a sphere is neither shrunk to its voxels' centres nor swollen to their corners. The axes are taken on that border
with its steps smoothed away at the same area: the longest of many diameters would else be that of the highest steps.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from scipy.spatial import ConvexHull
from scipy.spatial.distance import pdist, squareform
from skimage.measure import find_contours

from dicom_node.core.finding import Axis, Outline, Point
from workers.volume import Region, Volume

Mask = NDArray[np.bool_]
Points = NDArray[np.float64]


#: In pixels: as far as the steps of a border reach.
_SMOOTHING = 0.8
#: Pixels beyond which nothing of the smoothing is left.
_MARGIN = 4
#: What has fewer pixels is measured as it is: it has no border apart from its steps.
_FEWEST_PIXELS = 16


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
    #: Voxels counted (IBSI YEKZ), so that it is the segmentation's own volume.
    volume_mm3: float
    mean_hu: float
    deviation_hu: float
    outline: Outline


def measure(region: Region, volume: Volume) -> Measurements:
    """Measure a region of a volume; one without voxels is a ValueError."""
    if not region.mask.any():
        raise ValueError("a region without voxels has no measurements")
    origin = np.array([part.start for part in region.box])
    voxels = np.argwhere(region.mask) + origin
    k = _largest(region.mask)
    border = _border(region.mask[k]) + origin[1:]
    long_ends, short_ends = _axes(_smooth_border(region.mask[k]) + origin[1:], volume.spacing_mm[1:])
    values = volume.voxels[region.box][region.mask]
    level = int(origin[0]) + k
    return Measurements(
        centre=volume.to_patient(*voxels.mean(axis=0)[::-1]),
        long_axis=_axis(long_ends, level, volume),
        short_axis=_axis(short_ends, level, volume),
        maximum_3d_diameter_mm=_maximum_3d_diameter(region.mask, volume.spacing_mm),
        volume_mm3=len(voxels) * float(np.prod(volume.spacing_mm)),
        mean_hu=float(values.mean(dtype=np.float64)),
        deviation_hu=float(values.std(dtype=np.float64)),
        outline=Outline(
            sop_instance_uid=volume.sop_instance_uids[level],
            points=_polygon(border),
            frame_number=volume.frame_number(level),
        ),
    )


def _largest(mask: Mask) -> int:
    """The slice of largest area; of several alike the one nearest to the middle of the whole."""
    areas = mask.sum(axis=(1, 2))
    middle = float(areas @ np.arange(len(areas)) / areas.sum())
    largest = np.flatnonzero(areas == areas.max())
    return int(largest[np.abs(largest - middle).argmin()])


def borders(plane: Mask) -> list[Points]:
    """Every border line of a plane's mask, of parts and of holes, as closed (row, column) points in voxel indices."""
    return [np.asarray(line - 1.0) for line in find_contours(np.pad(plane, 1).astype(np.float32), 0.5)]


def _border(plane: Mask) -> Points:
    """The longest border line of a plane's mask as closed (row, column) points in voxel indices."""
    return _longest_line(np.pad(plane, 1).astype(np.float32), 0.5) - 1.0


def _smooth_border(plane: Mask) -> Points:
    """As `_border`, without its steps: it surrounds the same area, more smoothly."""
    if plane.sum() < _FEWEST_PIXELS:
        return _border(plane)
    return _longest_line(*_smoothed(plane)) - float(_MARGIN)


def _longest_line(values: NDArray[np.float32], level: float) -> Points:
    lines = find_contours(values, level)
    longest = max(lines, key=lambda line: float(np.abs(np.diff(line, axis=0)).sum()))
    return np.asarray(longest, dtype=np.float64)


def _smoothed(plane: Mask) -> tuple[NDArray[np.float32], float]:
    """A plane's mask with a margin and soft edges, and the level above which it has as many pixels as before."""
    soft = gaussian_filter(np.pad(plane, _MARGIN).astype(np.float32), _SMOOTHING, truncate=_MARGIN / _SMOOTHING)
    count = int(plane.sum())
    highest = np.partition(soft, (-count - 1, -count), axis=None)
    return soft, float(highest[-count - 1] + highest[-count]) / 2


def _polygon(border: Points) -> tuple[tuple[float, float], ...]:
    """The border as (column, row), where (0.5, 0.5) is the centre of the first pixel (PS3.3 Section C.18.6.1.1)."""
    return tuple((float(column) + 0.5, float(row) + 0.5) for row, column in border)


def _axes(border: Points, spacing_mm: tuple[float, float]) -> tuple[Points, Points]:
    """Ends of the longest diameter and of the longest chord across it, as (row, column) in voxel indices."""
    scale = np.array(spacing_mm)
    points = border * scale
    start, end = _farthest(points)
    along = (end - start) / np.linalg.norm(end - start)
    turn = np.array([along, [-along[1], along[0]]])
    return np.array([start, end]) / scale, (_widest_chord(points @ turn.T) @ turn) / scale


def _farthest(points: Points) -> Points:
    """The two points that are farthest from each other."""
    corners = points[ConvexHull(points).vertices]
    distances = squareform(pdist(corners))
    return np.asarray(corners[list(np.unravel_index(distances.argmax(), distances.shape))])


def _widest_chord(border: Points) -> Points:
    """Ends (u, v) of the longest line of constant u between two points of a closed border."""
    u, v = border[:-1].T
    next_u, next_v = border[1:].T
    # Between two corners the width changes evenly, so that the widest place is at a corner.
    places = np.unique(u)[:, None]
    rise = np.where(next_u == u, 1.0, next_u - u)
    share = (places - u) / rise
    crosses = (np.minimum(u, next_u) <= places) & (places <= np.maximum(u, next_u)) & (next_u != u)
    height = v + share * (next_v - v)
    top = np.where(crosses, height, -np.inf).max(axis=1)
    bottom = np.where(crosses, height, np.inf).min(axis=1)
    widest = int((top - bottom).argmax())
    place = float(places[widest, 0])
    return np.array([[place, bottom[widest]], [place, top[widest]]])


def _axis(ends: Points, k: int, volume: Volume) -> Axis:
    start, end = (volume.to_patient(float(column), float(row), k) for row, column in ends)
    return Axis(length_mm=float(np.linalg.norm(np.subtract(start, end))), start=start, end=end)


def _maximum_3d_diameter(mask: Mask, spacing_mm: tuple[float, float, float]) -> float:
    """Between two of the places half way from a voxel to a neighbour outside: the corners of the surface's mesh."""
    padded = np.pad(mask, 1)
    places = []
    for axis in range(3):
        halves = np.argwhere(np.diff(padded, axis=axis)).astype(np.float64)
        halves[:, axis] += 0.5
        places.append(halves * spacing_mm)
    start, end = _farthest(np.concatenate(places))
    return float(np.linalg.norm(end - start))
