"""Which report a new one replaces: the last that a peer took, of the same route, of other evidence."""

from collections.abc import Iterator
from dataclasses import replace

import pytest

from dicom_node.archive.index import Index
from dicom_node.core.job import Job
from dicom_node.core.lifecycle import StudyState
from tests.populated_index import NOW, claim, deliver, instance, objects, report, study_uid, summary, uid

STUDY = study_uid("a")


@pytest.fixture
def index() -> Iterator[Index]:
    index = Index.open("sqlite://")
    report(index, "a", at=NOW)
    yield index
    index.close()


def job_of(index: Index, number: int = 0) -> Job:
    return index.jobs.of_study(STUDY)[number].job


def grow(index: Index, at: float, **changes: object) -> Job:
    """A late instance comes, and the study is queued again with more evidence."""
    index.studies.add_instance(instance("a", 90 + int(at - NOW), at=at))
    index.studies.move(STUDY, StudyState.COMPLETE, cause="quiet", actor="assembly", at=at + 2)
    fields = {"job_uid": uid("job", "a", at), "evidence": f"{int(at):064d}"}
    job = replace(job_of(index), **(fields | changes))
    index.jobs.queue(STUDY, [job], cause="again", actor="assembly", at=at + 2)
    return job


def offer(index: Index, at: float) -> None:
    """The peer is sent the study's reports, and its answer is lost."""
    for row in index.jobs.of_study(STUDY):
        for written in index.jobs.report_rows(row.job.job_uid):
            index.reports.offered(written.sop_instance_uid, at)


def replaced(index: Index, job: Job) -> str | None:
    """The path of what the job's report would replace."""
    return next((earlier.path for earlier in index.reports.earlier(job) if not earlier.own), None)


def test_a_first_report_replaces_none(index: Index) -> None:
    assert replaced(index, job_of(index)) is None


def test_a_report_of_more_evidence_replaces_the_one_that_a_peer_may_have(index: Index) -> None:
    offer(index, NOW + 1)
    job = grow(index, NOW + 10)
    assert replaced(index, job) == "results/a/sr.dcm"
    assert replaced(index, job_of(index)) is None
    assert [earlier.own for earlier in index.reports.earlier(job_of(index))] == [True]


def test_a_report_that_nobody_was_offered_is_not_referred_to(index: Index) -> None:
    assert replaced(index, grow(index, NOW + 10)) is None


def test_another_algorithm_replaces_nothing_of_this_one_and_another_route_does(index: Index) -> None:
    offer(index, NOW + 1)
    assert replaced(index, grow(index, NOW + 10, algorithm="another")) is None
    assert replaced(index, grow(index, NOW + 20, route="another")) == "results/a/sr.dcm"


def test_an_index_that_never_noted_what_was_offered_knows_by_what_was_accepted(index: Index) -> None:
    deliver(index, "a", at=NOW + 1)
    assert replaced(index, grow(index, NOW + 10)) == "results/a/sr.dcm"


def test_the_last_one_is_replaced(index: Index) -> None:
    offer(index, NOW + 1)
    second = grow(index, NOW + 10)
    rows = [
        replace(row, sop_instance_uid=uid("second", row.sop_instance_uid), path=f"second/{row.path}")
        for row in objects("a")
    ]
    lease = claim(index, second, at=NOW + 13)
    index.jobs.report(lease, rows, summary=summary(2), at=NOW + 20)
    offer(index, NOW + 22)
    assert replaced(index, grow(index, NOW + 30)) == "second/results/a/sr.dcm"


def test_a_report_that_is_written_again_is_still_the_one_that_a_peer_may_have(index: Index) -> None:
    offer(index, NOW + 1)
    index.jobs.ask_again(STUDY, actor="page", at=NOW + 2)
    index.jobs.queue(STUDY, [job_of(index)], cause="again", actor="assembly", at=NOW + 3)
    index.jobs.report(claim(index, job_of(index), at=NOW + 4), objects("a"), summary=summary(2), at=NOW + 5)
    assert replaced(index, grow(index, NOW + 10)) == "results/a/sr.dcm"
