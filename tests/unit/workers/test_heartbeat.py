import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dicom_node.archive.index import Index
from dicom_node.core.errors import IndexUnavailable
from dicom_node.core.job import Lease
from tests.populated_index import NOW, claim, instance, queue
from workers.heartbeat import Heartbeat

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
    options: dict[str, Any] = {"lease_seconds": 30, "maximum_reading_seconds": 600, "clock": clock or Clock()}
    return Heartbeat(index, WORKER, **(options | changes))


def expired(index: Index, at: float) -> list[str]:
    return [job.job_uid for job in index.jobs.expire(now=at, maximum_attempts=3, actor="assembly")]


def test_a_job_in_hand_is_named_and_its_lease_renewed_until_it_is_laid_down(index: Index, lease: Lease) -> None:
    clock = Clock()
    heartbeat = beating(index, clock)
    clock.now += 20
    with heartbeat.holding(lease):
        (row,) = index.workers.rows()
        assert (row.job_uid, row.heartbeat_at) == (lease.job_uid, NOW + 20)
        assert expired(index, NOW + 49) == []
    assert index.workers.rows()[0].job_uid is None
    assert expired(index, NOW + 51) == [lease.job_uid]


def test_a_job_that_ends_by_an_error_is_laid_down_too(index: Index, lease: Lease) -> None:
    heartbeat = beating(index)
    with pytest.raises(ZeroDivisionError), heartbeat.holding(lease):
        raise ZeroDivisionError
    assert index.workers.rows()[0].job_uid is None


def test_the_thread_beats_by_itself_and_stops_promptly(index: Index, lease: Lease) -> None:
    clock = Clock()
    heartbeat = beating(index, clock, lease_seconds=0.12)
    heartbeat.start()
    clock.now += 50
    until = time.monotonic() + 20
    while index.workers.rows()[0].heartbeat_at != NOW + 50:
        assert time.monotonic() < until
        time.sleep(0.01)
    heartbeat.stop()
    assert "heartbeat" not in [thread.name for thread in threading.enumerate()]


def test_a_lost_lease_is_told_and_not_taken_back(index: Index, lease: Lease, caplog: pytest.LogCaptureFixture) -> None:
    index.studies.add_instance(instance("a", 99, at=NOW + 1))
    with beating(index).holding(lease):
        pass
    assert "the job in hand is no longer ours" in caplog.messages
    assert index.jobs.counts() == {}


def test_an_index_that_is_away_for_a_beat_does_not_end_the_work(
    index: Index, lease: Lease, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def away(*_args: object, **_kwargs: object) -> None:
        raise IndexUnavailable("the index does not answer")

    monkeypatch.setattr(index.workers, "beat", away)
    worked = []
    with beating(index).holding(lease):
        worked.append(True)
    assert worked
    assert caplog.messages == ["a heartbeat did not reach the index"] * 2


def test_a_reading_that_hangs_is_let_go_and_its_process_ends(
    index: Index, lease: Lease, caplog: pytest.LogCaptureFixture
) -> None:
    ended = threading.Event()
    clock = Clock()
    heartbeat = beating(index, clock, lease_seconds=0.6, maximum_reading_seconds=0.05, end_process=ended.set)
    heartbeat.start()
    with heartbeat.holding(lease):
        clock.now += 1
        assert ended.wait(20)
        assert expired(index, NOW + 0.7) == [lease.job_uid], "its lease was not renewed"
    heartbeat.stop()
    assert "a reading hangs; this worker ends" in caplog.messages


def test_a_long_rest_between_readings_is_no_reading_that_hangs(index: Index, lease: Lease) -> None:
    ended = threading.Event()
    heartbeat = beating(index, lease_seconds=0.06, maximum_reading_seconds=0.5, end_process=ended.set)
    heartbeat.start()
    with heartbeat.holding(lease):
        pass
    assert not ended.wait(0.8)
    heartbeat.stop()


def test_a_process_that_hangs_in_foreign_code_really_ends() -> None:
    """A child whose main thread never comes back to answer anything."""
    program = """
import time
from dicom_node.archive.index import Index
from dicom_node.core.job import Lease
from workers.heartbeat import Heartbeat
heartbeat = Heartbeat(Index.open("sqlite://"), "w", lease_seconds=0.1, maximum_reading_seconds=0.1, clock=time.time)
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
    heartbeat = beating(index, lease_seconds=0.06)
    heartbeat.start()
    until = time.monotonic() + 20
    while len(beaten) < 3:
        assert time.monotonic() < until
        time.sleep(0.01)
    heartbeat.stop()
    assert "a heartbeat failed" in caplog.messages
    assert "Tess" not in caplog.text
