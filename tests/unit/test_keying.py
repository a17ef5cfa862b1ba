"""Keying: of every new study the hashes of its accession number and patient, and neither itself."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from dicom_node.archive.shared_lines import read_rows, table_of
from dicom_node.keying import Keying, key_of
from tests.room import Room

KEY = b"key"


@pytest.fixture
def room(tmp_path: Path) -> Iterator[Room]:
    room = Room(tmp_path)
    yield room
    room.index.close()


def test_each_study_gets_its_keys_once_and_they_tell_nothing_of_what_they_are_made_of(room: Room) -> None:
    room.receive(1, 2, study="1.2.3", AccessionNumber="ACC-4711", PatientID="PAT-0815")
    room.now += 1
    room.receive(1, study="1.2.4", PatientID="PAT-0815")
    keying = Keying(room.index, room.archive, KEY)
    keying.step()
    keying.step()
    assert room.index.study_keys.patient("1.2.3") == key_of("PAT-0815", KEY) != ""
    assert room.index.study_keys.patient("1.2.4") == key_of("PAT-0815", KEY)
    assert room.index.study_keys.patient("9.9") == ""
    assert room.index.study_keys.unkeyed(0.0, 10) == []
    rows = read_rows(room.index, sa.select(table_of(room.index, "study_keys")))
    assert len(rows) == 2
    for never in ("ACC-4711", "PAT-0815"):
        assert never not in str(rows)


def test_a_study_whose_file_is_gone_has_empty_keys_and_holds_up_no_other(room: Room) -> None:
    room.receive(1, study="1.2.3", AccessionNumber="A")
    for path in room.paths("1.2.3"):
        path.unlink()
    room.receive(1, study="1.2.4", AccessionNumber="B", PatientID="P")
    Keying(room.index, room.archive, KEY).step()
    assert room.index.study_keys.patient("1.2.3") == ""
    assert room.index.study_keys.patient("1.2.4") == key_of("P", KEY)


@pytest.mark.parametrize("set_back_seconds", [0.5, 7200.0])
def test_a_study_that_came_before_the_last_one_by_the_clock_is_keyed_too(room: Room, set_back_seconds: float) -> None:
    """Its clock was set back, or its instance was received a moment earlier and committed later."""
    keying = Keying(room.index, room.archive, KEY, lambda: room.now)
    room.receive(1, study="1.2.3", PatientID="A")
    keying.step()
    keying.step()
    room.now -= set_back_seconds
    room.receive(1, study="1.2.4", PatientID="B")
    keying.step()
    assert room.index.study_keys.patient("1.2.4") == key_of("B", KEY)


def test_another_key_gives_another_hash_and_spaces_none() -> None:
    assert key_of(" A ", KEY) == key_of("A", KEY) != key_of("A", b"other")
    assert key_of("  ", KEY) == ""
