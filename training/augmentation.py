"""What makes one background many scans: nodules of every density drawn in, slice profiles, kernels, noise.

A nodule's kind follows the readers' rating of texture, with the rare kinds drawn more often than they are: solid,
ground glass, part solid (a veil with a solid core, or of a density in between), calcified, rings and cavities.

All arrays are HU on the shared grid, [k, j, i]; every function draws from the generator it is given, and from nothing
else.
"""

from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial.transform import Rotation

from training.shapes import Shape
from training.strokes import course, direction, lay, stroke
from workers.preprocessing import GRID_MM, along_axis, interpolation_weights

Floats = NDArray[np.float32]
Mask = NDArray[np.bool_]

_SLICE_THICKNESS_MM = (1.5, 2.5, 3.0, 5.0)
_SLICE_SHARE = (0.35, 0.25, 0.15, 0.25)
#: Voxels to every side in which a nodule finds what it hangs on.
_TETHERED = (18, 26, 26)
_LEAST_SHOWN = 0.4  #: share of a nodule that must lie inside the lung


#: HU of the inner part of the kinds that have one, and how thick the wall around air is.
_INNER = {"ring": (-960.0, -700.0), "cavity": (-980.0, -800.0), "core": (-120.0, 90.0)}
_WALLS_MM = {"ring": (1.5, 3.0), "cavity": (2.5, 5.0)}
#: What has air inside is at least so wide: below, nobody sees the air.
_LEAST_HOLLOW_MM = {"ring": (7.0, 12.0), "cavity": (11.0, 16.0)}


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """A nodule turned and scaled onto the grid: how much of each voxel it fills, and the HU it brings there."""

    share: Floats
    hu: Floats
    kind: str
    #: The share without spicules: what readers outline.
    body: Floats


def draw(shape: Shape, rng: Generator, kind: str | None = None, scale: float | None = None) -> Drawn:
    """The shape in a random pose with the density of its kind, or of a kind drawn here; in its size, or one drawn."""
    if scale is None:
        scale = float(np.clip(np.exp(rng.normal(0.0, 0.18)), 0.75, 1.4))
    diameter = max(shape.diameter_mm * scale, 4.0)
    chosen = kind or _kind(shape, diameter, rng)
    if chosen in _LEAST_HOLLOW_MM:
        diameter = max(diameter, rng.uniform(*_LEAST_HOLLOW_MM[chosen]))
    probability = _posed(shape.probability, diameter / shape.diameter_mm, rng)
    share = np.clip((probability - 0.5) * rng.uniform(1.0, 3.0) + 0.5, 0.0, 1.0)
    share[probability < 0.02] = 0.0
    body = share.astype(np.float32)
    if rng.random() < (shape.spiculation - 1.0) / 4.0:
        share, body = _spiculated(body, diameter, rng)
    return Drawn(share=share.astype(np.float32), hu=_density(chosen, share, rng), kind=chosen, body=body)


def _spiculated(body: Floats, diameter_mm: float, rng: Generator) -> tuple[Floats, Floats]:
    """The share with spicules, in a box that holds them, and the body's in the same box."""
    reach_mm = 0.5 * diameter_mm * rng.uniform(0.5, 1.1)
    margin = np.ceil(reach_mm / np.array(GRID_MM)).astype(int)
    body = np.pad(body, [(int(m), int(m)) for m in margin])
    centre = (np.array(body.shape) - 1) / 2 * GRID_MM
    spicules = np.zeros_like(body)
    for _ in range(int(rng.integers(6, 18))):
        points = course(centre, direction(rng), 0.5 * diameter_mm + reach_mm * rng.uniform(0.5, 1.0), rng, 0.05)
        np.maximum(spicules, stroke(body.shape, points, np.linspace(1.6, 0.3, len(points))), out=spicules)
    return np.maximum(body, spicules), body


def _kind(shape: Shape, diameter: float, rng: Generator) -> str:
    if rng.random() < 0.08:
        return "ring"
    if diameter >= 11.0 and rng.random() < 0.06:
        return "cavity"
    if shape.calcified or rng.random() < 0.02:
        return "calcified"
    if diameter >= 5.5 and rng.random() < 0.22:
        return ("ground glass", "part solid", "core")[int(rng.integers(3))]
    if shape.texture <= 2:
        return "ground glass"
    if shape.texture < 4:
        return "core" if rng.random() < 0.6 else "part solid"
    return "solid"


def _posed(probability: NDArray[np.uint8], scale: float, rng: Generator) -> Floats:
    """Probability 0..1 turned about its centre and read at the grid's spacing."""
    turn = Rotation.random(rng=rng).as_matrix()
    reach = 0.5 * float(np.linalg.norm(np.array(probability.shape) - 4)) * scale
    size = (2 * np.ceil(reach / np.array(GRID_MM)) + 1).astype(int)
    matrix = turn @ np.diag(GRID_MM) / scale
    middle = (np.array(probability.shape) - 1) / 2
    offset = middle - matrix @ ((size - 1) / 2)
    turned = ndimage.affine_transform(
        probability.astype(np.float32) / 255, matrix, offset=offset, output_shape=tuple(size), order=1
    )
    occupied = ndimage.find_objects((turned > 0.02).astype(np.int8))
    return np.asarray(turned[occupied[0]] if occupied else turned, dtype=np.float32)


def _density(kind: str, share: Floats, rng: Generator) -> Floats:
    """HU of the nodule's own tissue, with a slow texture inside."""
    ranges = {
        "solid": (-120.0, 90.0),
        "part solid": (-480.0, -120.0),
        "ground glass": (-680.0, -430.0),
        "core": (-680.0, -430.0),
        "calcified": (150.0, 600.0),
        "ring": (-420.0, 60.0),
        "cavity": (-100.0, 80.0),
    }
    texture = ndimage.gaussian_filter(rng.normal(size=share.shape), 1.0).astype(np.float32)
    hu = rng.uniform(*ranges[kind]) + texture * rng.uniform(0.0, 180.0)
    if kind in _INNER:
        depth = ndimage.distance_transform_edt(np.pad(share > 0.5, 1), sampling=GRID_MM)[1:-1, 1:-1, 1:-1]
        wall = rng.uniform(*_WALLS_MM[kind]) if kind in _WALLS_MM else rng.uniform(0.35, 0.7) * depth.max()
        # The inner part is no copy of the outer one, nor does it lie in its middle.
        uneven = ndimage.gaussian_filter(rng.standard_normal(share.shape), 2.0)
        wall = wall * (1 + 0.3 * uneven / max(float(uneven.std()), 1e-9)) if kind != "ring" else wall
        inner = np.clip(depth - wall + 0.5, 0.0, 1.0)
        hu = hu * (1 - inner) + rng.uniform(*_INNER[kind]) * inner
    return np.asarray(hu, dtype=np.float32)


def insert(hu: Floats, lung: Mask, drawn: Drawn, centre: NDArray[np.int_], taken: Mask | None = None) -> Mask | None:
    """Draw a nodule into hu, in place, where the lung is; its mask, or None (hu untouched) where it does not fit."""
    start = centre - np.array(drawn.share.shape) // 2
    low, high = np.maximum(start, 0), np.minimum(start + drawn.share.shape, hu.shape)
    here = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
    there = tuple(slice(a, b) for a, b in zip(low - start, high - start, strict=True))
    # Against the wall no gap is left; what is denser there stays.
    share = drawn.share[there] * ndimage.binary_dilation(lung[here])
    shown = (drawn.body[there] > 0.5) & lung[here]
    if shown.sum() < max(6.0, _LEAST_SHOWN * (drawn.body > 0.5).sum()):
        return None
    if taken is not None and (taken[here] & shown).any():
        return None
    # A vessel that runs through tissue darker than itself stays visible; a cavity swallows it.
    hollow = (drawn.kind in _WALLS_MM) & (drawn.hu[there] < -600.0)
    own = np.where(hollow & lung[here], drawn.hu[there], np.maximum(hu[here], drawn.hu[there]))
    hu[here] += share * (own - hu[here])
    mask = np.zeros(hu.shape, dtype=bool)
    mask[here] = shown
    return mask


def tether(hu: Floats, lung: Mask, centre: NDArray[np.int_], rng: Generator) -> None:
    """Draw, in place, what a nodule may hang on: a vessel that leads to it, or a tail to the pleura."""
    low = np.maximum(centre - _TETHERED, 0)
    box = tuple(slice(a, b + r + 1) for a, b, r in zip(low, centre, _TETHERED, strict=True))
    here, inside, start = hu[box], lung[box], (centre - low) * np.array(GRID_MM)
    to_vessel = rng.random() < 0.7
    ends = np.argwhere(inside & (here > -400.0) if to_vessel else ~inside) * np.array(GRID_MM)
    away = np.linalg.norm(ends - start, axis=1)
    ends, away = ends[(away > 6.0) & (away < 26.0)], away[(away > 6.0) & (away < 26.0)]
    if not len(ends):
        return
    chosen = int(rng.integers(len(ends))) if to_vessel else int(away.argmin())
    points = course(start, (ends[chosen] - start) / away[chosen], float(away[chosen]), rng, 0.04)
    radii = np.linspace(*((rng.uniform(0.7, 1.2), rng.uniform(1.0, 2.0)) if to_vessel else (0.9, 0.5)), len(points))
    lay(here, stroke(here.shape, points, radii) * inside, rng.uniform(10.0, 60.0))


def aerate(hu: Floats, rng: Generator) -> Floats:
    """Another patient's parenchyma: the darkest tissue shifted by -60 to +90 HU."""
    return np.asarray(hu + rng.uniform(-60.0, 90.0) * np.clip((-450.0 - hu) / 300.0, 0.0, 1.0), dtype=np.float32)


@dataclass(frozen=True, kw_only=True)
class Slices:
    """What a scanner gives of a volume on the grid, and where along k that lies."""

    #: HU [slice, j, i].
    hu: Floats
    #: Where the first slice's centre lies, and how far the next one is, in voxels of the grid.
    first: float
    step: float


def scan(hu: Floats, rng: Generator, thickness_mm: float | None = None, largest_noise_hu: float = 45.0) -> Floats:
    """As `scanned`, and back on the grid."""
    slices = scanned(hu, rng, thickness_mm, largest_noise_hu)
    return on_grid(slices, len(hu))


def on_grid(slices: Slices, n: int) -> Floats:
    """Slices read at n levels of the grid."""
    if slices.step <= 1.0:
        return slices.hu
    back = interpolation_weights(len(slices.hu), n, 1.0 / slices.step, offset=-slices.first / slices.step)
    return along_axis(back.astype(np.float32), slices.hu, 0)


def scanned(hu: Floats, rng: Generator, thickness_mm: float | None = None, largest_noise_hu: float = 45.0) -> Slices:
    """The volume as a scanner would give it: thick slices, a soft or sharp kernel, noise."""
    thickness = thickness_mm or float(rng.choice(_SLICE_THICKNESS_MM, p=_SLICE_SHARE))
    there, first = slice_profile(hu.shape[0], thickness, rng.uniform(0.0, 1.0))
    slices = _kernel(along_axis(there, hu, 0), rng)
    noise = rng.normal(size=slices.shape).astype(np.float32)
    grain = rng.uniform(0.0, 0.9)
    noise = ndimage.gaussian_filter(noise, (0.0, grain, grain))
    slices = slices + noise * (rng.uniform(0.0, largest_noise_hu) / max(float(noise.std()), 1e-6))
    return Slices(hu=np.asarray(slices, dtype=np.float32), first=first, step=max(1.0, thickness / GRID_MM[0]))


def slice_profile(n: int, thickness_mm: float, phase: float) -> tuple[Floats, float]:
    """Weights [slice, k] of averaging over slices of a thickness, and the level k of the first one's centre."""
    step = thickness_mm / GRID_MM[0]
    if step <= 1.0:
        return np.eye(n, dtype=np.float32), 0.0
    count = int(np.ceil((n - 1) / step)) + 1
    centres = (np.arange(count) - 0.5 + phase) * step
    reach = (step + 1.0) / 2
    there = np.clip(reach - np.abs(np.clip(centres, 0, n - 1)[:, None] - np.arange(n)[None, :]), 0.0, 1.0)
    there /= there.sum(axis=1, keepdims=True)
    return there.astype(np.float32), float((phase - 0.5) * step)


def _kernel(slices: Floats, rng: Generator) -> Floats:
    choice = rng.random()
    if choice < 0.3:
        sigma = rng.uniform(0.3, 0.9)
        return np.asarray(ndimage.gaussian_filter(slices, (0.0, sigma, sigma)), dtype=np.float32)
    if choice < 0.6:
        soft = ndimage.gaussian_filter(slices, (0.0, 1.0, 1.0))
        return np.asarray(slices + rng.uniform(0.2, 1.0) * (slices - soft), dtype=np.float32)
    return slices
