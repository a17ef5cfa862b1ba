"""What looks like a nodule and is none, drawn into lungs: crossings, plugs, fissures, rib ends, scars, pleural caps.

Each draws into hu [k, j, i] in place, where the lung is, about a place; nothing of it is labelled.
"""

from collections.abc import Callable, Mapping

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from scipy import ndimage

from training.strokes import across, course, direction, lay, plate, stroke
from workers.preprocessing import GRID_MM

Floats = NDArray[np.float32]
Mask = NDArray[np.bool_]
Place = NDArray[np.int_]
Lookalike = Callable[[Floats, Mask, Place, Generator], None]

#: So far beyond the pleura the chest wall is at least so dense; an airway is not.
_WALL_MM, _WALL_FROM_HU = 5.0, -200.0
#: Voxels to every side of a place within which something is drawn.
_REACH = (22, 32, 32)


def vessel_crossing(hu: Floats, lung: Mask, at: Place, rng: Generator) -> None:
    """Two or three vessels that meet: in one slice a dot, in space lines."""
    value = rng.uniform(20.0, 70.0) if rng.random() < 0.6 else rng.uniform(120.0, 250.0)
    for _ in range(int(rng.integers(2, 4))):
        along, middle = direction(rng), at * np.array(GRID_MM)
        radius = rng.uniform(0.8, 2.2)
        for sense in (1, -1):
            points = course(middle, sense * along, rng.uniform(12.0, 30.0), rng)
            lay(hu, stroke(hu.shape, points, np.linspace(radius, 0.3 * radius, len(points))) * lung, value)


def mucus_plug(hu: Floats, lung: Mask, at: Place, rng: Generator) -> None:
    """A bronchus filled with mucus: a tube that forks, blunt at its ends, several times as long as wide."""
    along, start = direction(rng), at * np.array(GRID_MM)
    radius, value = rng.uniform(1.3, 3.2), rng.uniform(-20.0, 60.0)
    stem = course(start, along, radius * rng.uniform(4.0, 8.0), rng, 0.08)
    lay(hu, stroke(hu.shape, stem, np.full(len(stem), radius)) * lung, value)
    for sense in (1, -1)[: int(rng.integers(0, 3))]:
        branch = along + sense * 0.6 * across(along, rng)
        points = course(stem[-1], branch / np.linalg.norm(branch), radius * rng.uniform(3.0, 6.0), rng, 0.08)
        lay(hu, stroke(hu.shape, points, np.full(len(points), 0.85 * radius)) * lung, value)


def thick_fissure(hu: Floats, lung: Mask, at: Place, rng: Generator) -> None:
    """A piece of a fissure, thick enough to be seen."""
    normal = direction(rng)
    first = across(normal, rng)
    axes = np.array([normal, first, np.cross(normal, first)])
    half = np.array([rng.uniform(0.5, 1.1), rng.uniform(15.0, 30.0), rng.uniform(15.0, 30.0)])
    lay(hu, plate(hu.shape, at * np.array(GRID_MM), axes, half) * lung, rng.uniform(-650.0, -150.0))


def scar(hu: Floats, lung: Mask, at: Place, rng: Generator) -> None:
    """A band with strands, as after an inflammation."""
    normal = direction(rng)
    first = across(normal, rng)
    axes = np.array([normal, first, np.cross(normal, first)])
    half = np.array([rng.uniform(0.8, 1.8), rng.uniform(2.5, 6.0), rng.uniform(9.0, 20.0)])
    centre, value = at * np.array(GRID_MM), rng.uniform(-300.0, 40.0)
    lay(hu, plate(hu.shape, centre, axes, half) * lung, value)
    for _ in range(int(rng.integers(1, 4))):
        start = centre + axes[2] * rng.uniform(-0.8, 0.8) * half[2]
        points = course(start, direction(rng), rng.uniform(6.0, 16.0), rng)
        lay(hu, stroke(hu.shape, points, np.linspace(1.0, 0.3, len(points))) * lung, value)


def rib_end(hu: Floats, lung: Mask, at: Place, rng: Generator) -> None:
    """The end of a rib that dents the lung: a low, broad bump on the pleura, with bone in it."""
    outward = _outward(lung, at)
    if outward is None or _beyond(hu, at, outward) < _WALL_FROM_HU:
        return
    radius = rng.uniform(6.0, 12.0)
    centre = at * np.array(GRID_MM) + outward * (radius - rng.uniform(1.0, 3.0))
    value = rng.uniform(60.0, 450.0)
    lay(hu, plate(hu.shape, centre, np.eye(3), np.full(3, radius)) * _with_pleura(lung), value)


def pleural_cap(hu: Floats, lung: Mask, at: Place, rng: Generator) -> None:
    """Pleura thickened over some centimetres, most in the middle, as over the apices."""
    depth = ndimage.distance_transform_edt(np.pad(lung, 1, mode="edge"), sampling=GRID_MM)[1:-1, 1:-1, 1:-1]
    places = np.meshgrid(*(np.arange(n) * mm for n, mm in zip(hu.shape, GRID_MM, strict=True)), indexing="ij")
    away = sum((axis - a * mm) ** 2 for axis, a, mm in zip(places, at, GRID_MM, strict=True))
    waves = ndimage.gaussian_filter(rng.standard_normal(hu.shape), 4.0)
    thickness = rng.uniform(2.0, 6.0) * np.exp(-away / (2 * rng.uniform(8.0, 16.0) ** 2))
    thickness = thickness * (1 + 0.35 * waves / max(float(waves.std()), 1e-9))
    share = np.clip(thickness - depth + 0.5, 0, 1).astype(np.float32)
    lay(hu, share * _with_pleura(lung), rng.uniform(-120.0, 50.0))


#: By name; those that lie at the pleura need a place there.
LOOKALIKES: Mapping[str, Lookalike] = {
    "vessel crossing": vessel_crossing,
    "mucus plug": mucus_plug,
    "thick fissure": thick_fissure,
    "scar": scar,
    "rib end": rib_end,
    "pleural cap": pleural_cap,
}
PLEURAL = ("rib end", "pleural cap")


def draw_lookalike(name: str, hu: Floats, lung: Mask, at: Place, rng: Generator) -> None:
    """Draw one by name about a voxel; of a large volume only its surroundings are touched."""
    low = np.maximum(at - _REACH, 0)
    box = tuple(slice(a, b + r + 1) for a, b, r in zip(low, at, _REACH, strict=True))
    LOOKALIKES[name](hu[box], lung[box], at - low, rng)


def _beyond(hu: Floats, at: Place, outward: NDArray[np.float64]) -> float:
    """HU a little way out from a place at the pleura."""
    place = np.round(at + outward * _WALL_MM / np.array(GRID_MM)).astype(int)
    return float(hu[tuple(np.clip(place, 0, np.array(hu.shape) - 1))])


def _with_pleura(lung: Mask) -> Mask:
    """The lung and the voxels that it shares with the wall: what lies against the wall leaves no gap."""
    return np.asarray(ndimage.binary_dilation(lung, iterations=2))


def _outward(lung: Mask, at: Place) -> NDArray[np.float64] | None:
    """The unit vector from a place in the lung to its pleura; None where there is none near."""
    near = np.argwhere(~lung)
    if not len(near):
        return None
    away = (near - at) * np.array(GRID_MM)
    nearest = away[int((away**2).sum(axis=1).argmin())]
    length = float(np.linalg.norm(nearest))
    return nearest / length if length > 0 else None
