"""Jobs whose worker is silent, dead or late: waited for, given to another, never ended twice."""

import pytest

from dicom_node.archive.index import Index
from dicom_node.archive.jobs import LeaseLost
from dicom_node.core.lifecycle import JobState, StudyState
from tests.job_of_a_study import STUDY, expire, job_of, state_of
from tests.populated_index import (
    NOW,
    claim,
    instance,
    objects,
    queue,
    summary,
)


def test_a_lease_is_renewed_while_it_holds_and_never_after(index: Index) -> None:
    lease = claim(index, queue(index, "a", at=NOW), at=NOW)
    assert index.jobs.renew(lease, NOW + 60)
    assert expire(index, NOW + 59) == []
    assert [job.job_uid for job in expire(index, NOW + 61)] == [lease.job_uid]
    assert not index.jobs.renew(lease, NOW + 90)


def test_a_silent_workers_job_waits_again_with_its_attempts_counted(index: Index) -> None:
    job = queue(index, "a", at=NOW)
    index.jobs.sent([job.job_uid], NOW)
    claim(index, job, at=NOW)
    assert expire(index, NOW + 30) == [], "a lease ends after its last second"
    assert len(expire(index, NOW + 31)) == 1
    row = job_of(index)
    assert (row.job.state, row.job.attempts, row.ended_at) == (JobState.QUEUED, 1, None)
    assert row.job.reason == "the worker went silent during attempt 1 of 3"
    assert state_of(index) is StudyState.QUEUED
    assert [j.job_uid for j in index.jobs.unsent(0.0)] == [job.job_uid], "its message must be sent again"
    assert index.jobs.claim(job.job_uid, worker="gpu1:2", lease_seconds=30, at=NOW + 32) is not None
    assert job_of(index).job.attempts == 2


def test_a_job_that_silences_every_worker_fails_with_the_reason(index: Index) -> None:
    job = queue(index, "a", at=NOW)
    for attempt in range(1, 4):
        claim(index, job, at=NOW + 100 * attempt)
        (expired,) = expire(index, NOW + 100 * attempt + 31)
        assert expired.state is (JobState.QUEUED if attempt < 3 else JobState.FAILED)
        assert expired.reason == f"the worker went silent during attempt {attempt} of 3"
    row = index.studies.rows(STUDY)[0]
    assert (row.state, row.reason) == (StudyState.FAILED, "the worker went silent during attempt 3 of 3")
    assert job_of(index).job.state is JobState.FAILED
    assert index.jobs.unsent(NOW + 9999) == []


def test_a_dead_workers_jobs_do_not_wait_for_their_lease_and_others_keep_theirs(index: Index) -> None:
    claim(index, queue(index, "a", at=NOW), at=NOW, worker="gpu1:1")
    other = claim(index, queue(index, "b", at=NOW), at=NOW, worker="gpu1:11")
    index.jobs.abandon("gpu1:1", NOW + 1)
    assert [job.study_instance_uid for job in expire(index, NOW + 1)] == [STUDY]
    assert index.jobs.renew(other, NOW + 60)


def test_an_older_lease_on_the_same_job_can_end_nothing(index: Index) -> None:
    job = queue(index, "a", at=NOW)
    old = claim(index, job, at=NOW)
    expire(index, NOW + 31)
    new = claim(index, job, at=NOW + 32)
    with pytest.raises(LeaseLost, match="no longer held by gpu1:4711; its result is dropped"):
        index.jobs.report(old, objects("a"), summary=summary(2), at=NOW + 33)
    with pytest.raises(LeaseLost):
        index.jobs.end(old, JobState.FAILED, reason="too late", at=NOW + 33)
    assert job_of(index).job.state is JobState.READING
    index.jobs.report(new, objects("a"), summary=summary(2), at=NOW + 34)
    with pytest.raises(LeaseLost):
        index.jobs.report(new, objects("a"), summary=summary(2), at=NOW + 35)


def test_a_result_for_a_study_that_grew_is_dropped_whole(index: Index) -> None:
    lease = claim(index, queue(index, "a", at=NOW), at=NOW)
    index.studies.add_instance(instance("a", 99, at=NOW + 1))
    assert not index.jobs.renew(lease, NOW + 60)
    with pytest.raises(LeaseLost):
        index.jobs.report(lease, objects("a"), summary=summary(2), at=NOW + 2)
    assert index.jobs.report_rows(lease.job_uid) == []
    assert (state_of(index), job_of(index).job.state) == (StudyState.RECEIVING, JobState.SUPERSEDED)


def test_an_attempt_that_is_given_back_is_not_counted_and_keeps_its_fence(index: Index) -> None:
    job = queue(index, "a", at=NOW)
    first = claim(index, job, at=NOW)
    index.jobs.give_back(first, reason="the worker was asked to stop", at=NOW + 1)
    (row,) = index.jobs.of_study(job.study_instance_uid)
    assert (row.job.state, row.job.attempts, row.next_try_at) == (JobState.QUEUED, 0, None)
    with pytest.raises(LeaseLost):
        index.jobs.give_back(first, reason="again", at=NOW + 1)
    assert claim(index, job, at=NOW + 2).fence == first.fence + 1
