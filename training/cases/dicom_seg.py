"""CT series with Segmentation objects (PS3.3 A.51) that refer to them, anywhere below a folder.

Each connected part of each segment is a finding. A segmentation lies wherever its frames say, in whatever order and
direction; it must be on the voxels of its series.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.pixels.utils import pixel_array

from training.cases.case import Affine, Case, DatasetInvalid, in_case
from training.cases.dicom_series import read_series, series_in
from training.cases.label_map import annotations

#: How far, in voxels, a segmentation's voxels may lie from those of its series.
_OFF_GRID = 0.25


def recognises(folder: Path) -> bool:
    """Whether the folder is laid out so."""
    return any(files[0][1].get("Modality") == "SEG" for files in series_in(folder).values())


def read(folder: Path) -> Iterator[Case]:
    """Every CT series that a segmentation refers to, by its UID; one in memory at a time."""
    series = series_in(folder)
    segmentations = {
        path: _referenced(path) for files in series.values() for path, ds in files if ds.get("Modality") == "SEG"
    }
    for path, uid in segmentations.items():
        if uid not in series:
            raise DatasetInvalid(f"{path} segments series {uid}, which is not here: put its DICOM files below {folder}")
    for uid in sorted(set(segmentations.values())):
        files = series[uid]
        case, _ = read_series([path for path, _ in files], str(files[0][1].get("PatientID", "")))
        found = [
            finding
            for path, of in segmentations.items()
            if of == uid
            for finding in _findings(path, case.voxels.shape, case.affine)
        ]
        yield in_case(case, tuple(found), folder)


def _referenced(path: Path) -> str:
    ds = pydicom.dcmread(path, specific_tags=["ReferencedSeriesSequence"])
    if len(ds.get("ReferencedSeriesSequence") or ()) != 1:
        raise DatasetInvalid(f"{path} does not say of which one series it is: it needs one Referenced Series")
    return str(ds.ReferencedSeriesSequence[0].SeriesInstanceUID)


def _findings(path: Path, shape: tuple[int, ...], affine: Affine) -> Iterator[Any]:
    ds = pydicom.dcmread(path)
    names = {int(item.SegmentNumber): str(item.get("SegmentLabel", "")) for item in ds.SegmentSequence}
    for number, mask in _masks(ds, path, shape, affine).items():
        yield from annotations(mask.astype(np.int32) * number, affine, names)


def _masks(ds: pydicom.Dataset, path: Path, shape: tuple[int, ...], affine: Affine) -> Mapping[int, NDArray[np.bool_]]:
    """The voxels of each segment on the grid of its series; segments may overlap."""
    pixels = pixel_array(ds).reshape(-1, int(ds.Rows), int(ds.Columns))
    masks: dict[int, NDArray[np.bool_]] = {}
    for frame, values in zip(ds.PerFrameFunctionalGroupsSequence, pixels, strict=True):
        to_series = np.linalg.inv(affine) @ _plane(ds, frame, path)
        for number, marked in _segments(ds, frame, values, path):
            j, i = np.nonzero(marked)
            if not len(i):
                continue
            mask = masks.setdefault(number, np.zeros(shape, dtype=bool))
            _mark(mask, to_series @ np.stack([i, j, np.zeros(len(i)), np.ones(len(i))]), path)
    return masks


def _segments(
    ds: pydicom.Dataset, frame: pydicom.Dataset, values: NDArray[Any], path: Path
) -> Iterator[tuple[int, NDArray[np.bool_]]]:
    """The segments of a frame by number, each with the pixels that are its."""
    kind = str(ds.get("SegmentationType", "BINARY"))
    if kind == "LABELMAP":
        yield from ((int(number), values == number) for number in np.unique(values) if number)
        return
    half = int(ds.get("MaximumFractionalValue", 255)) / 2 if kind == "FRACTIONAL" else 0
    said = _group(ds, frame, "SegmentIdentificationSequence", path)
    yield int(said.ReferencedSegmentNumber), np.asarray(values > half)


def _plane(ds: pydicom.Dataset, frame: pydicom.Dataset, path: Path) -> Affine:
    """(column, row, 0, 1) of a frame to LPS mm (PS3.3 C.7.6.2.1.1)."""
    cosines = _group(ds, frame, "PlaneOrientationSequence", path).ImageOrientationPatient
    row, column = np.array([float(value) for value in cosines]).reshape(2, 3)
    dy, dx = (float(value) for value in _group(ds, frame, "PixelMeasuresSequence", path).PixelSpacing)
    plane = np.eye(4)
    plane[:3, 0], plane[:3, 1], plane[:3, 2] = row * dx, column * dy, np.cross(row, column)
    place = _group(ds, frame, "PlanePositionSequence", path).ImagePositionPatient
    plane[:3, 3] = [float(value) for value in place]
    return plane


def _group(ds: pydicom.Dataset, frame: pydicom.Dataset, name: str, path: Path) -> pydicom.Dataset:
    """What a frame says in a functional group, or all frames together do."""
    for groups in (frame, ds.SharedFunctionalGroupsSequence[0]):
        if groups.get(name):
            item: pydicom.Dataset = groups.get(name)[0]
            return item
    raise DatasetInvalid(f"{path}: a frame has no {name}, so its place or segment is unknown; write it again")


def _mark(mask: NDArray[np.bool_], places: NDArray[np.float64], path: Path) -> None:
    voxels = np.round(places[:3]).astype(int)
    if np.abs(places[:3] - voxels).max() > _OFF_GRID:
        raise DatasetInvalid(f"{path}: its pixels are not those of its series; resample it onto the series")
    i, j, k = voxels
    if (voxels < 0).any() or (voxels >= np.array(mask.shape[::-1])[:, None]).any():
        raise DatasetInvalid(f"{path} reaches beyond its series: is a part of the series missing?")
    mask[k, j, i] = True
