"""A reading process from within: requests heard over a real pipe, a real series, an algorithm that obeys the test."""

import hashlib
import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import pytest

from dicom_node.archive.files import Archive
from dicom_node.core.algorithm import AlgorithmIdentification
from dicom_node.core.errors import NotApplicable, OutOfDeviceMemory
from tests.factories import ct_series
from tests.instances import data_set_of
from tests.reading_here import ReadersHere
from workers import desk as desk_module
from workers.algorithms import Prepared, Reading
from workers.desk import Desk
from workers.pipe import Beat, Drop, Failed, Prepare, Read, Reported, SeriesToRead, SourceFile
from workers.reading import Reader
from workers.rehearsal import rehearse
from workers.requests import Requests
from workers.volume import Volume

JOB = "2.25.9"
IDENTIFICATION = AlgorithmIdentification(
    name="Obedient", version="0.1.0", manufacturer="Test", device_uid="2.25.4711", checksum="ab" * 32
)


def nothing_happens() -> None:
    """What an algorithm does beside reading."""


@dataclass
class Obedient:
    """Finds nothing, after it did what a test wants to happen meanwhile."""

    meanwhile: Callable[[], None] = nothing_happens
    name: str = "obedient"
    #: What each reading was given.
    given: list[Prepared | None] = field(default_factory=list)

    def reads(self, volume: Volume) -> None:
        """Reads everything."""

    def prepare(self, volume: Volume) -> Prepared:
        self.meanwhile()
        return Prepared(voxels=volume.voxels, where=volume.voxels > 0)

    def read(self, volume: Volume, prepared: Prepared | None = None) -> Reading:
        self.given.append(prepared)
        self.meanwhile()
        return Reading(findings=(), labels=np.zeros(volume.voxels.shape, dtype=np.uint8), parameters=())


@dataclass(frozen=True)
class LastRun:
    seconds: float = 0.5
    concession: str = ""


class Room:
    """A desk, and the worker's end of its pipe."""

    def __init__(self, folder: Path) -> None:
        self.algorithm = Obedient()
        self.ended = False
        self.worker, ours = Pipe()
        self.requests = Requests(ours, end_process=self.end)
        reader = Reader(algorithm=self.algorithm, identification=IDENTIFICATION, last_run=LastRun())
        self.desk = Desk(self.requests, Archive(folder), ReadersHere({"obedient": reader}))
        paths = ct_series(folder / "series", slices=4)
        self.series = SeriesToRead(
            study_instance_uid="2.25.1",
            series_instance_uid="2.25.2",
            algorithm="obedient",
            evidence="e" * 64,
            completed_at=1_709_201_700.0,
            files=tuple(
                SourceFile(path=f"series/{path.name}", sha256=hashlib.sha256(data_set_of(path)).hexdigest())
                for path in paths
            ),
        )
        self.first = folder / "series" / paths[0].name

    def end(self) -> None:
        self.ended = True

    def read(self, **changes: object) -> Reported | Failed:
        return self.desk.read(Read(job_uid=JOB, series=replace(self.series, **changes)))

    def prepare(self) -> None:
        self.desk.prepare(Prepare(series=self.series))

    def send(self, request: Read | Prepare | Drop) -> None:
        """From the worker; returns when it is heard."""
        self.worker.send(request)
        wait_for(lambda: bool(self.requests._waiting) or bool(self.requests._dropped))


@pytest.fixture
def room(tmp_path: Path) -> Room:
    return Room(tmp_path)


def wait_for(condition: Callable[[], bool]) -> None:
    until = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < until, "it did not happen"
        time.sleep(0.01)


def said(pipe: Connection) -> Iterator[object]:
    while pipe.poll(0.2):
        yield pipe.recv()


def steps(room: Room) -> list[str]:
    """The steps that the worker heard of, each once."""
    beats = (answer.step for answer in said(room.worker) if isinstance(answer, Beat))
    return list(dict.fromkeys(beats))


def test_a_series_is_read_and_each_step_is_told(room: Room) -> None:
    answer = room.read()
    assert isinstance(answer, Reported)
    (sr,) = answer.objects
    assert sr.sop_class_uid == "1.2.840.10008.5.1.4.1.1.88.34"
    assert sr.data[128:132] == b"DICM"
    assert answer.summary["result"] == "no nodules found"
    assert set(answer.summary["steps"]) == {"load", "reading", "report", "network"}
    assert steps(room) == ["checking the files", "loading the series", "reading", "writing the report"]


def fail_with(error: Exception) -> Callable[[], None]:
    def fail() -> None:
        raise error

    return fail


@pytest.mark.parametrize(
    ("error", "kind", "words", "last"),
    [
        (NotApplicable("too thick"), "NotApplicable", "too thick", False),
        (OutOfDeviceMemory("too little"), "OutOfDeviceMemory", "too little", True),
        (OSError(28, "x", "/a/place"), "ArchiveUnusable", "the archive's disk was not usable (OSError, ENOSPC)", False),
        (MemoryError("Test^Tess"), "Interrupted", "an unexpected MemoryError; the worker's log has its place", True),
    ],
)
def test_whatever_goes_wrong_is_part_of_the_answer(
    room: Room, error: Exception, kind: str, words: str, last: bool
) -> None:
    room.algorithm.meanwhile = fail_with(error)
    answer = room.read()
    assert isinstance(answer, Failed)
    assert (answer.kind, answer.last, answer.job_uid) == (kind, last, JOB)
    assert answer.message.startswith(words)
    assert "/a/place" not in answer.message
    room.algorithm.meanwhile = nothing_happens
    assert isinstance(room.read(), Reported)


def test_a_reading_that_is_dropped_ends_with_its_next_beat(room: Room) -> None:
    room.algorithm.meanwhile = lambda: room.send(Drop(job_uid=JOB))
    answer = room.read()
    assert isinstance(answer, Failed)
    assert "nobody wants the report" in answer.message
    room.algorithm.meanwhile = nothing_happens
    other = room.desk.read(Read(job_uid="2.25.10", series=room.series))
    assert isinstance(other, Reported)


def test_a_job_that_was_dropped_is_read_when_it_is_asked_for_again(room: Room) -> None:
    room.send(Drop(job_uid=JOB))
    room.send(Read(job_uid=JOB, series=room.series))
    request = room.requests.next(20)
    assert isinstance(request, Read)
    assert isinstance(room.desk.read(request), Reported)


def test_a_file_that_is_missing_from_an_archive_with_studies_is_the_series_fault(room: Room) -> None:
    filed = room.desk._archive.path_of("studies") / "ab"
    filed.mkdir()
    room.first.unlink()
    answer = room.read()
    assert isinstance(answer, Failed)
    assert answer.kind == "UnreadableInstance"
    filed.rmdir()
    answer = room.read()
    assert isinstance(answer, Failed)
    assert (answer.kind, answer.message) == (
        "ArchiveUnusable",
        "the archive that this worker looks into is empty; see its mount",
    )


def test_what_was_prepared_is_given_to_the_reading_of_the_same(room: Room) -> None:
    room.prepare()
    room.read()
    room.read()
    first, second = room.algorithm.given
    assert first is not None
    assert second is None


def test_what_was_prepared_for_another_is_not_kept(room: Room) -> None:
    room.prepare()
    room.read(evidence="f" * 64)
    room.read()
    assert room.algorithm.given == [None, None]


def test_what_nobody_asked_for_is_given_up(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    room.prepare()
    room.desk.rest()
    assert room.desk._ahead is not None
    monkeypatch.setattr(desk_module, "_KEPT_SECONDS", 0.0)
    room.desk.rest()
    room.read()
    assert room.algorithm.given == [None]


def test_preparing_gives_way_to_the_reading_of_another_study(room: Room, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    room.send(Read(job_uid=JOB, series=replace(room.series, evidence="f" * 64)))
    room.prepare()
    assert "preparing was abandoned for a reading" in caplog.messages
    assert room.desk._ahead is None


def test_preparing_what_is_about_to_be_read_goes_on(room: Room) -> None:
    room.send(Read(job_uid=JOB, series=room.series))
    room.prepare()
    assert room.desk._ahead is not None


def test_an_error_while_preparing_is_only_noted(room: Room, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    room.algorithm.meanwhile = fail_with(MemoryError("Test^Tess"))
    room.prepare()
    assert "a series could not be prepared" in caplog.messages
    assert max(record.levelno for record in caplog.records) == logging.INFO


def test_an_altered_file_is_never_read(room: Room) -> None:
    data = room.first.read_bytes()
    room.first.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    answer = room.read()
    assert isinstance(answer, Failed)
    assert answer.kind == "UnreadableInstance"
    assert room.algorithm.given == []


def test_requests_are_heard_in_their_order(room: Room) -> None:
    assert room.requests.next(0.01) is None
    first = Prepare(series=room.series)
    second = Read(job_uid=JOB, series=room.series)
    for request in (first, second):
        room.worker.send(request)
    assert [room.requests.next(20), room.requests.next(20)] == [first, second]


def test_beats_of_the_same_step_are_few(room: Room) -> None:
    for _ in range(1000):
        room.requests.beat("network")
    assert len([answer for answer in said(room.worker) if isinstance(answer, Beat)]) < 10


def test_the_end_of_the_worker_is_noticed_at_once(room: Room) -> None:
    room.worker.close()
    wait_for(lambda: room.ended)


def test_a_rehearsal_writes_a_report_that_passes_its_checks() -> None:
    rehearse()
