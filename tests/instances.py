"""Little instances as they come over the wire: complete by default, and changed one attribute at a time."""

from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import UID, CTImageStorage, ExplicitVRLittleEndian
from pynetdicom.dsutils import encode

from dicom_node.archive.file_meta import open_data_set
from dicom_node.core.received_instance import ReceivedInstance

STUDY_UID = "1.2.826.0.1.3680043.10.1"
SERIES_UID = "1.2.826.0.1.3680043.10.1.2"


def sop_uid(number: int) -> str:
    """The SOP Instance UID of the study's instance of this number."""
    return f"{SERIES_UID}.{number}"


def ct_instance(number: int = 1, **attributes: Any) -> Dataset:
    """A CT image of 8 by 8 pixels; `attributes` by keyword replace its own, and None removes one."""
    ds = Dataset()
    ds.SOPClassUID, ds.SOPInstanceUID = CTImageStorage, sop_uid(number)
    ds.StudyInstanceUID, ds.SeriesInstanceUID = STUDY_UID, SERIES_UID
    ds.PatientName, ds.PatientID = "Secret^Patient", "SECRET-1"
    ds.ImageType, ds.Modality = ["ORIGINAL", "PRIMARY", "AXIAL"], "CT"
    ds.SeriesDescription, ds.SliceThickness, ds.InstanceNumber = "CHEST", "2.5", number
    ds.ImagePositionPatient, ds.ImageOrientationPatient = [1, 2, 2.5 * number], [1, 0, 0, 0, 1, 0]
    ds.PixelSpacing, ds.Rows, ds.Columns = [0.7, 0.8], 8, 8
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 16, 15, 1
    ds.add_new("PixelData", "OW", bytes(range(128)))
    for keyword, value in attributes.items():
        if value is None:
            delattr(ds, keyword)
        else:
            setattr(ds, keyword, value)
    return ds


def encoded(ds: Dataset, transfer_syntax: str = ExplicitVRLittleEndian) -> bytes:
    """The data set's bytes in an uncompressed transfer syntax."""
    syntax = UID(transfer_syntax)
    data = encode(ds, syntax.is_implicit_VR, syntax.is_little_endian, syntax.is_deflated)
    assert data is not None, "the test's data set cannot be encoded"
    return data


def received(ds: Dataset, transfer_syntax: str = ExplicitVRLittleEndian, **changes: Any) -> ReceivedInstance:
    """The C-STORE request that brings this data set."""
    request = ReceivedInstance(
        sop_class_uid=str(ds.get("SOPClassUID", CTImageStorage)),
        sop_instance_uid=str(ds.get("SOPInstanceUID", sop_uid(1))),
        transfer_syntax_uid=str(transfer_syntax),
        data_set=BytesIO(encoded(ds, transfer_syntax)),
        calling_ae_title="SCANNER",
        called_ae_title="TRIAGE",
        association_id="00000000-0000-4000-8000-000000000000",
    )
    return replace(request, **changes)


def write_instance(path: Path, ds: Dataset, transfer_syntax: str = ExplicitVRLittleEndian, **meta: str) -> Path:
    """Write a DICOM file; `meta` by keyword replaces what the file meta information would say of the data set."""
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = UID(transfer_syntax)
    ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID
    ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
    for keyword, value in meta.items():
        setattr(ds.file_meta, keyword, value)
    ds.save_as(path, enforce_file_format=True)
    return path


def data_set_of(path: Path) -> bytes:
    """A file's bytes behind its file meta information."""
    _, file = open_data_set(path)
    with file:
        return file.read()


def files_below(root: Path) -> list[str]:
    """Every file below a folder, relative to it."""
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())
