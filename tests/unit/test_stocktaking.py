import errno
import logging
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from dicom_node.archive.faults import ArchiveFault, FaultKind
from dicom_node.archive.places import spread_of
from dicom_node.archive.studies import Added
from dicom_node.core.errors import IndexUnavailable
from dicom_node.core.lifecycle import StudyState
from dicom_node.core.retention import RetentionPolicy
from dicom_node.settings import ArchiveSettings
from dicom_node.stocktaking import Stocktaking
from tests.instances import STUDY_UID, files_below, sop_uid
from tests.room import NOW, Room

OTHER = "1.2.3"


@pytest.fixture
def room(tmp_path: Path) -> Iterator[Room]:
    room = Room(tmp_path)
    yield room
    room.index.close()


def stocktaking(room: Room, *, files_per_second: float = 10_000, every_days: float = 7) -> Stocktaking:
    settings = ArchiveSettings(check_files_per_second=files_per_second, check_every_days=every_days)
    return Stocktaking(settings, room.archive, room.index, room.clock, adopt=room.recovery.adopt)


def counts(room: Room) -> dict[str, int]:
    """The faults that there are."""
    return {str(kind): count for kind, count in room.index.faults.counts().items() if count}


def reasons(room: Room) -> list[str]:
    """What people see on the page."""
    return [row.reason for row in room.index.conditions.rows()]


def damage(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))


def age(room: Room, *, seconds: float) -> None:
    """Every file was written so long before the room's time."""
    for name in files_below(room.root):
        os.utime(room.root / name, (room.now - seconds, room.now - seconds))


def test_an_archive_as_it_should_be_has_no_fault(room: Room) -> None:
    room.receive(1, 2)
    room.receive(1, study=OTHER, SeriesDescription="X")
    room.receive(1, study=OTHER)
    room.reach(StudyState.DELIVERED)
    stocktaking(room).step()
    position = room.index.inventory.position()
    assert (position.files, position.ended_at) == (5, NOW)
    assert counts(room) == {}
    assert reasons(room) == []


def test_a_missing_and_an_altered_file_are_told_once(room: Room, caplog: pytest.LogCaptureFixture) -> None:
    room.receive(1, 2, 3)
    report = room.reach(StudyState.COMMITTED)
    missing, altered, _ = room.paths()
    missing.unlink()
    damage(altered)
    damage(room.archive.path_of(report))
    with caplog.at_level(logging.ERROR):
        stocktaking(room, every_days=0).step()
    assert counts(room) == {"missing": 1, "altered": 2}
    assert reasons(room) == [
        "1 file(s) of the archive missing: send their studies again; "
        "2 file(s) of the archive altered: look at the disk, then send their studies again"
    ]
    uids = [(record.__dict__["kind"], record.__dict__.get("sop_instance_uid")) for record in caplog.records]
    assert (FaultKind.MISSING, sop_uid(1)) in uids
    assert (FaultKind.ALTERED, sop_uid(2)) in uids
    said = room.said_by("stocktaking")
    assert len(said) == 2
    # It was read, and stays so.
    assert room.state() is StudyState.COMMITTED
    caplog.clear()
    stocktaking(room, every_days=0).step()
    assert caplog.records == []
    assert room.said_by("stocktaking") == said


def test_what_is_mended_is_no_fault_any_more(room: Room) -> None:
    room.receive(1, 2)
    missing, altered = room.paths()
    missing.unlink()
    damage(altered)
    stocktaking(room, every_days=0).step()
    damage(altered)
    room.receive(1)
    assert counts(room) == {"altered": 1}
    stocktaking(room, every_days=0).step()
    assert counts(room) == {}
    assert reasons(room) == []


def test_files_that_the_index_does_not_know_are_told_when_they_are_old(room: Room) -> None:
    room.receive(1)
    beside = room.paths()[0].with_name("1.2.3.4.dcm")
    beside.write_bytes(b"who knows")
    alone = room.root / "studies" / spread_of("1.2.3.4") / "1.2.3.4" / "1.2" / "1.dcm"
    alone.parent.mkdir(parents=True)
    alone.write_bytes(b"who knows")
    age(room, seconds=60)
    stocktaking(room, every_days=0).step()
    assert counts(room) == {}
    age(room, seconds=7200)
    stocktaking(room, every_days=0).step()
    assert counts(room) == {"unknown": 2}
    assert room.index.faults.of_study("1.2.3.4") == [
        ArchiveFault(path=str(alone.relative_to(room.root)), kind=FaultKind.UNKNOWN, study_instance_uid="1.2.3.4")
    ]
    assert "to the index" in reasons(room)[0]
    for path in (beside, alone):
        path.unlink()
    stocktaking(room, every_days=0).step()
    assert counts(room) == {}
    assert reasons(room) == []


def test_an_old_result_that_no_report_names_is_removed_and_a_young_one_is_not(room: Room) -> None:
    room.receive(1)
    report = room.reach(StudyState.DELIVERED)
    old, young = (
        room.archive.store_result(study_uid=STUDY_UID, series_uid="1.2.9", sop_uid=f"1.2.9.{number}", data=b"orphan")
        for number in (1, 2)
    )
    age(room, seconds=2 * 86400)
    os.utime(room.root / young, (room.now - 60, room.now - 60))
    stocktaking(room).step()
    assert set(files_below(room.root / "results")) == {path.removeprefix("results/") for path in (report, young)}
    assert old not in files_below(room.root)
    assert counts(room) == {}


def test_the_results_of_a_study_that_the_index_does_not_know_are_kept(room: Room) -> None:
    path = room.archive.store_result(study_uid="1.2.3.4", series_uid="1.2.9", sop_uid="1.2.9.1", data=b"a report")
    age(room, seconds=2 * 86400)
    stocktaking(room).step()
    assert room.archive.path_of(path).exists()
    assert counts(room) == {"unknown": 1}


def test_a_study_that_left_the_disk_is_not_missed(room: Room) -> None:
    room.receive(1)
    room.reach(StudyState.COMMITTED)
    room.now += 2 * 86400
    policy = RetentionPolicy(days=1, wanted_free_bytes=1, states=frozenset({StudyState.COMMITTED}))
    paths = room.index.evictions.evict(STUDY_UID, policy, cause="", at=room.now)
    for path in paths or ():
        room.archive.path_of(path).unlink()
    stocktaking(room).step()
    assert counts(room) == {}


def test_it_keeps_to_its_pace_and_goes_on_where_it_was_after_a_restart(room: Room) -> None:
    studies = [f"1.2.{number}" for number in range(5)]
    for study in studies:
        room.receive(1, 2, study=study)
    first = stocktaking(room, files_per_second=2.5)
    first.step()
    # The note is made when the next file is asked for.
    assert room.index.inventory.position().study_instance_uid == ""
    first.step()
    assert room.index.inventory.position().study_instance_uid == studies[1]
    second = stocktaking(room)
    second.step()
    position = room.index.inventory.position()
    assert (position.files, position.study_instance_uid, position.ended_at) == (10, studies[-1], NOW)


def test_a_long_file_counts_as_several(room: Room) -> None:
    room.receive(1)
    room.receive(1, study=OTHER)
    with room.paths()[0].open("ab") as file:
        file.truncate(20_000_000)
    look = stocktaking(room, files_per_second=1)
    first = 0
    while room.index.inventory.position().files < 2:
        look.step()
        first += 1
    # Five and one for the long one, one for the other, and one to ask for more.
    assert first == 8


def test_the_next_look_begins_when_its_day_has_come(room: Room) -> None:
    room.receive(1)
    look = stocktaking(room)
    look.step()
    damage(room.paths()[0])
    room.now += 6 * 86400
    look.step()
    assert counts(room) == {}
    room.now += 86400
    look.step()
    assert counts(room) == {"altered": 1}
    assert room.index.inventory.position().began_at == room.now


def test_an_index_that_does_not_answer_ends_the_step_and_not_the_look(
    room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    room.receive(1)
    room.receive(1, study=OTHER)
    look = stocktaking(room)
    files_of = room.index.inventory.files_of

    def sometimes(study_instance_uid: str) -> object:
        if study_instance_uid == STUDY_UID:
            raise IndexUnavailable("the index does not answer")
        return files_of(study_instance_uid)

    monkeypatch.setattr(room.index.inventory, "files_of", sometimes)
    with pytest.raises(IndexUnavailable):
        look.step()
    monkeypatch.undo()
    look.step()
    assert room.index.inventory.position().ended_at is not None


def test_a_disk_that_fails_at_a_file_says_nothing_of_it(
    room: Room, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    room.receive(1)

    def stale(_path: Path) -> None:
        raise OSError(errno.ESTALE, "stale file handle")

    monkeypatch.setattr("dicom_node.archive.files.open_data_set", stale)
    stocktaking(room).step()
    assert counts(room) == {}
    assert "disk fails at a file" in caplog.text


def test_a_whole_file_that_was_never_indexed_is_taken_in_while_the_node_runs(
    room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unavailable(*_: object, **__: object) -> None:
        raise IndexUnavailable("the index does not answer")

    monkeypatch.setattr(room.index.studies, "add_instance", unavailable)
    with pytest.raises(IndexUnavailable):
        room.receive(1)
    monkeypatch.undo()
    age(room, seconds=7200)
    stocktaking(room).step()
    assert [row.sop_instance_uid for row in room.index.studies.find(sop_uid(1))] == [sop_uid(1)]


def test_damaged_meta_information_is_an_altered_file_and_the_instance_can_be_sent_again(room: Room) -> None:
    room.receive(1)
    room.receive(1, study=OTHER)
    (path,) = room.paths()
    element = b"\x02\x00\x10\x00U"
    path.write_bytes(path.read_bytes().replace(element + b"I", element + b"\x00"))
    stocktaking(room).step()
    assert counts(room) == {"altered": 1}
    assert room.index.inventory.position().ended_at is not None
    assert room.receive(1) == [Added.IDENTICAL]
    assert room.paths() != [path]
    assert room.paths()[0].exists()


def test_a_study_at_which_something_unforeseen_happens_keeps_no_other_from_being_looked_at(
    room: Room, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    room.receive(1)
    room.receive(1, study=OTHER)
    damage(room.paths(OTHER)[0])
    files_of = room.index.inventory.files_of

    def sometimes(study_instance_uid: str) -> object:
        if study_instance_uid == STUDY_UID:
            raise RuntimeError("nobody thought of this")
        return files_of(study_instance_uid)

    monkeypatch.setattr(room.index.inventory, "files_of", sometimes)
    stocktaking(room).step()
    assert counts(room) == {"altered": 1}
    assert room.index.inventory.position().ended_at is not None
    assert "a study's files cannot be looked at" in caplog.text
