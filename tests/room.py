"""A room: a real archive and a real index below one folder, with what receives into them and mends them."""

import hashlib
import uuid
from pathlib import Path
from typing import Any

from dicom_node.archive.files import Archive
from dicom_node.archive.index import Index
from dicom_node.archive.jobs import ReportRow
from dicom_node.archive.studies import Added, HistoryRow
from dicom_node.core.job import Job, Lease
from dicom_node.core.lifecycle import JobState, StudyState
from dicom_node.core.priority import Priority
from dicom_node.core.uid import derived_uid
from dicom_node.intake import Intake
from dicom_node.recovery import Recovery
from tests.instances import SERIES_UID, STUDY_UID, ct_instance, received

NOW = 1_700_000_000.0

SR = "1.2.840.10008.5.1.4.1.1.88.34"


class Room:
    """What a node works on; `now` is its clock. Opening a second one over the same folder is a restart."""

    def __init__(self, folder: Path, now: float = NOW) -> None:
        self.now = now
        self.folder = folder
        self.root = folder / "archive"
        self.archive = Archive(self.root)
        self.index = Index.open(f"sqlite:///{folder / 'index.sqlite'}")
        self.intake = Intake(archive=self.archive, studies=self.index.studies, clock=self.clock)
        self.recovery = Recovery(self.archive, self.index, self.clock)

    def clock(self) -> float:
        """The time in this room."""
        return self.now

    def receive(self, *numbers: int, study: str = STUDY_UID, **attributes: Any) -> list[Added]:
        """Instances of a study arrive over one association, and are answered with success."""
        association = str(uuid.uuid4())
        self.intake.association_opened(association, "SCANNER")
        images = [self.slice(number, study, **attributes) for number in numbers]
        answers = [self.intake.store(received(image, association_id=association)) for image in images]
        self.intake.association_ended(association, "released")
        return answers

    def slice(self, number: int, study: str = STUDY_UID, **attributes: Any) -> Any:
        """One image of a study, as `receive` sends it."""
        series = SERIES_UID if study == STUDY_UID else f"{study}.2"
        uids = {"StudyInstanceUID": study, "SeriesInstanceUID": series, "SOPInstanceUID": f"{series}.{number}"}
        return ct_instance(number, **uids, **attributes)

    def paths(self, study: str = STUDY_UID) -> list[Path]:
        """Where the study's instances lie."""
        series = self.index.studies.study(study).series
        return [self.archive.path_of(i.path) for one in series for i in one.instances]

    def state(self, study: str = STUDY_UID) -> StudyState:
        """The study's state."""
        (row,) = self.index.studies.rows(study)
        return row.state

    def reason(self, study: str = STUDY_UID) -> str:
        """Why it is in its state."""
        (row,) = self.index.studies.rows(study)
        return row.reason

    def said_by(self, actor: str, study: str = STUDY_UID) -> list[str]:
        """What somebody wrote into the study's history."""
        return [line.cause for line in self.history(study) if line.actor == actor]

    def history(self, study: str = STUDY_UID) -> list[HistoryRow]:
        """The study's history."""
        return self.index.studies.history(study)

    def queue(self, study: str = STUDY_UID) -> Job:
        """The study is complete, and one job for it waits."""
        self.index.studies.move(study, StudyState.COMPLETE, cause="", actor="test", at=self.now)
        job = Job(
            job_uid=derived_uid("job", study),
            study_instance_uid=study,
            series_instance_uid=SERIES_UID,
            algorithm="lung_nodule",
            route="chest CT",
            priority=Priority.ROUTINE,
            send_to=("pacs",),
            evidence="e" * 64,
            state=JobState.QUEUED,
            reason="",
            attempts=0,
        )
        self.index.jobs.queue(study, [job], cause="", actor="test", at=self.now)
        return job

    def claim(self, job: Job, worker: str = "elsewhere:1") -> Lease:
        """A worker begins with a job."""
        claimed = self.index.jobs.claim(job.job_uid, worker=worker, lease_seconds=30, at=self.now)
        assert claimed is not None
        return claimed[1]

    def report(self, study: str = STUDY_UID) -> str:
        """The study was read, and its one object is in the archive; the object's path."""
        lease = self.claim(self.queue(study))
        uid, series = derived_uid("sr", study), derived_uid("sr series", study)
        path = self.archive.store_result(study_uid=study, series_uid=series, sop_uid=uid, data=b"report")
        row = ReportRow(
            sop_instance_uid=uid,
            series_instance_uid=series,
            sop_class_uid=SR,
            path=path,
            sha256=hashlib.sha256(b"report").hexdigest(),
        )
        self.index.jobs.report(lease, [row], summary={"result": "no nodule found"}, at=self.now)
        return path

    def reach(self, state: StudyState, study: str = STUDY_UID) -> str:
        """The study was read and its results went as far as this state; the report's path."""
        path = self.report(study)
        way = (StudyState.DELIVERED, StudyState.COMMITTED)
        for step in way[: way.index(state) + 1]:
            self.index.studies.move(study, step, cause="", actor="test", at=self.now)
        return path
