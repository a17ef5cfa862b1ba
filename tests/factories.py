"""Little studies for tests: complete by default, and changed one attribute at a time."""

import copy
import uuid
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import UID, CTImageStorage, EnhancedCTImageStorage, ExplicitVRLittleEndian
from pydicom.valuerep import format_number_as_ds

Vector = tuple[float, float, float]

HEADFIRST_SUPINE: tuple[Vector, Vector] = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0))
#: Columns and rows turned about two axes at once: nothing about such a series is axis-aligned.
OBLIQUE: tuple[Vector, Vector] = ((0.8, 0.6, 0.0), (-0.36, 0.48, 0.8))
#: Value of every voxel unless a test says otherwise: lung.
LUNG_HU = -850
INTERCEPT = -1024


def uid_for(*parts: object) -> UID:
    """The UID that always follows from the same parts."""
    return UID(f"2.25.{uuid.uuid5(uuid.NAMESPACE_OID, '/'.join(map(str, parts))).int}")


def ct_series(
    folder: Path,
    *,
    slices: int = 12,
    rows: int = 32,
    columns: int | None = None,
    spacing: Vector = (2.5, 0.8, 0.7),
    origin: Vector = (-110.5, -140.25, 33.0),
    directions: tuple[Vector, Vector] = HEADFIRST_SUPINE,
    voxels: NDArray[np.generic] | None = None,
    missing: Collection[int] = (),
    seed: str = "ct series",
    **attributes: Any,
) -> list[Path]:
    """Write a conformant CT series and return its paths, by k.

    `voxels` are HU [k, j, i] and set slices, rows and columns; `spacing` is (dz, dy, dx) in mm; `origin` is the LPS
    centre of voxel (0, 0, 0); `directions` are the unit vectors of growing i and growing j, and k grows along their
    cross product. Slices whose k is in `missing` are not written. `attributes` by keyword replace what every instance
    would have; None removes it. The same `seed` gives the same UIDs.
    """
    hu = np.full((slices, rows, columns or rows), LUNG_HU) if voxels is None else np.asarray(voxels)
    stored = (np.round(hu).astype(np.int32) - INTERCEPT).clip(0, 4095).astype("<u2")
    normal = np.cross(*directions)
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for k in range(len(stored)):
        if k in missing:
            continue
        ds = ct_image(stored[k], spacing=spacing, directions=directions, seed=seed)
        _place(ds, np.asarray(origin) + k * spacing[0] * normal, len(stored) - k, seed)
        _replace(ds, attributes)
        ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID
        ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
        path = folder / f"{ds.SOPInstanceUID}.dcm"
        ds.save_as(path, enforce_file_format=True)
        paths.append(path)
    return paths


def enhanced_ct(
    folder: Path,
    *,
    spacing: Vector = (2.5, 0.8, 0.7),
    origin: Vector = (-110.5, -140.25, 33.0),
    directions: tuple[Vector, Vector] = HEADFIRST_SUPINE,
    voxels: NDArray[np.generic] | None = None,
    shared: bool = True,
    seed: str = "enhanced ct",
    **attributes: Any,
) -> list[Path]:
    """Write the series that `ct_series` would write as one Enhanced CT instance, and return its path.

    Frames stand in falling order of k. `shared` puts orientation, pixel measures and rescaling once for all frames,
    otherwise each frame has them.
    """
    hu = np.full((12, 32, 32), LUNG_HU) if voxels is None else np.asarray(voxels)
    stored = (np.round(hu).astype(np.int32) - INTERCEPT).clip(0, 4095).astype("<u2")
    normal = np.cross(*directions)
    ds = ct_image(stored[0], spacing=spacing, directions=directions, seed=seed)
    common = functional_groups(ds)
    ds.SOPClassUID = EnhancedCTImageStorage
    ds.SOPInstanceUID, ds.InstanceNumber, ds.NumberOfFrames = uid_for(seed, "image", 1), 1, len(stored)
    ds.SharedFunctionalGroupsSequence = [common if shared else Dataset()]
    ds.PerFrameFunctionalGroupsSequence = []
    for k in reversed(range(len(stored))):
        groups = Dataset() if shared else copy.deepcopy(common)
        position = Dataset()
        place = np.asarray(origin) + k * spacing[0] * normal
        position.ImagePositionPatient = [_decimal(value) for value in place]
        groups.PlanePositionSequence = [position]
        ds.PerFrameFunctionalGroupsSequence.append(groups)
    ds.add_new("PixelData", "OW", stored[::-1].tobytes())
    _replace(ds, attributes)
    ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID
    ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{ds.SOPInstanceUID}.dcm"
    ds.save_as(path, enforce_file_format=True)
    return [path]


def functional_groups(ds: Dataset) -> Dataset:
    """What a single-frame image says of its plane and its values, moved into functional groups."""
    groups = Dataset()
    for name, keywords in (
        ("PixelMeasuresSequence", ("PixelSpacing", "SliceThickness")),
        ("PlaneOrientationSequence", ("ImageOrientationPatient",)),
        ("PixelValueTransformationSequence", ("RescaleIntercept", "RescaleSlope", "RescaleType")),
    ):
        group = Dataset()
        for keyword in keywords:
            group[keyword] = ds[keyword]
            del ds[keyword]
        setattr(groups, name, [group])
    return groups


def ct_image(stored: NDArray[np.uint16], *, spacing: Vector, directions: tuple[Vector, Vector], seed: str) -> Dataset:
    """One CT image of stored values [j, i], twelve bits, without identity and place."""
    ds = Dataset()
    ds.SpecificCharacterSet = "ISO_IR 100"
    ds.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    ds.SOPClassUID = CTImageStorage
    ds.StudyDate = ds.SeriesDate = ds.AcquisitionDate = ds.ContentDate = "20240229"
    ds.StudyTime = ds.SeriesTime = ds.AcquisitionTime = ds.ContentTime = "101500"
    ds.AccessionNumber, ds.StudyID, ds.ReferringPhysicianName = "ACC-1", "1", "Referrer^Rita"
    ds.Modality, ds.StudyDescription, ds.SeriesDescription = "CT", "CT CHEST", "CHEST 2.5 LUNG"
    ds.Manufacturer, ds.ManufacturerModelName, ds.SoftwareVersions = "Factory", "Little scanner", "1.0"
    ds.DeviceSerialNumber, ds.StationName, ds.InstitutionName = "SN-1", "CT1", "Test hospital"
    ds.PatientName, ds.PatientID = "Test^Tess", "TEST-1"
    ds.PatientBirthDate, ds.PatientSex, ds.PatientAge = "19610412", "F", "062Y"
    ds.BodyPartExamined, ds.PatientPosition = "CHEST", "HFS"
    ds.StudyInstanceUID, ds.SeriesInstanceUID = uid_for(seed, "study"), uid_for(seed, "series")
    ds.FrameOfReferenceUID, ds.PositionReferenceIndicator = uid_for(seed, "frame of reference"), ""
    ds.SeriesNumber, ds.AcquisitionNumber = 2, 1
    ds.KVP, ds.ConvolutionKernel, ds.GantryDetectorTilt = "120", "B45", "0"
    ds.SliceThickness = _decimal(spacing[0])
    ds.PixelSpacing = [_decimal(spacing[1]), _decimal(spacing[2])]
    ds.ImageOrientationPatient = [_decimal(value) for direction in directions for value in direction]
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.Rows, ds.Columns = stored.shape
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 12, 11, 0
    ds.RescaleIntercept, ds.RescaleSlope, ds.RescaleType = str(INTERCEPT), "1", "HU"
    ds.add_new("PixelData", "OW", stored.tobytes())
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    return ds


def _place(ds: Dataset, position: NDArray[np.float64], number: int, seed: str) -> None:
    """Where an image lies and what it is called; scanners count from the head, so numbers fall as k grows."""
    ds.ImagePositionPatient = [_decimal(value) for value in position]
    ds.InstanceNumber = number
    ds.SOPInstanceUID = uid_for(seed, "image", number)


def _replace(ds: Dataset, attributes: dict[str, Any]) -> None:
    for keyword, value in attributes.items():
        if value is None:
            ds.pop(keyword, None)
        else:
            setattr(ds, keyword, copy.deepcopy(value))


def _decimal(value: float) -> str:
    """A Decimal String of at most 16 characters, free of the last digits' binary noise."""
    return format_number_as_ds(round(float(value), 9) + 0.0)
