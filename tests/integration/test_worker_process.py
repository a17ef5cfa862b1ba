"""A worker of two real processes: either is killed, stopped or hung, and its study is read once."""

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from dicom_node.core.attempts import Attempts
from tests.worker_room import Room, assert_reported_once, lives, reasons, worker_room


@pytest.fixture
def room(tmp_path: Path) -> Iterator[Room]:
    with worker_room(tmp_path) as room:
        yield room


def test_a_reading_process_that_is_killed_stopped_or_never_ends_costs_an_attempt_and_no_worker(room: Room) -> None:
    room.queue()
    room.tell("hang")
    room.start(
        **{
            "queue.maximum_silence_seconds": 5.0,
            "queue.maximum_reading_seconds": 12.0,
            "queue.maximum_attempts": 9,
        }
    )
    room.wait_until_reading()
    worker, killed = room.row, room.child()
    assert worker is not None
    assert worker.bundles == ("told 0.0.1", "chest_xray_pneumonia 0.2.0")

    os.kill(killed, signal.SIGKILL)
    room.wait(lambda: len(reasons(room)) == 1)
    room.wait_until_reading()
    stopped = room.child()
    os.kill(stopped, signal.SIGSTOP)
    room.wait(lambda: len(reasons(room)) == 2)
    room.tell("never end")
    room.wait_until_reading("network")
    endless = room.child()
    room.wait(lambda: len(reasons(room)) == 3)
    room.tell("")

    assert_reported_once(room, attempts=4)
    first, second, third = reasons(room)
    assert first == "the reading process was killed by signal 9; often the machine's memory ran out"
    assert "gave no sign for 5 s at step 'reading' and was killed" in second
    assert "took more than 12 s (maximum_reading_seconds), was at step 'network', and was killed" in third
    assert not any(lives(pid) for pid in (killed, stopped, endless))
    assert room.row is not None
    assert room.row.worker == worker.worker, "it is the same worker"


def test_a_worker_that_is_killed_leaves_no_reading_process_and_another_reads_its_job(room: Room) -> None:
    room.queue()
    room.tell("hang")
    room.start()
    room.wait_until_reading()
    assert room.worker is not None
    child = room.child()
    room.worker.kill()
    room.worker.wait()
    room.wait(lambda: not lives(child), seconds=20.0)

    room.tell("")
    room.start()
    attempts = Attempts(maximum=3, first_wait_seconds=0.0)
    # What the node's dispatch does.
    room.wait(lambda: bool(room.index.jobs.expire(now=time.time(), attempts=attempts, actor="test")))
    assert_reported_once(room, attempts=2)
