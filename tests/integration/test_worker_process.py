"""A worker's process at a real broker: after a fault nobody thought of it ends, and its message with it."""

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from celery import Celery

from dicom_node.archive.index import Index
from dicom_node.broker import broker_url, own_redis, socket_path
from dicom_node.job_queue import CeleryJobQueue, celery_options
from tests.populated_index import NOW, queue

#: The worker as it is, but for the network, and for a triage that meets such a fault at its first job.
PROGRAM = """
import sys
from pathlib import Path
from dicom_node.archive.files import Archive
from dicom_node.archive.index import Index
from dicom_node.settings import Settings
from workers import celery_app

class Broken:
    def __init__(self, *, leave, **_):
        self.leave = leave

    def read(self, job_uid):
        print("read", job_uid, flush=True)
        self.leave()

celery_app.readers = lambda settings: {}
celery_app.Triage = Broken
folder = Path(sys.argv[1])
index = Index.open(f"sqlite:///{folder / 'index.sqlite'}")
celery_app.work(Settings(), index, Archive(folder), broker_url=sys.argv[2], queues=("stat", "urgent", "routine"))
"""


@pytest.fixture
def broker() -> Iterator[str]:
    # A pytest folder may be too deep for a socket: this asks for a short one.
    path = socket_path(Path("x" * 120))
    redis = own_redis(path)
    redis.start()
    yield broker_url(path)
    redis.stop()
    shutil.rmtree(path.parent)


def keys(url: str) -> set[str]:
    """What Redis still holds of messages, waiting or in a worker's hand."""
    app = Celery(set_as_current=False)
    app.conf.update(celery_options(url))
    with app.connection_for_read() as connection:
        found = {key.decode() for key in connection.default_channel.client.keys("*")}
    app.close()
    return {key for key in found if not key.startswith("_kombu")}


def test_a_worker_that_must_leave_ends_after_its_message_and_says_so_by_its_exit_status(
    broker: str, tmp_path: Path
) -> None:
    index = Index.open(f"sqlite:///{tmp_path / 'index.sqlite'}")
    jobs = CeleryJobQueue(broker)
    first, second = (queue(index, name, at=NOW) for name in "ab")
    for job in (first, second):
        jobs.send(job)
    command = [sys.executable, "-c", PROGRAM, str(tmp_path), broker]
    worker = subprocess.run(command, timeout=100, check=False, capture_output=True, text=True)

    assert worker.returncode == 70, worker.stderr
    assert worker.stdout.split() == ["read", first.job_uid], "the next job is for a new process"
    assert index.workers.rows() == []
    assert keys(broker) == {"routine"}, "the first message is acknowledged, the second waits"
    assert jobs.lengths()["routine"] == 1
    jobs.close()
    index.close()
