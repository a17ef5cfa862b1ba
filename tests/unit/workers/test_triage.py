"""From a job to the report in archive and index, and the same again."""

import shutil
from datetime import datetime
from pathlib import Path

import pytest
from pydicom import dcmread

from dicom_node.core.lifecycle import JobState, StudyState
from dicom_node.core.priority import Priority
from tests.populated_index import SEG, SR
from tests.received_study import STUDY, queued
from tests.triage_room import (
    NOW,
    Room,
    accept,
    files,
    late_slice,
    queue_two,
)


def test_a_series_is_read_and_its_report_is_in_archive_and_index(room: Room) -> None:
    room.algorithm.nodules = 2
    room.read()
    assert (room.row.state, room.job_row.job.state) == (StudyState.REPORTED, JobState.REPORTED)
    seg, sr = room.index.jobs.report_rows(room.job.job_uid)
    assert (seg.sop_class_uid, sr.sop_class_uid) == (SEG, SR)
    for row in (seg, sr):
        ds = dcmread(room.archive.path_of(row.path))
        assert (ds.StudyInstanceUID, ds.SOPInstanceUID, ds.SOPClassUID) == (
            STUDY,
            row.sop_instance_uid,
            row.sop_class_uid,
        )
    summary = room.job_row.summary
    assert summary is not None
    assert (summary["findings"], summary["slices"], summary["inference_seconds"]) == (2, 10, 1.25)
    assert summary["algorithm"] == "Lung nodules 0.1.0"
    assert summary["result"] == "2 nodules found, the largest 9.4 mm"
    assert [row["number"] for row in summary["rows"]] == [1, 2]
    assert "TEST-1" not in str(summary)
    assert "Tess" not in str(summary)


def test_a_series_without_findings_gets_a_report_and_no_segmentation(room: Room) -> None:
    room.algorithm.nodules = 0
    room.read()
    (sr,) = room.index.jobs.report_rows(room.job.job_uid)
    assert sr.sop_class_uid == SR
    assert (room.row.state, room.row.reason) == (StudyState.REPORTED, "no nodules found")


def test_the_same_job_read_again_later_writes_the_same_bytes(room: Room) -> None:
    room.read()
    before = files(room)
    room.index.jobs.ask_again(STUDY, actor="a person", at=NOW)
    room.index.jobs.queue(STUDY, [room.job], cause="", actor="test", at=NOW)
    room.now += 3600
    room.read()
    assert files(room) == before
    assert room.algorithm.readings == 2


def test_a_report_is_dated_when_the_last_of_its_evidence_arrived(room: Room) -> None:
    room.read()
    (_, sr) = room.index.jobs.report_rows(room.job.job_uid)
    arrived = datetime.fromtimestamp(NOW - 10).strftime("%Y%m%d %H%M%S")
    ds = dcmread(room.archive.path_of(sr.path))
    assert f"{ds.ContentDate} {ds.ContentTime}" == arrived


def test_marks_that_are_not_outlined_are_told_on_the_page_and_in_the_report(room: Room) -> None:
    room.algorithm.not_reported = 3
    room.read()
    assert room.row.reason == "1 nodule found, the largest 8.3 mm; 3 not outlined"
    (_, sr) = room.index.jobs.report_rows(room.job.job_uid)
    written = room.archive.path_of(sr.path).read_bytes()
    assert b"3457 ml of lung were searched. 3 further marks are not outlined here. Not verified" in written


def test_a_bell_for_a_job_that_is_done_changes_nothing(room: Room) -> None:
    room.read()
    before = room.index.studies.history(STUDY), room.job_row
    room.read()
    assert (room.index.studies.history(STUDY), room.job_row, room.algorithm.readings) == (*before, 1)


def test_one_bell_is_enough_for_every_job_and_the_most_urgent_is_first(room: Room) -> None:
    room.read()
    queue_two(room, Priority.STAT)
    order = []
    room.algorithm.meanwhile = lambda: order.append(room.job_in_hand)
    room.read()
    assert order == ["2.25.2", room.job.job_uid]
    assert {row.job.state for row in room.index.jobs.of_study(STUDY)} == {JobState.REPORTED}


def test_a_network_that_had_too_little_memory_is_told_in_summary_and_report_and_changes_its_identity(
    room: Room,
) -> None:
    room.read()
    usual = set(files(room))
    room.index.jobs.ask_again(STUDY, actor="a person", at=NOW)
    room.index.jobs.queue(STUDY, [room.job], cause="", actor="test", at=NOW)
    room.last_run.concession = "in windows of 32 x 48 x 48 voxels"
    room.read()
    assert room.job_row.summary is not None
    assert room.job_row.summary["memory"] == "in windows of 32 x 48 x 48 voxels"
    (_, sr) = room.index.jobs.report_rows(room.job.job_uid)
    written = room.archive.path_of(sr.path).read_bytes()
    assert b"For want of memory the network ran in windows of 32 x 48 x 48 voxels." in written
    assert not usual & set(files(room)), "what may say other things is another object"


def test_a_report_on_more_than_a_peer_has_names_the_one_that_it_replaces(room: Room, tmp_path: Path) -> None:
    room.read()
    accept(room)
    (_, first) = room.index.jobs.report_rows(room.job.job_uid)

    late_slice(room, tmp_path)()
    job = queued(room.index, at=room.now, job_uid="2.25.2")
    room.read()
    (_, second) = room.index.jobs.report_rows(job.job_uid)
    ds = dcmread(room.archive.path_of(second.path))
    replaced = ds.PredecessorDocumentsSequence[0].ReferencedSeriesSequence[0].ReferencedSOPSequence[0]
    assert replaced.ReferencedSOPInstanceUID == first.sop_instance_uid != ds.SOPInstanceUID
    assert second.series_instance_uid == first.series_instance_uid


def test_a_report_whose_predecessor_is_not_on_the_disk_any_more_is_written_all_the_same(
    room: Room, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    room.read()
    accept(room)
    shutil.rmtree(room.archive.path_of("results"))
    late_slice(room, tmp_path)()
    queued(room.index, at=room.now, job_uid="2.25.2")
    room.read()
    assert room.row.state is StudyState.REPORTED
    assert "the report that this one replaces cannot be read" in caplog.messages
