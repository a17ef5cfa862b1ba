import errno
import hashlib
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from dicom_node.archive.journal import Entry, Journal, forget, journalled
from dicom_node.archive.journal_segment import PAGE, Record
from dicom_node.core.errors import IndexUnavailable

SECONDS = 10.0


def record(number: int, size: int = 100) -> Record:
    data_set = number.to_bytes(4, "little") * (size // 4)
    path = f"studies/00/1.2/1.2.3/1.2.3.{number}.dcm"
    return Record(path=path, sha256=hashlib.sha256(data_set).hexdigest(), file_meta=b"meta", data_set=data_set)


class Disk:
    """What the journal puts things on; it may refuse them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.synced: list[str] = []
        self.rows = 0
        self.restored: list[Record] = []
        #: Paths that the disk refuses.
        self.refused: set[str] = set()
        #: How often the index does not answer.
        self.away = 0
        self.free = 1 << 40
        self.journal = Journal(
            folder,
            sync_files=self.sync_files,
            restore=self.restored.append,
            sync_rows=self.sync_rows,
            free_bytes=lambda: self.free,
            first=0,
            segment_bytes=4 * PAGE,
        )

    def sync_files(self, paths: Sequence[str]) -> list[str]:
        self.synced += paths
        return [path for path in paths if path in self.refused]

    def sync_rows(self) -> None:
        if self.away:
            self.away -= 1
            raise IndexUnavailable("the index does not answer")
        self.rows += 1

    def keep(self, number: int) -> Entry:
        """Until there is a place for it."""
        found: list[Entry] = []

        def kept() -> bool:
            found.extend(filter(None, [self.journal.keep(record(number))]))
            return bool(found)

        wait_for(kept)
        return found[0]

    def held(self) -> list[str]:
        return [each.path for each in journalled(self.folder)]


def wait_for(condition: Callable[[], bool]) -> None:
    until = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < until, "it did not come about"
        time.sleep(0.002)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    disk = Disk(tmp_path / "journal")
    yield disk
    disk.journal.close()


def test_a_record_is_in_the_journal_when_it_is_kept(disk: Disk) -> None:
    with disk.keep(1):
        assert disk.held() == [record(1).path]
        assert not disk.synced


def test_the_first_instances_are_none_of_the_journals(tmp_path: Path) -> None:
    disk = Disk(tmp_path / "journal")
    disk.journal._first = 3
    assert [disk.journal.keep(record(number)) for number in range(3)] == [None] * 3
    assert not disk.folder.exists()
    with disk.keep(4):
        pass
    disk.journal.close()


def test_a_full_segment_is_settled_and_written_anew(disk: Disk) -> None:
    for number in range(40):
        with disk.keep(number):
            pass
    assert set(disk.synced) <= {record(number).path for number in range(40)}
    wait_for(lambda: len(disk.synced) >= 30)
    assert disk.rows >= 10
    # Of what is settled nothing is left but what was not written over.
    assert len(disk.held()) <= 3 * 16


def test_a_segment_is_not_settled_before_its_rows_are_committed(disk: Disk) -> None:
    entry = disk.keep(0)
    for number in range(1, 10):
        with disk.keep(number):
            pass
    wait_for(lambda: record(4).path in disk.synced)
    assert record(0).path not in disk.synced
    assert record(0).path in disk.held()
    with entry:
        pass
    wait_for(lambda: record(0).path in disk.synced)


def test_a_file_that_the_disk_refused_is_written_anew_from_the_journal(disk: Disk) -> None:
    disk.refused = {record(1).path}
    for number in range(8):
        with disk.keep(number):
            pass
    wait_for(lambda: len(disk.restored) == 1)
    assert disk.restored == [record(1)]


def test_what_the_index_does_not_take_stays_in_the_journal_until_it_does(
    disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dicom_node.archive.journal._AGAIN_SECONDS", 0.05)
    disk.away = 3
    for number in range(8):
        with disk.keep(number):
            pass
    wait_for(lambda: disk.rows > 0)
    assert disk.away == 0


def test_without_room_on_the_disk_there_is_no_journal(tmp_path: Path) -> None:
    disk = Disk(tmp_path / "journal")
    disk.free = 16 * 4 * PAGE
    for number in range(20):
        assert disk.journal.keep(record(number)) is None
        time.sleep(0.002)
    assert disk.held() == []
    disk.journal.close()


def test_a_record_that_is_longer_than_a_segment_is_for_the_disk_itself(disk: Disk) -> None:
    with disk.keep(1):
        pass
    assert disk.journal.keep(record(2, size=8 * PAGE)) is None
    assert disk.journal.keep(record(3, size=8 << 20)) is None
    with disk.keep(4):
        pass


def test_where_it_cannot_be_written_the_disk_is_waited_for_and_no_other_record_is_lost(
    disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    with disk.keep(1):
        pass
    real = os.pwrite

    def broken(*_: object) -> int:
        raise OSError(errno.EIO, "the disk is broken")

    monkeypatch.setattr(os, "pwrite", broken)
    assert disk.journal.keep(record(2)) is None
    monkeypatch.setattr(os, "pwrite", real)
    wait_for(lambda: record(1).path in disk.synced)
    with disk.keep(3):
        assert record(3).path in disk.held()


def test_threads_that_come_at_once_share_the_wait_for_the_disk(disk: Disk, monkeypatch: pytest.MonkeyPatch) -> None:
    with disk.keep(0):
        pass
    waits: list[int] = []
    real, first = os.fdatasync, threading.Event()

    def slow(descriptor: int) -> None:
        waits.append(descriptor)
        first.set()
        time.sleep(0.2)
        real(descriptor)

    monkeypatch.setattr(os, "fdatasync", slow)
    with ThreadPoolExecutor(3) as pool:
        one = pool.submit(disk.journal.keep, record(1))
        assert first.wait(SECONDS)
        others = [pool.submit(disk.journal.keep, record(number)) for number in (2,)]
        entries = [one.result(), *(other.result() for other in others)]
    assert len(waits) <= 2
    for entry in entries:
        assert entry is not None
        with entry:
            pass


def test_a_close_in_good_order_leaves_nothing(tmp_path: Path) -> None:
    disk = Disk(tmp_path / "journal")
    for number in range(6):
        with disk.keep(number):
            pass
    disk.journal.close()
    assert set(disk.synced) == {record(number).path for number in range(6)}
    assert list((tmp_path / "journal").iterdir()) == []
    assert disk.journal.keep(record(7)) is None


def test_what_fails_to_the_end_is_left_for_the_next_start(tmp_path: Path) -> None:
    disk = Disk(tmp_path / "journal")
    with disk.keep(1):
        pass
    disk.away = 1000
    disk.journal.close()
    assert record(1).path in disk.held()
    forget(disk.folder)
    assert disk.held() == []


def test_what_an_earlier_process_left_is_not_written_over(tmp_path: Path) -> None:
    earlier = Disk(tmp_path / "journal")
    with earlier.keep(1):
        pass
    earlier.away = 1000
    earlier.journal.close()
    later = Disk(tmp_path / "journal")
    for number in range(2, 12):
        with later.keep(number):
            pass
    assert record(1).path in later.held()
    later.journal.close()
    assert later.held() == [record(1).path]
