"""Jobs whose index is away, whose study grew, whose lease is lost, or whose worker ends."""

from collections.abc import Callable
from pathlib import Path

import pytest

from dicom_node.core.attempts import Attempts
from dicom_node.core.errors import IndexUnavailable, NotApplicable, OutOfDeviceMemory
from dicom_node.core.lifecycle import JobState, StudyState
from dicom_node.core.priority import Priority
from tests.received_study import STUDY
from tests.triage_room import (
    NOW,
    Room,
    late_slice,
    queue_two,
)


class Away:
    """Stands before a method of the index that does not answer so many times."""

    def __init__(self, method: Callable[..., object], times: int) -> None:
        self._method = method
        self._times = times

    def __call__(self, *args: object, **kwargs: object) -> object:
        self._times -= 1
        if self._times >= 0:
            raise IndexUnavailable("the index does not answer")
        return self._method(*args, **kwargs)


def test_a_report_waits_for_an_index_that_is_away_for_a_while(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room.index.jobs, "report", Away(room.index.jobs.report, 2))
    room.read()
    assert (room.row.state, room.algorithm.readings, room.rests) == (StudyState.REPORTED, 1, [1.0, 5.0])


def test_an_index_that_stays_away_lets_the_lease_run_out(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(room.index.jobs, "report", Away(room.index.jobs.report, 99))
        patch.setattr(room.index.jobs, "retry", Away(room.index.jobs.retry, 99))
        room.read()
    assert room.job_row.job.state is JobState.READING
    room.index.jobs.expire(now=NOW + 31, attempts=Attempts(maximum=2, first_wait_seconds=0), actor="assembly")
    room.read()
    assert (room.row.state, room.job_row.job.attempts) == (StudyState.REPORTED, 2)


def test_a_bell_that_rings_while_the_index_is_away_changes_nothing(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room.index.jobs, "claim_next", Away(room.index.jobs.claim_next, 1))
    room.read()
    assert (room.job_row.job.state, room.job_row.job.attempts) == (JobState.QUEUED, 0)
    room.read()
    assert room.row.state is StudyState.REPORTED


def test_a_study_that_grows_while_it_is_read_gets_no_report_of_before(room: Room, tmp_path: Path) -> None:
    room.algorithm.meanwhile = late_slice(room, tmp_path)
    room.read()
    assert (room.row.state, room.job_row.job.state) == (StudyState.RECEIVING, JobState.SUPERSEDED)
    assert room.index.jobs.report_rows(room.job.job_uid) == []
    assert room.index.deliveries.unplanned() == []


def test_a_failure_after_the_lease_was_lost_is_not_recorded(room: Room, tmp_path: Path) -> None:
    arrive = late_slice(room, tmp_path)

    def arrive_and_fail() -> None:
        arrive()
        raise NotApplicable("too thick")

    room.algorithm.meanwhile = arrive_and_fail
    room.read()
    assert (room.row.state, room.job_row.job.state) == (StudyState.RECEIVING, JobState.SUPERSEDED)
    assert room.job_row.job.reason == "a late instance arrived"


def test_a_worker_that_was_silent_too_long_drops_its_result(room: Room) -> None:
    def sleep_and_be_replaced() -> None:
        room.now += 1000
        attempts = Attempts(maximum=3, first_wait_seconds=3600, maximum_wait_seconds=3600)
        room.index.jobs.expire(now=room.now, attempts=attempts, actor="assembly")

    room.algorithm.meanwhile = sleep_and_be_replaced
    room.read()
    assert (room.row.state, room.job_row.job.state) == (StudyState.QUEUED, JobState.QUEUED)
    assert room.index.jobs.report_rows(room.job.job_uid) == []
    assert list(room.archive.path_of("results").iterdir()) == [], "another's report may lie there"


def test_a_worker_that_stops_begins_no_further_job(room: Room) -> None:
    room.read()
    queue_two(room, Priority.STAT)
    room.algorithm.meanwhile = lambda: room.triage.stop(60)
    room.read()
    states = {row.job.job_uid: row.job.state for row in room.index.jobs.of_study(STUDY)}
    assert states == {"2.25.2": JobState.REPORTED, room.job.job_uid: JobState.QUEUED}, "the job in hand is finished"


def test_a_job_whose_worker_cannot_wait_is_queued_at_once_and_that_attempt_is_not_counted(room: Room) -> None:
    def full() -> None:
        raise OutOfDeviceMemory("cuda:0 has too little memory")

    room.algorithm.meanwhile = full
    room.read()
    room.algorithm.meanwhile = lambda: room.triage.stop(0)
    room.read()
    row = room.job_row
    assert (row.job.state, row.job.attempts, row.next_try_at) == (JobState.QUEUED, 1, None)
    assert "the worker was asked to stop" in row.job.reason


def test_a_reading_that_nobody_wants_any_more_leaves_nothing(room: Room, tmp_path: Path) -> None:
    arrive = late_slice(room, tmp_path)

    def arrive_and_notice() -> None:
        arrive()
        room.heartbeat._beat(room.heartbeat._lease)

    room.algorithm.meanwhile = arrive_and_notice
    room.read()
    assert room.heartbeat.lost
    assert (room.row.state, room.job_row.job.state) == (StudyState.RECEIVING, JobState.SUPERSEDED)
