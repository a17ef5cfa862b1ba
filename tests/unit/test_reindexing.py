import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from dicom_node.archive.holdings import Holdings
from dicom_node.core.errors import IndexDamaged
from dicom_node.core.lifecycle import StudyState
from dicom_node.core.retention import RetentionPolicy
from dicom_node.reindexing import Reindexed, reindex
from dicom_node.settings import ArchiveSettings, NodeSettings, Settings
from dicom_node.stocktaking import Stocktaking
from tests.instances import STUDY_UID, files_below, sop_uid
from tests.room import NOW, Room

OTHER = "1.2.3"


@pytest.fixture
def room(tmp_path: Path) -> Iterator[Room]:
    """Two studies, one of them reported, with a conflicting copy; received an hour ago."""
    room = Room(tmp_path)
    room.receive(1, 2)
    room.receive(1, SeriesDescription="OTHER")
    room.receive(1, study=OTHER)
    room.queue(OTHER)
    for name in files_below(room.root):
        os.utime(room.root / name, (NOW - 3600, NOW - 3600))
    yield room
    room.index.close()


def settings(room: Room) -> Settings:
    return Settings(node=NodeSettings(data_dir=room.folder))


def lose_index(room: Room) -> None:
    room.index.close()
    for path in room.folder.glob("index.sqlite*"):
        path.unlink()


def test_a_lost_index_is_made_again_from_the_files(room: Room) -> None:
    before = {row.path: row for uid in (sop_uid(1), sop_uid(2)) for row in room.index.studies.find(uid)}
    lose_index(room)
    done = reindex(settings(room), room.clock)
    assert done == Reindexed(moved_to=None, instances=4, studies=2, old_studies=0, withdrawn_studies=0, unreadable=())
    again = Room(room.folder)
    after = {row.path: row for uid in (sop_uid(1), sop_uid(2)) for row in again.index.studies.find(uid)}
    assert {path: (row.sha256, row.attributes, row.calling_ae_title) for path, row in after.items()} == {
        path: (row.sha256, row.attributes, row.calling_ae_title) for path, row in before.items()
    }
    assert {row.received_at for row in after.values()} == {NOW - 3600}
    assert [path.name for path in again.paths()] == [f"{sop_uid(1)}.dcm", f"{sop_uid(2)}.dcm"]
    assert again.index.studies.rows(STUDY_UID)[0].conflicts == 1
    # Everything is read again, and by the same evidence reported under the same UIDs.
    assert again.state() is again.state(OTHER) is StudyState.RECEIVING
    assert not again.recovery.run().anything
    again.index.close()


def test_an_index_that_is_whole_is_only_completed(room: Room) -> None:
    room.reach(StudyState.DELIVERED)
    with room.index.transactions.write() as connection:
        instances = room.index.transactions.tables["instances"]
        connection.execute(instances.delete().where(instances.c.sop_instance_uid == sop_uid(2)))
    done = reindex(settings(room), room.clock)
    assert (done.moved_to, done.instances, done.studies) == (None, 1, 0)
    # As with every late instance.
    assert room.state() is StudyState.RECEIVING
    assert room.state(OTHER) is StudyState.QUEUED
    assert room.said_by("reindexing") == ["1 file(s) of the archive that the index did not know were taken in"]
    assert reindex(settings(room), room.clock).instances == 0


@pytest.mark.parametrize("damage", ["no database", "torn pages"])
def test_a_damaged_index_is_put_aside_and_nothing_of_it_is_deleted(room: Room, damage: str) -> None:
    room.index.close()
    path = room.folder / "index.sqlite"
    data = path.read_bytes()
    size = 4096
    torn = data[: 2 * size] + b"\xaa" * (len(data) - 2 * size)
    path.write_bytes(b"this is no database" * 1000 if damage == "no database" else torn)
    held = path.read_bytes()
    done = reindex(settings(room), room.clock)
    assert done.moved_to == room.folder / "index.sqlite.damaged-20231114T221320Z"
    assert done.moved_to.read_bytes() == held
    assert done.instances == 4


def test_an_index_that_is_no_database_is_an_error_with_its_mend(room: Room) -> None:
    room.index.close()
    (room.folder / "index.sqlite").write_bytes(b"this is no database" * 1000)
    with pytest.raises(
        IndexDamaged, match=r"index\.sqlite is damaged \(file is not a database\); .*dicom-node reindex"
    ):
        Holdings.open(settings(room))


def test_files_that_are_no_instances_of_the_place_they_lie_in_are_named(room: Room) -> None:
    lose_index(room)
    kept = next(path for path in files_below(room.root) if path.endswith(f"{sop_uid(2)}.dcm"))
    text, moved = Path(kept).with_name("1.dcm"), Path(kept).with_name("2.dcm")
    (room.root / text).write_bytes(b"no DICOM file")
    (room.root / moved).write_bytes((room.root / kept).read_bytes())
    done = reindex(settings(room), room.clock)
    assert done.unreadable == (str(text), str(moved))
    assert done.instances == 4
    assert (room.root / text).exists()


def test_old_studies_are_not_read_again_where_the_person_says_so(room: Room) -> None:
    lose_index(room)
    for name in files_below(room.root):
        if OTHER in name:
            os.utime(room.root / name, (NOW - 3 * 86400, NOW - 3 * 86400))
    assert reindex(settings(room), room.clock, read_days=2).old_studies == 1
    again = Room(room.folder)
    assert again.state() is StudyState.RECEIVING
    assert again.state(OTHER) is StudyState.NOT_ROUTED
    assert "`dicom-node requeue` has it read again" in again.reason(OTHER)
    again.index.close()


def test_it_tells_how_far_it_is(room: Room) -> None:
    lose_index(room)
    told: list[int] = []
    reindex(settings(room), room.clock, tell=told.append)
    assert told == [1, 2, 3, 4]


def test_results_of_before_are_kept_also_when_the_study_is_read_again(room: Room) -> None:
    kept = room.reach(StudyState.COMMITTED)
    other = room.archive.store_result(study_uid=STUDY_UID, series_uid="1.2.9", sop_uid="1.2.9.1", data=b"earlier")
    lose_index(room)
    for name in files_below(room.root):
        os.utime(room.root / name, (NOW - 3 * 86400, NOW - 3 * 86400))
    reindex(settings(room), room.clock)
    again = Room(room.folder)

    def look() -> None:
        again.now += 8 * 86400
        Stocktaking(ArchiveSettings(check_files_per_second=10_000), again.archive, again.index, again.clock).step()

    look()
    again.queue()
    look()
    assert all(again.archive.path_of(path).exists() for path in (kept, other))
    # They are known to be of the study, and nobody has to do anything.
    assert again.index.conditions.rows() == []
    again.index.close()


def test_a_study_whose_removal_broke_off_is_not_brought_back(room: Room) -> None:
    room.reach(StudyState.COMMITTED)
    room.now += 2 * 86400
    policy = RetentionPolicy(days=1, wanted_free_bytes=1, states=frozenset({StudyState.COMMITTED}))
    paths = room.index.evictions.evict(STUDY_UID, policy, cause="", at=room.now)
    assert paths is not None
    room.archive.path_of(paths[0]).unlink()
    assert reindex(settings(room), room.clock).instances == 0
    assert room.state() is StudyState.COMMITTED
    assert (room.index.evictions.count(), room.index.evictions.unfinished()) == (1, [])
    assert not any(room.archive.path_of(path).exists() for path in paths)
