import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath

import pytest

from dicom_node.archive.disk import wait_for
from dicom_node.archive.faults import FaultKind
from dicom_node.archive.kept_instance import read_kept_instance
from dicom_node.archive.second_name import second_name
from dicom_node.archive.studies import Added
from dicom_node.core.errors import IndexUnavailable, SettingsError
from dicom_node.core.lifecycle import JobState, StudyState
from dicom_node.core.retention import RetentionPolicy
from dicom_node.recovery import Recovered
from tests.instances import STUDY_UID, ct_instance, data_set_of, encoded, files_below, received, sop_uid
from tests.room import NOW, Room


class PowerCutError(BaseException):
    """The process is gone at this moment."""


@pytest.fixture
def room(tmp_path: Path) -> Iterator[Room]:
    room = Room(tmp_path)
    yield room
    room.index.close()


def broken_copy(kept: Path) -> Path:
    """A copy of a file, beside the archive, whose group 0002 names a VR that is none."""
    broken = kept.parents[5] / "broken"
    element = b"\x02\x00\x10\x00U"
    broken.write_bytes(kept.read_bytes().replace(element + b"I", element + b"\x00"))
    return broken


def restarted(room: Room) -> tuple[Room, Recovered]:
    """The node starts again over the same folder."""
    room.index.close()
    again = Room(room.folder, now=room.now + 60)
    return again, again.recovery.run()


def test_a_start_with_nothing_to_mend_changes_nothing(room: Room) -> None:
    room.receive(1, 2)
    before = room.history(), files_below(room.root)
    again, recovered = restarted(room)
    assert recovered == Recovered()
    assert not recovered.anything
    assert (again.history(), files_below(again.root)) == before
    again.index.close()


def cut_at(monkeypatch: pytest.MonkeyPatch, step: int) -> Callable[[], int]:
    """Let the power fail before this one of the steps that storing an instance takes on the disk; counts them."""
    taken = 0

    def counted(call: Callable[..., object]) -> Callable[..., object]:
        def run(*arguments: object, **named: object) -> object:
            nonlocal taken
            taken += 1
            if taken >= step:
                raise PowerCutError
            return call(*arguments, **named)

        return run

    # With unlink: nothing is tidied up by a process that is gone.
    for name in ("open", "link", "mkdir", "unlink"):
        monkeypatch.setattr(f"dicom_node.archive.files.os.{name}", counted(getattr(os, name)))
    monkeypatch.setattr("dicom_node.archive.directories.wait_for", counted(wait_for))
    return lambda: taken


#: The steps of storing the first instance of a study, whose directories are made too, and one more.
STEPS = range(1, 18)

OTHER = "1.2.3"


@pytest.mark.parametrize("step", STEPS)
def test_whenever_the_power_fails_no_half_file_stays_and_no_answered_instance_is_lost(
    room: Room, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    room.receive(1)
    steps = cut_at(monkeypatch, step)
    answered = False
    try:
        room.receive(2, study=OTHER)
        answered = True
    except PowerCutError:
        pass
    taken = steps()
    monkeypatch.undo()
    assert answered == (step == STEPS[-1]), f"storing an instance takes {taken} steps: try as many and one more"
    room, _ = restarted(room)
    held = room.paths(OTHER)
    assert held or not answered
    assert files_below(room.root) == sorted(str(path.relative_to(room.root)) for path in held + room.paths())
    assert [data_set_of(path) for path in room.paths()] == [encoded(room.slice(1))]
    # The sender that had no answer sends again.
    assert room.receive(2, study=OTHER) == [Added.IDENTICAL if held else Added.NEW]
    (path,) = room.paths(OTHER)
    assert data_set_of(path) == encoded(room.slice(2, OTHER))
    assert len(files_below(room.root)) == 2
    room.index.close()


@pytest.mark.parametrize("left", [b"", bytes(3000), b"half"], ids=["nothing", "zeros", "half"])
@pytest.mark.parametrize("other", [False, True], ids=["first content", "other content"])
def test_a_file_whose_bytes_were_still_in_the_cache_when_the_power_failed_leaves_nothing(
    room: Room, monkeypatch: pytest.MonkeyPatch, left: bytes, other: bool
) -> None:
    room.receive(1)
    before = files_below(room.root)
    number = 1 if other else 2
    link = os.link

    def link_and_fail(source: str, name: str) -> None:
        link(source, name)
        target = Path(name)
        # Both names are on the disk, the bytes are not.
        if left == b"half":
            target.write_bytes(target.read_bytes()[:-60])
        else:
            target.write_bytes(left)
        raise PowerCutError

    monkeypatch.setattr("dicom_node.archive.files.os.link", link_and_fail)
    monkeypatch.setattr("dicom_node.archive.files.os.unlink", lambda *_, **__: None)
    with pytest.raises(PowerCutError):
        room.receive(number, SeriesDescription="OTHER")
    monkeypatch.undo()
    assert len(files_below(room.root)) == len(before) + 2
    room, recovered = restarted(room)
    assert (recovered.instances_indexed, recovered.unfinished_removed) == (0, 1)
    assert files_below(room.root) == before
    assert room.receive(number, SeriesDescription="OTHER") == [Added.CONFLICT if other else Added.NEW]
    assert not room.recovery.run().anything
    room.index.close()


def test_a_torn_file_that_the_index_knows_is_not_removed(room: Room) -> None:
    room.receive(1)
    (kept,) = room.paths()
    name = second_name(PurePosixPath(*kept.parts[-5:]), "ab" * 32)
    os.link(kept, room.root / "incoming" / name)
    assert room.recovery.run().unfinished_removed == 1
    assert room.paths() == [kept]
    assert kept.exists()


def test_a_whole_file_that_the_index_does_not_know_becomes_part_of_its_study(
    room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    room.receive(1)
    room.index.studies.move(STUDY_UID, StudyState.COMPLETE, cause="", actor="test", at=NOW)

    def unavailable(*_: object, **__: object) -> None:
        raise IndexUnavailable("the index does not answer")

    monkeypatch.setattr(room.index.studies, "add_instance", unavailable)
    with pytest.raises(IndexUnavailable):
        room.receive(2)
    room, recovered = restarted(room)
    assert recovered == Recovered(instances_indexed=1, associations_ended=1)
    (row,) = room.index.studies.find(sop_uid(2))
    assert (row.calling_ae_title, row.received_at, row.size_bytes) == (
        "SCANNER",
        NOW + 60,
        len(encoded(ct_instance(2))),
    )
    assert row.attributes == room.index.studies.find(sop_uid(1))[0].attributes | {
        "ImagePositionPatient": (1.0, 2.0, 5.0),
        "InstanceNumber": 2,
    }
    assert room.state() is StudyState.RECEIVING
    assert any(f"{sop_uid(2)} was stored but not yet indexed" in said for said in room.said_by("recovery"))
    assert room.receive(2) == [Added.IDENTICAL]
    room.index.close()


def test_names_in_incoming_that_are_no_instances_of_ours_are_removed(room: Room) -> None:
    room.receive(1)
    (kept,) = room.paths()
    incoming = room.root / "incoming"
    (incoming / "half").write_bytes(b"half")
    os.link(kept, incoming / "known")
    (room.folder / "text").write_bytes(b"no DICOM file")
    os.link(room.folder / "text", incoming / "linked by somebody")
    (room.folder / "moved away").write_bytes(kept.read_bytes())
    os.link(room.folder / "moved away", incoming / "in no place")
    room, recovered = restarted(room)
    assert (recovered.instances_indexed, recovered.unfinished_removed) == (0, 1)
    assert list(incoming.iterdir()) == []
    assert len(room.index.studies.find(sop_uid(1))) == 1
    room.index.close()


def test_one_file_that_cannot_be_indexed_does_not_keep_the_node_from_starting(
    room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unavailable(*_: object, **__: object) -> None:
        raise IndexUnavailable("the index does not answer")

    monkeypatch.setattr(room.index.studies, "add_instance", unavailable)
    with pytest.raises(IndexUnavailable):
        room.receive(1)
    assert room.recovery.run().instances_indexed == 0
    assert len(list((room.root / "incoming").iterdir())) == 1
    monkeypatch.undo()
    assert room.recovery.run().instances_indexed == 1
    assert list((room.root / "incoming").iterdir()) == []


def test_while_instances_come_in_only_old_names_are_looked_at(room: Room) -> None:
    (room.root / "incoming" / "being written").write_bytes(b"half")
    old = room.root / "incoming" / "of long ago"
    old.write_bytes(b"half")
    os.utime(old, (NOW - 7200, NOW - 7200))
    assert room.recovery.adopt(NOW - 3600) == (0, 1)
    assert [path.name for path in (room.root / "incoming").iterdir()] == ["being written"]


def test_an_association_that_was_open_is_over_and_its_study_says_so(room: Room) -> None:
    room.intake.association_opened("a" * 36, "SCANNER")
    room.intake.store(received(ct_instance(1), association_id="a" * 36))
    room, recovered = restarted(room)
    assert recovered.associations_ended == 1
    assert room.index.studies.receptions()[0].open_associations == 0
    assert room.said_by("recovery") == ["1 association(s) that sent of it broke off when the node stopped"]
    room.index.close()


@pytest.mark.parametrize("stage", [StudyState.RECEIVING, StudyState.COMPLETE, StudyState.QUEUED, StudyState.READING])
def test_a_study_still_to_be_read_fails_when_a_file_of_it_is_missing(room: Room, stage: StudyState) -> None:
    room.receive(1, 2, 3)
    if stage is StudyState.COMPLETE:
        room.index.studies.move(STUDY_UID, stage, cause="", actor="test", at=NOW)
    elif stage is not StudyState.RECEIVING:
        job = room.queue()
        if stage is StudyState.READING:
            room.claim(job)
    room.paths()[1].unlink()
    assert room.state() is stage
    room, recovered = restarted(room)
    assert recovered.studies_failed == 1
    assert room.state() is StudyState.FAILED
    assert room.reason().startswith("1 of 3 instance file(s) missing from the archive, the first studies/")
    assert room.reason().endswith(f"{sop_uid(2)}.dcm; send the study again")
    assert room.index.faults.counts()[FaultKind.MISSING] == 1
    jobs = [row.job for row in room.index.jobs.of_study(STUDY_UID)]
    assert all(job.state is JobState.FAILED for job in jobs)
    assert room.index.jobs.owed(9) == [(job, "UnreadableInstance") for job in jobs], "its peers are to be told"
    # Once is enough.
    assert not room.recovery.run().anything
    # And the way out is what the reason says.
    assert room.receive(1, 2, 3) == [Added.IDENTICAL, Added.NEW, Added.IDENTICAL]
    assert room.state() is StudyState.RECEIVING
    assert room.index.faults.counts()[FaultKind.MISSING] == 0
    assert len(room.paths()) == 3
    room.index.close()


def test_a_study_that_was_read_stays_read_when_a_file_of_it_is_missing(room: Room) -> None:
    room.receive(1)
    room.reach(StudyState.DELIVERED)
    room.paths()[0].unlink()
    room.receive(1, study="1.2.3")
    assert not room.recovery.run().anything
    assert room.state() is StudyState.DELIVERED


def test_an_archive_that_is_not_mounted_is_not_taken_for_the_loss_of_every_file(room: Room) -> None:
    room.receive(1)
    (room.root / "studies").rename(room.folder / "unmounted")
    (room.root / "studies").mkdir()
    with pytest.raises(SettingsError, match=r"the archive in .* is empty: mount its disk or correct data_dir"):
        room.recovery.run()
    assert room.state() is StudyState.RECEIVING


def test_the_lease_of_a_worker_of_this_machine_that_is_gone_ends_at_once(room: Room) -> None:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    host = socket.gethostname()[:50]
    gone, living, elsewhere = f"{host}:{process.pid}", f"{host}:{os.getpid()}", "gpu:1"
    for worker in (gone, living, elsewhere):
        room.index.workers.began(worker, device="cpu", bundles=[], queues=[], at=NOW)
    room.receive(1)
    room.claim(room.queue(), worker=gone)
    assert room.recovery.run().workers_gone == 1
    assert [row.worker for row in room.index.workers.rows()] == sorted([living, elsewhere])
    with room.index.transactions.read() as connection:
        jobs = room.index.transactions.tables["jobs"]
        assert connection.execute(jobs.select()).mappings().one()["lease_expires_at"] < NOW


def test_a_removal_from_the_disk_that_broke_off_is_finished(room: Room) -> None:
    room.receive(1, 2)
    report = room.reach(StudyState.COMMITTED)
    room.now += 2 * 86400
    policy = RetentionPolicy(days=1, wanted_free_bytes=1, states=frozenset({StudyState.COMMITTED}))
    paths = room.index.evictions.evict(STUDY_UID, policy, cause="left the disk", at=room.now)
    assert paths is not None
    room.archive.path_of(paths[0]).unlink()
    room, recovered = restarted(room)
    assert recovered.evictions_finished == 1
    assert report not in paths
    assert room.archive.path_of(report).exists()
    assert files_below(room.root / "studies") == []
    assert room.said_by("recovery") == ["the removal of its files from the disk was finished"]
    assert not room.recovery.run().anything
    room.index.close()


def test_a_file_whose_meta_information_is_damaged_does_not_keep_the_node_from_starting(room: Room) -> None:
    room.receive(1)
    (kept,) = room.paths()
    os.link(broken_copy(kept), room.root / "incoming" / "broken")
    assert not room.recovery.run().anything


def test_no_error_at_one_file_keeps_the_others_from_being_taken_in(
    room: Room, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    room.receive(1)
    (kept,) = room.paths()
    for name in ("first", "second"):
        os.link(kept, room.root / "incoming" / name)

    def defect(path: Path, **_kwargs: object) -> object:
        if path.name == "first":
            raise RuntimeError("nobody thought of this")
        return read_kept_instance(path)

    monkeypatch.setattr("dicom_node.recovery.read_kept_instance", defect)
    room.recovery.run()
    assert [path.name for path in (room.root / "incoming").iterdir()] == ["first"]
    assert "could not be read" in caplog.text
