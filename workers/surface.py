"""Surface: where a finding ends, between its voxels, and the diameters on it.

Of a mask it is half way between the centres of inner and outer voxels, so that one voxel has its own extent, with the
steps smoothed away at the same volume: the longest of many diameters would else be that of the highest steps. Where the
attenuation tells how much of each voxel is filled, it is what surrounds as much as is filled in all.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_dilation, gaussian_filter, label, zoom
from scipy.spatial import ConvexHull
from scipy.spatial.distance import pdist
from skimage.measure import find_contours

from dicom_node.core.finding import Border
from workers.coverage import Coverage
from workers.morphology import box_around

Mask = NDArray[np.bool_]
Points = NDArray[np.float64]
Floats = NDArray[np.float32]
Spacing = tuple[float, float, float]

#: In pixels, across slices as many mm: as far as the steps of a mask reach, and the noise of a voxel; that the farther
#: the larger a share of the contrast it is.
_STEPS, _NOISE, _PER_NOISE = 1.5, 0.7, 14.0
#: A surface that surrounds less of a slice's largest part has lost what the mask shows.
_HELD = 0.75
_EIGHT = np.ones((3, 3), dtype=bool)
#: How often that far a soft voxel reaches.
_REACH = 3.5
#: What has fewer pixels is measured as it is: it has no border apart from its steps.
_FEWEST_PIXELS = 16
#: So is what has more voxels, of which a step is no part worth its time.
_MOST_VOXELS = 200_000
#: Each voxel of a small finding is cut into so many along each axis; odd, so that one lies in the middle.
_FINER, _MOST_CUT = 3, 3_500


@dataclass(frozen=True, kw_only=True)
class Surface:
    """Where values [k, j, i] cross a level."""

    values: Floats
    level: float
    #: The voxel in which the values begin; negative in a margin.
    start: NDArray[np.intp]
    border: Border
    #: Values along a voxel's edge.
    finer: int = 1

    @classmethod
    def of_mask(cls, mask: Mask, spacing_mm: Spacing, origin: NDArray[np.intp]) -> "Surface":
        """The surface of a mask that begins in a voxel, smooth where it is large enough to be anything but steps."""
        box = box_around(mask) or ()
        own, start = mask[box], origin + [part.start for part in box]
        if own.sum(axis=(1, 2)).max() >= _FEWEST_PIXELS and own.sum() <= _MOST_VOXELS:
            values, margin = _soft(own.astype(np.float32), spacing_mm, _STEPS)
            smooth = cls(
                values=values, level=_level(values, int(own.sum())), start=start - margin, border=Border.SMOOTHED
            )
            level = largest_slice(own)
            if smooth.holds(int(start[0]) + level, own[level], start[1:]):
                return smooth
        return cls(values=np.pad(own, 1).astype(np.float32), level=0.5, start=start - 1, border=Border.VOXELS)

    @classmethod
    def of_coverage(cls, covered: Coverage, spacing_mm: Spacing) -> "Surface":
        """The surface around as much as the voxels are filled in all, less the noise of single ones."""
        wide = min(_STEPS, max(_NOISE, _PER_NOISE * covered.noise))
        values, margin = _soft(covered.share, spacing_mm, wide)
        # What is farther away than a voxel that may be filled is empty.
        margin += 1
        values = values[tuple(slice(int(width), -int(width)) for width in margin)]
        finer = _FINER if values.size <= _MOST_CUT else 1
        if finer > 1:
            values = zoom(values, finer, order=3, mode="nearest", grid_mode=True)
        level = _level(values, round(float(covered.share.sum()) * finer**3))
        return cls(values=values, level=level, start=covered.start + 1, border=Border.ATTENUATION, finer=finer)

    def holds(self, k: int, plane: Mask, first: NDArray[np.intp]) -> bool:
        """Whether its line on a slice is the mask's, whose pixels there begin at a row and column.

        It surrounds three quarters of the largest part, and nowhere bridges what lies between parts.
        """
        if not lines(self._plane(k), self.level):
            return False
        line = self.border_line(k)
        padded = np.pad(plane, 2)
        near = binary_dilation(padded, _EIGHT)
        place = np.clip(np.rint(line - first + 2).astype(int), 0, np.array(near.shape) - 1)
        return bool(_area(line) >= _HELD * largest_part(plane) and near[tuple(place.T)].all())

    def border_line(self, k: int) -> Points:
        """The line that surrounds most on a slice, as closed (row, column) points in voxel indices."""
        return self._in_voxels(largest_line(self._plane(k), self.level), self.start[1:])

    def _plane(self, k: int) -> Floats:
        plane: Floats = self.values[(k - int(self.start[0])) * self.finer + self.finer // 2]
        return plane

    def _in_voxels(self, places: Points, start: NDArray[np.intp]) -> Points:
        return np.asarray((places + 0.5) / self.finer - 0.5 + start)

    def maximum_diameter_mm(self, spacing_mm: Spacing) -> float:
        """Between two of the places where it crosses the way from a value to the next: the corners of its mesh."""
        places = []
        for axis in range(3):
            above = self.values > self.level
            crossed = np.argwhere(np.diff(above, axis=axis))
            step = np.eye(3, dtype=int)[axis]
            before, after = (self.values[tuple(at.T)].astype(float) for at in (crossed, crossed + step))
            places.append(crossed + step * ((self.level - before) / (after - before))[:, None])
        start, end = farthest(self._in_voxels(np.concatenate(places), self.start) * spacing_mm)
        return float(np.linalg.norm(end - start))


def _soft(values: Floats, spacing_mm: Spacing, pixels: float) -> tuple[Floats, NDArray[np.intp]]:
    """Values, and a margin around them, without what is narrower than so many pixels; and that margin in voxels.

    Twice soft less softer still: that keeps what is wider, where a plain blur shortens what is long.
    """
    widths = pixels * math.sqrt(spacing_mm[1] * spacing_mm[2]) / np.array(spacing_mm)
    margin = np.ceil(2 * _REACH * widths).astype(int)
    padded = np.pad(values, [(int(wide), int(wide)) for wide in margin])
    soft = gaussian_filter(padded, widths, truncate=_REACH)
    return 2 * soft - gaussian_filter(soft, widths, truncate=_REACH), margin


def _level(values: Floats, count: int) -> float:
    """The level that so many values are above."""
    return float(np.partition(values, (-count - 1, -count), axis=None)[-count - 1 : values.size - count + 1].mean())


def largest_slice(mask: Mask) -> int:
    """The slice of largest area; of several alike the one nearest to the middle of the whole."""
    areas = mask.sum(axis=(1, 2))
    middle = float(areas @ np.arange(len(areas)) / areas.sum())
    largest = np.flatnonzero(areas == areas.max())
    return int(largest[np.abs(largest - middle).argmin()])


def lines(values: Floats, level: float) -> list[Points]:
    """Every line on which values of a plane cross a level, as closed (row, column) points."""
    return [np.asarray(line, dtype=np.float64) for line in find_contours(values, level)]


def largest_line(values: Floats, level: float) -> Points:
    """That of them which surrounds most."""
    return max(lines(values, level), key=_area)


def largest_part(plane: Mask) -> int:
    """Pixels of the largest connected part of a slice."""
    parts, _ = label(plane)
    return int(np.bincount(parts.ravel())[1:].max())


def _area(line: Points) -> float:
    """What a closed line surrounds, in pixels."""
    (y, x), (next_y, next_x) = line[:-1].T, line[1:].T
    return abs(float((y * next_x - next_y * x).sum())) / 2


def axes(border: Points, spacing_mm: tuple[float, float]) -> tuple[Points, Points]:
    """Ends of the longest diameter and of the longest chord across it, as (row, column) in voxel indices."""
    scale = np.array(spacing_mm)
    points = border * scale
    start, end = farthest(points)
    along = (end - start) / np.linalg.norm(end - start)
    turn = np.array([along, [-along[1], along[0]]])
    return np.array([start, end]) / scale, (_widest_chord(points @ turn.T) @ turn) / scale


def farthest(points: Points) -> Points:
    """The two points that are farthest from each other."""
    corners = points[ConvexHull(points).vertices]
    # Each corner's distances to those behind it, corner after corner.
    farthest_pair = int(pdist(corners).argmax())
    ends = np.cumsum(np.arange(len(corners) - 1, 0, -1))
    first = int(np.searchsorted(ends, farthest_pair, side="right"))
    return np.asarray(corners[[first, len(corners) - int(ends[first]) + farthest_pair]])


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
