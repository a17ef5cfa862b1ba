"""Everything that can happen to a job, in any order."""

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from dicom_node.archive.index import Index
from dicom_node.archive.jobs import LeaseLost
from dicom_node.core.job import Lease
from dicom_node.core.lifecycle import JOB_TRANSITIONS, STUDY_TRANSITIONS, JobState, StudyState
from dicom_node.core.priority import QUEUES
from tests.job_of_a_study import AT_ONCE, STUDY, again, expire, job_of, state_of
from tests.populated_index import (
    NOW,
    instance,
    objects,
    queue,
    summary,
)


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
