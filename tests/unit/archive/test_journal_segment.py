import hashlib
import mmap
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicom_node.archive.journal_segment import PAGE, Record, Segment, records_of

SEGMENT_BYTES = 40 * PAGE

contents = st.lists(st.integers(0, 3 * PAGE).flatmap(lambda size: st.binary(min_size=size, max_size=size)), max_size=6)


def record(number: int, data_set: bytes) -> Record:
    path = f"studies/00/1.2.{number}/1.2.3/1.2.3.4.dcm"
    return Record(path=path, sha256=hashlib.sha256(data_set).hexdigest(), file_meta=b"meta" * number, data_set=data_set)


def written(segment: Segment, records: list[Record]) -> list[tuple[int, int]]:
    """Write them one by one; the first byte of each and that behind it."""
    places = []
    for each in records:
        # Past the page cache a disk takes only what lies on pages.
        buffer = memoryview(mmap.mmap(-1, each.size_bytes))
        each.write_into(buffer, segment.turn)
        start = segment.write(buffer)
        places.append((start, start + each.size_bytes))
    return places


def begun(folder: str) -> Segment:
    segment = Segment(Path(folder, "00.segment"), SEGMENT_BYTES)
    segment.begin()
    return segment


def test_a_new_segment_holds_nothing_and_has_all_its_blocks(tmp_path: Path) -> None:
    segment = Segment(tmp_path / "00.segment", SEGMENT_BYTES)
    assert list(records_of(segment.path)) == []
    assert segment.path.stat().st_blocks * 512 >= SEGMENT_BYTES
    segment.remove()
    assert not segment.path.exists()


@given(contents)
def test_records_come_back_as_they_were_written(data_sets: list[bytes]) -> None:
    with TemporaryDirectory() as folder:
        segment = begun(folder)
        records = [record(number, data_set) for number, data_set in enumerate(data_sets)]
        written(segment, records)
        assert list(records_of(segment.path)) == records
        segment.close()


@given(contents, contents)
def test_what_an_earlier_turn_left_behind_is_not_told_of(earlier: list[bytes], later: list[bytes]) -> None:
    with TemporaryDirectory() as folder:
        segment = begun(folder)
        written(segment, [record(number, data_set) for number, data_set in enumerate(earlier)])
        segment.begin()
        records = [record(number + 10, data_set) for number, data_set in enumerate(later)]
        written(segment, records)
        assert list(records_of(segment.path)) == records
        segment.close()


@given(contents, contents.filter(bool), st.data())
def test_a_stop_at_any_byte_leaves_every_record_before_it_and_no_part_of_one(
    earlier: list[bytes], data_sets: list[bytes], data: st.DataObject
) -> None:
    """Behind the byte there is what was there before: an earlier turn, or zeros."""
    with TemporaryDirectory() as folder:
        segment = begun(folder)
        written(segment, [record(number, data_set) for number, data_set in enumerate(earlier)])
        before = segment.path.read_bytes()
        segment.begin()
        records = [record(number + 10, data_set) for number, data_set in enumerate(data_sets)]
        places = written(segment, records)
        stop = data.draw(st.integers(PAGE, places[-1][1]))
        segment.path.write_bytes(segment.path.read_bytes()[:stop] + before[stop:])
        found = list(records_of(segment.path))
        whole = [each for each, (_, end) in zip(records, places, strict=True) if end <= stop]
        assert found[: len(whole)] == whole
        # The one that it fell into counts where nothing but its padding, or what was the same before, is missing.
        assert found[len(whole) :] in ([], records[len(whole) : len(whole) + 1])
        segment.close()


@given(contents.filter(bool), st.data())
def test_bytes_that_the_disk_changed_are_never_taken_for_a_record(data_sets: list[bytes], data: st.DataObject) -> None:
    with TemporaryDirectory() as folder:
        segment = begun(folder)
        records = [record(number, data_set) for number, data_set in enumerate(data_sets)]
        end = written(segment, records)[-1][1]
        damaged = bytearray(segment.path.read_bytes())
        for at, value in data.draw(
            st.lists(st.tuples(st.integers(0, end - 1), st.integers(0, 255)), min_size=1, max_size=20)
        ):
            damaged[at] = value
        segment.path.write_bytes(damaged)
        assert all(found in records for found in records_of(segment.path))
        segment.close()


def test_a_record_with_a_damaged_data_set_hides_none_behind_it(tmp_path: Path) -> None:
    segment = begun(str(tmp_path))
    records = [record(number, bytes([number]) * PAGE) for number in range(3)]
    places = written(segment, records)
    damaged = bytearray(segment.path.read_bytes())
    damaged[places[1][1] - PAGE] ^= 1
    segment.path.write_bytes(damaged)
    assert list(records_of(segment.path)) == [records[0], records[2]]
    segment.close()


@pytest.mark.parametrize("size", [0, 1, PAGE - 1, PAGE])
def test_a_file_that_is_no_segment_holds_no_record(tmp_path: Path, size: int) -> None:
    (tmp_path / "00.segment").write_bytes(b"\x5a" * size)
    assert list(records_of(tmp_path / "00.segment")) == []


def test_a_segment_takes_nobodys_place(tmp_path: Path) -> None:
    (tmp_path / "00.segment").write_bytes(b"of an earlier process")
    with pytest.raises(FileExistsError):
        Segment(tmp_path / "00.segment", SEGMENT_BYTES)
    assert (tmp_path / "00.segment").read_bytes() == b"of an earlier process"
