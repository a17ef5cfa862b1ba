"""One worker that triages over a real archive and a real index, with a received study and its job."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from pydicom import dcmread

from dicom_node.archive.files import Archive
from dicom_node.archive.index import Index
from dicom_node.archive.jobs import JobRow
from dicom_node.archive.studies import StudyRow
from dicom_node.core.algorithm import AlgorithmIdentification
from dicom_node.core.form import BY_DEFAULT, Form
from dicom_node.core.job import Job
from dicom_node.core.lifecycle import DeliveryState
from dicom_node.core.priority import Priority
from dicom_node.core.study import Study
from dicom_node.settings import QueueSettings
from tests.reading_here import ReadingsHere
from tests.received_study import STUDY, receive
from tests.unit.workers.reporting.conftest import ball
from workers.algorithms import Prepared, Reading
from workers.heartbeat import Heartbeat
from workers.reading import Reader
from workers.readings import Limits
from workers.triage import Triage
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


def files(room: Room) -> dict[str, bytes]:
    rows = room.index.jobs.report_rows(room.job.job_uid)
    return {row.sop_instance_uid: room.archive.path_of(row.path).read_bytes() for row in rows}


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


def conditions(room: Room) -> dict[str, str]:
    return {row.condition: row.reason for row in room.index.conditions.rows()}


def accept(room: Room) -> None:
    """A peer takes every object of the report."""
    for sop_instance_uid, *_ in room.index.deliveries.unplanned():
        room.index.deliveries.plan(sop_instance_uid, ["pacs"], NOW)
    for row in room.index.deliveries.of_study(STUDY):
        if row.state is DeliveryState.WAITING:
            room.index.deliveries.accepted(row, reason="0x0000 Success", at=NOW)


def queue_two(room: Room, priority: Priority) -> None:
    """The job that was read, asked for again, and one of this priority on the same series for another route."""
    room.index.jobs.ask_again(STUDY, actor="test", at=NOW)
    further = replace(room.job, job_uid="2.25.2", priority=priority, route="another")
    room.index.jobs.queue(STUDY, [room.job, further], cause="", actor="test", at=NOW)
