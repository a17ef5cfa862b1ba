import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from dicom_node.archive.index import Index
from dicom_node.core.attempts import Attempts
from dicom_node.core.errors import IndexUnavailable
from dicom_node.core.job import Lease
from tests.populated_index import NOW, claim, instance, queue
from workers.heartbeat import Heartbeat
from workers.readings import Limits, Pulse

WORKER = "gpu1:1"


class Clock:
    """A clock that a test turns."""

    now = NOW

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def index(tmp_path: Path) -> Iterator[Index]:
    # A file: two threads write to it.
    index = Index.open(f"sqlite:///{tmp_path / 'index.sqlite'}")
    index.workers.began(WORKER, device="cpu", bundles=[], queues=["stat"], at=NOW)
    yield index
    index.close()


@pytest.fixture
def lease(index: Index) -> Lease:
    return claim(index, queue(index, "a", at=NOW), at=NOW, worker=WORKER)


def beating(index: Index, clock: Clock | None = None, **changes: Any) -> Heartbeat:
    options: dict[str, Any] = {
        "lease_seconds": 30,
        "limits": Limits(reading_seconds=600, silence_seconds=60),
        "pulse": lambda: Pulse(step="network", silent_seconds=2.0),
        "clock": clock or Clock(),
    }
    return Heartbeat(index, WORKER, **(options | changes))


def test_a_worker_that_the_index_does_not_know_hears_of_it(index: Index) -> None:
    unknown: list[str] = []
    heartbeat = beating(index, on_unknown=lambda: unknown.append("unknown"))
    heartbeat._beat(None)
    assert unknown == []
    index.workers.ended(WORKER)
    heartbeat._beat(None)
    assert unknown == ["unknown"]


@contextmanager
def started(heartbeat: Heartbeat) -> Iterator[Heartbeat]:
    heartbeat.start()
    yield heartbeat
    heartbeat.stop()


def wait_for(condition: Callable[[], bool]) -> None:
    until = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < until, "it did not happen"
        time.sleep(0.01)


def expired(index: Index, at: float) -> list[str]:
    return [
        job.job_uid
        for job in index.jobs.expire(now=at, attempts=Attempts(maximum=3, first_wait_seconds=0), actor="assembly")
    ]


def held_until(index: Index, lease: Lease) -> float | None:
    jobs = index.transactions.tables["jobs"]
    with index.transactions.read() as connection:
        query = sa.select(jobs.c.lease_expires_at).where(jobs.c.job_uid == lease.job_uid)
        return connection.execute(query).scalar_one()


def test_a_job_in_hand_is_named_and_its_lease_renewed_until_it_is_laid_down(index: Index, lease: Lease) -> None:
    clock = Clock()
    clock.now += 20
    with started(beating(index, clock)) as heartbeat:
        with heartbeat.holding(lease):
            wait_for(lambda: index.workers.rows()[0].job_uid == lease.job_uid)
            assert index.workers.rows()[0].heartbeat_at == NOW + 20
            wait_for(lambda: held_until(index, lease) == NOW + 50)
            assert expired(index, NOW + 49) == []
        wait_for(lambda: index.workers.rows()[0].job_uid is None)
    assert expired(index, NOW + 51) == [lease.job_uid]


def test_what_the_reading_process_does_and_when_it_last_moved_is_told(index: Index) -> None:
    with started(beating(index)):
        wait_for(lambda: index.workers.rows()[0].step == "network")
    assert index.workers.rows()[0].moved_at == NOW - 2


def test_a_lease_is_not_renewed_for_a_reading_process_that_does_not_move(index: Index, lease: Lease) -> None:
    clock = Clock()
    clock.now += 20
    with started(beating(index, clock, pulse=lambda: Pulse(step="network", silent_seconds=61))) as heartbeat:
        with heartbeat.holding(lease):
            wait_for(lambda: index.workers.rows()[0].job_uid == lease.job_uid)
        wait_for(lambda: index.workers.rows()[0].job_uid is None)
    assert expired(index, NOW + 31) == [lease.job_uid]


def test_many_jobs_a_second_are_not_many_beats_a_second(
    index: Index, lease: Lease, monkeypatch: pytest.MonkeyPatch
) -> None:
    beaten: list[float] = []
    monkeypatch.setattr(index.workers, "beat", lambda *_args, **_kwargs: beaten.append(time.monotonic()))
    with started(beating(index)) as heartbeat:
        until = time.monotonic() + 1.2
        while time.monotonic() < until:
            with heartbeat.holding(lease):
                time.sleep(0.01)
    assert 1 <= len(beaten) <= 4


def test_a_job_that_ends_by_an_error_is_laid_down_too(index: Index, lease: Lease) -> None:
    heartbeat = beating(index)
    with pytest.raises(ZeroDivisionError), heartbeat.holding(lease):
        raise ZeroDivisionError
    assert heartbeat._lease is None


def test_the_thread_beats_by_itself_and_stops_promptly(index: Index, lease: Lease) -> None:
    clock = Clock()
    with started(beating(index, clock, lease_seconds=0.12)):
        clock.now += 50
        wait_for(lambda: index.workers.rows()[0].heartbeat_at == NOW + 50)
    assert "heartbeat" not in [thread.name for thread in threading.enumerate()]


def test_a_lost_lease_is_told_and_not_taken_back(index: Index, lease: Lease, caplog: pytest.LogCaptureFixture) -> None:
    index.studies.add_instance(instance("a", 99, at=NOW + 1))
    with started(beating(index)) as heartbeat, heartbeat.holding(lease):
        wait_for(lambda: heartbeat.lost)
    assert "the job in hand is no longer ours" in caplog.messages
    assert index.jobs.counts() == {}


def test_the_loss_of_one_job_is_not_that_of_the_next(index: Index, lease: Lease) -> None:
    other = claim(index, queue(index, "b", at=NOW), at=NOW, worker=WORKER)
    index.studies.add_instance(instance("a", 99, at=NOW + 1))
    with started(beating(index)) as heartbeat:
        with heartbeat.holding(lease):
            wait_for(lambda: heartbeat.lost)
        with heartbeat.holding(other):
            assert not heartbeat.lost


def test_an_index_that_is_away_for_a_beat_does_not_end_the_work(
    index: Index, lease: Lease, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def away(*_args: object, **_kwargs: object) -> None:
        raise IndexUnavailable("the index does not answer")

    with monkeypatch.context() as patch, started(beating(index)) as heartbeat:
        patch.setattr(index.workers, "beat", away)
        with heartbeat.holding(lease):
            wait_for(lambda: "a heartbeat did not reach the index" in caplog.messages)
        assert heartbeat._thread.is_alive()


def test_a_worker_that_hangs_itself_keeps_no_job_and_ends(
    index: Index, lease: Lease, caplog: pytest.LogCaptureFixture
) -> None:
    ended = threading.Event()
    limits = Limits(reading_seconds=0.02, silence_seconds=0.02)
    heartbeat = beating(index, lease_seconds=0.6, limits=limits, end_process=ended.set, laying_down_seconds=0.01)
    with started(heartbeat), heartbeat.holding(lease):
        assert ended.wait(20)
        assert expired(index, NOW + 31) == [lease.job_uid]
    assert "this worker hangs and ends" in caplog.messages


def test_a_long_rest_between_readings_is_no_reading_that_hangs(index: Index, lease: Lease) -> None:
    ended = threading.Event()
    limits = Limits(reading_seconds=0.2, silence_seconds=0.2)
    heartbeat = beating(index, lease_seconds=0.06, limits=limits, end_process=ended.set, laying_down_seconds=0.1)
    with started(heartbeat):
        with heartbeat.holding(lease):
            pass
        assert not ended.wait(0.8)


def test_a_process_that_hangs_in_foreign_code_really_ends() -> None:
    """A child whose main thread never comes back to answer anything."""
    program = """
import time
from dicom_node.archive.index import Index
from dicom_node.core.job import Lease
from workers.heartbeat import Heartbeat
from workers.readings import Limits, Pulse
heartbeat = Heartbeat(
    Index.open("sqlite://"),
    "w",
    lease_seconds=0.1,
    limits=Limits(reading_seconds=0.1, silence_seconds=0.1),
    pulse=lambda: Pulse(step="", silent_seconds=0.0),
    clock=time.time,
    laying_down_seconds=0.1,
)
heartbeat.start()
with heartbeat.holding(Lease(job_uid="2.25.1", token="t", worker="w", expires_at=0.0)):
    time.sleep(120)
"""
    child = subprocess.run([sys.executable, "-c", program], timeout=60, check=False, capture_output=True)
    assert child.returncode == 70, child.stderr


def test_a_beat_that_fails_for_any_reason_is_not_the_last(
    index: Index, lease: Lease, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    beaten = []

    def fail(*_args: object, **_kwargs: object) -> None:
        beaten.append(time.monotonic())
        raise ZeroDivisionError("Test^Tess")

    monkeypatch.setattr(index.workers, "beat", fail)
    with started(beating(index, lease_seconds=0.06)):
        wait_for(lambda: len(beaten) >= 3)
    assert "a heartbeat failed" in caplog.messages
    assert "Tess" not in caplog.text


def test_the_memory_of_the_device_is_told_as_long_as_there_is_one(index: Index) -> None:
    pulse = Pulse(step="network", silent_seconds=0.0, memory_bytes=(3 << 30, 80 << 30))
    beating(index, pulse=lambda: pulse)._beat(None)
    assert [(row.memory_used_bytes, row.memory_total_bytes) for row in index.workers.rows()] == [(3 << 30, 80 << 30)]
    beating(index, pulse=lambda: Pulse(step="network", silent_seconds=0.0))._beat(None)
    assert [row.memory_used_bytes for row in index.workers.rows()] == [None]
