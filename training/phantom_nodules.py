"""Nodules of a generated chest: their shape, and the truth about it."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training.surfaces import Array, Point

#: Step in mm of the grid on which a drawn shape is measured.
MEASURING_STEP_MM = 0.2


@dataclass(frozen=True, kw_only=True)
class NoduleShape:
    """A ball with bumps, and spicules if it has them; radii in mm around its own centre."""

    radius_mm: float
    #: Relative heights and unit directions [n, 3] of the bumps.
    bumps: tuple[tuple[float, Point], ...] = ()
    #: Unit direction, length beyond the body (mm), radius at its foot (mm).
    spicules: tuple[tuple[Point, float, float], ...] = ()
    #: How narrow the bumps are.
    sharpness: float = 6.0

    @property
    def reach_mm(self) -> float:
        """No part lies farther from the centre."""
        x, y, z = even_directions(400).T.astype(np.float32)
        bulge = -float(self.body(x, y, z).min()) + 1
        return max([1.03 * bulge, *(self.radius_mm + length for _, length, _ in self.spicules)])

    def body(self, x: Array, y: Array, z: Array | np.float32) -> Array:
        """Distance to the surface without spicules."""
        r = np.sqrt(x * x + y * y + z * z)
        surface = np.full(r.shape, self.radius_mm, dtype=np.float32)
        for height, (ux, uy, uz) in self.bumps:
            cosine = (x * np.float32(ux) + y * np.float32(uy) + z * np.float32(uz)) / np.maximum(r, 1e-3)
            surface += np.float32(self.radius_mm * height) * np.exp((cosine - 1) * np.float32(self.sharpness))
        return np.asarray(r - surface, dtype=np.float32)

    def whole(self, x: Array, y: Array, z: Array | np.float32) -> Array:
        """Distance to the surface, spicules included."""
        distance = self.body(x, y, z)
        for (ux, uy, uz), length, foot in self.spicules:
            along = x * np.float32(ux) + y * np.float32(uy) + z * np.float32(uz)
            aside = np.sqrt(np.maximum(x * x + y * y + z * z - along * along, 0))
            reach = self.radius_mm + length
            thin = foot * np.clip((reach - along) / (length + 0.3 * self.radius_mm), 0, 1)
            distance = np.minimum(distance, np.where(along > 0, np.maximum(aside - thin, along - reach), 99))
        return np.asarray(distance, dtype=np.float32)


@dataclass(frozen=True, kw_only=True)
class Core:
    """The solid part of a part-solid nodule, off its centre."""

    shape: NoduleShape
    offset_mm: Point
    hu: float
    #: Of the ball of equal volume.
    diameter_mm: float


@dataclass(frozen=True, kw_only=True)
class PhantomNodule:
    """One drawn nodule and what is true of it."""

    shape: NoduleShape
    centre_lps_mm: Point
    texture: str
    margin: str
    location: str
    hu: float
    volume_mm3: float
    #: Diameter of the ball of equal volume.
    diameter_mm: float
    #: On the axial slice of largest area, spicules left out.
    long_axis_mm: float
    short_axis_mm: float
    core: Core | None = None

    def facts(self) -> dict[str, object]:
        """What the truth file says of it."""
        return {
            "centre_lps_mm": [round(value, 2) for value in self.centre_lps_mm],
            "diameter_mm": round(self.diameter_mm, 2),
            "volume_mm3": round(self.volume_mm3, 1),
            "long_axis_mm": round(self.long_axis_mm, 2),
            "short_axis_mm": round(self.short_axis_mm, 2),
            "core_diameter_mm": None if self.core is None else round(self.core.diameter_mm, 2),
            "texture": self.texture,
            "margin": self.margin,
            "location": self.location,
            "hu": self.hu,
        }


@dataclass(frozen=True, kw_only=True)
class NoduleKind:
    """A kind of nodule to draw: what it looks like, before chance gives it size and place."""

    texture: str
    margin: str
    hu: float
    least_diameter_mm: float
    largest_diameter_mm: float


#: The kinds in the order in which a phantom receives them.
KINDS = (
    NoduleKind(texture="solid", margin="lobulated", hu=35, least_diameter_mm=10, largest_diameter_mm=14),
    NoduleKind(texture="solid", margin="spiculated", hu=30, least_diameter_mm=14, largest_diameter_mm=19),
    NoduleKind(texture="solid", margin="smooth", hu=40, least_diameter_mm=6.5, largest_diameter_mm=9),
    NoduleKind(texture="part-solid", margin="smooth", hu=-560, least_diameter_mm=14, largest_diameter_mm=18),
)
#: Number of bumps, their least and greatest height in radii, and their sharpness, by margin.
BUMPS = {"smooth": (3, -0.15, 0.3, 3.0), "lobulated": (6, 0.35, 0.75, 7.0), "spiculated": (14, 0.1, 0.5, 14.0)}
SPICULES = 24
CORE_HU = 20.0


def random_shape(margin: str, diameter_mm: float, rng: np.random.Generator) -> NoduleShape:
    """A shape of about a diameter, with the irregularities of its margin."""
    count, lowest, highest, sharpness = BUMPS[margin]
    bumps = tuple((float(rng.uniform(lowest, highest)), direction(rng)) for _ in range(count))
    swelling = 1 + sum(height for height, _ in bumps) * (1 - np.exp(-2 * sharpness)) / (2 * sharpness)
    radius = diameter_mm / 2 / swelling
    spicules: tuple[tuple[Point, float, float], ...] = ()
    if margin == "spiculated":
        lengths = radius * rng.uniform(0.5, 1.2, size=SPICULES)
        spicules = tuple((direction(rng), float(length), float(rng.uniform(1.3, 2.2))) for length in lengths)
    return NoduleShape(radius_mm=radius, bumps=bumps, spicules=spicules, sharpness=sharpness)


def random_nodule(
    kind: NoduleKind, shape: NoduleShape, place: Point, lobe: str, rng: np.random.Generator
) -> PhantomNodule:
    """A nodule of the kind at a place (LPS mm), with its truth measured."""
    volume, long_axis, short_axis = measured(shape)
    core = None
    if kind.texture == "part-solid":
        solid = random_shape("lobulated", diameter_of(volume) * float(rng.uniform(0.4, 0.5)), rng)
        ux, uy, uz = direction(rng)
        shift = 0.2 * shape.radius_mm
        offset = (shift * ux, shift * uy, shift * uz)
        core = Core(shape=solid, offset_mm=offset, hu=CORE_HU, diameter_mm=diameter_of(measured(solid)[0]))
    return PhantomNodule(
        shape=shape, centre_lps_mm=place, texture=kind.texture, margin=kind.margin, location=lobe, hu=kind.hu,
        volume_mm3=volume, diameter_mm=diameter_of(volume), long_axis_mm=long_axis,
        short_axis_mm=short_axis, core=core,
    )  # fmt: skip


def diameter_of(volume_mm3: float) -> float:
    """Diameter in mm of the ball of a volume."""
    return float(np.cbrt(6 * volume_mm3 / np.pi))


def even_directions(count: int) -> NDArray[np.float64]:
    """Unit vectors [n, 3] spread evenly, along a spiral from pole to pole."""
    z = (2 * np.arange(count) + 1) / count - 1
    turn = np.arange(count) * np.pi * (3 - np.sqrt(5))
    ring = np.sqrt(1 - z * z)
    return np.stack([ring * np.cos(turn), ring * np.sin(turn), z], axis=1)


def direction(rng: np.random.Generator) -> Point:
    """A unit vector without preferred direction."""
    x, y, z = rng.standard_normal(3)
    length = float(np.sqrt(x * x + y * y + z * z))
    return float(x) / length, float(y) / length, float(z) / length


def measured(shape: NoduleShape) -> tuple[float, float, float]:
    """Volume (mm3), and long and short axial axis (mm), of the continuous shape."""
    reach = shape.reach_mm + MEASURING_STEP_MM
    axis = np.arange(-reach, reach + MEASURING_STEP_MM, MEASURING_STEP_MM, dtype=np.float32)
    x, y = axis[None, :], axis[:, None]
    volume, largest = 0.0, np.zeros((len(axis), len(axis)), dtype=bool)
    for height in axis:
        covered = np.clip(0.5 - shape.whole(x, y, height) / MEASURING_STEP_MM, 0, 1)
        volume += float(covered.sum(dtype=np.float64)) * MEASURING_STEP_MM**3
        body = shape.body(x, y, height) <= 0
        largest = body if body.sum() > largest.sum() else largest
    return volume, *axial_axes(np.argwhere(largest) * MEASURING_STEP_MM)


def axial_axes(places: NDArray[np.floating]) -> tuple[float, float]:
    """The greatest width of a set of places [n, 2], and the width across it, over all directions by one degree."""
    angles = np.deg2rad(np.arange(180))
    widths = np.ptp(places @ np.c_[np.cos(angles), np.sin(angles)].T, axis=0)
    widest = int(np.argmax(widths))
    return float(widths[widest]), float(widths[(widest + 90) % 180])
