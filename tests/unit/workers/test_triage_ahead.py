"""Series that are prepared before their job comes."""

import pytest

from dicom_node.core.lifecycle import StudyState
from tests.received_study import STUDY
from tests.triage_room import NOW, Room, files


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
