import errno
import logging
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread

from dicom_node.archive.files import Archive
from dicom_node.archive.index import Index
from dicom_node.archive.jobs import JobRow
from dicom_node.archive.studies import StudyRow
from dicom_node.core.algorithm import AlgorithmIdentification
from dicom_node.core.attempts import Attempts
from dicom_node.core.errors import EvidenceInvalid, IndexUnavailable, NotApplicable, OutOfDeviceMemory
from dicom_node.core.form import BY_DEFAULT, Form
from dicom_node.core.job import Job
from dicom_node.core.lifecycle import DeliveryState, JobState, StudyState
from dicom_node.core.priority import Priority
from dicom_node.core.study import Study
from dicom_node.settings import QueueSettings
from tests.factories import ct_series
from tests.populated_index import SEG, SR
from tests.reading_here import ReadingsHere
from tests.received_study import STUDY, queued, receive
from tests.unit.workers.reporting.conftest import ball
from workers.algorithms import Prepared, Reading
from workers.heartbeat import Heartbeat
from workers.reading import Reader
from workers.readings import Limits
from workers.triage import NO_READER, Triage
from workers.volume import Volume

NOW = 1_709_201_700.0
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

    def prepare(self, volume: Volume) -> Prepared:
        """Nothing that balls need."""
        return Prepared(voxels=volume.voxels, where=volume.voxels > 0)

    def read(self, volume: Volume, prepared: Prepared | None = None) -> Reading:
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
class LastRun:
    """What a network would tell of its last run."""

    seconds: float = 1.25
    concession: str = ""


@dataclass
class Room:
    """A triage over a real archive and a real index with one received series and its job."""

    index: Index
    archive: Archive
    job: Job
    algorithm: FakeAlgorithm = field(default_factory=FakeAlgorithm)
    last_run: LastRun = field(default_factory=LastRun)
    now: float = NOW
    #: In which reports are written.
    forms: frozenset[Form] = BY_DEFAULT
    #: How long the triage rested.
    rests: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.readings = ReadingsHere(self.archive, {})
        self.heartbeat = Heartbeat(
            self.index,
            WORKER,
            lease_seconds=30,
            limits=Limits(reading_seconds=600, silence_seconds=60),
            pulse=lambda: self.readings.pulse,
            clock=lambda: self.now,
        )
        self.triage = self.triage_with(lung_nodule=self.algorithm)

    def triage_with(self, **algorithms: FakeAlgorithm) -> Triage:
        readers = {
            name: Reader(algorithm=algorithm, identification=IDENTIFICATION, last_run=self.last_run)
            for name, algorithm in algorithms.items()
        }
        self.readings = ReadingsHere(self.archive, readers)
        return Triage(
            index=self.index,
            archive=self.archive,
            readings=self.readings,
            queue=QueueSettings(maximum_attempts=2, first_wait_seconds=10),
            queues=("stat", "urgent", "routine"),
            heartbeat=self.heartbeat,
            worker=WORKER,
            forms=self.forms,
            clock=lambda: self.now,
            rest=self.rests.append,
        )

    def read(self) -> None:
        """Work off what can be claimed; afterwards so much time passes that a failed job may be tried again."""
        self.triage.work_off()
        self.now += 60

    @property
    def job_in_hand(self) -> str:
        assert self.heartbeat._lease is not None
        return self.heartbeat._lease.job_uid

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


@pytest.fixture
def holdings(tmp_path: Path) -> Iterator[tuple[Index, Archive]]:
    index = Index.open("sqlite://")
    yield index, Archive(tmp_path / "archive")
    index.close()


@pytest.fixture
def room(holdings: tuple[Index, Archive], tmp_path: Path) -> Room:
    index, archive = holdings
    receive(index, archive, ct_series(tmp_path / "series", slices=10), at=NOW - 10)
    return Room(index, archive, queued(index, at=NOW - 5))


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
    assert room.row.reason == "1 nodule found, the largest 8.3 mm; 3 not outlined"
    (_, sr) = room.index.jobs.report_rows(room.job.job_uid)
    written = room.archive.path_of(sr.path).read_bytes()
    assert b"3457 ml of lung were searched. 3 further marks are not outlined here. Not verified" in written


def test_a_bell_for_a_job_that_is_done_changes_nothing(room: Room) -> None:
    room.read()
    before = room.index.studies.history(STUDY), room.job_row
    room.read()
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
        patch.setattr(room.index.jobs, "retry", Away(room.index.jobs.retry, 99))
        room.read()
    assert room.job_row.job.state is JobState.READING
    room.index.jobs.expire(now=NOW + 31, attempts=Attempts(maximum=2, first_wait_seconds=0), actor="assembly")
    room.read()
    assert (room.row.state, room.job_row.job.attempts) == (StudyState.REPORTED, 2)


def test_a_bell_that_rings_while_the_index_is_away_changes_nothing(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room.index.jobs, "claim_next", Away(room.index.jobs.claim_next, 1))
    room.read()
    assert (room.job_row.job.state, room.job_row.job.attempts) == (JobState.QUEUED, 0)
    room.read()
    assert room.row.state is StudyState.REPORTED


def late_slice(room: Room, tmp_path: Path) -> Callable[[], None]:
    last = max(map(dcmread, map(room.file, range(10))), key=lambda ds: float(ds.ImagePositionPatient[2]))
    last.SOPInstanceUID = last.file_meta.MediaStorageSOPInstanceUID = "2.25.77"
    x, y, z = last.ImagePositionPatient
    last.ImagePositionPatient = [x, y, float(z) + float(last.SliceThickness)]
    extra = [tmp_path / "late.dcm"]
    last.save_as(extra[0])

    def arrive() -> None:
        receive(room.index, room.archive, extra, at=NOW - 10)

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
        attempts = Attempts(maximum=3, first_wait_seconds=3600, maximum_wait_seconds=3600)
        room.index.jobs.expire(now=room.now, attempts=attempts, actor="assembly")

    room.algorithm.meanwhile = sleep_and_be_replaced
    room.read()
    assert (room.row.state, room.job_row.job.state) == (StudyState.QUEUED, JobState.QUEUED)
    assert room.index.jobs.report_rows(room.job.job_uid) == []
    assert list(room.archive.path_of("results").iterdir()) == [], "another's report may lie there"


def conditions(room: Room) -> dict[str, str]:
    return {row.condition: row.reason for row in room.index.conditions.rows()}


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


def queue_two(room: Room, priority: Priority) -> None:
    """The job that was read, asked for again, and one of this priority on the same series for another route."""
    room.index.jobs.ask_again(STUDY, actor="test", at=NOW)
    further = replace(room.job, job_uid="2.25.2", priority=priority, route="another")
    room.index.jobs.queue(STUDY, [room.job, further], cause="", actor="test", at=NOW)


def test_one_bell_is_enough_for_every_job_and_the_most_urgent_is_first(room: Room) -> None:
    room.read()
    queue_two(room, Priority.STAT)
    order = []
    room.algorithm.meanwhile = lambda: order.append(room.job_in_hand)
    room.read()
    assert order == ["2.25.2", room.job.job_uid]
    assert {row.job.state for row in room.index.jobs.of_study(STUDY)} == {JobState.REPORTED}


def test_a_worker_that_stops_begins_no_further_job(room: Room) -> None:
    room.read()
    queue_two(room, Priority.STAT)
    room.algorithm.meanwhile = lambda: room.triage.stop(60)
    room.read()
    states = {row.job.job_uid: row.job.state for row in room.index.jobs.of_study(STUDY)}
    assert states == {"2.25.2": JobState.REPORTED, room.job.job_uid: JobState.QUEUED}, "the job in hand is finished"


def test_a_job_whose_worker_cannot_wait_is_queued_at_once_and_that_attempt_is_not_counted(room: Room) -> None:
    def full() -> None:
        raise OutOfDeviceMemory("cuda:0 has too little memory")

    room.algorithm.meanwhile = full
    room.read()
    room.algorithm.meanwhile = lambda: room.triage.stop(0)
    room.read()
    row = room.job_row
    assert (row.job.state, row.job.attempts, row.next_try_at) == (JobState.QUEUED, 1, None)
    assert "the worker was asked to stop" in row.job.reason


def announce(room: Room, **changes: str) -> None:
    """A message that this series may soon be read."""
    words = {
        "study_instance_uid": STUDY,
        "series_instance_uid": room.job.series_instance_uid,
        "algorithm": "lung_nodule",
        "evidence": room.job.evidence,
    }
    room.triage.prepare(**(words | changes))


def ahead(room: Room) -> bool:
    """Whether the report was made of what was prepared before."""
    assert room.job_row.summary is not None
    return bool(room.job_row.summary["ahead"])


def test_a_series_prepared_ahead_is_read_from_memory_and_gets_the_same_report(room: Room) -> None:
    room.read()
    before = files(room)
    assert not ahead(room)
    room.index.jobs.ask_again(STUDY, actor="a person", at=NOW)
    announce(room)
    room.index.jobs.queue(STUDY, [room.job], cause="", actor="test", at=NOW)
    room.file().unlink()
    room.read()
    assert ahead(room)
    assert files(room) == before


def test_what_was_prepared_is_used_once(room: Room) -> None:
    announce(room)
    room.read()
    room.index.jobs.ask_again(STUDY, actor="a person", at=NOW)
    room.index.jobs.queue(STUDY, [room.job], cause="", actor="test", at=NOW)
    room.read()
    assert not ahead(room)


@pytest.mark.parametrize(
    "changes",
    [{"evidence": "0" * 64}, {"series_instance_uid": "2.25.404"}, {"study_instance_uid": "2.25.404"}],
)
def test_an_announcement_of_what_is_not_so_is_passed_over(room: Room, changes: dict[str, str]) -> None:
    announce(room, **changes)
    room.read()
    assert not ahead(room)


def test_an_error_while_preparing_is_said_by_the_reading(room: Room) -> None:
    path = room.file()
    data = path.read_bytes()
    path.unlink()
    announce(room)
    path.write_bytes(data)
    room.read()
    assert (room.row.state, ahead(room)) == (StudyState.REPORTED, False)


def test_an_announcement_while_a_job_is_read_is_passed_over(room: Room) -> None:
    room.algorithm.meanwhile = lambda: announce(room)
    room.read()
    assert room.row.state is StudyState.REPORTED
    assert room.readings.desk._ahead is None


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


def test_a_reading_that_nobody_wants_any_more_leaves_nothing(room: Room, tmp_path: Path) -> None:
    arrive = late_slice(room, tmp_path)

    def arrive_and_notice() -> None:
        arrive()
        room.heartbeat._beat(room.heartbeat._lease)

    room.algorithm.meanwhile = arrive_and_notice
    room.read()
    assert room.heartbeat.lost
    assert (room.row.state, room.job_row.job.state) == (StudyState.RECEIVING, JobState.SUPERSEDED)


def accept(room: Room) -> None:
    """A peer takes every object of the report."""
    for sop_instance_uid, *_ in room.index.deliveries.unplanned():
        room.index.deliveries.plan(sop_instance_uid, ["pacs"], NOW)
    for row in room.index.deliveries.of_study(STUDY):
        if row.state is DeliveryState.WAITING:
            room.index.deliveries.accepted(row, reason="0x0000 Success", at=NOW)


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
