"""LUNA16: `subset*/UID.mhd` with annotations.csv, and candidates and irrelevant findings where they are.

Coordinates are LPS mm ("world coordinates"). The layout names no patients: a scan stands for its patient, unless
patients.csv (seriesuid, patient) tells; a few patients of LIDC-IDRI were scanned twice.
"""

import csv
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from training.cases.case import Annotation, Case, DatasetInvalid, Point, in_case, patient_hash
from training.cases.image_file import read_image
from workers.volume import LOWEST_HU

ANNOTATIONS = "annotations.csv"
IRRELEVANT = "annotations_excluded.csv"
CANDIDATES = ("candidates_V2.csv", "candidates.csv")
PATIENTS = "patients.csv"

Row = Mapping[str, str]


def recognises(folder: Path) -> bool:
    """Whether the folder is laid out so."""
    return (folder / ANNOTATIONS).is_file() and next(folder.rglob("*.mhd"), None) is not None


def read(folder: Path) -> Iterator[Case]:
    """Its scans by name, with and without nodules; one in memory at a time."""
    nodules = _by_series(folder / ANNOTATIONS)
    irrelevant = _by_series(folder / IRRELEVANT)
    candidates = next((_by_series(folder / name) for name in CANDIDATES if (folder / name).is_file()), {})
    patients = {uid: rows[0]["patient"] for uid, rows in _by_series(folder / PATIENTS).items()}
    scans = {path.stem: path for path in sorted(folder.rglob("*.mhd"))}
    if not any(uid in scans for uid in nodules):
        raise DatasetInvalid(f"{folder / ANNOTATIONS} names no scan that is here: unpack subset0 to subset9 beside it")
    for uid, path in scans.items():
        voxels, affine = read_image(path)
        case = Case(
            name=uid,
            patient=patient_hash(patients.get(uid, uid)),
            voxels=np.maximum(voxels.astype(np.float32), np.float32(LOWEST_HU)),
            affine=affine,
            findings=(),
            irrelevant=tuple(_annotation(row, folder / IRRELEVANT) for row in irrelevant.get(uid, ())),
            candidates=tuple(
                (_place(row, folder), _number(row, "class", folder) > 0) for row in candidates.get(uid, ())
            ),
        )
        found = tuple(_annotation(row, folder / ANNOTATIONS) for row in nodules.get(uid, ()))
        yield in_case(case, found, folder / ANNOTATIONS)


def _by_series(path: Path) -> Mapping[str, list[Row]]:
    rows: dict[str, list[Row]] = defaultdict(list)
    if path.is_file():
        with path.open(newline="") as file:
            for row in csv.DictReader(file):
                if "seriesuid" not in row:
                    raise DatasetInvalid(f"{path} has no column seriesuid: fetch it again")
                rows[row["seriesuid"]].append(row)
    return rows


def _annotation(row: Row, path: Path) -> Annotation:
    diameter = _number(row, "diameter_mm", path) if row.get("diameter_mm") else 0.0
    return Annotation(centre_mm=_place(row, path), diameter_mm=max(0.0, diameter))


def _place(row: Row, path: Path) -> Point:
    return _number(row, "coordX", path), _number(row, "coordY", path), _number(row, "coordZ", path)


def _number(row: Row, column: str, path: Path) -> float:
    try:
        return float(row[column])
    except (KeyError, TypeError, ValueError):
        raise DatasetInvalid(f"{path}: no number {column} for series {row['seriesuid']}; mend that line") from None
