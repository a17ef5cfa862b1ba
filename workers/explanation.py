"""Explanation: a series that was not read, and the report that says why, to those who wait for its result."""

from collections.abc import Callable
from datetime import UTC, datetime

import numpy as np
from pydicom import Dataset, dcmread
from pydicom.errors import InvalidDicomError

from dicom_node.archive.files import Archive
from dicom_node.core.algorithm import AlgorithmIdentification
from dicom_node.core.errors import ArchiveUnusable, EvidenceInvalid, UnreadableInstance
from dicom_node.core.outcome import outcome_of_error
from dicom_node.core.uid import derived_uid
from workers.pipe import Explain, ReceivedImage, ReportObject
from workers.reporting.evidence import Evidence
from workers.reporting.report import build_unread_report
from workers.volume import Volume
from workers.writing import with_all_predecessors, written_objects

UNKNOWN = "unknown"


def explain(
    request: Explain, algorithm: AlgorithmIdentification, archive: Archive, beat: Callable[[str], None]
) -> tuple[ReportObject, ...]:
    """The report on why a series was not read, in every form; its evidence is what was received, readable or not.

    Raises EvidenceInvalid where not one file can be read: without a header nobody knows whose report it is.
    """
    beat("explaining")
    evidence = Evidence(
        volume=_received(request, archive),
        algorithm=algorithm,
        evidence=request.series.evidence,
        completed_at=datetime.fromtimestamp(request.series.completed_at, UTC),
        was_read=False,
    )
    outcome = outcome_of_error(request.error, request.reason)
    evidence = with_all_predecessors(evidence, outcome, request.earlier, archive)
    return written_objects(build_unread_report(evidence, outcome, request.forms), evidence)


def unknown_algorithm(name: str) -> AlgorithmIdentification:
    """An algorithm that was asked for and of which nothing but the name is known: its bundle cannot be used."""
    return AlgorithmIdentification(
        name=name,
        version=UNKNOWN,
        manufacturer=UNKNOWN,
        device_uid=derived_uid("algorithm", name, UNKNOWN),
        checksum=UNKNOWN,
    )


def _received(request: Explain, archive: Archive) -> Volume:
    """A volume without voxels; the first header is a whole one, of the others only their names are known."""
    for place, (image, file) in enumerate(zip(request.instances, request.series.files, strict=True)):
        header = _header(request, image, file.sha256, archive)
        if header is not None:
            others = (*request.instances[:place], *request.instances[place + 1 :])
            headers = (header, *(_named(request, other) for other in others))
            nothing = np.zeros((0, 0, 0), dtype=np.float32)
            return Volume(voxels=nothing, affine=np.eye(4), spacing_mm=(0.0, 0.0, 0.0), headers=headers)
    if not archive.holds_studies():
        raise ArchiveUnusable("the archive that this worker looks into is empty; see its mount")
    raise EvidenceInvalid("no file of the series can be read, and so nobody can be told whose study was not read")


def _header(request: Explain, image: ReceivedImage, sha256: str, archive: Archive) -> Dataset | None:
    """The header of an image whose file is as it was received, or None."""
    try:
        archive.verify(image.path, sha256)
        header = dcmread(archive.path_of(image.path), stop_before_pixels=True)
    except (UnreadableInstance, InvalidDicomError, FileNotFoundError):
        return None
    expected = (request.series.study_instance_uid, image.sop_instance_uid)
    return header if (header.get("StudyInstanceUID"), header.get("SOPInstanceUID")) == expected else None


def _named(request: Explain, image: ReceivedImage) -> Dataset:
    ds = Dataset()
    ds.SOPClassUID, ds.SOPInstanceUID = image.sop_class_uid, image.sop_instance_uid
    ds.StudyInstanceUID = request.series.study_instance_uid
    ds.SeriesInstanceUID = request.series.series_instance_uid
    return ds
