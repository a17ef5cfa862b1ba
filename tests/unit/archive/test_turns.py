"""Turns: who writes into the index next, of threads and of processes."""

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from dicom_node.archive.index import Index
from dicom_node.archive.turns import Turns
from dicom_node.core.errors import IndexUnavailable

#: Takes turn after turn, and counts them until it is killed.
BUSY = """
import sys, time
from pathlib import Path
from dicom_node.archive.turns import Turns
turns = Turns(Path(sys.argv[1]), patience_seconds=30.0)
print("there", flush=True)
while True:
    with turns.taken():
        time.sleep(0.002)
"""


@pytest.fixture
def index(tmp_path: Path) -> Path:
    return tmp_path / "index.sqlite"


@pytest.fixture
def turns(index: Path) -> Iterator[Turns]:
    turns = Turns(index, patience_seconds=10.0)
    yield turns
    turns.close()


@pytest.fixture
def busy(index: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that writes without a pause."""
    process = subprocess.Popen([sys.executable, "-c", BUSY, str(index)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline()
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def test_two_threads_never_have_their_turn_at_once(turns: Turns) -> None:
    inside, most = 0, 0

    def write() -> None:
        nonlocal inside, most
        for _ in range(50):
            with turns.taken():
                inside += 1
                most = max(most, inside)
                time.sleep(0)
                inside -= 1

    threads = [threading.Thread(target=write) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 1


class Clock:
    """A clock that goes on by what is waited."""

    def __init__(self) -> None:
        self.now, self.waited = 1000.0, 0.0

    def __call__(self) -> float:
        return self.now

    def rest(self, seconds: float) -> None:
        self.now += seconds
        self.waited += seconds


def test_another_process_is_waited_for_in_order_and_not_for_long(index: Path) -> None:
    first, clock = Turns(index, patience_seconds=10.0), Clock()
    second = Turns(index, patience_seconds=10.0, clock=clock, rest=clock.rest)
    with first.taken():
        # The first may be stopped: what guards the data is SQLite's own lock.
        with second.taken():
            assert 0.9 < clock.waited < 1.1
        with second.taken():
            assert clock.waited < 1.1, "once is enough for a while"
    clock.now += 20
    with second.taken():
        assert clock.waited < 1.1, "the order is there again"
    first.close()
    second.close()


def test_a_process_that_is_stopped_while_it_waits_keeps_nobody_from_writing(index: Path, tmp_path: Path) -> None:
    waiting = "BUSY = None\n" + BUSY.replace("time.sleep(0.002)", "pass")
    process = subprocess.Popen([sys.executable, "-c", waiting, str(index)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline()
    one = Index.open(f"sqlite:///{index}")
    try:
        for _ in range(10):
            process.send_signal(signal.SIGSTOP)
            began = time.monotonic()
            one.workers.began("w", device="cpu", bundles=(), queues=("stat",), at=1.0)
            assert time.monotonic() - began < 10.0
            process.send_signal(signal.SIGCONT)
            time.sleep(0.003)
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
        one.close()


def test_next_to_a_process_that_writes_without_a_pause_everybody_gets_a_turn(
    turns: Turns, busy: subprocess.Popen[str]
) -> None:
    for _ in range(50):
        with turns.taken():
            pass
    assert busy.poll() is None


def test_the_turn_of_a_killed_process_is_free(turns: Turns, busy: subprocess.Popen[str]) -> None:
    busy.kill()
    busy.wait()
    with turns.taken():
        pass


def test_a_thread_that_waits_too_long_for_another_of_its_process_is_told_so(index: Path) -> None:
    turns = Turns(index, patience_seconds=0.05)
    found: list[IndexUnavailable] = []

    def write() -> None:
        try:
            with turns.taken():
                pass
        except IndexUnavailable as error:
            found.append(error)

    with turns.taken():
        thread = threading.Thread(target=write)
        thread.start()
        thread.join()
    assert len(found) == 1
    turns.close()


def test_turns_that_were_closed_can_be_taken_again_and_closed_again(turns: Turns) -> None:
    for _ in range(2):
        with turns.taken():
            pass
        turns.close()
        turns.close()


def test_where_no_lock_can_be_made_the_order_is_left_to_the_database(tmp_path: Path) -> None:
    turns = Turns(tmp_path / "gone" / "index.sqlite", patience_seconds=0.05)
    with turns.taken():
        pass


def test_locks_that_another_user_made_are_enough(index: Path, turns: Turns) -> None:
    with turns.taken():
        pass
    for path in (index.with_name("index.sqlite-gate"), index.with_name("index.sqlite-turn")):
        path.chmod(0o444)
    other = Turns(index, patience_seconds=0.05)
    with other.taken():
        pass
    other.close()


def test_an_error_inside_gives_the_turn_back(turns: Turns) -> None:
    with pytest.raises(ZeroDivisionError), turns.taken():
        raise ZeroDivisionError
    with turns.taken():
        pass


def test_an_index_in_a_file_is_written_to_in_turns_and_what_need_not_be_durable_is_there_at_once(index: Path) -> None:
    one, two = Index.open(f"sqlite:///{index}"), Index.open(f"sqlite:///{index}")
    one.workers.began("w", device="cpu", bundles=(), queues=("stat",), at=1.0)
    assert [row.worker for row in two.workers.rows()] == ["w"]
    assert {path.name for path in index.parent.iterdir()} >= {"index.sqlite-gate", "index.sqlite-turn"}
    one.close()
    two.close()


def test_each_write_is_as_durable_as_it_was_asked_for(index: Path) -> None:
    one = Index.open(f"sqlite:///{index}")
    found = []
    for durable in (True, False, False, True):
        with one.transactions.write(durable=durable) as connection:
            found.append(connection.exec_driver_sql("PRAGMA synchronous").scalar())
    assert found == [2, 1, 1, 2]
    one.close()
