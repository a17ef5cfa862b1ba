"""A volume written out as one DICOM series: CT Image Storage in HU, or MR Image Storage in raw intensities.

`python -m training.ct_series IMAGE.nrrd OUTDIR` turns an NRRD volume into a series that a node can receive.
"""

import argparse
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, CTImageStorage, ExplicitVRLittleEndian, MRImageStorage
from pydicom.valuerep import format_number_as_ds

from training.nrrd_volume import Vector, read_nrrd

#: Stored value 0 of a CT; air, and the least HU that is written.
CT_INTERCEPT = -1024
#: Largest HU that twelve stored bits hold; a volume above it is stored in sixteen.
CT_TWELVE_BIT_MAXIMUM = 3071


class UnwritableVolume(ValueError):
    """The volume has no faithful form as a series of parallel slices."""


@dataclass(frozen=True, kw_only=True)
class Patient:
    """Who the series says was scanned; nobody, unmistakably."""

    patient_id: str = "PHANTOM-0001"
    patient_name: str = "PHANTOM^CHEST"
    birth_date: date = date(1961, 4, 12)
    sex: str = "O"

    def age_on(self, day: date) -> str:
        """The Age String (AS) on a day, in whole years."""
        had_birthday = (day.month, day.day) >= (self.birth_date.month, self.birth_date.day)
        return f"{day.year - self.birth_date.year - (not had_birthday):03d}Y"


@dataclass(frozen=True, kw_only=True)
class Scan:
    """What the scanner says about the series."""

    modality: str = "CT"
    body_part: str = "CHEST"
    study_description: str = "CT CHEST SAMPLE"
    series_description: str = "CHEST 2.0 LUNG"
    accession_number: str = "PHANTOM0001"
    convolution_kernel: str = "B45"
    kvp: float = 120.0
    series_number: int = 2
    #: None: as thick as the slices are far apart.
    slice_thickness_mm: float | None = None


@dataclass(frozen=True, kw_only=True)
class Identity:
    """The UIDs of a series: fresh ones, or the same ones for the same seed."""

    study_uid: UID
    series_uid: UID
    frame_of_reference_uid: UID
    #: Names the instances; a UID of this series alone.
    instance_root: uuid.UUID

    @classmethod
    def from_seed(cls, seed: str | None, study_uid: str | None = None, series_uid: str | None = None) -> "Identity":
        """UIDs derived from a seed (None: from chance), each replaceable by a given one."""
        root = uuid.uuid4() if seed is None else uuid.uuid5(uuid.NAMESPACE_OID, seed)
        series = UID(series_uid) if series_uid else uid_of(root, "series")
        return cls(
            study_uid=UID(study_uid) if study_uid else uid_of(root, "study"),
            series_uid=series,
            frame_of_reference_uid=uid_of(root, "frame of reference"),
            instance_root=uuid.uuid5(root, series),
        )


def uid_of(root: uuid.UUID, name: str) -> UID:
    """The UID of a named thing under a root, in the 2.25 arc (PS3.5 Annex B.2)."""
    return UID(f"2.25.{uuid.uuid5(root, name).int}")


def write_ct_series(
    hu: NDArray[np.int16],
    *,
    spacing_mm: Vector,
    folder: Path,
    origin_mm: Vector = (0.0, 0.0, 0.0),
    directions: tuple[Vector, Vector] = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0)),
    patient: Patient | None = None,
    scan: Scan | None = None,
    study_uid: str | None = None,
    series_uid: str | None = None,
    acquired_at: datetime | None = None,
    uid_seed: str | None = None,
) -> list[Path]:
    """Write voxels [k, j, i] as one file a slice and return the paths by Instance Number.

    `spacing_mm` is (dz, dy, dx); `origin_mm` is the LPS centre of voxel (0, 0, 0); `directions` are the unit vectors of
    growing i and growing j. Slices advance along their cross product, so with the default directions k grows to the
    head, while Instance Number grows to the feet as scanners count. CT values below -1024 are written as -1024.
    An earlier series of the same writer in the folder is replaced.
    """
    patient, scan = patient or Patient(), scan or Scan()
    moment = acquired_at or datetime.now()
    identity = Identity.from_seed(uid_seed, study_uid, series_uid)
    template = series_template(patient, scan, identity, moment)
    add_plane(template, hu.shape[1:], spacing_mm, directions, scan)
    stored, bits = stored_values(hu, scan.modality)
    add_pixel_format(template, scan.modality, bits)
    normal = np.cross(directions[0], directions[1])
    folder.mkdir(parents=True, exist_ok=True)
    for left_over in folder.glob(f"{scan.modality}[0-9][0-9][0-9][0-9][0-9].dcm"):
        left_over.unlink()
    paths = []
    for number, k in enumerate(reversed(range(len(stored))), start=1):
        position = np.asarray(origin_mm) + k * spacing_mm[0] * normal
        image = slice_of(template, stored[k], position, number, uid_of(identity.instance_root, f"slice {k}"))
        path = folder / f"{scan.modality}{number:05d}.dcm"
        image.save_as(path, enforce_file_format=True)
        paths.append(path)
    return paths


def series_template(patient: Patient, scan: Scan, identity: Identity, moment: datetime) -> Dataset:
    """The attributes that every instance of the series shares, without pixels and plane."""
    day, clock = f"{moment:%Y%m%d}", f"{moment:%H%M%S}"
    ds = Dataset()
    ds.SpecificCharacterSet = "ISO_IR 100"
    ds.SOPClassUID = {"CT": CTImageStorage, "MR": MRImageStorage}[scan.modality]
    ds.StudyDate = ds.SeriesDate = ds.AcquisitionDate = ds.ContentDate = day
    ds.StudyTime = ds.SeriesTime = ds.AcquisitionTime = ds.ContentTime = clock
    ds.AccessionNumber = scan.accession_number
    ds.Modality = scan.modality
    ds.Manufacturer = "Synthetic"
    ds.ManufacturerModelName = "Sample study writer"
    ds.SoftwareVersions = "1"
    ds.ReferringPhysicianName = ""
    ds.StudyDescription = scan.study_description
    ds.SeriesDescription = scan.series_description
    ds.PatientName = patient.patient_name
    ds.PatientID = patient.patient_id
    ds.PatientBirthDate = f"{patient.birth_date:%Y%m%d}"
    ds.PatientSex = patient.sex
    ds.PatientAge = patient.age_on(moment.date())
    ds.BodyPartExamined = scan.body_part
    ds.PatientPosition = "HFS"
    ds.StudyInstanceUID = identity.study_uid
    ds.SeriesInstanceUID = identity.series_uid
    ds.FrameOfReferenceUID = identity.frame_of_reference_uid
    ds.PositionReferenceIndicator = ""
    ds.StudyID = "1"
    ds.SeriesNumber = scan.series_number
    ds.AcquisitionNumber = 1
    {"CT": add_ct_acquisition, "MR": add_mr_acquisition}[scan.modality](ds, scan)
    return ds


def add_ct_acquisition(ds: Dataset, scan: Scan) -> None:
    """The CT Image Module's own attributes (PS3.3 C.8.2.1)."""
    ds.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    ds.KVP = format_number_as_ds(scan.kvp)
    ds.ConvolutionKernel = scan.convolution_kernel
    ds.GantryDetectorTilt = "0"
    ds.WindowCenter, ds.WindowWidth = ["-600", "40"], ["1500", "400"]
    ds.WindowCenterWidthExplanation = ["LUNG", "SOFT TISSUE"]


def add_mr_acquisition(ds: Dataset, scan: Scan) -> None:
    """The MR Image Module's own attributes (PS3.3 C.8.3.1), as of a plain spin echo."""
    ds.ImageType = ["ORIGINAL", "PRIMARY", "OTHER"]
    ds.ScanningSequence, ds.SequenceVariant, ds.ScanOptions = "SE", "NONE", ""
    ds.MRAcquisitionType, ds.RepetitionTime, ds.EchoTime, ds.EchoTrainLength = "2D", "500", "15", 1


def add_plane(
    ds: Dataset, shape: Sequence[int], spacing_mm: Vector, directions: tuple[Vector, Vector], scan: Scan
) -> None:
    """Rows, columns, spacing and orientation of every slice; refuses directions that are no unit axes."""
    basis = np.asarray(directions, dtype=float)
    if not np.allclose(basis @ basis.T, np.eye(2), atol=1e-4):
        raise UnwritableVolume(f"directions {directions} are no orthogonal unit vectors; normalise them first")
    ds.Rows, ds.Columns = int(shape[0]), int(shape[1])
    ds.PixelSpacing = [exact(spacing_mm[1]), exact(spacing_mm[2])]
    ds.ImageOrientationPatient = [exact(value) for value in basis.ravel()]
    ds.SliceThickness = exact(scan.slice_thickness_mm or spacing_mm[0])
    if scan.modality == "MR":
        ds.SpacingBetweenSlices = exact(spacing_mm[0])


def stored_values(voxels: NDArray[np.int16], modality: str) -> tuple[NDArray[np.uint16], int]:
    """Voxels as unsigned stored values, and the number of bits they take."""
    if modality == "CT":
        bits = 12 if int(voxels.max()) <= CT_TWELVE_BIT_MAXIMUM else 16
        return (np.maximum(voxels, CT_INTERCEPT).astype(np.int32) - CT_INTERCEPT).astype(np.uint16), bits
    if int(voxels.min()) < 0:
        raise UnwritableVolume("MR intensities below 0 have no unsigned form; shift them before writing")
    return voxels.astype(np.uint16), 16


def add_pixel_format(ds: Dataset, modality: str, bits: int) -> None:
    """How stored values are to be read."""
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, bits, bits - 1, 0
    if modality == "CT":
        ds.RescaleIntercept, ds.RescaleSlope, ds.RescaleType = str(CT_INTERCEPT), "1", "HU"


def slice_of(
    template: Dataset, pixels: NDArray[np.uint16], position: NDArray[np.float64], number: int, uid: UID
) -> Dataset:
    """One instance: the template with its own UID, position and pixels."""
    ds = Dataset(template)
    ds.SOPInstanceUID = uid
    ds.InstanceNumber = number
    ds.ImagePositionPatient = [exact(value) for value in position]
    normal = np.cross(*np.reshape([float(v) for v in ds.ImageOrientationPatient], (2, 3)))
    ds.SliceLocation = exact(float(normal @ position))
    ds.PixelData = pixels.astype("<u2").tobytes()
    ds["PixelData"].VR = "OW"
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.file_meta.MediaStorageSOPClassUID = template.SOPClassUID
    ds.file_meta.MediaStorageSOPInstanceUID = uid
    return ds


def exact(value: float) -> str:
    """A Decimal String of at most 16 characters, free of the last digits' binary noise."""
    return format_number_as_ds(round(float(value), 9) + 0.0)


def main(arguments: Sequence[str] | None = None) -> None:
    """Write an NRRD volume as a DICOM series."""
    parser = argparse.ArgumentParser(prog="python -m training.ct_series", description=main.__doc__)
    parser.add_argument("image", type=Path, help="NRRD volume: HU for CT, intensities for MR")
    parser.add_argument("folder", type=Path, help="where the series goes")
    parser.add_argument("--modality", choices=("CT", "MR"), default="CT")
    parser.add_argument("--body-part", default=None, help="Body Part Examined (default: CHEST for CT, BRAIN for MR)")
    parser.add_argument("--uid-seed", default=None, help="the same seed gives the same UIDs (default: fresh UIDs)")
    chosen = parser.parse_args(arguments)
    volume = read_nrrd(chosen.image)
    name = chosen.image.name.split(".")[0].split("_")[0].upper()[:12]
    body_part = chosen.body_part or {"CT": "CHEST", "MR": "BRAIN"}[chosen.modality]
    scan = replace(
        Scan(),
        modality=chosen.modality,
        body_part=body_part,
        study_description=f"{chosen.modality} {body_part} SAMPLE",
        series_description=f"FROM NRRD {name}",
        accession_number=f"SAMPLE{name}"[:16],
    )
    paths = write_ct_series(
        volume.voxels,
        spacing_mm=volume.spacing_mm,
        origin_mm=volume.origin_mm,
        directions=volume.directions,
        folder=chosen.folder,
        patient=Patient(patient_id=f"SAMPLE-{name}", patient_name=f"SAMPLE^{name}"),
        scan=scan,
        uid_seed=chosen.uid_seed,
    )
    print(f"{len(paths)} {chosen.modality} instances in {chosen.folder}")


if __name__ == "__main__":
    main()
