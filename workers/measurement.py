"""Measurements of a finding from its voxels: diameters, volume, attenuation, centre and outline.

The outline is the border halfway between the centres of inner and outer voxels, so that one voxel has its own extent
and a sphere is neither shrunk to its voxels' centres nor swollen to their corners. Diameters are taken on the surface
with its steps smoothed away at the same volume: the longest of many diameters would else be that of the highest steps.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from scipy.spatial import ConvexHull
from scipy.spatial.distance import pdist, squareform
from skimage.measure import find_contours

from dicom_node.core.finding import Axis, Outline, Point
from workers.morphology import box_around
from workers.volume import Region, Volume

Mask = NDArray[np.bool_]
Points = NDArray[np.float64]
Floats = NDArray[np.float32]


#: In pixels, across slices as many mm: as far as the steps of a surface reach.
_SMOOTHING = 1.5
#: How often that far a soft voxel reaches.
_REACH = 3.5
#: What has fewer pixels is measured as it is: it has no border apart from its steps.
_FEWEST_PIXELS = 16
#: So is what has more voxels, of which a step is no part worth its time.
_MOST_VOXELS = 200_000


@dataclass(frozen=True, kw_only=True)
class Measurements:
    """What a mask over a volume says about the finding."""

    #: Of the voxels' centres, LPS mm.
    centre: Point
    #: In the slice of largest area.
    long_axis: Axis
    short_axis: Axis
    #: Between two points of the smoothed surface (IBSI L0JK).
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
    surface = _Surface.of(region.mask, volume.spacing_mm)
    long_ends, short_ends = _axes(surface.border(k) + origin[1:], volume.spacing_mm[1:])
    values = volume.voxels[region.box][region.mask]
    level = int(origin[0]) + k
    return Measurements(
        centre=volume.to_patient(*voxels.mean(axis=0)[::-1]),
        long_axis=_axis(long_ends, level, volume),
        short_axis=_axis(short_ends, level, volume),
        maximum_3d_diameter_mm=surface.maximum_diameter_mm(volume.spacing_mm),
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


def _longest_line(values: Floats, level: float) -> Points:
    lines = find_contours(values, level)
    longest = max(lines, key=lambda line: float(np.abs(np.diff(line, axis=0)).sum()))
    return np.asarray(longest, dtype=np.float64)


@dataclass(frozen=True, kw_only=True)
class _Surface:
    """Where values over a margin around a mask [k, j, i] cross a level."""

    values: Floats
    level: float
    #: Voxels of the mask before the first value; negative in the margin.
    start: NDArray[np.intp]

    @classmethod
    def of(cls, mask: Mask, spacing_mm: tuple[float, float, float]) -> "_Surface":
        """The surface of a mask, smooth where it is large enough to be anything but steps."""
        box = box_around(mask) or ()
        own = mask[box]
        start = np.array([part.start for part in box])
        smooth = cls._smooth(own, spacing_mm)
        if smooth is not None and smooth[0][_largest(own) + smooth[2][0]].max() > smooth[1]:
            values, level, margin = smooth
            return cls(values=values, level=level, start=start - margin)
        return cls(values=np.pad(own, 1).astype(np.float32), level=0.5, start=start - 1)

    @staticmethod
    def _smooth(mask: Mask, spacing_mm: tuple[float, float, float]) -> tuple[Floats, float, NDArray[np.intp]] | None:
        """Soft values, the level above which are as many voxels as before, and the margin; None for a mask not to be.

        Twice soft less softer still: that keeps what is wider than the steps, where a plain blur shortens what is long.
        """
        count = int(mask.sum())
        if mask.sum(axis=(1, 2)).max() < _FEWEST_PIXELS or count > _MOST_VOXELS:
            return None
        widths = _SMOOTHING * math.sqrt(spacing_mm[1] * spacing_mm[2]) / np.array(spacing_mm)
        margin = np.ceil(2 * _REACH * widths).astype(int)
        padded = np.pad(mask, [(int(wide), int(wide)) for wide in margin]).astype(np.float32)
        soft = gaussian_filter(padded, widths, truncate=_REACH)
        values = 2 * soft - gaussian_filter(soft, widths, truncate=_REACH)
        inside = np.partition(values, (-count - 1, -count), axis=None)[-count - 1 : -count + 1]
        return values, float(inside.mean()), margin

    def border(self, k: int) -> Points:
        """The longest border line on a slice of the mask, as closed (row, column) points in its voxel indices."""
        return _longest_line(self.values[k - self.start[0]], self.level) + self.start[1:]

    def maximum_diameter_mm(self, spacing_mm: tuple[float, float, float]) -> float:
        """Between two of the places where it crosses the way from a voxel to the next: the corners of its mesh."""
        places = []
        for axis in range(3):
            above = self.values > self.level
            crossed = np.argwhere(np.diff(above, axis=axis))
            step = np.eye(3, dtype=int)[axis]
            before, after = (self.values[tuple(at.T)].astype(float) for at in (crossed, crossed + step))
            places.append(crossed + step * ((self.level - before) / (after - before))[:, None])
        start, end = _farthest(np.concatenate(places) * spacing_mm)
        return float(np.linalg.norm(end - start))


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
