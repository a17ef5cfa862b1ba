"""Reader-rating estimate: how readers of LIDC-IDRI would have rated a nodule of this shape, and how sure that is.

Fitted on whether their mean rating of malignancy was above or below the middle. It is no probability of cancer: nobody
knew what the nodules were. A bundle that was fitted to what became of patients says so in its metadata, and then it is
one. Only shape goes in, measured on cubes of 1 mm for training and serving alike.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import ConvexHull, QhullError
from skimage.measure import marching_cubes, mesh_surface_area

from workers.preprocessing import Spacing, resample
from workers.volume import Region

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

_CUBE_MM: Spacing = (1.0, 1.0, 1.0)
#: A mask is softened so far before its surface is measured, that its steps are not taken for spicules.
_SMOOTHING_MM = 0.7
#: Smaller ones have no shape apart from their voxels.
_FEWEST_CUBES = 14
#: Readers outlined on slices up to so thick; across thicker ones a shape is mostly steps.
_THICKEST_MM = 3.1
#: Deviations from the mean nodule that it was fitted to, of any feature. Farther off, as noise that was outlined is,
#: it was fitted to nothing alike: 27 of the 1125 nodules that were measured for it are.
_FARTHEST = 4.0
#: Ends of the interval that is told.
_LOW, _HIGH = 0.05, 0.95


@dataclass(frozen=True, kw_only=True)
class _Body:
    """A nodule on cubes of 1 mm, and its smoothed surface."""

    mask: Mask
    volume_mm3: float
    surface_mm2: float
    #: Volume of the smallest body without dents that holds the surface.
    hull_mm3: float
    #: Deviations along the three main axes, the largest first, mm.
    axes_mm: Array
    #: Distance of the surface from the middle, by corner of the mesh.
    reaches_mm: Array


#: What is measured, by name; lengths and volumes as logarithms.
FEATURES: Mapping[str, Callable[[_Body], float]] = MappingProxyType(
    {
        "log volume": lambda body: float(np.log(body.volume_mm3)),
        "log longest extent": lambda body: float(np.log(2 * body.reaches_mm.max())),
        "sphericity": lambda body: float(np.pi ** (1 / 3) * (6 * body.volume_mm3) ** (2 / 3) / body.surface_mm2),
        "dents": lambda body: 1 - min(1.0, body.volume_mm3 / body.hull_mm3),
        "elongation": lambda body: float(body.axes_mm[1] / body.axes_mm[0]),
        "flatness": lambda body: float(body.axes_mm[2] / body.axes_mm[0]),
        "spikes": lambda body: float(np.percentile(body.reaches_mm, 98) / np.median(body.reaches_mm)),
        "unevenness": lambda body: float(body.reaches_mm.std() / body.reaches_mm.mean()),
    }
)


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """What readers would have said, and between what it may lie."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class ReaderEstimate:
    """A logistic function of the features, and others of the same kind, each fitted to other patients."""

    centre: tuple[float, ...]
    scale: tuple[float, ...]
    #: Of each member: a weight for each feature, then the constant; the first is fitted to all patients.
    members: tuple[tuple[float, ...], ...]

    def __call__(self, features: Array) -> Estimate:
        """The estimate for the features of one nodule."""
        scaled = np.append((features - np.array(self.centre)) / np.array(self.scale), 1.0)
        said = 1 / (1 + np.exp(-(np.array(self.members) @ scaled)))
        low, high = np.quantile(said[1:], (_LOW, _HIGH)) if len(said) > 1 else (said[0], said[0])
        return Estimate(value=float(said[0]), low=float(min(low, said[0])), high=float(max(high, said[0])))

    def knows(self, features: Array) -> bool:
        """Whether it was fitted to nodules like the one with these features."""
        return bool((np.abs(features - np.array(self.centre)) <= _FARTHEST * np.array(self.scale)).all())

    @classmethod
    def from_json(cls, entry: Mapping[str, Any]) -> "ReaderEstimate":
        """That of a bundle; ValueError where it was fitted to other features."""
        if list(entry.get("features", ())) != list(FEATURES):
            raise ValueError(f"features are {entry.get('features')}; this software measures {list(FEATURES)}")
        return cls(
            centre=_numbers(entry["centre"]),
            scale=_numbers(entry["scale"]),
            members=tuple(_numbers(member) for member in entry["members"]),
        )


def features_of(region: Region, spacing_mm: Spacing) -> Array | None:
    """The features of a nodule's outline on a series; None where it, or what it was seen on, shows none."""
    if spacing_mm[0] > _THICKEST_MM:
        return None
    padded = np.pad(region.mask, 1).astype(np.float32)
    return features(resample(padded, spacing_mm, _CUBE_MM))


def features(share: NDArray[np.floating]) -> Array | None:
    """The features of a nodule of which the share of each cube of 1 mm is given; None where it is too small."""
    body = _body(np.pad(np.asarray(share, dtype=np.float32), 3))
    return None if body is None else np.array([measure(body) for measure in FEATURES.values()])


def _body(share: NDArray[np.float32]) -> _Body | None:
    labels, count = ndimage.label(share >= 0.5)
    if count == 0:
        return None
    largest = labels == 1 + int(np.argmax(np.bincount(labels.ravel())[1:]))
    if largest.sum() < _FEWEST_CUBES:
        return None
    soft = ndimage.gaussian_filter(np.where(largest, share, np.minimum(share, 0.49)), _SMOOTHING_MM)
    if float(soft.max()) <= 0.5:
        return None
    corners, faces, _, _ = marching_cubes(soft, 0.5)
    places = np.argwhere(largest)
    try:
        hull = float(ConvexHull(corners).volume)
        axes = np.sqrt(np.maximum(np.linalg.eigvalsh(np.cov(places.T)), 0.05)[::-1])
    except (QhullError, np.linalg.LinAlgError):
        return None
    return _Body(
        mask=largest,
        volume_mm3=float((soft > 0.5).sum()),
        surface_mm2=float(mesh_surface_area(corners, faces)),
        hull_mm3=hull,
        axes_mm=axes,
        reaches_mm=np.linalg.norm(corners - corners.mean(axis=0), axis=1),
    )


def in_words(estimates: Sequence[tuple[int, Estimate]], outcomes: str = "") -> str:
    """One sentence for a report; empty where nothing was estimated. `outcomes`: what it was fitted to, if to those."""
    if not estimates:
        return ""
    each = ", ".join(f"nodule {n} {e.value:.2f} ({e.low:.2f} to {e.high:.2f})" for n, e in estimates)
    if outcomes:
        return f"Probability of cancer from shape alone, fitted to outcomes ({outcomes}), with 90 % interval: {each}."
    return f"Reader-rating estimate from shape alone, not a probability of cancer, with 90 % interval: {each}."


def _numbers(values: Sequence[Any]) -> tuple[float, ...]:
    return tuple(float(value) for value in values)
