"""A little study that was received into a real archive and a real index, and its one job."""

from pathlib import Path

from pydicom import dcmread
from pydicom.uid import ExplicitVRLittleEndian

from dicom_node.archive.files import Archive
from dicom_node.archive.index import Index
from dicom_node.core.job import Job, evidence_digest
from dicom_node.core.lifecycle import JobState, StudyState
from dicom_node.core.priority import Priority
from dicom_node.intake import Intake
from tests.factories import uid_for
from tests.instances import received

#: Of the series that `ct_series` writes.
STUDY = str(uid_for("ct series", "study"))


def receive(index: Index, archive: Archive, paths: list[Path], *, at: float) -> None:
    """Let the files of a series arrive."""
    intake = Intake(archive=archive, studies=index.studies, clock=lambda: at)
    for path in paths:
        intake.store(received(dcmread(path), ExplicitVRLittleEndian, association_id=None))


def queued(
    index: Index, *, at: float, study: str = STUDY, algorithm: str = "lung_nodule", job_uid: str = "2.25.1"
) -> Job:
    """Complete the study, and queue its job."""
    (series,) = index.studies.study(study).series
    index.studies.move(study, StudyState.COMPLETE, cause="", actor="test", at=at)
    job = Job(
        job_uid=job_uid,
        study_instance_uid=study,
        series_instance_uid=series.series_instance_uid,
        algorithm=algorithm,
        route="chest",
        priority=Priority.ROUTINE,
        send_to=(),
        evidence=evidence_digest(series.instances),
        state=JobState.QUEUED,
        reason="",
        attempts=0,
    )
    index.jobs.queue(study, [job], cause="", actor="test", at=at)
    return job
