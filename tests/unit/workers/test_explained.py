"""Findings' scores are explained where a form shows that, within the time there is, and never at a reading's cost."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pytest

from dicom_node.archive.files import Archive
from dicom_node.core.errors import OutOfDeviceMemory
from dicom_node.core.form import Form
from tests.reading_here import ReadersHere
from tests.unit.workers.reporting.conftest import ball
from tests.unit.workers.test_desk import IDENTIFICATION, JOB, LastRun, Obedient, Room, steps
from workers.algorithms import Prepared, Reading
from workers.dependence import Dependence, Part
from workers.desk import Desk
from workers.pipe import Failed, Read, Reported
from workers.reading import Reader
from workers.requests import Abandoned
from workers.volume import Volume

PICTURES = frozenset({Form.SR, Form.SEG, Form.SECONDARY_CAPTURE})
TOLD = Dependence(
    score=0.84,
    without=MappingProxyType({Part.OUTLINED: 0.02}),
    start=(0, 0, 0),
    parts=np.ones((2, 2, 2), dtype=np.uint8),
)
Dependences = Callable[[Callable[[], bool]], Mapping[int, Dependence]]


@dataclass
class Explaining(Obedient):
    """Finds a ball, and can say on what its score depended."""

    dependences: Dependences | None = None

    def read(self, volume: Volume, prepared: Prepared | None = None) -> Reading:
        labels = np.zeros(volume.voxels.shape, dtype=np.uint8)
        inside, finding = ball(volume, 1, (1, 16, 16))
        labels[inside] = 1
        return Reading(findings=(finding,), labels=labels, parameters=(), dependences=self.dependences)


def read_with(
    folder: Path, dependences: Dependences, *, seconds: float = 5.0, forms: frozenset[Form] = PICTURES
) -> tuple[Room, Reported | Failed]:
    room = Room(folder)
    reader = Reader(algorithm=Explaining(dependences=dependences), identification=IDENTIFICATION, last_run=LastRun())
    desk = Desk(room.requests, Archive(folder), ReadersHere({"obedient": reader}), explanation_seconds=seconds)
    return room, desk.read(Read(job_uid=JOB, series=room.series, forms=forms))


def explanation(answer: Reported | Failed) -> str | None:
    assert isinstance(answer, Reported)
    (row,) = answer.summary["rows"]
    return row.get("explanation")


def never(_out_of_time: Callable[[], bool]) -> Mapping[int, Dependence]:
    raise AssertionError("nobody asked for that")


def test_what_is_told_is_shown_and_kept_beside_the_finding(tmp_path: Path) -> None:
    room, answer = read_with(tmp_path, lambda out_of_time: {} if out_of_time() else {1: TOLD})

    words = explanation(answer)
    assert words is not None
    assert words.startswith(
        "Nodule 1: Its score of 0.94 (0.84 with only 24 mm around it shown) depends most on what is outlined"
    )
    assert isinstance(answer, Reported)
    assert "explaining" in answer.summary["steps"]
    assert answer.summary["steps"]["network"] == 0.5
    assert "explaining" in steps(room)


@pytest.mark.parametrize(
    ("seconds", "forms"),
    [(0.0, PICTURES), (5.0, frozenset({Form.SR, Form.SEG, Form.KEY_OBJECTS}))],
)
def test_nothing_is_run_again_where_the_settings_or_the_forms_ask_for_nothing(
    tmp_path: Path, seconds: float, forms: frozenset[Form]
) -> None:
    _, answer = read_with(tmp_path, never, seconds=seconds, forms=forms)

    assert explanation(answer) is None


def test_the_time_that_there_is_ends(tmp_path: Path) -> None:
    def until_told(out_of_time: Callable[[], bool]) -> Mapping[int, Dependence]:
        while not out_of_time():
            pass
        return {}

    _, answer = read_with(tmp_path, until_told, seconds=0.05)
    assert explanation(answer) is None


def test_without_memory_for_it_the_report_is_written_all_the_same(tmp_path: Path) -> None:
    def exhausted(_out_of_time: Callable[[], bool]) -> Mapping[int, Dependence]:
        raise OutOfDeviceMemory("too little")

    _, answer = read_with(tmp_path, exhausted)
    assert explanation(answer) is None
    assert isinstance(answer, Reported)
    assert {written.form for written in answer.objects} == PICTURES


def test_a_reading_that_nobody_wants_ends_while_it_is_explained(tmp_path: Path) -> None:
    def unwanted(_out_of_time: Callable[[], bool]) -> Mapping[int, Dependence]:
        raise Abandoned

    _, answer = read_with(tmp_path, unwanted)
    assert isinstance(answer, Failed)
    assert "nobody wants the report" in answer.message
