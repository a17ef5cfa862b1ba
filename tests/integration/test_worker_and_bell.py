"""What wakes a worker, and that it ends with its node, whatever it waits for."""

import os
import shutil
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from dicom_node.broker import broker_url, own_redis, socket_path
from dicom_node.core.lifecycle import JobState
from dicom_node.job_queue import CeleryJobQueue
from tests.worker_room import PROGRAM, Room, assert_reported_once, lives, worker_room

#: Makes of it a worker whose main thread hangs, deaf to signals, in what should wait for messages.
HUNG = """
import signal, threading
from workers import celery_app

signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
celery_app._listen = lambda *_: threading.Event().wait()
celery_app.Ending.LAST_SECONDS = 1.0
"""


@pytest.fixture
def room(tmp_path: Path) -> Iterator[Room]:
    with worker_room(tmp_path) as room:
        yield room


@dataclass(frozen=True, kw_only=True)
class Bell:
    """A Redis, and the queue that rings in it."""

    url: str
    jobs: CeleryJobQueue


@pytest.fixture
def bell() -> Iterator[Bell]:
    # A pytest folder may be too deep for a socket: this asks for a short one.
    path = socket_path(Path("x" * 120))
    redis = own_redis(path)
    redis.start()
    jobs = CeleryJobQueue(broker_url(path))
    yield Bell(url=broker_url(path), jobs=jobs)
    jobs.close()
    redis.stop()
    shutil.rmtree(path.parent)


def assert_ends_with_its_node(room: Room) -> None:
    """The node is killed; the worker and its reading process follow soon, and the job in hand is free again."""
    assert room.worker is not None
    worker = room.child()
    reading = room.child(worker)
    try:
        room.worker.kill()
        room.worker.wait()
        room.wait(lambda: not lives(worker) and not lives(reading), seconds=60.0)
    finally:
        if lives(worker):
            os.kill(worker, signal.SIGKILL)
    assert (room.job.job.state, room.job.next_try_at) == (JobState.QUEUED, None)
    assert "Traceback" not in room.log


def test_a_worker_that_reads_what_a_bell_announced_ends_with_a_node_that_is_killed(room: Room, bell: Bell) -> None:
    room.tell("hang")
    # Its main thread is what reads: nobody else looks.
    room.start(bell.url, by_node=True, **{"worker.look_seconds": 3600.0, "worker.stop_seconds": 1.0})
    room.wait(lambda: room.row is not None)
    room.queue()
    bell.jobs.send(room.job.job)
    room.wait_until_reading()
    assert_ends_with_its_node(room)
    assert room.row is None, "it has taken its leave"
    assert "hangs" not in room.log


def test_a_worker_whose_main_thread_hangs_ends_all_the_same_with_a_node_that_is_killed(room: Room) -> None:
    room.queue()
    room.tell("hang")
    room.start(program=HUNG + PROGRAM, by_node=True, **{"worker.stop_seconds": 1.0})
    room.wait_until_reading()
    assert_ends_with_its_node(room)
    assert "the node of this worker is gone" in room.log
    assert "this worker hangs and ends" in room.log


def test_a_bell_wakes_a_worker_that_looks_seldom(room: Room, bell: Bell) -> None:
    room.start(bell.url, **{"worker.look_seconds": 3600.0})
    room.wait(lambda: room.row is not None)
    # It looks once as soon as it can read.
    time.sleep(2.0)
    room.queue()
    time.sleep(1.0)
    assert room.job.job.state is JobState.QUEUED
    bell.jobs.send(room.job.job)
    assert_reported_once(room, attempts=1)
    room.wait(lambda: bell.jobs.lengths()["routine"] == 0)
