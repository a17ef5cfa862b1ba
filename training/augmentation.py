"""What makes one background many scans: nodules of every density drawn in, slice profiles, kernels, noise.

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
from workers.preprocessing import GRID_MM, along_axis, interpolation_weights

Floats = NDArray[np.float32]
Mask = NDArray[np.bool_]

_SLICE_THICKNESS_MM = (1.5, 2.5, 3.0, 5.0)
_SLICE_SHARE = (0.35, 0.25, 0.15, 0.25)
_LEAST_SHOWN = 0.4  #: share of a nodule that must lie inside the lung


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """A nodule turned and scaled onto the grid: how much of each voxel it fills, and the HU it brings there."""

    share: Floats
    hu: Floats
    kind: str


def draw(shape: Shape, rng: Generator, kind: str | None = None) -> Drawn:
    """The shape in a random pose and size with the density of its kind, or of a kind drawn here."""
    scale = float(np.clip(np.exp(rng.normal(0.0, 0.18)), 0.75, 1.4))
    diameter = max(shape.diameter_mm * scale, 4.0)
    chosen = kind or _kind(shape, diameter, rng)
    if chosen == "ring":
        diameter = max(diameter, rng.uniform(7.0, 12.0))
    probability = _posed(shape.probability, diameter / shape.diameter_mm, rng)
    share = np.clip((probability - 0.5) * rng.uniform(1.0, 3.0) + 0.5, 0.0, 1.0)
    share[probability < 0.02] = 0.0
    return Drawn(share=share.astype(np.float32), hu=_density(chosen, share, rng), kind=chosen)


def _kind(shape: Shape, diameter: float, rng: Generator) -> str:
    if rng.random() < 0.08:
        return "ring"
    if shape.calcified or rng.random() < 0.02:
        return "calcified"
    if diameter >= 5.5 and rng.random() < 0.22:
        return ("ground glass", "part solid", "core")[int(rng.integers(3))]
    return "ground glass" if shape.texture <= 2 else "part solid" if shape.texture < 4 else "solid"


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
    }
    texture = ndimage.gaussian_filter(rng.normal(size=share.shape), 1.0).astype(np.float32)
    hu = rng.uniform(*ranges[kind]) + texture * rng.uniform(0.0, 180.0)
    if kind in ("ring", "core"):
        depth = ndimage.distance_transform_edt(np.pad(share > 0.5, 1), sampling=GRID_MM)[1:-1, 1:-1, 1:-1]
        wall = rng.uniform(1.5, 3.0) if kind == "ring" else rng.uniform(0.35, 0.7) * depth.max()
        inner = np.clip(depth - wall + 0.5, 0.0, 1.0)
        centre = rng.uniform(-960.0, -700.0) if kind == "ring" else rng.uniform(-120.0, 90.0)
        hu = hu * (1 - inner) + centre * inner
    return np.asarray(hu, dtype=np.float32)


def insert(hu: Floats, lung: Mask, drawn: Drawn, centre: NDArray[np.int_], taken: Mask | None = None) -> Mask | None:
    """Draw a nodule into hu, in place, where the lung is; its mask, or None (hu untouched) where it does not fit."""
    start = centre - np.array(drawn.share.shape) // 2
    low, high = np.maximum(start, 0), np.minimum(start + drawn.share.shape, hu.shape)
    here = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
    there = tuple(slice(a, b) for a, b in zip(low - start, high - start, strict=True))
    share = drawn.share[there] * lung[here]
    shown = share > 0.5
    if shown.sum() < max(6.0, _LEAST_SHOWN * (drawn.share > 0.5).sum()):
        return None
    if taken is not None and (taken[here] & shown).any():
        return None
    # A vessel that runs through tissue darker than itself stays visible; a cavity swallows it.
    hollow = (drawn.kind == "ring") & (drawn.hu[there] < -600.0)
    own = np.where(hollow, drawn.hu[there], np.maximum(hu[here], drawn.hu[there]))
    hu[here] += share * (own - hu[here])
    mask = np.zeros(hu.shape, dtype=bool)
    mask[here] = shown
    return mask


def aerate(hu: Floats, rng: Generator) -> Floats:
    """Another patient's parenchyma: the darkest tissue shifted by -60 to +90 HU."""
    return np.asarray(hu + rng.uniform(-60.0, 90.0) * np.clip((-450.0 - hu) / 300.0, 0.0, 1.0), dtype=np.float32)


def scan(hu: Floats, rng: Generator, thickness_mm: float | None = None, largest_noise_hu: float = 45.0) -> Floats:
    """The volume as a scanner would give it: thick slices, a soft or sharp kernel, noise, and back on the grid."""
    thickness = thickness_mm or float(rng.choice(_SLICE_THICKNESS_MM, p=_SLICE_SHARE))
    there, back = slice_profile(hu.shape[0], thickness, rng.uniform(0.0, 1.0))
    slices = _kernel(along_axis(there, hu, 0), rng)
    noise = rng.normal(size=slices.shape).astype(np.float32)
    grain = rng.uniform(0.0, 0.9)
    noise = ndimage.gaussian_filter(noise, (0.0, grain, grain))
    slices = slices + noise * (rng.uniform(0.0, largest_noise_hu) / max(float(noise.std()), 1e-6))
    return along_axis(back, np.asarray(slices, dtype=np.float32), 0)


def slice_profile(n: int, thickness_mm: float, phase: float) -> tuple[Floats, Floats]:
    """Weights [slice, k] of averaging over slices of a thickness, and [k, slice] of reading them back on the grid."""
    step = thickness_mm / GRID_MM[0]
    if step <= 1.0:
        same = np.eye(n, dtype=np.float32)
        return same, same
    count = int(np.ceil((n - 1) / step)) + 1
    centres = (np.arange(count) - 0.5 + phase) * step
    reach = (step + 1.0) / 2
    there = np.clip(reach - np.abs(np.clip(centres, 0, n - 1)[:, None] - np.arange(n)[None, :]), 0.0, 1.0)
    there /= there.sum(axis=1, keepdims=True)
    back = interpolation_weights(count, n, 1.0 / step, offset=float(0.5 - phase))
    return there.astype(np.float32), back


def _kernel(slices: Floats, rng: Generator) -> Floats:
    choice = rng.random()
    if choice < 0.3:
        sigma = rng.uniform(0.3, 0.9)
        return np.asarray(ndimage.gaussian_filter(slices, (0.0, sigma, sigma)), dtype=np.float32)
    if choice < 0.6:
        soft = ndimage.gaussian_filter(slices, (0.0, 1.0, 1.0))
        return np.asarray(slices + rng.uniform(0.2, 1.0) * (slices - soft), dtype=np.float32)
    return slices
