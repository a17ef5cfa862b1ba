import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from threading import Barrier
from typing import Any

import pytest
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from dicom_node.archive.index import Index
from dicom_node.archive.jobs import JobRow, LeaseLost
from dicom_node.core.attempts import Attempts
from dicom_node.core.errors import IllegalTransition, UnknownStudy
from dicom_node.core.form import Form
from dicom_node.core.job import Job, Lease
from dicom_node.core.lifecycle import JOB_TRANSITIONS, STUDY_TRANSITIONS, JobState, StudyState
from dicom_node.core.priority import QUEUES, Priority
from tests.conftest import ROOT
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

STUDY = study_uid("a")

#: Three attempts without a rest between them.
AT_ONCE = Attempts(maximum=3, first_wait_seconds=0.0)


@pytest.fixture
def index() -> Iterator[Index]:
    index = Index.open("sqlite://")
    yield index
    index.close()


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


def test_a_queued_job_is_claimed_once_and_its_study_is_read(index: Index) -> None:
    job = queue(index, "a", at=NOW, priority=Priority.STAT)
    assert index.studies.rows(STUDY)[0].priority == "STAT"
    claimed = index.jobs.claim(job.job_uid, worker="gpu1:1", lease_seconds=30, at=NOW + 1)
    assert claimed is not None
    assert claimed[0] == replace(job, state=JobState.READING, attempts=1)
    assert (claimed[1].worker, claimed[1].expires_at) == ("gpu1:1", NOW + 31)
    assert state_of(index) is StudyState.READING
    assert index.jobs.claim(job.job_uid, worker="gpu1:2", lease_seconds=30, at=NOW + 1) is None
    assert index.jobs.claim("2.25.404", worker="gpu1:2", lease_seconds=30, at=NOW + 1) is None
    assert job_of(index).worker == "gpu1:1"


def test_of_many_threads_exactly_one_gets_each_job(tmp_path: Path) -> None:
    index = Index.open(f"sqlite:///{tmp_path / 'index.sqlite'}")
    jobs = [queue(index, name, at=NOW) for name in ("a", "b", "c")]
    start = Barrier(6)

    def take(worker: int) -> list[str]:
        start.wait(20)
        claims = [index.jobs.claim(j.job_uid, worker=f"gpu1:{worker}", lease_seconds=30, at=NOW) for j in jobs]
        return [job.job_uid for job, _ in filter(None, claims)]

    with ThreadPoolExecutor(6) as pool:
        taken = [job_uid for uids in pool.map(take, range(6)) for job_uid in uids]
    assert sorted(taken) == sorted(job.job_uid for job in jobs)
    assert {row.job.attempts for name in "abc" for row in index.jobs.of_study(study_uid(name))} == {1}
    index.close()


_CLAIM_ALL = """
import sys
from dicom_node.archive.index import Index
url, worker, *jobs = sys.argv[1:]
index = Index.open(url)
print("ready", flush=True)
sys.stdin.readline()
for job in jobs:
    if index.jobs.claim(job, worker=worker, lease_seconds=30, at=0.0):
        print(job, flush=True)
"""


def test_of_two_processes_exactly_one_gets_each_job(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'index.sqlite'}"
    index = Index.open(url)
    jobs = [queue(index, f"study {number}", at=NOW).job_uid for number in range(6)]
    index.close()
    command = [sys.executable, "-c", _CLAIM_ALL, url]
    processes = [
        subprocess.Popen([*command, name, *jobs], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT)
        for name in ("gpu1:1", "gpu2:1")
    ]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    taken = [job for process in processes for job in process.communicate(timeout=60)[0].split()]
    assert [process.returncode for process in processes] == [0, 0]
    assert sorted(taken) == sorted(jobs)


def test_the_most_urgent_of_the_unsent_jobs_comes_first(index: Index) -> None:
    for number, priority in enumerate((Priority.LOW, Priority.STAT, Priority.ROUTINE, Priority.HIGH)):
        queue(index, priority.value, at=NOW + number, priority=priority)
    assert [job.priority.value for job in index.jobs.unsent(0.0)] == ["STAT", "HIGH", "ROUTINE", "LOW"]


def test_a_sent_message_is_sent_again_only_when_asked_for_older_ones(index: Index) -> None:
    job = queue(index, "a", at=NOW)
    index.jobs.sent([job.job_uid], NOW + 1)
    assert index.jobs.unsent(NOW + 1) == []
    assert index.jobs.unsent(NOW + 1.1) == [job]


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


def test_a_report_its_job_and_its_study_are_one_change(index: Index) -> None:
    job = queue(index, "a", at=NOW)
    lease = claim(index, job, at=NOW)
    twice = [*objects("a"), objects("a")[0]]
    with pytest.raises(Exception, match="UNIQUE"):  # SQLAlchemy's, which only the archive may name
        index.jobs.report(lease, twice, summary=summary(2), at=NOW + 1)
    assert (state_of(index), job_of(index).job.state) == (StudyState.READING, JobState.READING)
    assert index.jobs.report_rows(job.job_uid) == []
    index.jobs.report(lease, objects("a"), summary=summary(2), at=NOW + 1)
    assert (state_of(index), job_of(index).job.state) == (StudyState.REPORTED, JobState.REPORTED)
    assert index.jobs.report_rows(job.job_uid) == sorted(objects("a"), key=lambda row: row.sop_class_uid)
    assert index.studies.rows(STUDY)[0].reason == summary(2)["result"]
    assert (job_of(index).summary, job_of(index).ended_at) == (summary(2), NOW + 1)


@pytest.mark.parametrize(
    ("end", "after"),
    [
        (JobState.FAILED, StudyState.FAILED),
        (JobState.NOT_APPLICABLE, StudyState.NOT_ROUTED),
        (JobState.QUEUED, StudyState.QUEUED),
    ],
)
def test_an_end_without_a_report_moves_the_study_and_tells_why(index: Index, end: JobState, after: StudyState) -> None:
    lease = claim(index, queue(index, "a", at=NOW), at=NOW)
    index.jobs.end(lease, end, reason="the reason", at=NOW + 1)
    row = index.studies.rows(STUDY)[0]
    assert (row.state, row.reason, job_of(index).job.reason) == (after, "the reason", "the reason")
    assert index.studies.history(STUDY)[-1].actor == lease.worker


def test_a_job_does_not_end_in_a_state_that_is_no_end(index: Index) -> None:
    lease = claim(index, queue(index, "a", at=NOW), at=NOW)
    before = job_of(index)
    with pytest.raises(IllegalTransition):
        index.jobs.end(lease, JobState.READING, reason="", at=NOW)
    assert job_of(index) == before


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


class OneJob(RuleBasedStateMachine):
    """One study with one job, and everything that can happen to it in any order."""

    index: Index
    number = 0

    @initialize()
    def begin(self) -> None:
        self.index = Index.open("sqlite://")
        self.now = NOW
        self.lease: Lease | None = None
        self.lost: list[Lease] = []
        self.job = queue(self.index, "a", at=self.now)

    def teardown(self) -> None:
        if hasattr(self, "index"):
            self.index.close()

    def later(self) -> float:
        self.now += 1
        return self.now

    @property
    def held(self) -> bool:
        return self.lease is not None

    def lose(self) -> None:
        if self.lease is not None:
            self.lost.append(self.lease)
        self.lease = None

    @rule()
    def claim(self) -> None:
        waiting = job_of(self.index).job.state is JobState.QUEUED
        claimed = self.index.jobs.claim(self.job.job_uid, worker="gpu1:1", lease_seconds=30, at=self.later())
        assert (claimed is not None) == waiting
        if claimed is not None:
            self.lease = claimed[1]

    @precondition(lambda self: self.held)
    @rule()
    def report(self) -> None:
        assert self.lease is not None
        self.index.jobs.report(self.lease, objects("a"), summary=summary(1), at=self.later())
        self.lose()

    @precondition(lambda self: self.held)
    @rule()
    def fail(self) -> None:
        assert self.lease is not None
        self.index.jobs.end(self.lease, JobState.FAILED, reason="broken", at=self.later())
        self.lose()

    @precondition(lambda self: self.held)
    @rule()
    def retry(self) -> None:
        assert self.lease is not None
        attempts = job_of(self.index).job.attempts
        state = self.index.jobs.retry(self.lease, reason="fault", attempts=AT_ONCE, at=self.later())
        assert state is (JobState.QUEUED if attempts < 3 else JobState.FAILED)
        assert job_of(self.index).dead_letter == (state is JobState.FAILED)
        self.lose()

    @rule()
    def claim_next(self) -> None:
        waiting = job_of(self.index).job.state is JobState.QUEUED
        claimed = self.index.jobs.claim_next(worker="gpu1:2", queues=QUEUES, lease_seconds=30, at=self.later())
        assert (claimed is not None) == waiting
        if claimed is not None:
            self.lease = claimed[1]

    @rule()
    def fall_silent(self) -> None:
        self.now += 31
        expire(self.index, self.now)
        self.lose()

    @rule()
    def late_instance(self) -> None:
        self.number += 1
        self.index.studies.add_instance(instance("a", 100 + self.number, at=self.later(), series=7))
        self.lose()

    @rule()
    def route_again(self) -> None:
        if state_of(self.index) in (StudyState.RECEIVING, StudyState.COMPLETE):
            again(self.index, self.job, at=self.later())

    @rule()
    def ask_again(self) -> None:
        state = state_of(self.index)
        if StudyState.COMPLETE in STUDY_TRANSITIONS[state] and state is not StudyState.RECEIVING:
            self.index.jobs.ask_again(STUDY, actor="a person", at=self.later())

    @precondition(lambda self: self.lost)
    @rule()
    def a_lost_lease_changes_nothing(self) -> None:
        before = self.index.studies.rows(), self.index.jobs.of_study(STUDY)
        with pytest.raises(LeaseLost):
            self.index.jobs.report(self.lost[-1], objects("a"), summary=summary(1), at=self.later())
        assert not self.index.jobs.renew(self.lost[-1], self.now + 60)
        assert (self.index.studies.rows(), self.index.jobs.of_study(STUDY)) == before

    @invariant()
    def study_and_job_agree(self) -> None:
        state, job = state_of(self.index), job_of(self.index).job
        partner: dict[Any, tuple[JobState, ...]] = {
            StudyState.QUEUED: (JobState.QUEUED,),
            StudyState.READING: (JobState.READING,),
            StudyState.REPORTED: (JobState.REPORTED,),
            StudyState.FAILED: (JobState.FAILED,),
        }
        at_rest = (JobState.SUPERSEDED, JobState.REPORTED, JobState.FAILED)
        assert job.state in partner.get(state, at_rest)
        assert job.attempts <= 3
        assert (job.state is JobState.READING) == self.held

    @invariant()
    def the_history_is_one_unbroken_way(self) -> None:
        lines = [line for line in self.index.studies.history(STUDY) if not line.subject]
        for earlier, later in pairwise(lines):
            assert later.before == earlier.after
            assert later.after in STUDY_TRANSITIONS[StudyState(later.before)] | {later.before}
        assert lines[-1].after == state_of(self.index)

    @invariant()
    def the_jobs_history_is_one_unbroken_way_with_growing_fences(self) -> None:
        lines = [line for line in self.index.studies.history(STUDY) if line.subject == "job lung_nodule"]
        for earlier, later in pairwise(lines):
            assert later.before == earlier.after
            assert later.after in JOB_TRANSITIONS[JobState(later.before)]
        assert lines[-1].after == job_of(self.index).job.state
        if self.lease is not None:
            assert all(lost.fence < self.lease.fence for lost in self.lost)


TestOneJob = OneJob.TestCase
TestOneJob.settings = settings(max_examples=10, stateful_step_count=15)


def test_an_attempt_that_is_given_back_is_not_counted_and_keeps_its_fence(index: Index) -> None:
    job = queue(index, "a", at=NOW)
    first = claim(index, job, at=NOW)
    index.jobs.give_back(first, reason="the worker was asked to stop", at=NOW + 1)
    (row,) = index.jobs.of_study(job.study_instance_uid)
    assert (row.job.state, row.job.attempts, row.next_try_at) == (JobState.QUEUED, 0, None)
    with pytest.raises(LeaseLost):
        index.jobs.give_back(first, reason="again", at=NOW + 1)
    assert claim(index, job, at=NOW + 2).fence == first.fence + 1
