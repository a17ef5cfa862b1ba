"""Readings asked of a real child process, which is killed, hangs, tears its messages, or takes too long."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dicom_node.core.errors import ArchiveUnusable, Interrupted, NotApplicable, OutOfDeviceMemory, TriageError
from tests.conftest import ROOT
from workers.pipe import WAITING, Begin, Prepare, Read, Ready, SeriesToRead, SourceFile
from workers.readings import Limits, Readings, Stopped

LITTLE = "tests.little_reading_process"


def begin(device: str = "cpu") -> Begin:
    return Begin(
        archive=Path("/nowhere"), bundle_dirs=(), device=device, threads=0, algorithms="none:none", log_as_json=True
    )


def series(what: str = "report", files: int = 1) -> SeriesToRead:
    return SeriesToRead(
        study_instance_uid="2.25.1",
        series_instance_uid="2.25.2",
        algorithm=what,
        evidence="e",
        completed_at=0.0,
        files=tuple(SourceFile(path=f"{number:0500d}.dcm", sha256="a" * 64) for number in range(files)),
    )


class Room:
    """Readings by little processes, and what was said of them."""

    def __init__(self, device: str = "cpu", **limits: float) -> None:
        self.ready: list[Ready] = []
        self.troubles: list[str] = []
        self.readings = Readings(
            begin(device),
            Limits(**({"reading_seconds": 30.0, "silence_seconds": 20.0} | limits)),
            on_ready=self.ready.append,
            on_trouble=self.troubles.append,
            module=LITTLE,
        )

    def read(self, what: str, **options: Any) -> Any:
        assert self.readings.ready(lambda: False)
        request = Read(job_uid="2.25.9", series=series(what))
        return self.readings.read(request, **({"stopped": lambda: False} | options))

    @property
    def pid(self) -> int:
        process = self.readings._process
        assert process is not None
        return process.pid


@pytest.fixture
def room() -> Iterator[Room]:
    room = Room()
    yield room
    room.readings.close()


def strict(**limits: float) -> Iterator[Room]:
    room = Room(**limits)
    yield room
    room.readings.close()


@pytest.fixture
def impatient() -> Iterator[Room]:
    yield from strict(silence_seconds=1.0)


@pytest.fixture
def short() -> Iterator[Room]:
    yield from strict(reading_seconds=0.6)


def lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def until(condition: Any, seconds: float = 20.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.02)


def test_one_process_reads_one_series_after_the_other(room: Room) -> None:
    assert room.read("report").job_uid == "2.25.9"
    pid = room.pid
    room.read("report")
    assert (room.pid, len(room.ready)) == (pid, 1)
    assert room.ready[0].bundles == ("little 1",)


def test_the_algorithms_are_those_that_the_last_process_told_of(room: Room) -> None:
    assert (room.readings.algorithms, room.readings.broken) == ((), ())
    room.read("report")
    assert (room.readings.algorithms, room.readings.broken) == (("little", "hang"), ("other",))


def test_an_answer_of_many_megabytes_arrives_whole(room: Room) -> None:
    assert len(room.read("report 20000000").summary["size"]) == 20_000_000


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("NotApplicable", NotApplicable),
        ("OutOfDeviceMemory", OutOfDeviceMemory),
        ("ArchiveUnusable", ArchiveUnusable),
    ],
)
def test_an_error_of_the_tree_keeps_its_class_and_its_words(room: Room, kind: str, expected: type[TriageError]) -> None:
    with pytest.raises(expected, match=f"{kind}!"):
        room.read(f"fail {kind}")
    pid = room.pid
    room.read("report")
    assert room.pid == pid, "what has a name leaves the process as it is"


def test_an_error_that_nobody_knows_is_final(room: Room) -> None:
    with pytest.raises(TriageError) as failed:
        room.read("fail Riddle")
    assert not failed.value.retryable


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("die 9", "was killed by signal 9; often the machine's memory ran out"),
        ("die 11", "was killed by signal 11; a library or a driver is at fault"),
        ("die 6", "was killed by signal 6$"),
        ("exit 4", "ended with status 4; the worker's log tells why"),
        ("tear", "was killed by signal 9"),
    ],
)
def test_a_process_that_dies_ends_its_reading_with_the_reason_and_the_next_is_read(
    room: Room, what: str, words: str
) -> None:
    with pytest.raises(Interrupted, match=words):
        room.read(what)
    assert room.read("report").job_uid == "2.25.9"
    assert (len(room.ready), room.troubles) == (2, [])


def test_a_process_that_met_the_unforeseen_is_replaced(room: Room) -> None:
    room.read("report")
    pid = room.pid
    with pytest.raises(Interrupted):
        room.read("fail Interrupted last")
    room.read("report")
    assert room.pid != pid
    assert not lives(pid)


def test_a_process_that_dies_with_nothing_to_do_is_replaced_before_the_next_reading(room: Room) -> None:
    room.read("report")
    process = room.readings._process
    assert process is not None
    os.kill(room.pid, signal.SIGKILL)
    until(lambda: process.gone)
    room.read("report")
    assert len(room.ready) == 2


def test_a_process_that_gives_no_sign_is_killed(impatient: Room) -> None:
    began = time.monotonic()
    with pytest.raises(
        Interrupted, match=r"no sign for 1 s at step 'reading' and was killed; .*maximum_silence_seconds"
    ):
        impatient.read("hang")
    assert time.monotonic() - began < 10
    impatient.read("report")


def test_a_process_that_is_stopped_from_outside_is_killed_too(impatient: Room) -> None:
    impatient.read("report")
    pid = impatient.pid
    os.kill(pid, signal.SIGSTOP)
    with pytest.raises(Interrupted, match="no sign"):
        impatient.readings.read(Read(job_uid="2.25.9", series=series()), stopped=lambda: False)
    assert not lives(pid)


def test_a_stopped_process_that_takes_no_request_holds_nobody_up(impatient: Room) -> None:
    impatient.read("report")
    os.kill(impatient.pid, signal.SIGSTOP)
    began = time.monotonic()
    # More than a pipe holds.
    request = Read(job_uid="2.25.9", series=series(files=5000))
    with pytest.raises(Interrupted, match="takes no request"):
        impatient.readings.read(request, stopped=lambda: False)
    assert time.monotonic() - began < 10
    impatient.read("report")


def test_a_process_stopped_while_it_waits_is_replaced_before_a_job_is_claimed(impatient: Room) -> None:
    impatient.read("report")
    pid = impatient.pid
    os.kill(pid, signal.SIGSTOP)
    time.sleep(1.1)
    assert impatient.readings.ready(lambda: False)
    assert impatient.pid != pid


def test_a_slow_reading_that_moves_goes_on_beyond_the_limit_of_silence(impatient: Room) -> None:
    assert impatient.read("move 2").job_uid == "2.25.9"


def test_a_reading_that_never_ends_is_ended_however_it_moves(short: Room) -> None:
    with pytest.raises(Interrupted, match=r"took more than 0.6 s \(maximum_reading_seconds\), was at step 'network'"):
        short.read("move 60")
    short.read("report")


def test_a_worker_that_cannot_wait_kills_the_reading(room: Room) -> None:
    asked = time.monotonic() + 0.3
    with pytest.raises(Stopped):
        room.read("move 60", stopped=lambda: time.monotonic() > asked)
    assert room.readings._process is None


def test_a_reading_that_nobody_wants_any_more_is_asked_to_end(room: Room) -> None:
    room.read("report")
    pid = room.pid
    with pytest.raises(Interrupted):
        room.read("wait", unwanted=lambda: True)
    assert room.pid == pid, "the warm process is kept"


def test_a_process_that_cannot_start_is_tried_again_after_waits_that_grow() -> None:
    room = Room("cannot start")
    began, waits = time.monotonic(), []
    for _ in range(2):
        assert not room.readings.ready(lambda: False)
        waits.append(room.readings._next_start - time.monotonic())
        room.readings._next_start = 0.0
    assert waits == pytest.approx([1.0, 2.0], abs=0.3)
    assert room.troubles == ["the reading process ended with status 3; the worker's log tells why"] * 2
    assert time.monotonic() - began < 10


def test_a_worker_that_stops_waits_for_no_process_to_get_ready() -> None:
    room = Room("never ready")
    asked = time.monotonic() + 0.3
    assert not room.readings.ready(lambda: time.monotonic() > asked)
    room.readings.close()


def test_preparing_is_asked_of_a_process_with_nothing_to_do(room: Room) -> None:
    room.read("report")
    until(lambda: room.readings.pulse.step == WAITING)
    room.readings.prepare(Prepare(series=series()))
    until(lambda: room.readings.pulse.step == "prepared e")


def test_preparing_starts_no_process(room: Room) -> None:
    room.readings.prepare(Prepare(series=series()))
    assert room.readings._process is None


def test_the_pulse_tells_the_step_and_how_long_ago_it_was_heard(room: Room) -> None:
    assert room.readings.pulse.step == "no reading process"
    room.read("report")
    until(lambda: room.readings.pulse.step == WAITING)
    time.sleep(0.3)
    assert 0.25 < room.readings.pulse.silent_seconds < 10


def test_the_process_is_in_a_group_of_its_own_and_gone_when_closed(room: Room) -> None:
    room.read("report")
    pid = room.pid
    assert os.getpgid(pid) == pid
    room.readings.close()
    assert not lives(pid)


PARENT = """
import time
from tests.unit.workers.test_readings import begin
from workers.readings import Limits, Readings
readings = Readings(begin(), Limits(reading_seconds=9, silence_seconds=9), module="{module}")
print(readings.ready(lambda: False) and readings._process.pid, flush=True)
time.sleep(60)
"""


def test_a_process_whose_worker_is_killed_ends_with_its_pipe() -> None:
    """The little one knows nothing of the kernel's help; the real one has both."""
    program = [sys.executable, "-c", PARENT.format(module=LITTLE)]
    with subprocess.Popen(program, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        assert lives(pid)
        parent.kill()
        parent.wait()
        until(lambda: not lives(pid), 2.0)
