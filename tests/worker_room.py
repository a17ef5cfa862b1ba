"""An archive and an index with one job, and a worker of two real processes on it that tests kill, stop and end."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from pydicom import dcmread

from dicom_node.archive.files import Archive
from dicom_node.archive.index import Index
from dicom_node.archive.jobs import JobRow
from dicom_node.archive.workers import WorkerRow
from dicom_node.core.lifecycle import JobState
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

#: Makes of it a worker whose reading process computes nothing and is there at once, where what is read does not matter.
LITTLE = """
from functools import partial
from workers import celery_app

celery_app.Readings = partial(celery_app.Readings, module="tests.little_reading_process")
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

    def queue(self, algorithm: str = "told") -> None:
        queued(self.index, at=time.time(), algorithm=algorithm)

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


@contextmanager
def worker_room(folder: Path) -> Iterator[Room]:
    """A room whose worker is gone in the end."""
    room = Room(folder)
    try:
        yield room
    finally:
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
