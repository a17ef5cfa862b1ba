"""A worker of two real processes: either is killed, stopped, hung or asked to end, and its study is read once."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from pydicom import dcmread

from dicom_node.archive.files import Archive
from dicom_node.archive.index import Index
from dicom_node.archive.jobs import JobRow
from dicom_node.archive.workers import WorkerRow
from dicom_node.broker import broker_url, own_redis, socket_path
from dicom_node.core.attempts import Attempts
from dicom_node.core.lifecycle import JobState
from dicom_node.job_queue import CeleryJobQueue
from tests.bundles import little_bundle
from tests.conftest import ROOT
from tests.factories import ct_series
from tests.received_study import STUDY, queued, receive
from tests.told_algorithms import TOLD_BY

PATIENCE_SECONDS = 120.0

#: A worker as `python -m workers work` starts it, but for its table of algorithms and limits that tests can wait for.
PROGRAM = """
import json, os, sys
from pathlib import Path
from dicom_node.archive.files import Archive
from dicom_node.archive.index import Index
from dicom_node.settings_loading import load_settings
from dicom_node.telemetry import configure_logging
from workers.celery_app import work

configure_logging()
folder, broker, overrides = Path(sys.argv[1]), sys.argv[2], json.loads(sys.argv[3])
settings = load_settings(None, {}, overrides)
index = Index.open(f"sqlite:///{folder / 'index.sqlite'}")
queues = ("stat", "urgent", "routine")
told = "tests.told_algorithms:ALGORITHMS"
work(settings, index, Archive(folder), broker_url=broker, queues=queues, algorithms=told, node=os.getppid())
"""

#: Makes of it a worker whose main thread hangs, deaf to signals, in what should wait for messages.
HUNG = """
import signal, threading
from workers import celery_app

signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
celery_app._listen = lambda *_: threading.Event().wait()
celery_app.Ending.LAST_SECONDS = 1.0
"""

#: A node in so far as it starts a worker, and has threads: the kernel tells of the deaths of several.
NODE = """
import sys, threading, time
from dicom_node.parts import ChildProcess

ChildProcess("worker", sys.argv[1:]).start()
for _ in range(20):
    threading.Thread(target=time.sleep, args=(600,)).start()
"""


class Room:
    """An archive and an index with one job, and a worker on it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.archive = Archive(folder)
        self.index = Index.open(f"sqlite:///{folder / 'index.sqlite'}")
        little_bundle(folder / "bundles" / "told", roi_size=(8, 16, 16))
        self.told = folder / "told"
        self.tell("")
        receive(self.index, self.archive, ct_series(folder / "series", slices=4, rows=16), at=time.time())
        #: The worker, or the node that started it.
        self.worker: subprocess.Popen[bytes] | None = None
        self.seen: dict[str, None] = {}

    def tell(self, what: str) -> None:
        """What the algorithm does at its next reading, or leaves off doing."""
        self.told.write_text(what)

    def queue(self) -> None:
        queued(self.index, at=time.time(), algorithm="told")

    def start(self, broker: str = "", *, program: str = PROGRAM, by_node: bool = False, **overrides: object) -> None:
        """Start a worker; without a broker unless one is named."""
        settings = {
            "worker.bundle_dirs": [str(self.folder / "bundles")],
            "worker.device": "cpu",
            "worker.look_seconds": 0.2,
            "queue.first_wait_seconds": 0.1,
            "queue.lease_seconds": 5.0,
            **overrides,
        }
        broker = broker or f"redis+socket://{self.folder / 'no.sock'}"
        command = [sys.executable, "-c", program, str(self.folder), broker, json.dumps(settings)]
        if by_node:
            command = [sys.executable, "-c", NODE, *command]
        environment = os.environ | {TOLD_BY: str(self.told), "OMP_NUM_THREADS": "1"}
        with (self.folder / "log").open("ab") as log:
            self.worker = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=log)

    @property
    def log(self) -> str:
        return (self.folder / "log").read_text()

    @property
    def job(self) -> JobRow:
        (row,) = self.index.jobs.of_study(STUDY)
        return row

    @property
    def row(self) -> WorkerRow | None:
        return next(iter(self.index.workers.rows()), None)

    def child(self, worker: int | None = None) -> int:
        """The reading process; or what this process has started."""
        assert self.worker is not None
        threads = Path(f"/proc/{worker or self.worker.pid}/task")
        found = {int(pid) for path in threads.glob("*/children") for pid in path.read_text().split()}
        (pid,) = found
        return pid

    def wait(self, condition: Callable[[], bool], seconds: float = PATIENCE_SECONDS) -> None:
        until = time.monotonic() + seconds
        while not condition():
            assert self.worker is None or self.worker.poll() is None or seconds < PATIENCE_SECONDS, self.log
            assert time.monotonic() < until, self.log
            time.sleep(0.05)

    def wait_until_reading(self, step: str = "reading") -> None:
        self.wait(lambda: self.job.job.state is JobState.READING)
        self.wait(lambda: self.row is not None and self.row.step == step)

    def end(self) -> None:
        if self.worker is not None and self.worker.poll() is None:
            self.worker.kill()
            self.worker.wait()
        self.index.close()


@pytest.fixture
def room(tmp_path: Path) -> Iterator[Room]:
    room = Room(tmp_path)
    yield room
    room.end()


def lives(pid: int) -> bool:
    """Whether there is such a process; one that is dead and only not yet counted is not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def reasons(room: Room) -> list[str]:
    """Why each attempt ended, but for the one that ended in the report."""
    history = (line for line in room.index.studies.history(STUDY) if line.subject == "job told")
    return [line.cause for line in history if (line.before, line.after) == ("READING", "QUEUED")]


def assert_reported_once(room: Room, attempts: int) -> None:
    room.wait(lambda: room.job.job.state is JobState.REPORTED)
    assert room.job.job.attempts == attempts
    (sr,) = room.index.jobs.report_rows(room.job.job.job_uid)
    assert dcmread(room.archive.path_of(sr.path)).StudyInstanceUID == STUDY
    assert len(list((room.folder / "results").rglob("*.dcm"))) == 1


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
    room.wait(lambda: not lives(child), seconds=1.0)

    room.tell("")
    room.start()
    attempts = Attempts(maximum=3, first_wait_seconds=0.0)
    # What the node's dispatch does.
    room.wait(lambda: bool(room.index.jobs.expire(now=time.time(), attempts=attempts, actor="test")))
    assert_reported_once(room, attempts=2)


def test_a_worker_asked_to_end_finishes_its_job_and_one_asked_twice_gives_it_back(room: Room) -> None:
    room.queue()
    room.tell("hang")
    room.start(**{"worker.stop_seconds": 100.0})
    room.wait_until_reading()
    assert room.worker is not None
    room.worker.send_signal(signal.SIGTERM)
    # Within a second it would be the same request.
    time.sleep(2.0)
    assert room.worker.poll() is None, "the job in hand is waited for"
    room.worker.send_signal(signal.SIGTERM)
    assert room.worker.wait(20) == 0, room.log
    assert (room.job.job.state, room.job.next_try_at) == (JobState.QUEUED, None)
    assert room.row is None

    room.start(**{"worker.stop_seconds": 100.0})
    room.wait_until_reading()
    child = room.child()
    room.worker.send_signal(signal.SIGTERM)
    time.sleep(1.0)
    room.tell("")
    assert room.worker.wait(20) == 0, room.log
    assert not lives(child)
    assert_reported_once(room, attempts=1)


def test_a_worker_asked_to_end_waits_no_longer_than_it_is_set_to(room: Room) -> None:
    room.queue()
    room.tell("hang")
    room.start(**{"worker.stop_seconds": 1.0})
    room.wait_until_reading()
    assert room.worker is not None
    room.worker.send_signal(signal.SIGTERM)
    assert room.worker.wait(20) == 0, room.log
    assert room.job.job.state is JobState.QUEUED


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_that_come_in_a_bunch_ask_once(room: Room, number: signal.Signals) -> None:
    room.queue()
    room.tell("hang")
    room.start(**{"worker.stop_seconds": 100.0})
    room.wait_until_reading()
    assert room.worker is not None
    for _ in range(5):
        room.worker.send_signal(number)
        time.sleep(0.01)
    time.sleep(2.0)
    assert room.worker.poll() is None, "the job in hand is waited for"
    room.tell("")
    assert room.worker.wait(PATIENCE_SECONDS) == (1 if number == signal.SIGINT else 0), room.log
    assert_reported_once(room, attempts=1)
    assert room.row is None
    assert "Traceback" not in room.log


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
        room.wait(lambda: not lives(worker) and not lives(reading), seconds=10.0)
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
    began = time.monotonic()
    bell.jobs.send(room.job.job)
    assert_reported_once(room, attempts=1)
    assert time.monotonic() - began < 30
    room.wait(lambda: bell.jobs.lengths()["routine"] == 0)
