"""The bell and its broker: a real Redis of our own, started, rung, killed and started again."""

import json
import os
import shutil
import signal
import socket
import time
from base64 import b64decode
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from celery import Celery

from dicom_node import job_queue
from dicom_node.archive.index import Index
from dicom_node.broker import answers, broker_url, own_redis, socket_path
from dicom_node.core.errors import QueueUnavailable
from dicom_node.core.priority import Priority
from dicom_node.dispatch import ASK_SECONDS, LOST_BELL_SECONDS, Dispatch
from dicom_node.job_queue import TASK, CeleryJobQueue, celery_options
from dicom_node.parts import ChildProcess
from dicom_node.settings import Settings
from tests.populated_index import NOW, queue, study_uid


@pytest.fixture
def path() -> Iterator[Path]:
    # A pytest folder may be too deep for a socket: this asks for a short one.
    path = socket_path(Path("x" * 120))
    yield path
    shutil.rmtree(path.parent)


@pytest.fixture
def redis(path: Path) -> Iterator[ChildProcess]:
    redis = own_redis(path)
    redis.start()
    yield redis
    redis.stop()


@pytest.fixture
def jobs(redis: ChildProcess, path: Path) -> Iterator[CeleryJobQueue]:
    jobs = CeleryJobQueue(broker_url(path))
    yield jobs
    jobs.close()


@pytest.fixture
def index() -> Iterator[Index]:
    index = Index.open("sqlite://")
    yield index
    index.close()


def messages(path: Path, name: str) -> list[dict[str, Any]]:
    """What waits in a queue, as Redis holds it."""
    app = Celery(set_as_current=False)
    app.conf.update(celery_options(broker_url(path)))
    with app.connection_for_read() as connection:
        raw = connection.default_channel.client.lrange(name, 0, -1)
    app.close()
    return [json.loads(message) for message in raw]


def test_our_redis_answers_once_started_only_to_us_and_no_more_once_stopped(redis: ChildProcess, path: Path) -> None:
    assert redis.alive()
    assert answers(path)
    assert path.stat().st_mode & 0o077 == 0
    redis.stop()
    assert not answers(path)
    assert sorted(p.suffix for p in path.parent.iterdir()) in ([], [".sock"]), "nothing was kept on disk"


def test_a_job_waits_in_the_queue_of_its_priority_as_uids_alone(jobs: CeleryJobQueue, index: Index, path: Path) -> None:
    assert dict(jobs.lengths()) == {"stat": 0, "urgent": 0, "routine": 0}
    sent = {priority: queue(index, priority.value, at=NOW, priority=priority) for priority in Priority}
    for job in sent.values():
        jobs.send(job)
    assert dict(jobs.lengths()) == {"stat": 1, "urgent": 1, "routine": 3}
    (message,) = messages(path, "stat")
    job = sent[Priority.STAT]
    assert message["headers"]["task"] == TASK
    _args, kwargs, _options = json.loads(b64decode(message["body"]))
    assert kwargs == {
        "job_uid": job.job_uid,
        "study_instance_uid": study_uid("STAT"),
        "algorithm": "lung_nodule",
    }


@dataclass
class Rounds:
    """A dispatch over a real broker, and a clock that a test turns."""

    dispatch: Dispatch
    clock: list[float]

    def later(self, seconds: float) -> None:
        """Time passes, then there is a round."""
        self.clock[0] += seconds
        self.dispatch.ring()


@pytest.fixture
def rounds(jobs: CeleryJobQueue, index: Index) -> Rounds:
    clock = [NOW]
    return Rounds(Dispatch(Settings(), index, jobs, lambda: clock[0]), clock)


def test_a_redis_that_dies_is_told_and_after_its_return_every_waiting_job_is_rung_for_again(
    redis: ChildProcess, jobs: CeleryJobQueue, index: Index, rounds: Rounds
) -> None:
    queue(index, "a", at=NOW)
    rounds.later(1)
    assert jobs.lengths()["routine"] == 1
    assert redis.pid is not None
    os.kill(redis.pid, signal.SIGKILL)
    while redis.alive():
        time.sleep(0.01)
    queue(index, "b", at=NOW)
    with pytest.raises(QueueUnavailable):
        jobs.lengths()
    rounds.later(ASK_SECONDS)
    assert not rounds.dispatch.broker_answers
    redis.start()
    rounds.later(ASK_SECONDS)
    assert rounds.dispatch.broker_answers
    assert jobs.lengths()["routine"] == 1, "the new one is rung for at once"
    # The first study's bell is lost with the old Redis.
    rounds.later(LOST_BELL_SECONDS)
    assert jobs.lengths()["routine"] == 2


def test_a_flushed_redis_costs_no_job_its_bell(jobs: CeleryJobQueue, index: Index, path: Path, rounds: Rounds) -> None:
    for study in "abc":
        queue(index, study, at=NOW)
    rounds.later(1)
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(path))
        connection.sendall(b"FLUSHALL\r\n")
        assert connection.recv(16) == b"+OK\r\n"
    assert jobs.lengths()["routine"] == 0
    rounds.later(LOST_BELL_SECONDS + 1)
    assert jobs.lengths()["routine"] == 3


def test_a_redis_that_was_stopped_is_away_until_it_goes_on(
    monkeypatch: pytest.MonkeyPatch, redis: ChildProcess, index: Index, path: Path
) -> None:
    monkeypatch.setattr(job_queue, "ANSWER_SECONDS", 1.0)
    jobs = CeleryJobQueue(broker_url(path))
    clock = [NOW]
    rounds = Rounds(Dispatch(Settings(), index, jobs, lambda: clock[0]), clock)
    queue(index, "a", at=NOW)
    rounds.later(1)
    assert redis.pid is not None
    os.kill(redis.pid, signal.SIGSTOP)
    try:
        queue(index, "b", at=NOW)
        began = time.monotonic()
        rounds.later(ASK_SECONDS)
        assert time.monotonic() - began < 60
        assert not rounds.dispatch.broker_answers
        job = index.jobs.unsent(0.0)[0]
        with pytest.raises(QueueUnavailable):
            jobs.send(job)
    finally:
        os.kill(redis.pid, signal.SIGCONT)
    rounds.later(ASK_SECONDS)
    assert rounds.dispatch.broker_answers
    assert jobs.lengths()["routine"] >= 2
    jobs.close()


def test_a_redis_without_memory_left_is_a_broker_that_is_away(jobs: CeleryJobQueue, index: Index, path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(path))
        connection.sendall(b"CONFIG SET maxmemory 1\r\n")
        assert connection.recv(16) == b"+OK\r\n"
    with pytest.raises(QueueUnavailable, match="the broker took no message"):
        jobs.send(queue(index, "a", at=NOW))
