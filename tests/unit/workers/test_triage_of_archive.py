"""An archive that is not mounted or full, and algorithms that no worker has."""

import errno
import logging
from pathlib import Path

import pytest

from dicom_node.core.lifecycle import StudyState
from tests.received_study import STUDY
from tests.triage_room import (
    NOW,
    FakeAlgorithm,
    Room,
    conditions,
)
from workers.unread import NO_READER


def test_a_job_for_another_algorithm_is_left_to_a_worker_that_has_it_and_told_where_there_is_none(
    room: Room, caplog: pytest.LogCaptureFixture
) -> None:
    other = room.triage
    room.triage = room.triage_with(fracture=FakeAlgorithm(name="fracture"))
    room.read()
    room.read()
    assert (room.row.state, room.job_row.job.attempts) == (StudyState.QUEUED, 0)
    assert conditions(room) == {
        NO_READER: "jobs wait that no worker reads: lung_nodule; add the bundle or correct the route"
    }
    assert caplog.messages.count("no worker has an algorithm that is wanted") == 1
    room.index.workers.began("gpu2:1", device="cpu", bundles=["lung_nodule 0.1.0"], queues=["stat"], at=room.now)
    room.read()
    assert conditions(room) == {}
    room.triage = other
    room.read()
    assert room.row.state is StudyState.REPORTED


def test_a_bundle_that_cannot_be_used_fails_its_jobs_by_name_after_their_attempts_unless_another_reads_them(
    room: Room,
) -> None:
    room.triage = room.triage_with()
    room.readings.broken = ("lung_nodule",)
    room.index.workers.began("gpu2:1", device="cpu", bundles=["lung_nodule 0.1.0"], queues=["stat"], at=NOW)
    room.read()
    assert room.job_row.job.attempts == 0
    room.now += 3600
    room.read()
    assert (room.row.state, room.job_row.job.attempts) == (StudyState.QUEUED, 1)
    room.read()
    assert (room.row.state, room.job_row.job.attempts) == (StudyState.FAILED, 2)
    assert "no algorithm lung_nodule" in room.row.reason


def test_an_archive_that_is_not_mounted_costs_no_attempt_and_nothing_is_taken_until_it_is_back(
    room: Room, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    (tmp_path / "archive").rename(tmp_path / "elsewhere")
    (tmp_path / "archive").mkdir()
    room.read()
    assert (room.row.state, room.job_row.job.attempts, room.job_row.next_try_at) == (StudyState.QUEUED, 0, None)
    assert "see its mount" in room.row.reason
    history = room.index.studies.history(STUDY)
    room.read()
    assert room.index.studies.history(STUDY) == history
    (tmp_path / "archive").rmdir()
    (tmp_path / "elsewhere").rename(tmp_path / "archive")
    room.read()
    assert (room.row.state, room.job_row.job.attempts, room.rests) == (StudyState.REPORTED, 1, [])
    assert "the archive is usable again" in caplog.messages


def test_an_archive_that_goes_while_a_series_is_read_gets_no_report_in_its_place(room: Room, tmp_path: Path) -> None:
    def unmount() -> None:
        (tmp_path / "archive").rename(tmp_path / "elsewhere")
        (tmp_path / "archive").mkdir()

    room.algorithm.meanwhile = unmount
    room.read()
    assert (room.row.state, room.job_row.job.attempts) == (StudyState.QUEUED, 0)
    assert list((tmp_path / "archive").iterdir()) == []


def test_a_full_disk_costs_no_attempt_and_no_job_is_taken_until_a_report_has_room(
    room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_args: object, **_kwargs: object) -> None:
        raise OSError(errno.ENOSPC, "no space")

    with monkeypatch.context() as patch:
        patch.setattr(room.archive, "store_result", full)
        patch.setattr(room.archive, "probe", full)
        for _ in range(4):
            room.read()
    assert (room.row.state, room.job_row.job.attempts, room.algorithm.readings) == (StudyState.QUEUED, 0, 1)
    room.read()
    assert (room.row.state, room.job_row.job.attempts) == (StudyState.REPORTED, 1)
    assert list(room.archive.path_of("outgoing").iterdir()) == [], "the probe leaves nothing"


def test_a_job_that_alone_meets_a_fault_of_the_disk_uses_up_its_attempts(
    room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_args: object, **_kwargs: object) -> None:
        raise OSError(errno.ENAMETOOLONG, "name too long")

    monkeypatch.setattr(room.archive, "store_result", refuse)
    room.read()
    room.read()
    assert (room.row.state, room.job_row.job.attempts, room.rests) == (StudyState.FAILED, 2, [1.0, 5.0])
