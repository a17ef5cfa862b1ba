"""One study, its job, and what happens to both in tests."""

from dicom_node.archive.index import Index
from dicom_node.archive.jobs import JobRow
from dicom_node.core.attempts import Attempts
from dicom_node.core.job import Job
from dicom_node.core.lifecycle import StudyState
from tests.populated_index import (
    study_uid,
)

STUDY = study_uid("a")
#: Three attempts without a rest between them.
AT_ONCE = Attempts(maximum=3, first_wait_seconds=0.0)


def state_of(index: Index, study: str = STUDY) -> StudyState:
    return index.studies.rows(study)[0].state


def job_of(index: Index, number: int = 0) -> JobRow:
    return index.jobs.of_study(STUDY)[number]


def again(index: Index, *jobs: Job, at: float) -> list[Job]:
    """The study is complete once more, and routed to these jobs."""
    if state_of(index) is StudyState.RECEIVING:
        index.studies.move(STUDY, StudyState.COMPLETE, cause="quiet", actor="assembly", at=at)
    return index.jobs.queue(STUDY, jobs, cause="routed again", actor="assembly", at=at)


def expire(index: Index, at: float) -> list[Job]:
    return index.jobs.expire(now=at, attempts=AT_ONCE, actor="dispatch")
