"""Surfaces and tubes of generated organs, as distances on a grid.

Coordinates are millimetres in the axes of DICOM: x to the patient's left, y to the back, z to the head. A distance is
negative inside, accurate within a few voxels of the surface and only monotone farther off.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import PchipInterpolator

Array = NDArray[np.float32]
Points = NDArray[np.float64]
Point = tuple[float, float, float]
#: Broadcastable x [1, 1, i], y [1, j, 1] and z [k, 1, 1].
Grid = tuple[Array, Array, Array]
#: A part of a grid, by k, j, i.
Box = tuple[slice, slice, slice]
#: Rows of one profile: z, then values.
Table = Sequence[Sequence[float]]

#: What the deviation of knots must be for a cubic spline field of about deviation 1.
SPLINE_GAIN = 1.9


@dataclass(frozen=True, kw_only=True)
class Ellipsoid:
    """An organ as an ellipsoid, turned about z."""

    name: str
    centre: Point
    radii: Point
    hu: float
    turn_degrees: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Tube:
    """A vessel, airway or bone as a chain of round cones."""

    #: [n, 3] in mm.
    points: NDArray[np.float64]
    #: [n] in mm.
    radii: NDArray[np.float64]
    #: Distances along z count this much; below 1 the section is taller than wide.
    flattening: float = 1.0


def axes_of(corner: NDArray[np.float64], spacing_mm: Sequence[float], shape: Sequence[int]) -> Grid:
    """The axes of a grid; its corner and spacing are in x, y, z order, its shape in k, j, i."""
    x, y, z = (
        (start + np.arange(size) * step).astype(np.float32)
        for start, step, size in zip(corner, spacing_mm, shape[::-1], strict=True)
    )
    return x[None, None, :], y[None, :, None], z[:, None, None]


def box_of(grid: Grid, low: NDArray[np.float64], high: NDArray[np.float64]) -> Box | None:
    """The part [k, j, i] of a grid within bounds (x, y, z); None where there is none."""
    found = []
    for axis, least, most in zip(grid[::-1], low[::-1], high[::-1], strict=True):
        values = axis.ravel()
        first, last = int(np.searchsorted(values, least)), int(np.searchsorted(values, most))
        if first >= last:
            return None
        found.append(slice(first, last))
    return found[0], found[1], found[2]


def cut(grid: Grid, box: Box) -> Grid:
    """The axes of a part of a grid."""
    return grid[0][:, :, box[2]], grid[1][:, box[1], :], grid[2][box[0]]


def profile(table: Table) -> PchipInterpolator:
    """A table of (z, value, ...) as a smooth function of z."""
    rows = np.asarray(table, dtype=float)
    return PchipInterpolator(rows[:, 0], rows[:, 1:], axis=0)


def oval(x: Array, y: Array, width: Array | float, depth: Array | float, *, square: bool = False) -> Array:
    """Distance along the ray to an ellipse, or to the squarer superellipse of power 2.5."""
    u, v = np.abs(x) / width, np.abs(y) / depth
    k = np.power(u * u * np.sqrt(u) + v * v * np.sqrt(v), np.float32(0.4)) if square else np.sqrt(u * u + v * v)
    distance = np.sqrt(x * x + y * y) * (1 - 1 / np.maximum(k, np.float32(1e-3)))
    return np.maximum(distance, np.float32(-60)).astype(np.float32, copy=False)


def ellipsoid(shape: Ellipsoid, x: Array, y: Array, z: Array, *, grown: float = 0.0) -> Array:
    """Distance along the ray to an ellipsoid that was grown by some millimetres."""
    dx, dy, dz = x - np.float32(shape.centre[0]), y - np.float32(shape.centre[1]), z - np.float32(shape.centre[2])
    turn = np.deg2rad(shape.turn_degrees)
    c, s = np.float32(np.cos(turn)), np.float32(np.sin(turn))
    u, v = c * dx - s * dy, s * dx + c * dy
    a, b, h = (np.float32(radius + grown) for radius in shape.radii)
    k = np.sqrt((u / a) ** 2 + (v / b) ** 2 + (dz / h) ** 2)
    distance: Array = np.sqrt(u * u + v * v + dz * dz) * (1 - 1 / np.maximum(k, 1e-3))
    return distance


def smooth_max(first: Array, second: Array, blend_mm: float) -> Array:
    """The larger distance, with the edge where they meet rounded."""
    overlap = np.maximum(blend_mm - np.abs(first - second), 0)
    blended: Array = np.maximum(first, second) + overlap * overlap * np.float32(0.25 / blend_mm)
    return blended


@dataclass(frozen=True, kw_only=True)
class Wobble:
    """A smooth random field of mean 0 and deviation 1 that keeps surfaces from being perfect."""

    knots: Array
    pitch_mm: float
    corner: Point

    @classmethod
    def random(cls, rng: np.random.Generator, pitch_mm: float) -> "Wobble":
        """A field over the whole thorax with about one bump a pitch."""
        size = [int(np.ceil(extent / pitch_mm)) + 4 for extent in (400, 460, 460)]
        return cls(
            knots=(rng.standard_normal(size) * SPLINE_GAIN).astype(np.float32),
            pitch_mm=pitch_mm,
            corner=(-230.0, -230.0, -40.0),
        )

    def __call__(self, x: Array, y: Array, z: Array) -> Array:
        """The field on the grid that three broadcastable axes span."""
        weights = [
            spline_weights((axis.ravel() - start) / self.pitch_mm + 1, size)
            for axis, start, size in zip((z, y, x), self.corner[::-1], self.knots.shape, strict=True)
        ]
        planes = np.einsum("kc,cba->kba", weights[0], self.knots, optimize=True)
        field: Array = np.matmul(np.matmul(weights[1], planes), weights[2].T)
        return field


def spline_weights(at: NDArray[np.floating], size: int) -> Array:
    """Cubic B-spline weights [n, size] of positions counted in knots."""
    away = np.abs(at[:, None] - np.arange(size)[None, :])
    near = 2 / 3 - away**2 + away**3 / 2
    far = np.clip(2 - away, 0, None) ** 3 / 6
    return np.asarray(np.where(away < 1, near, far), dtype=np.float32)


def wandering(points: Table | Points, step_mm: float = 4.0) -> NDArray[np.float64]:
    """A smooth curve through rows of (x, y, z, radius), sampled about every step."""
    rows = np.asarray(points, dtype=float)
    lengths = np.r_[0, np.cumsum(np.linalg.norm(np.diff(rows[:, :3], axis=0), axis=1))]
    at = np.linspace(0, lengths[-1], max(int(lengths[-1] / step_mm), 2) + 1)
    return np.asarray(PchipInterpolator(lengths, rows, axis=0)(at))


def tube(points: Table | Points, flattening: float = 1.0) -> Tube:
    """A tube through rows of (x, y, z, radius)."""
    rows = wandering(points)
    return Tube(points=rows[:, :3], radii=rows[:, 3], flattening=flattening)


def section(table: Table, x: Array, y: Array, z: Array) -> Array:
    """Distance to the squarish oval that a table gives at each height."""
    rows = profile(table)(z.ravel()).astype(np.float32)[:, :, None, None]
    return oval(x, y - rows[:, 2], rows[:, 0], rows[:, 1], square=True)
