"""Lines and plates in the lung, drawn with partial volume: vessels, spicules, plugs, scars.

All places are (k, j, i) in mm from voxel 0 of the shared grid; a share is how much of a voxel something fills, 0..1.
"""

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from workers.preprocessing import GRID_MM

Floats = NDArray[np.float32]
Points = NDArray[np.float64]

#: Width over which a surface fades: about one voxel.
_EDGE_MM = 1.0
_STEP_MM = 3.0


def direction(rng: Generator) -> Points:
    """A unit vector without preferred direction."""
    drawn = rng.standard_normal(3)
    return np.asarray(drawn / np.linalg.norm(drawn))


def across(along: Points, rng: Generator) -> Points:
    """A unit vector at right angles to another."""
    other = np.cross(along, direction(rng))
    return np.asarray(other / max(float(np.linalg.norm(other)), 1e-9))


def course(start_mm: Points, along: Points, length_mm: float, rng: Generator, bend: float = 0.15) -> Points:
    """Points [n, 3] of a line that sets out in a direction and bends a little at each step."""
    count = max(2, round(length_mm / _STEP_MM) + 1)
    points, heading = [np.asarray(start_mm, dtype=float)], np.asarray(along, dtype=float)
    turn = across(heading, rng) * rng.uniform(0, bend)
    for _ in range(count - 1):
        heading = heading + turn + rng.normal(0, bend / 4, 3)
        heading = heading / np.linalg.norm(heading)
        points.append(points[-1] + heading * length_mm / (count - 1))
    return np.array(points)


def stroke(shape: tuple[int, ...], points_mm: Points, radii_mm: Points) -> Floats:
    """The share [k, j, i] that round cones along a line fill; what is thinner than a voxel keeps its cross-section."""
    share = np.zeros(shape, dtype=np.float32)
    grid = np.array(GRID_MM)
    for start, end, first, last in zip(points_mm[:-1], points_mm[1:], radii_mm[:-1], radii_mm[1:], strict=True):
        reach = max(first, last) + _EDGE_MM
        low = np.clip(np.floor((np.minimum(start, end) - reach) / grid), 0, shape).astype(int)
        high = np.clip(np.ceil((np.maximum(start, end) + reach) / grid) + 1, 0, shape).astype(int)
        if (low >= high).any():
            continue
        box = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
        away, along = _from_segment(low, high, start, end)
        radius = first + (last - first) * along
        kept = radius**2 / (radius**2 + _EDGE_MM**2 / 12)
        np.maximum(share[box], np.clip(0.5 - (away - radius) / _EDGE_MM, 0, 1) * kept, out=share[box])
    return share


def plate(shape: tuple[int, ...], centre_mm: Points, axes: Points, half_mm: Points) -> Floats:
    """The share that a thin, rounded plate fills: its half sizes along three axes [3, 3] at right angles."""
    places = np.stack(np.meshgrid(*(np.arange(n) * mm for n, mm in zip(shape, GRID_MM, strict=True)), indexing="ij"))
    along = np.tensordot(axes, places - np.asarray(centre_mm)[:, None, None, None], axes=1)
    half = np.asarray(half_mm)[:, None, None, None]
    # 1 on the surface; divided by how fast it grows, the way to the surface.
    level, slope = np.linalg.norm(along / half, axis=0), np.linalg.norm(along / half**2, axis=0)
    distance = np.where(slope > 1e-6, level * (level - 1) / np.maximum(slope, 1e-6), -float(np.min(half_mm)))
    return np.clip(0.5 - distance / _EDGE_MM, 0, 1).astype(np.float32)


def lay(hu: Floats, share: Floats, value: Floats | float) -> None:
    """Draw into hu, in place, what is no darker than what is there."""
    hu += share * (np.maximum(hu, value) - hu)


def _from_segment(
    low: NDArray[np.int_], high: NDArray[np.int_], start: Points, end: Points
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Of each voxel of a box: the distance from a segment, and how far along that it is (0..1)."""
    axes = [np.arange(a, b) * mm for a, b, mm in zip(low, high, GRID_MM, strict=True)]
    offset = [axis - s for axis, s in zip(np.ix_(*axes), start, strict=True)]
    step = end - start
    along = sum(o * s for o, s in zip(offset, step, strict=True)) / max(float(step @ step), 1e-9)
    along = np.clip(along, 0.0, 1.0)
    away = np.sqrt(sum((o - along * s) ** 2 for o, s in zip(offset, step, strict=True)))
    return away, along
