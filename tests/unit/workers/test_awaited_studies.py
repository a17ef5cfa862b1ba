"""An earlier study without a report: as when a PACS sends it for comparison with the one that is read first."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from dicom_node.archive.files import Archive
from dicom_node.archive.index import Index
from dicom_node.core import codes
from dicom_node.core.errors import OutOfDeviceMemory
from dicom_node.core.lung_rads import Composition
from tests.follow_ups import FIRST, SECOND, Drawn, Ward, chest
from tests.unit.workers.reporting.test_summary import items
from workers.algorithms import Prepared, Reading
from workers.volume import Volume

BEFORE, AFTER = "20240101", "20240401"
UNREAD = (
    "An earlier study under this Patient ID is not compared, since not received and read yet: "
    "read this one again after that."
)
FAILED = (
    "An earlier study under this Patient ID is not compared: the reading failed, or its report did not pass its checks."
)


class Solid(Drawn):
    """Says of each nodule that it is solid."""

    def read(self, volume: Volume, prepared: Prepared | None = None) -> Reading:
        reading = super().read(volume, prepared)
        return replace(reading, findings=tuple(replace(one, composition=Composition.SOLID) for one in reading.findings))


class Failing(Solid):
    """Fails at every series."""

    def read(self, volume: Volume, prepared: Prepared | None = None) -> Reading:
        raise OutOfDeviceMemory("too little memory")


class Nowhere(Solid):
    """Does not tell where it looked."""

    def read(self, volume: Volume, prepared: Prepared | None = None) -> Reading:
        return replace(super().read(volume, prepared), searched=None)


@pytest.fixture
def ward(tmp_path: Path) -> Iterator[Ward]:
    """A worker of a route for first screenings."""
    index = Index.open("sqlite://")
    yield Ward(
        index=index, archive=Archive(tmp_path / "data"), folder=tmp_path, algorithm=Solid(), screening="baseline"
    )
    index.close()


def categories(ward: Ward, study: str) -> int:
    """How many Lung-RADS categories its report has."""
    return len(items(ward.results(study)["SR"], codes.LUNG_RADS_ASSESSMENT.value))


def test_the_report_says_so_and_takes_nothing_for_a_first_screening(ward: Ward) -> None:
    # What arrived first is read first.
    later = ward.arrive("later", AFTER, chest((FIRST,)))
    earlier = ward.arrive("earlier", BEFORE, chest((FIRST,)))
    ward.read()
    assert UNREAD in ward.comment(later)
    assert categories(ward, later) == 0
    assert UNREAD not in ward.comment(earlier)
    assert categories(ward, earlier) > 0


def test_read_again_it_is_compared_and_says_no_more_of_it(ward: Ward) -> None:
    later = ward.arrive("later", AFTER, chest((FIRST,)))
    earlier = ward.arrive("earlier", BEFORE, chest((FIRST,)))
    ward.read()
    ward.index.jobs.ask_again(later, actor="test", at=ward.now)
    ward.index.jobs.queue(later, [ward.job(later).job], cause="", actor="test", at=ward.now)
    ward.read()
    assert "Compared with the report on the study of 2024-01-01" in ward.comment(later)
    assert UNREAD not in ward.comment(later)
    assert ward.tracked(later) == ward.tracked(earlier)


def test_beside_one_that_is_compared_it_is_told_of_the_later_ones_alone(ward: Ward) -> None:
    ward.study("compared", "20230101", (FIRST, SECOND))
    later = ward.arrive("later", AFTER, chest((FIRST, SECOND)))
    for day in (BEFORE, "20240201", "20220101"):
        ward.arrive(day, day, chest((FIRST, SECOND)))
    ward.read()
    said = ward.comment(later)
    assert "2 earlier studies under this Patient ID are not compared, since not received and read yet" in said
    assert "Compared with the report on the study of 2023-01-01" in said


def damaged(ward: Ward, study: str) -> None:
    """Its report is not as it was written."""
    for row in ward.index.jobs.report_rows(ward.job(study).job.job_uid):
        path = ward.archive.path_of(row.path)
        path.write_bytes(path.read_bytes()[:-2])


def test_where_the_latest_report_cannot_be_used_what_lies_between_it_and_the_next_is_told(ward: Ward) -> None:
    ward.study("compared", "20230101", (FIRST, SECOND))
    damaged(ward, ward.study("damaged", "20240301", (FIRST, SECOND)))
    later = ward.arrive("later", AFTER, chest((FIRST, SECOND)))
    for day in ("20240201", "20220101"):
        ward.arrive(day, day, chest((FIRST, SECOND)))
    ward.read()
    said = ward.comment(later)
    assert UNREAD in said
    assert "Compared with the report on the study of 2023-01-01" in said


def test_where_no_report_can_be_used_all_are_told(ward: Ward) -> None:
    damaged(ward, ward.study("damaged", "20240301", (FIRST, SECOND)))
    later = ward.arrive("later", AFTER, chest((FIRST, SECOND)))
    ward.arrive("earlier", "20240201", chest((FIRST, SECOND)))
    ward.read()
    assert UNREAD in ward.comment(later)


def test_what_could_not_be_read_is_told_and_was_there_before(ward: Ward) -> None:
    ward.algorithm = Failing()
    ward.study("earlier", BEFORE, (FIRST,))
    ward.algorithm = Solid()
    later = ward.study("later", AFTER, (FIRST,))
    assert FAILED in ward.comment(later)
    assert categories(ward, later) == 0


def test_of_an_algorithm_that_does_not_tell_where_it_looked_nothing_is_of_a_first_screening_either(ward: Ward) -> None:
    ward.algorithm = Nowhere()
    later = ward.arrive("later", AFTER, chest((FIRST,)))
    ward.arrive("earlier", BEFORE, chest((FIRST,)))
    ward.read()
    assert categories(ward, later) == 0
    assert "earlier stud" not in ward.comment(later), "it compares nothing"
