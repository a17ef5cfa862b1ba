"""After the answer, whatever the disk was not waited for may be lost: the journal alone must bring it back."""

import errno
import hashlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path, PurePosixPath

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dicom_node.archive.files import Archive
from dicom_node.archive.index import Index
from dicom_node.archive.journal import Entry
from dicom_node.archive.journal_segment import Record
from dicom_node.archive.second_name import second_name
from dicom_node.core.lifecycle import StudyState
from tests.instances import data_set_of, encoded, files_below
from tests.room import Room

COUNT = 12

#: What a power cut makes of a file that nobody waited for.
FATES = ("whole", "gone", "empty", "torn", "zeros", "nameless")

fates = st.lists(st.sampled_from(FATES), min_size=COUNT, max_size=COUNT)


def journalling(folder: Path, segment_bytes: int = 1 << 20) -> Room:
    """A room whose journal is at work from the first instance on."""
    room = Room(folder)
    room.archive.open_journal(room.index.studies.settle, first=0, segment_bytes=segment_bytes)
    # The first one asks for a segment, and is gone before there is one.
    room.receive(99)
    journal = room.archive._journal
    assert journal is not None
    with journal._changing:
        assert journal._changing.wait_for(lambda: journal._free, 10)
    return room


def suffer(fate: str, path: Path, incoming: Path) -> None:
    """Let this become of a file; its second name may be there again, whose end nobody waited for either."""
    data, data_set = path.read_bytes(), data_set_of(path)
    if fate in ("gone", "nameless"):
        path.unlink()
    if fate == "empty":
        path.write_bytes(b"")
    if fate == "torn":
        path.write_bytes(data[: len(data) // 2])
    if fate == "zeros":
        path.write_bytes(bytes(len(data)))
    if fate in ("torn", "empty", "zeros"):
        place = PurePosixPath(path.relative_to(incoming.parent))
        os.link(path, incoming / second_name(place, hashlib.sha256(data_set).hexdigest()))


def cut(room: Room, before: Path, after: Path, lost: list[str], *, is_index_lost: bool) -> None:
    """The folder as the power cut leaves it: the journal as it is, files as by their fates, the index from before."""
    shutil.copytree(room.folder, after, ignore=shutil.ignore_patterns("index.sqlite*"))
    for file in (before if is_index_lost else room.folder).glob("index.sqlite*"):
        shutil.copy(file, after / file.name)
    for number, fate in enumerate(lost, start=1):
        (path,) = (after / "archive" / "studies").rglob(f"*.{number}.dcm")
        suffer(fate, path, after / "archive" / "incoming")


@settings(max_examples=15, deadline=None)
@given(fates, st.booleans())
def test_every_instance_that_was_answered_is_there_after_a_power_cut(lost: list[str], is_index_lost: bool) -> None:
    with tempfile.TemporaryDirectory() as folder:
        now, before, after = (Path(folder, name) for name in ("now", "before", "after"))
        now.mkdir()
        before.mkdir()
        room = journalling(now)
        for file in now.glob("index.sqlite*"):
            shutil.copy(file, before / file.name)
        room.receive(*range(1, COUNT + 1))
        assert len(list(room.archive.journalled())) == COUNT
        cut(room, before, after, lost, is_index_lost=is_index_lost)
        room.archive.close_journal()
        room.index.close()

        again = Room(after)
        again.recovery.run()
        paths = again.paths()
        assert sorted(path.name.split(".")[-2] for path in paths) == sorted(map(str, [99, *range(1, COUNT + 1)]))
        for path in paths:
            assert data_set_of(path) == encoded(again.slice(int(path.name.split(".")[-2])))
        assert files_below(again.root) == sorted(str(path.relative_to(again.root)) for path in paths)
        assert again.recovery.run().anything is False
        again.index.close()


def test_a_stop_at_any_moment_of_an_instance_leaves_it_whole_or_not_at_all(tmp_path: Path) -> None:
    """Copies of the folder between its steps: the file without its record, both without a row, all of them."""
    (tmp_path / "now").mkdir()
    room = journalling(tmp_path / "now")
    journal = room.archive._journal
    assert journal is not None
    keep, copies = journal.keep, list[Path]()

    def copied(name: str) -> None:
        # With the two names of one file still two names of one file.
        subprocess.run(["cp", "-a", room.folder, tmp_path / name], check=True)
        copies.append(tmp_path / name)

    def watched(record: Record) -> Entry | None:
        copied("before its record")
        entry = keep(record)
        copied("before its row")
        return entry

    journal.keep = watched  # type: ignore[method-assign]
    room.receive(1)
    copied("afterwards")
    room.archive.close_journal()
    room.index.close()
    for folder in copies:
        again = Room(folder)
        again.recovery.run()
        assert len(again.paths()) == 2
        assert files_below(again.root) == sorted(str(path.relative_to(again.root)) for path in again.paths())
        again.index.close()


def test_a_study_that_left_the_disk_does_not_come_back_by_the_journal(tmp_path: Path) -> None:
    room = journalling(tmp_path)
    room.receive(1)
    room.reach(StudyState.DELIVERED)
    (path,) = [path for path in room.paths() if path.name.endswith(".1.dcm")]
    with room.index.transactions.write() as connection:
        connection.exec_driver_sql("UPDATE studies SET evicted_at = 1.0, files_left = 0")
    path.unlink()
    again = Room(tmp_path)
    again.recovery.run()
    assert not path.exists()
    again.index.close()
    room.archive.close_journal()
    room.index.close()


def test_another_content_that_has_the_place_by_now_is_not_written_over(tmp_path: Path) -> None:
    room = journalling(tmp_path)
    room.receive(1)
    (path,) = [path for path in room.paths() if path.name.endswith(".1.dcm")]
    with room.index.transactions.write() as connection:
        connection.exec_driver_sql("UPDATE instances SET sha256 = 'another' WHERE path LIKE '%.1.dcm'")
    path.write_bytes(b"another content")
    again = Room(tmp_path)
    again.recovery.run()
    assert path.read_bytes() == b"another content"
    again.index.close()
    room.archive.close_journal()
    room.index.close()


def test_what_cannot_be_made_again_stays_in_the_journal_and_the_node_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    room = journalling(tmp_path)
    room.receive(1, 2)
    paths = [path for path in room.paths() if not path.name.endswith(".99.dcm")]
    for path in paths:
        path.unlink()

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "no room")

    again = Room(tmp_path)
    with monkeypatch.context() as patched:
        patched.setattr(again.archive, "restore", full)
        again.recovery.run()
    assert len(list(again.archive.journalled())) == 2
    again.recovery.run()
    assert all(path.exists() for path in paths)
    assert not list(again.archive.journalled())
    again.index.close()
    room.archive.close_journal()
    room.index.close()


def test_a_stop_in_good_order_leaves_nothing_to_be_made_good(tmp_path: Path) -> None:
    room = journalling(tmp_path)
    room.receive(*range(1, 30))
    room.intake.stop()
    assert not list(room.archive.journalled())
    assert not list((room.root / "journal").iterdir())
    room.receive(30)
    room.index.close()
    again = Room(tmp_path)
    assert again.recovery.run().anything is False
    again.index.close()


def test_an_instance_that_comes_again_waits_for_the_disk_itself(tmp_path: Path) -> None:
    room = journalling(tmp_path)
    room.receive(1, 1, 2)
    assert [record.path.split(".")[-2] for record in room.archive.journalled()] == ["1", "2"]
    assert len(room.paths()) == 3
    room.archive.close_journal()
    room.index.close()


def test_an_archive_without_a_journal_reads_none(tmp_path: Path) -> None:
    archive, index = Archive(tmp_path / "archive"), Index.open(f"sqlite:///{tmp_path / 'index.sqlite'}")
    assert not list(archive.journalled())
    archive.forget_journal()
    index.close()
