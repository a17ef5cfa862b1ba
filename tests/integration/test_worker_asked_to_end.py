"""A worker that is asked to end finishes the job in hand, or gives it back."""

import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from dicom_node.core.lifecycle import JobState
from tests.worker_room import LITTLE, PATIENCE_SECONDS, PROGRAM, Room, assert_reported_once, lives, worker_room


@pytest.fixture
def room(tmp_path: Path) -> Iterator[Room]:
    with worker_room(tmp_path) as room:
        yield room


def test_a_worker_asked_to_end_twice_gives_its_job_back(room: Room) -> None:
    room.queue("hang")
    room.start(program=LITTLE + PROGRAM, **{"worker.stop_seconds": 100.0})
    room.wait_until_reading()
    assert room.worker is not None
    room.worker.send_signal(signal.SIGTERM)
    # Within a second it would be the same request.
    time.sleep(2.0)
    assert room.worker.poll() is None, "the job in hand is waited for"
    room.worker.send_signal(signal.SIGTERM)
    assert room.worker.wait(60) == 0, room.log
    assert (room.job.job.state, room.job.next_try_at) == (JobState.QUEUED, None)
    assert room.row is None


def test_a_worker_asked_to_end_waits_no_longer_than_it_is_set_to(room: Room) -> None:
    room.queue("hang")
    room.start(program=LITTLE + PROGRAM, **{"worker.stop_seconds": 1.0})
    room.wait_until_reading()
    assert room.worker is not None
    room.worker.send_signal(signal.SIGTERM)
    assert room.worker.wait(60) == 0, room.log
    assert room.job.job.state is JobState.QUEUED


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_that_come_in_a_bunch_ask_once_and_the_job_in_hand_is_finished(
    room: Room, number: signal.Signals
) -> None:
    room.queue()
    room.tell("hang")
    room.start(**{"worker.stop_seconds": 100.0})
    room.wait_until_reading()
    assert room.worker is not None
    child = room.child()
    for _ in range(5):
        room.worker.send_signal(number)
        time.sleep(0.01)
    time.sleep(2.0)
    assert room.worker.poll() is None, "the job in hand is waited for"
    room.tell("")
    assert room.worker.wait(PATIENCE_SECONDS) == (1 if number == signal.SIGINT else 0), room.log
    assert not lives(child)
    assert_reported_once(room, attempts=1)
    assert room.row is None
    assert "Traceback" not in room.log
