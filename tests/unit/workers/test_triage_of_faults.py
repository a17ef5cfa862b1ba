"""Jobs that cannot be read, or not yet: each ends with its reason."""

import errno
import logging
from pathlib import Path

import pytest

from dicom_node.archive.files import Archive
from dicom_node.archive.index import Index
from dicom_node.core.errors import EvidenceInvalid, NotApplicable, OutOfDeviceMemory
from dicom_node.core.lifecycle import JobState, StudyState
from tests.factories import ct_series
from tests.received_study import queued, receive
from tests.triage_room import (
    NOW,
    Room,
    nothing_happens,
)


def test_an_algorithm_that_does_not_read_such_a_series_is_an_answer(room: Room) -> None:
    def refuse() -> None:
        raise NotApplicable("slices of 9 mm are too thick; send a thinner series")

    room.algorithm.meanwhile = refuse
    room.read()
    assert room.job_row.job.state is JobState.NOT_APPLICABLE
    assert (room.row.state, room.row.reason) == (
        StudyState.NOT_ROUTED,
        "slices of 9 mm are too thick; send a thinner series",
    )


def test_slices_that_make_no_volume_fail_by_name(holdings: tuple[Index, Archive], tmp_path: Path) -> None:
    index, archive = holdings
    receive(index, archive, ct_series(tmp_path / "series", slices=10, missing=(4,)), at=NOW - 10)
    room = Room(index, archive, queued(index, at=NOW - 5))
    room.read()
    assert room.row.state is StudyState.FAILED
    assert "missing between" in room.row.reason
    assert room.algorithm.readings == 0


@pytest.mark.parametrize("damage", ["missing", "cut short", "altered", "no DICOM file"])
def test_a_file_that_is_not_what_was_received_is_never_read(room: Room, damage: str) -> None:
    path = room.file()
    data = path.read_bytes()
    path.unlink()
    changed = {
        "cut short": data[:-100],
        "altered": data[:-1] + bytes([data[-1] ^ 1]),
        "no DICOM file": b"no DICOM file",
    }
    if damage != "missing":
        path.write_bytes(changed[damage])
    room.read()
    assert (room.row.state, room.job_row.job.state) == (StudyState.FAILED, JobState.FAILED)
    assert "send the study again" in room.row.reason
    assert room.algorithm.readings == 0


def test_an_error_that_may_pass_is_tried_again_until_the_attempts_are_spent(room: Room) -> None:
    def full() -> None:
        raise OutOfDeviceMemory("cuda:0 has too little memory")

    room.algorithm.meanwhile = full
    room.read()
    assert (room.row.state, room.job_row.job.state, room.job_row.job.attempts) == (
        StudyState.QUEUED,
        JobState.QUEUED,
        1,
    )
    assert [job.job_uid for job in room.index.jobs.unsent(0.0)] == [room.job.job_uid]
    room.read()
    assert (room.row.state, room.row.reason) == (StudyState.FAILED, "cuda:0 has too little memory")


def test_an_error_that_may_pass_and_does_ends_in_a_report(room: Room) -> None:
    def full_once() -> None:
        room.algorithm.meanwhile = nothing_happens
        raise OutOfDeviceMemory("cuda:0 has too little memory")

    room.algorithm.meanwhile = full_once
    room.read()
    room.read()
    assert (room.row.state, room.job_row.job.attempts) == (StudyState.REPORTED, 2)


def test_an_unexpected_error_is_tried_again_in_another_process_and_tells_only_its_kind(
    room: Room, caplog: pytest.LogCaptureFixture
) -> None:
    def break_off() -> None:
        raise ZeroDivisionError("Test^Tess")

    room.algorithm.meanwhile = break_off
    room.read()
    assert (room.row.state, room.job_row.job.state, room.readings.replaced) == (StudyState.QUEUED, JobState.QUEUED, 1)
    assert room.row.reason == "an unexpected ZeroDivisionError; the worker's log has its place"
    (record,) = (record for record in caplog.records if record.message == "reading broke off")
    assert record.levelno == logging.ERROR
    assert record.exc_info is not None
    room.read()
    assert (room.row.state, room.readings.replaced) == (StudyState.FAILED, 2), "the attempts are spent"


def test_a_fault_with_a_name_leaves_the_process_as_it_is(room: Room) -> None:
    def refuse() -> None:
        raise EvidenceInvalid("a rule is broken")

    room.algorithm.meanwhile = refuse
    room.read()
    assert (room.row.state, room.readings.replaced) == (StudyState.FAILED, 0)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EMFILE, errno.ESTALE])
def test_a_disk_that_fails_is_tried_again_after_a_rest_and_named_without_a_path(room: Room, number: int) -> None:
    def fail_once() -> None:
        room.algorithm.meanwhile = nothing_happens
        raise OSError(number, "no luck", "/archive/somewhere")

    room.algorithm.meanwhile = fail_once
    room.read()
    assert (room.row.state, room.readings.replaced) == (StudyState.QUEUED, 0)
    assert errno.errorcode[number] in room.row.reason
    assert "somewhere" not in room.row.reason
    room.read()
    assert (room.row.state, room.job_row.job.attempts) == (StudyState.REPORTED, 2)


def test_a_disk_that_does_not_give_a_slice_does_not_make_it_unreadable(
    room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stale(*_args: object) -> None:
        raise OSError(errno.ESTALE, "stale file handle")

    with monkeypatch.context() as patch:
        patch.setattr("dicom_node.archive.files.open_data_set", stale)
        room.read()
    assert (room.row.state, room.job_row.job.attempts) == (StudyState.QUEUED, 1)
    room.read()
    assert (room.row.state, room.job_row.job.attempts) == (StudyState.REPORTED, 2)
