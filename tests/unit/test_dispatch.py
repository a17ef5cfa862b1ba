from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest

from dicom_node.archive.index import Index
from dicom_node.core.errors import QueueUnavailable
from dicom_node.core.job import Job
from dicom_node.core.lifecycle import JobState, StudyState
from dicom_node.core.priority import QUEUES, Priority, queue_of
from dicom_node.dispatch import ASK_SECONDS, BROKER_AWAY, CALM_SECONDS, ENOUGH_BELLS, LOST_BELL_SECONDS, Dispatch
from dicom_node.settings import QueueSettings, Settings
from tests.populated_index import NOW, claim, queue, study_uid


class FakeQueue:
    """A broker in memory that can be away and can lose its messages; the real one is tested in tests/integration."""

    def __init__(self) -> None:
        self.messages: dict[str, list[str]] = {name: [] for name in QUEUES}
        self.away = False
        self.room = 10**6
        self.asked = 0
        self.log: list[str] = []
        self.announced: list[str] = []

    def send(self, job: Job) -> None:
        """Keep the job's UID."""
        if self.away or self.room == 0:
            raise QueueUnavailable("the broker took no message")
        self.room -= 1
        self.messages[queue_of(job.priority)].append(job.job_uid)
        self.log.append(job.job_uid)

    def announce(self, job: Job) -> None:
        """Note the job's UID."""
        if self.away:
            raise QueueUnavailable("the broker took no message")
        self.announced.append(job.job_uid)

    def lengths(self) -> Mapping[str, int]:
        """Messages kept in each queue."""
        self.asked += 1
        if self.away:
            raise QueueUnavailable("the broker does not answer")
        return {name: len(held) for name, held in self.messages.items()}

    def clear(self) -> None:
        """Take every message: a worker did, or it is lost."""
        for held in self.messages.values():
            held.clear()


@dataclass
class Room:
    """A dispatch over a real index, and a clock that a test turns."""

    index: Index
    queue: FakeQueue = field(default_factory=FakeQueue)
    now: float = NOW

    def dispatch(self, **queue: Any) -> Dispatch:
        return Dispatch(Settings(queue=QueueSettings(**queue)), self.index, self.queue, lambda: self.now)

    def add(self, study: str, priority: Priority = Priority.ROUTINE) -> Job:
        return queue(self.index, study, at=self.now, priority=priority)

    def later(self, dispatch: Dispatch, seconds: float) -> None:
        """Time passes, then there is a round of each kind."""
        self.now += seconds
        dispatch.expire()
        dispatch.ring()


@pytest.fixture
def room() -> Iterator[Room]:
    room = Room(Index.open("sqlite://"))
    yield room
    room.index.close()


def test_each_job_that_waits_is_rung_for_once_in_the_queue_of_its_priority(room: Room) -> None:
    dispatch = room.dispatch()
    routine, stat = room.add("a"), room.add("b", Priority.STAT)
    for _ in range(3):
        room.later(dispatch, 1)
    assert room.queue.log == [stat.job_uid, routine.job_uid]
    assert (room.queue.messages["stat"], room.queue.messages["routine"]) == ([stat.job_uid], [routine.job_uid])
    assert dispatch.lengths() == {"stat": 1, "urgent": 0, "routine": 1}


def test_a_bell_that_was_lost_is_rung_again(room: Room) -> None:
    dispatch = room.dispatch()
    job = room.add("a")
    dispatch.ring()
    room.queue.clear()
    room.later(dispatch, LOST_BELL_SECONDS - 1)
    assert len(room.queue.log) == 1
    room.later(dispatch, 2)
    assert room.queue.log == [job.job_uid] * 2


def test_a_bell_that_was_lost_is_rung_again_also_after_the_clock_was_set_back(room: Room) -> None:
    dispatch = room.dispatch()
    job = room.add("a")
    dispatch.ring()
    room.queue.clear()
    room.later(dispatch, -86400.0)
    assert room.queue.log == [job.job_uid] * 2


def test_a_broker_that_is_back_is_asked_also_after_the_clock_was_set_back(room: Room) -> None:
    dispatch = room.dispatch()
    job = room.add("a")
    room.queue.away = True
    room.later(dispatch, ASK_SECONDS)
    room.queue.away = False
    room.later(dispatch, -86400.0)
    assert dispatch.broker_answers
    assert room.queue.log == [job.job_uid]


def test_bells_that_nobody_hears_do_not_pile_up(room: Room) -> None:
    dispatch = room.dispatch()
    for number in range(3):
        room.add(str(number))
    stat = room.add("stat", Priority.STAT)
    room.queue.messages["routine"] = ["x"] * (ENOUGH_BELLS - 2)
    for _ in range(20):
        room.later(dispatch, LOST_BELL_SECONDS + 1)
    assert len(room.queue.messages["routine"]) == ENOUGH_BELLS
    assert stat.job_uid in room.queue.messages["stat"]


def test_nobody_is_rung_for_a_job_that_is_being_read_or_rests(room: Room) -> None:
    dispatch = room.dispatch(first_wait_seconds=40)
    job = room.add("a")
    lease = claim(room.index, job, at=room.now)
    room.later(dispatch, 5)
    assert room.queue.log == []
    room.index.jobs.retry(lease, reason="fault", attempts=QueueSettings(first_wait_seconds=40).attempts, at=room.now)
    room.later(dispatch, 39)
    assert room.queue.log == []
    room.later(dispatch, 1)
    assert room.queue.log == [job.job_uid]


def test_while_the_broker_is_away_jobs_wait_in_the_index_and_then_all_are_rung_for(
    room: Room, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    dispatch = room.dispatch()
    assert dispatch.broker_answers
    room.queue.away = True
    jobs = [room.add("a"), room.add("b")]
    for _ in range(5):
        room.later(dispatch, ASK_SECONDS)
    assert (dispatch.broker_answers, dispatch.lengths()) == (False, None)
    (condition,) = room.index.conditions.rows()
    assert (condition.condition, condition.since) == (BROKER_AWAY, NOW + ASK_SECONDS)
    assert condition.reason.startswith("the broker does not answer; jobs wait in the index")
    room.queue.away = False
    room.later(dispatch, ASK_SECONDS)
    assert room.queue.log == [job.job_uid for job in jobs]
    assert (dispatch.broker_answers, room.index.conditions.rows()) == (True, [])
    said = [record.message for record in caplog.records]
    assert said == ["the broker is away; jobs wait in the index", "the broker is back"]


def test_a_broker_that_answers_from_the_start_is_not_talked_of(room: Room, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    # Left by a node that was killed while its broker was away.
    room.index.conditions.began(BROKER_AWAY, reason="of yesterday", at=NOW - 86400)
    room.dispatch().ring()
    assert (caplog.records, room.index.conditions.rows()) == ([], [])


def test_a_broker_that_goes_between_two_bells_keeps_the_first_and_gets_the_second_later(room: Room) -> None:
    dispatch = room.dispatch()
    first, second = room.add("a"), room.add("b")
    room.queue.room = 1
    dispatch.ring()
    assert [row.sent_at for uid in "ab" for row in room.index.jobs.of_study(study_uid(uid))] == [NOW, None]
    room.queue.room = 10
    room.later(dispatch, ASK_SECONDS)
    assert room.queue.log == [first.job_uid, second.job_uid]


def test_a_broker_is_not_asked_each_round_while_it_is_away_or_nothing_waits(room: Room) -> None:
    dispatch = room.dispatch()
    for _ in range(20):
        room.later(dispatch, ASK_SECONDS / 10)
    assert room.queue.asked <= 3
    room.queue.away, room.queue.asked = True, 0
    room.add("a")
    for _ in range(20):
        room.later(dispatch, ASK_SECONDS / 10)
    assert room.queue.asked <= 3


def test_a_silent_workers_job_rests_is_rung_for_again_and_in_the_end_a_dead_letter(
    room: Room, caplog: pytest.LogCaptureFixture
) -> None:
    dispatch = room.dispatch(maximum_attempts=2, first_wait_seconds=5)
    job = room.add("a")
    claim(room.index, job, at=room.now)
    room.later(dispatch, 31)
    assert room.queue.log == []
    room.later(dispatch, 5)
    assert room.queue.log == [job.job_uid]
    claim(room.index, job, at=room.now)
    room.later(dispatch, 31)
    (row,) = room.index.jobs.of_study(job.study_instance_uid)
    assert (row.job.state, row.dead_letter) == (JobState.FAILED, True)
    assert room.index.studies.rows(job.study_instance_uid)[0].state is StudyState.FAILED
    assert [(record.levelname, record.message) for record in caplog.records] == [
        ("WARNING", "a worker went silent; its job is queued again"),
        ("ERROR", "a worker went silent; its job is a dead letter"),
    ]
    assert vars(caplog.records[-1])["job_uid"] == job.job_uid


def test_leases_expire_also_while_the_broker_keeps_the_other_round(room: Room) -> None:
    dispatch = room.dispatch()
    claim(room.index, room.add("a"), at=room.now)
    room.queue.away = True
    dispatch.ring()
    room.now += 31
    dispatch.expire()
    assert room.index.jobs.of_study(study_uid("a"))[0].job.state is JobState.QUEUED


def test_an_announcement_goes_out_with_the_next_round_and_only_once(room: Room) -> None:
    dispatch, job = room.dispatch(), room.add("a")
    dispatch.announce(job)
    room.later(dispatch, 0.1)
    room.later(dispatch, 0.1)
    assert room.queue.announced == [job.job_uid]


def test_workers_may_be_idle_as_long_as_no_bell_waits_to_be_heard(room: Room) -> None:
    dispatch = room.dispatch()
    assert dispatch.workers_may_be_idle
    room.add("a")
    dispatch.ring()
    assert not dispatch.workers_may_be_idle


def test_there_are_no_more_bells_than_workers_to_wake(room: Room) -> None:
    for name in ("gpu1:1", "gpu1:2"):
        room.index.workers.began(name, device="cuda", bundles=(), queues=("routine",), at=NOW)
    dispatch = room.dispatch()
    jobs = [room.add(str(number)) for number in range(5)]
    dispatch.ring()
    assert room.queue.messages["routine"] == [job.job_uid for job in jobs[:2]]
    room.queue.clear()
    room.later(dispatch, LOST_BELL_SECONDS + 1)
    assert len(room.queue.messages["routine"]) == 2, "jobs that nobody took are rung for again"


def test_while_jobs_come_nobody_is_thought_idle_though_every_bell_is_heard_at_once(room: Room) -> None:
    dispatch = room.dispatch()
    room.add("a")
    dispatch.ring()
    room.queue.clear()
    room.later(dispatch, ASK_SECONDS)
    assert dispatch.workers_may_be_idle
    room.add("b")
    dispatch.ring()
    room.queue.clear()
    room.later(dispatch, CALM_SECONDS / 2)
    room.add("c")
    dispatch.ring()
    assert not dispatch.workers_may_be_idle


def test_an_announcement_that_the_broker_does_not_take_is_dropped_and_the_job_is_rung_for(room: Room) -> None:
    dispatch, job = room.dispatch(), room.add("a")
    room.queue.away = True
    dispatch.announce(job)
    room.later(dispatch, 0.1)
    dispatch.announce(job)
    room.later(dispatch, 0.1)
    room.queue.away = False
    room.later(dispatch, ASK_SECONDS)
    assert room.queue.announced == []
    assert room.queue.log == [job.job_uid]
