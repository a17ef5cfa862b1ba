"""Turns: who writes into the index next, of threads and of processes."""

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


def test_two_processes_never_have_their_turn_at_once(index: Path, turns: Turns) -> None:
    first = Turns(index, patience_seconds=0.05)
    with first.taken():
        other = Turns(index, patience_seconds=0.05)
        with pytest.raises(IndexUnavailable), other.taken():
            pytest.fail("both had their turn")
        other.close()
    first.close()
    with turns.taken():
        pass


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


def test_a_turn_that_does_not_come_in_time_is_told_by_an_error_of_ours_and_waited_for_again(index: Path) -> None:
    first, second = Turns(index, patience_seconds=10.0), Turns(index, patience_seconds=0.05)
    with first.taken(), pytest.raises(IndexUnavailable, match="see its disk, and what holds it"), second.taken():
        pytest.fail("it was the first one's turn")
    with second.taken():
        pass
    first.close()
    second.close()


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


def test_where_no_lock_can_be_made_the_index_is_unavailable(tmp_path: Path) -> None:
    turns = Turns(tmp_path / "gone" / "index.sqlite", patience_seconds=0.05)
    with pytest.raises(IndexUnavailable, match="no lock can be made"), turns.taken():
        pytest.fail("there is no folder for it")


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
