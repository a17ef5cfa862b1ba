"""Studies with several jobs, and work that is asked for again."""

from dataclasses import replace

import pytest

from dicom_node.archive.index import Index
from dicom_node.core.attempts import Attempts
from dicom_node.core.errors import IllegalTransition, UnknownStudy
from dicom_node.core.form import Form
from dicom_node.core.job import Job
from dicom_node.core.lifecycle import JobState, StudyState
from tests.job_of_a_study import STUDY, again, job_of, state_of
from tests.populated_index import (
    NOW,
    claim,
    complete,
    instance,
    objects,
    queue,
    receive,
    report,
    study_uid,
    summary,
    uid,
)


def two_jobs(index: Index) -> tuple[Job, Job]:
    first = queue(index, "b", at=NOW)  # for its fields
    complete(index, "a", at=NOW)
    jobs = [
        replace(
            first, job_uid=uid("job", n), study_instance_uid=STUDY, series_instance_uid=uid("series", "a", 2), route=n
        )
        for n in ("one", "two")
    ]
    again(index, *jobs, at=NOW)
    return jobs[0], jobs[1]


def test_a_study_with_two_jobs_is_reported_with_its_last(index: Index) -> None:
    one, two = two_jobs(index)
    index.jobs.report(claim(index, one, at=NOW), objects("one"), summary=summary(1), at=NOW + 1)
    assert state_of(index) is StudyState.QUEUED
    lease = claim(index, two, at=NOW + 2)
    assert state_of(index) is StudyState.READING
    index.jobs.end(lease, JobState.NOT_APPLICABLE, reason="not its kind", at=NOW + 3)
    assert state_of(index) is StudyState.REPORTED
    assert {u for u, *_ in index.deliveries.unplanned()} == {row.sop_instance_uid for row in objects("one")}


def test_two_jobs_of_a_study_that_fall_silent_together_fail_together(index: Index) -> None:
    for job in two_jobs(index):
        claim(index, job, at=NOW)
    index.jobs.expire(now=NOW + 31, attempts=Attempts(maximum=1), actor="dispatch")
    assert [job_of(index, n).job.state for n in (0, 1)] == [JobState.FAILED, JobState.FAILED]
    assert state_of(index) is StudyState.FAILED


def test_work_already_reported_is_not_done_again(index: Index) -> None:
    report(index, "a", at=NOW)
    job = job_of(index).job
    index.studies.add_instance(instance("a", 99, at=NOW + 1, series=7))
    assert again(index, replace(job, state=JobState.QUEUED), at=NOW + 5) == []
    row = index.studies.rows(STUDY)[0]
    assert (row.state, row.reason) == (StudyState.REPORTED, "the evidence is what was already read")
    assert len(index.deliveries.unplanned()) == 2


@pytest.mark.parametrize(
    ("end", "after", "words"),
    [
        (JobState.NOT_APPLICABLE, StudyState.NOT_ROUTED, "already answered"),
        (JobState.FAILED, StudyState.FAILED, "requeue the study"),
    ],
)
def test_work_already_answered_leads_to_the_same_end(
    index: Index, end: JobState, after: StudyState, words: str
) -> None:
    job = queue(index, "a", at=NOW)
    index.jobs.end(claim(index, job, at=NOW), end, reason="its reason", at=NOW + 1)
    index.studies.add_instance(instance("a", 99, at=NOW + 2, series=7))
    assert again(index, job, at=NOW + 5) == []
    row = index.studies.rows(STUDY)[0]
    assert row.state is after
    assert words in row.reason


def test_the_evidence_of_before_a_late_instance_is_queued_anew_when_it_comes_back(index: Index) -> None:
    job = queue(index, "a", at=NOW)
    claim(index, job, at=NOW)
    index.studies.add_instance(instance("a", 99, at=NOW + 1, series=7))
    assert again(index, job, at=NOW + 5) == [job]
    row = job_of(index)
    assert (row.job.state, row.job.attempts, row.queued_at, row.started_at) == (JobState.QUEUED, 0, NOW + 5, None)


def test_a_study_asked_for_again_is_read_anew_and_its_report_replaced(index: Index) -> None:
    report(index, "a", at=NOW)
    for row in index.deliveries.unplanned():
        index.deliveries.plan(row[0], ["pacs"], NOW)
    for delivery in index.deliveries.of_study(STUDY):
        index.deliveries.accepted(delivery, reason="0x0000", at=NOW + 1)
    assert state_of(index) is StudyState.DELIVERED
    job = job_of(index).job
    index.jobs.ask_again(STUDY, actor="a person", at=NOW + 10)
    assert state_of(index) is StudyState.COMPLETE
    assert (job_of(index).job.state, job_of(index).job.attempts) == (JobState.SUPERSEDED, 0)
    assert again(index, job, at=NOW + 11) == [job]
    assert (job_of(index).job.state, job_of(index).job.attempts) == (JobState.QUEUED, 0)
    lease = claim(index, job, at=NOW + 12)
    index.jobs.report(lease, objects("a", with_segmentation=False), summary=summary(0), at=NOW + 13)
    assert index.jobs.report_rows(job.job_uid) == objects("a", with_segmentation=False), "the old segmentation is gone"
    (old,) = index.deliveries.of_study(STUDY)
    assert (old.form, old.accepted_at is not None) == (Form.SEG, True), "what a peer has of it stays known"
    assert index.deliveries.at_peer(STUDY, old.peer) == [], "and counts no more"
    assert [u for u, *_ in index.deliveries.unplanned()] == [uid("sr", "a")]


def test_only_a_study_at_rest_can_be_asked_for_again(index: Index) -> None:
    with pytest.raises(UnknownStudy):
        index.jobs.ask_again(STUDY, actor="a person", at=NOW)
    receive(index, "b", at=NOW)
    with pytest.raises(IllegalTransition, match="still arriving; it is read by itself"):
        index.jobs.ask_again(study_uid("b"), actor="a person", at=NOW)
    job = queue(index, "a", at=NOW)
    with pytest.raises(IllegalTransition):
        index.jobs.ask_again(STUDY, actor="a person", at=NOW)
    lease = claim(index, job, at=NOW)
    with pytest.raises(IllegalTransition):
        index.jobs.ask_again(STUDY, actor="a person", at=NOW)
    assert index.jobs.renew(lease, NOW + 60), "the reading goes on as if nobody had asked"
    index.jobs.end(lease, JobState.FAILED, reason="", at=NOW)
    index.jobs.ask_again(STUDY, actor="a person", at=NOW)
    assert index.studies.history(STUDY)[-1].actor == "a person"
