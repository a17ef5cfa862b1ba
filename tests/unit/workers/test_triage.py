import errno
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.uid import ExplicitVRLittleEndian

from dicom_node.archive.files import Archive
from dicom_node.archive.index import Index
from dicom_node.archive.jobs import JobRow
from dicom_node.archive.studies import StudyRow
from dicom_node.core.algorithm import AlgorithmIdentification
from dicom_node.core.errors import IndexUnavailable, NotApplicable, OutOfDeviceMemory
from dicom_node.core.job import Job, evidence_digest
from dicom_node.core.lifecycle import JobState, StudyState
from dicom_node.core.priority import Priority
from dicom_node.core.study import Study
from dicom_node.intake import Intake
from dicom_node.settings import QueueSettings
from tests.factories import ct_series, uid_for
from tests.instances import received
from tests.populated_index import SEG, SR
from tests.unit.workers.reporting.conftest import ball
from workers.algorithms import Reading
from workers.heartbeat import Heartbeat
from workers.triage import Reader, Triage
from workers.volume import Volume

NOW = 1_709_201_700.0
STUDY = str(uid_for("ct series", "study"))
WORKER = "gpu1:1"

IDENTIFICATION = AlgorithmIdentification(
    name="Lung nodules", version="0.1.0", manufacturer="Test", device_uid="2.25.4711", checksum="ab" * 32
)


def nothing_happens() -> None:
    """What an algorithm does beside reading."""


@dataclass
class FakeAlgorithm:
    """Finds as many balls as it is told to, after it did what a test wants to happen meanwhile."""

    nodules: int = 1
    meanwhile: Callable[[], None] = nothing_happens
    name: str = "lung_nodule"
    readings: int = 0
    not_reported: int = 0

    def reads(self, volume: Volume) -> None:
        """Reads everything."""

    def read(self, volume: Volume) -> Reading:
        """Balls in fixed places."""
        self.readings += 1
        self.meanwhile()
        labels = np.zeros(volume.voxels.shape, dtype=np.uint8)
        findings = []
        for number in range(1, self.nodules + 1):
            inside, finding = ball(volume, number, (5, 8 * number, 8 * number))
            labels[inside] = number
            findings.append(finding)
        return Reading(
            findings=tuple(findings),
            labels=labels,
            parameters=(("threshold", "0.5"),),
            not_reported=self.not_reported,
            searched_ml=3456.7,
        )


@dataclass
class Room:
    """A triage over a real archive and a real index with one received series and its job."""

    index: Index
    archive: Archive
    job: Job
    algorithm: FakeAlgorithm = field(default_factory=FakeAlgorithm)
    now: float = NOW
    #: What the triage asked of its process: how long it rested, and how often to end.
    rests: list[float] = field(default_factory=list)
    left: int = 0

    def triage(self, **readers: FakeAlgorithm) -> Triage:
        known = readers or {"lung_nodule": self.algorithm}
        return Triage(
            index=self.index,
            archive=self.archive,
            readers={
                name: Reader(algorithm=algorithm, identification=IDENTIFICATION, network_seconds=lambda: 1.25)
                for name, algorithm in known.items()
            },
            queue=QueueSettings(maximum_attempts=2),
            heartbeat=Heartbeat(
                self.index, WORKER, lease_seconds=30, maximum_reading_seconds=600, clock=lambda: self.now
            ),
            worker=WORKER,
            leave=self.leave,
            clock=lambda: self.now,
            rest=self.rests.append,
        )

    def leave(self) -> None:
        """The process would end; by then the index must know of the job's end."""
        assert self.job_row.job.state is not JobState.READING
        self.left += 1

    def read(self, **readers: FakeAlgorithm) -> None:
        self.triage(**readers).read(self.job.job_uid)

    @property
    def row(self) -> StudyRow:
        return self.index.studies.rows(STUDY)[0]

    @property
    def job_row(self) -> JobRow:
        (row,) = self.index.jobs.of_study(STUDY)
        return row

    @property
    def study(self) -> Study:
        return self.index.studies.study(STUDY)

    def file(self, number: int = 3) -> Path:
        """Where one of the instances lies."""
        return self.archive.path_of(self.study.series[0].instances[number].path)


def receive(index: Index, archive: Archive, paths: list[Path]) -> None:
    intake = Intake(archive=archive, studies=index.studies, clock=lambda: NOW - 10)
    for path in paths:
        request = received(dcmread(path), ExplicitVRLittleEndian, association_id=None)
        intake.store(request)


def queued(index: Index) -> Job:
    (series,) = index.studies.study(STUDY).series
    index.studies.move(STUDY, StudyState.COMPLETE, cause="", actor="test", at=NOW - 5)
    job = Job(
        job_uid="2.25.1",
        study_instance_uid=STUDY,
        series_instance_uid=series.series_instance_uid,
        algorithm="lung_nodule",
        route="chest",
        priority=Priority.ROUTINE,
        send_to=(),
        evidence=evidence_digest(series.instances),
        state=JobState.QUEUED,
        reason="",
        attempts=0,
    )
    index.jobs.queue(STUDY, [job], cause="", actor="test", at=NOW - 5)
    return job


@pytest.fixture
def holdings(tmp_path: Path) -> Iterator[tuple[Index, Archive]]:
    index = Index.open("sqlite://")
    yield index, Archive(tmp_path / "archive")
    index.close()


@pytest.fixture
def room(holdings: tuple[Index, Archive], tmp_path: Path) -> Room:
    index, archive = holdings
    receive(index, archive, ct_series(tmp_path / "series", slices=10))
    return Room(index, archive, queued(index))


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
    assert summary["result"] == "2 nodules found, the largest 10.0 mm"
    assert [row["number"] for row in summary["rows"]] == [1, 2]
    assert "TEST-1" not in str(summary)
    assert "Tess" not in str(summary)


def test_a_series_without_findings_gets_a_report_and_no_segmentation(room: Room) -> None:
    room.algorithm.nodules = 0
    room.read()
    (sr,) = room.index.jobs.report_rows(room.job.job_uid)
    assert sr.sop_class_uid == SR
    assert (room.row.state, room.row.reason) == (StudyState.REPORTED, "no nodules found")


def files(room: Room) -> dict[str, bytes]:
    rows = room.index.jobs.report_rows(room.job.job_uid)
    return {row.sop_instance_uid: room.archive.path_of(row.path).read_bytes() for row in rows}


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
    assert room.row.reason == "1 nodule found, the largest 9.0 mm; 3 not outlined"
    (_, sr) = room.index.jobs.report_rows(room.job.job_uid)
    written = room.archive.path_of(sr.path).read_bytes()
    assert b"3457 ml of lung were searched. 3 further marks are not outlined here. Not verified" in written


def test_an_old_bell_changes_nothing(room: Room) -> None:
    room.read()
    before = room.index.studies.history(STUDY), room.job_row
    room.read()
    room.triage().read("2.25.404")
    assert (room.index.studies.history(STUDY), room.job_row, room.algorithm.readings) == (*before, 1)


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
    receive(index, archive, ct_series(tmp_path / "series", slices=10, missing=(4,)))
    room = Room(index, archive, queued(index))
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
    assert (room.row.state, room.job_row.job.state, room.left) == (StudyState.QUEUED, JobState.QUEUED, 1)
    assert room.row.reason == "an unexpected ZeroDivisionError; the worker's log has its place"
    (record,) = (record for record in caplog.records if record.message == "reading broke off")
    assert record.levelno == logging.ERROR
    assert record.exc_info is not None
    room.read()
    assert (room.row.state, room.left) == (StudyState.FAILED, 2), "the attempts are spent"


def test_a_fault_with_a_name_leaves_the_process_as_it_is(room: Room) -> None:
    def full() -> None:
        raise OutOfDeviceMemory("cuda:0 has too little memory")

    room.algorithm.meanwhile = full
    room.read()
    assert room.left == 0


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EMFILE, errno.ESTALE])
def test_a_disk_that_fails_is_tried_again_after_a_rest_and_named_without_a_path(room: Room, number: int) -> None:
    def fail_once() -> None:
        room.algorithm.meanwhile = nothing_happens
        raise OSError(number, "no luck", "/archive/somewhere")

    room.algorithm.meanwhile = fail_once
    room.read()
    assert (room.row.state, room.left, len(room.rests)) == (StudyState.QUEUED, 0, 1)
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


class Away:
    """Stands before a method of the index that does not answer so many times."""

    def __init__(self, method: Callable[..., object], times: int) -> None:
        self._method = method
        self._times = times

    def __call__(self, *args: object, **kwargs: object) -> object:
        self._times -= 1
        if self._times >= 0:
            raise IndexUnavailable("the index does not answer")
        return self._method(*args, **kwargs)


def test_a_report_waits_for_an_index_that_is_away_for_a_while(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room.index.jobs, "report", Away(room.index.jobs.report, 2))
    room.read()
    assert (room.row.state, room.algorithm.readings, room.rests) == (StudyState.REPORTED, 1, [1.0, 5.0])


def test_an_index_that_stays_away_lets_the_lease_run_out(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(room.index.jobs, "report", Away(room.index.jobs.report, 99))
        patch.setattr(room.index.jobs, "end", Away(room.index.jobs.end, 99))
        room.read()
    assert room.job_row.job.state is JobState.READING
    room.index.jobs.expire(now=NOW + 31, maximum_attempts=2, actor="assembly")
    room.read()
    assert (room.row.state, room.job_row.job.attempts) == (StudyState.REPORTED, 2)


def test_a_bell_that_rings_while_the_index_is_away_changes_nothing(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room.index.jobs, "claim", Away(room.index.jobs.claim, 1))
    room.read()
    assert (room.job_row.job.state, room.job_row.job.attempts) == (JobState.QUEUED, 0)
    room.read()
    assert room.row.state is StudyState.REPORTED


def late_slice(room: Room, tmp_path: Path) -> Callable[[], None]:
    extra = ct_series(tmp_path / "more", slices=11)

    def arrive() -> None:
        receive(room.index, room.archive, extra)

    return arrive


def test_a_study_that_grows_while_it_is_read_gets_no_report_of_before(room: Room, tmp_path: Path) -> None:
    room.algorithm.meanwhile = late_slice(room, tmp_path)
    room.read()
    assert (room.row.state, room.job_row.job.state) == (StudyState.RECEIVING, JobState.SUPERSEDED)
    assert room.index.jobs.report_rows(room.job.job_uid) == []
    assert room.index.deliveries.unplanned() == []


def test_a_failure_after_the_lease_was_lost_is_not_recorded(room: Room, tmp_path: Path) -> None:
    arrive = late_slice(room, tmp_path)

    def arrive_and_fail() -> None:
        arrive()
        raise NotApplicable("too thick")

    room.algorithm.meanwhile = arrive_and_fail
    room.read()
    assert (room.row.state, room.job_row.job.state) == (StudyState.RECEIVING, JobState.SUPERSEDED)
    assert room.job_row.job.reason == "a late instance arrived"


def test_a_worker_that_was_silent_too_long_drops_its_result(room: Room) -> None:
    def sleep_and_be_replaced() -> None:
        room.now += 1000
        room.index.jobs.expire(now=room.now, maximum_attempts=3, actor="assembly")

    room.algorithm.meanwhile = sleep_and_be_replaced
    room.read()
    assert (room.row.state, room.job_row.job.state) == (StudyState.QUEUED, JobState.QUEUED)
    assert room.index.jobs.report_rows(room.job.job_uid) == []
    assert list(room.archive.path_of("results").iterdir()) == [], "another's report may lie there"


def test_an_algorithm_that_this_worker_does_not_have_is_named_with_the_ones_it_has(room: Room) -> None:
    room.read(fracture=FakeAlgorithm(name="fracture"))
    assert room.row.state is StudyState.FAILED
    assert "no algorithm lung_nodule (it has fracture); correct the route or add its bundle" in room.row.reason


def test_a_worker_that_reads_tells_the_index_which_job(room: Room) -> None:
    seen = []
    room.index.workers.began(WORKER, device="cpu", bundles=[], queues=[], at=NOW)
    room.algorithm.meanwhile = lambda: seen.append(room.index.workers.rows()[0].job_uid)
    room.read()
    assert (seen, room.index.workers.rows()[0].job_uid) == ([room.job.job_uid], None)
