"""Rejection: the note that tells who holds a result that a person took it back."""

from collections.abc import Callable
from datetime import UTC, datetime

from pydicom import Dataset, dcmread
from pydicom.errors import InvalidDicomError

from dicom_node.archive.files import Archive
from dicom_node.core.errors import ArchiveUnusable, UnreadableInstance
from workers.pipe import Reject, ReportObject
from workers.reporting.passage import check_note
from workers.reporting.rejection_note import Rejection, build_rejection_note
from workers.writing import sent_as


def reject(request: Reject, archive: Archive, beat: Callable[[str], None]) -> tuple[ReportObject, ...]:
    """The rejection note over some results that lie in the archive; UnreadableInstance where one does not."""
    beat("writing a rejection note")
    objects = [_result(archive, path) for path in request.paths]
    rejection = Rejection(
        safety=request.safety,
        reason=request.reason,
        asked_at=datetime.fromtimestamp(request.asked_at, UTC),
        number=request.number,
    )
    return (sent_as(check_note(build_rejection_note(rejection, objects), objects)),)


def _result(archive: Archive, path: str) -> Dataset:
    """A result without its pixels."""
    try:
        return dcmread(archive.path_of(path), stop_before_pixels=True)
    except (FileNotFoundError, InvalidDicomError) as error:
        if not archive.holds_studies():
            raise ArchiveUnusable("the archive that this worker looks into is empty; see its mount") from error
        raise UnreadableInstance("a result that was withdrawn is not in the archive any more") from error
