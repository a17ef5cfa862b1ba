"""Rejections: what the rejection notes among a study's results say was taken back, for an index that forgot it."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from pydicom import Dataset, dcmread
from pydicom.errors import InvalidDicomError

from dicom_node.archive.checksum import sha256_of
from dicom_node.archive.files import Archive
from dicom_node.archive.job_rows import ReportRow
from dicom_node.core.codes import REJECTED_FOR_QUALITY, REJECTED_FOR_SAFETY

#: Key Object Selection Document Storage (PS3.6 Table A-1).
_KEY_OBJECT_SELECTION = "1.2.840.10008.5.1.4.1.1.88.59"
#: Key Object Description (PS3.16 TID 2010).
_DESCRIPTION = "113012"
_TITLES = (REJECTED_FOR_QUALITY.value, REJECTED_FOR_SAFETY.value)


@dataclass(frozen=True, kw_only=True)
class RejectedObject:
    """A result that lies in the archive and was taken back."""

    row: ReportRow
    #: That wrote it.
    algorithm: str
    written_at: float


@dataclass(frozen=True, kw_only=True)
class Rejection:
    """What one rejection note says."""

    safety: bool
    reason: str
    #: When the note's file was written.
    noted_at: float
    sop_instance_uids: frozenset[str]


def read_rejections(archive: Archive, paths: Iterable[str]) -> tuple[list[Rejection], list[RejectedObject]]:
    """The rejection notes among the result files of one study, the first first, and what lies there of the rejected."""
    found = {path: ds for path in paths if (ds := _read(archive.path_of(path))) is not None}
    notes = [_rejection(ds, archive.path_of(path)) for path, ds in found.items() if _is_note(ds)]
    rejected = {uid for note in notes for uid in note.sop_instance_uids}
    objects = [_object(ds, archive, path) for path, ds in found.items() if ds.SOPInstanceUID in rejected]
    return sorted(notes, key=lambda note: note.noted_at), objects


def _read(path: Path) -> Dataset | None:
    """A result without its pixels; None where it is none, or lacks its name."""
    try:
        ds = dcmread(path, stop_before_pixels=True)
    except (OSError, InvalidDicomError):
        return None
    return ds if "SOPInstanceUID" in ds and "SOPClassUID" in ds else None


def _is_note(ds: Dataset) -> bool:
    return ds.SOPClassUID == _KEY_OBJECT_SELECTION and _title(ds) in _TITLES


def _title(ds: Dataset) -> str:
    return next((str(code.get("CodeValue", "")) for code in ds.get("ConceptNameCodeSequence", [])), "")


def _rejection(ds: Dataset, path: Path) -> Rejection:
    texts = (str(item.get("TextValue", "")) for item in ds.get("ContentSequence", []) if _title(item) == _DESCRIPTION)
    return Rejection(
        safety=_title(ds) == REJECTED_FOR_SAFETY.value,
        reason=next(texts, ""),
        noted_at=path.stat().st_mtime,
        sop_instance_uids=frozenset(_references(ds)),
    )


def _references(ds: Dataset) -> Iterator[str]:
    for study in ds.get("CurrentRequestedProcedureEvidenceSequence", []):
        for series in study.get("ReferencedSeriesSequence", []):
            for reference in series.get("ReferencedSOPSequence", []):
                yield str(reference.ReferencedSOPInstanceUID)


def _object(ds: Dataset, archive: Archive, path: str) -> RejectedObject:
    file = archive.path_of(path)
    with file.open("rb") as content:
        sha256 = sha256_of(content)
    row = ReportRow(
        sop_instance_uid=str(ds.SOPInstanceUID),
        series_instance_uid=str(ds.SeriesInstanceUID),
        sop_class_uid=str(ds.SOPClassUID),
        path=path,
        sha256=sha256,
    )
    algorithm = str(ds.get("ManufacturerModelName") or "")
    return RejectedObject(row=row, algorithm=algorithm, written_at=file.stat().st_mtime)
