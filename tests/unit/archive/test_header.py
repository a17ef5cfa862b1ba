import struct
import time
from contextlib import suppress
from io import BytesIO
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom import Dataset
from pydicom.uid import (
    CTImageStorage,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from dicom_node.archive import header_values
from dicom_node.archive.header import Header, read_header
from dicom_node.core.errors import CannotUnderstand
from dicom_node.core.study import KEPT_KEYWORDS
from tests.instances import SERIES_UID, STUDY_UID, ct_instance, encoded, sop_uid

SYNTAXES = (ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian)

# pydicom says what is odd about a data set; odd ones are what is tested here.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:pydicom")


def header_of(ds: Dataset, syntax: str = ExplicitVRLittleEndian) -> Header:
    return read_header(BytesIO(encoded(ds, syntax)), syntax)


def raw(group: int, element: int, vr: bytes, value: bytes) -> bytes:
    return struct.pack("<HH2sH", group, element, vr, len(value)) + value


@pytest.mark.parametrize("syntax", SYNTAXES, ids=lambda uid: uid.name)
def test_every_encoding_gives_the_same_header(syntax: str) -> None:
    header = header_of(ct_instance(3), syntax)
    assert (header.sop_class_uid, header.sop_instance_uid) == (CTImageStorage, sop_uid(3))
    assert (header.study_instance_uid, header.series_instance_uid) == (STUDY_UID, SERIES_UID)
    assert header.attributes == {
        "BitsAllocated": 16,
        "ImageType": ("ORIGINAL", "PRIMARY", "AXIAL"),
        "Modality": "CT",
        "SeriesDescription": "CHEST",
        "SliceThickness": 2.5,
        "InstanceNumber": 3,
        "ImagePositionPatient": (1.0, 2.0, 7.5),
        "ImageOrientationPatient": (1.0, 0.0, 0.0, 0.0, 1.0, 0.0),
        "PixelSpacing": (0.7, 0.8),
        "Rows": 8,
        "Columns": 8,
    }


def test_nothing_that_names_the_patient_is_kept() -> None:
    assert "SECRET" not in repr(header_of(ct_instance())).upper()
    assert not [keyword for keyword in KEPT_KEYWORDS if keyword.startswith("Patient")]


@pytest.mark.parametrize(
    ("element", "keyword"),
    [
        (raw(0x0018, 0x0050, b"DS", b"thick "), "SliceThickness"),
        (raw(0x0018, 0x0050, b"DS", b"nan "), "SliceThickness"),
        (raw(0x0018, 0x0050, b"DS", b"1.0\\2.0 "), "SliceThickness"),
        (raw(0x0018, 0x0050, b"DS", b""), "SliceThickness"),
        (raw(0x0020, 0x0011, b"IS", b"2.5 "), "SeriesNumber"),
        (raw(0x0020, 0x0013, b"IS", b"1e999 "), "InstanceNumber"),
        (raw(0x0020, 0x0032, b"DS", b"1\\2 "), "ImagePositionPatient"),
        (raw(0x0028, 0x0010, b"US", b"\x01\x00\x02\x00"), "Rows"),
        (raw(0x0008, 0x0060, b"CS", b"  "), "Modality"),
        (raw(0x0008, 0x103E, b"LO", b"x" * 5000), "SeriesDescription"),
    ],
)
def test_a_value_that_does_not_fit_its_attribute_is_left_out(element: bytes, keyword: str) -> None:
    header = read_header(BytesIO(element), ExplicitVRLittleEndian)
    assert header.attributes == {}
    assert keyword in KEPT_KEYWORDS


@pytest.mark.parametrize(
    ("element", "keyword", "value"),
    [
        (raw(0x0018, 0x0050, b"DS", b" 1.25 "), "SliceThickness", 1.25),
        (struct.pack("<HH2sHL", 0x0018, 0x0050, b"UN", 0, 4) + b"1.25", "SliceThickness", 1.25),
        (raw(0x0020, 0x0011, b"IS", b"2.0 "), "SeriesNumber", 2),
        (raw(0x0020, 0x0011, b"IS", b"0 "), "SeriesNumber", 0),
        (raw(0x0018, 0x1120, b"DS", b"0 "), "GantryDetectorTilt", 0.0),
        (raw(0x0008, 0x0060, b"CS", b"CT\x00\x00"), "Modality", "CT"),
        (raw(0x0008, 0x103E, b"LO", b"CHEST\\ABDOMEN "), "SeriesDescription", "CHEST\\ABDOMEN"),
        (raw(0x0018, 0x1210, b"SH", b"B30f\\3 "), "ConvolutionKernel", ("B30f", "3")),
        (raw(0x0018, 0x1210, b"SH", b"B30f"), "ConvolutionKernel", "B30f"),
    ],
)
def test_a_value_that_can_be_understood_is_kept(element: bytes, keyword: str, value: object) -> None:
    assert read_header(BytesIO(element), ExplicitVRLittleEndian).attributes == {keyword: value}


@pytest.mark.parametrize("charset", ["ISO_IR 100", "ISO_IR 192", "GB18030", "ISO_IR 13"])
def test_texts_are_read_in_their_character_set(charset: str) -> None:
    text = {"ISO_IR 100": "Schädel", "ISO_IR 192": "頭部 Schädel", "GB18030": "头部", "ISO_IR 13": "ｱﾀﾏ"}[charset]
    header = header_of(ct_instance(SpecificCharacterSet=charset, SeriesDescription=text))
    assert header.attributes["SeriesDescription"] == text


def test_an_unknown_character_set_costs_no_instance() -> None:
    header = header_of(ct_instance(SpecificCharacterSet="ISO_IR 999"))
    assert header.attributes["Modality"] == "CT"


def test_pixels_are_never_read() -> None:
    whole = encoded(ct_instance())
    without = whole[: whole.index(bytes(range(128))) - 12]

    class NoPixels(BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            assert self.tell() < len(without) + 12, "read into the pixel data"
            return super().read(size)

    assert read_header(NoPixels(whole), ExplicitVRLittleEndian) == read_header(BytesIO(without), ExplicitVRLittleEndian)


def test_a_deflated_data_set_of_nothing_but_zeros_does_not_fill_the_memory() -> None:
    bomb = encoded(ct_instance(PixelData=bytes(80 << 20)), DeflatedExplicitVRLittleEndian)
    assert len(bomb) < 1 << 20
    assert read_header(BytesIO(bomb), DeflatedExplicitVRLittleEndian).sop_instance_uid == sop_uid(1)


def test_bytes_that_are_not_deflated_are_refused_by_name() -> None:
    with pytest.raises(CannotUnderstand, match="header cannot be read"):
        read_header(BytesIO(b"not deflated at all"), DeflatedExplicitVRLittleEndian)


@given(data=st.binary(max_size=300), syntax=st.sampled_from(SYNTAXES))
def test_no_bytes_raise_anything_but_cannot_understand(data: bytes, syntax: str) -> None:
    with suppress(CannotUnderstand):
        read_header(BytesIO(data), syntax)


@given(
    places=st.lists(st.tuples(st.integers(0, 700), st.integers(0, 255)), min_size=1, max_size=8),
    end=st.integers(0, 900),
    syntax=st.sampled_from(SYNTAXES),
)
def test_no_damage_raises_anything_but_cannot_understand(places: list[tuple[int, int]], end: int, syntax: str) -> None:
    data = bytearray(encoded(ct_instance(SpecificCharacterSet="ISO_IR 100"), syntax))
    for place, value in places:
        data[place % len(data)] = value
    with suppress(CannotUnderstand):
        read_header(BytesIO(bytes(data[:end])), syntax)


def test_sequences_without_end_do_not_exhaust_the_stack() -> None:
    begin = struct.pack("<HH2sHL", 0x0008, 0x1140, b"SQ", 0, 0xFFFFFFFF) + struct.pack(
        "<HHL", 0xFFFE, 0xE000, 0xFFFFFFFF
    )
    with pytest.raises(CannotUnderstand):
        read_header(BytesIO(begin * 5000), ExplicitVRLittleEndian)


def with_items(count: int, item: bytes, before: bytes = b"") -> bytes:
    """A data set whose Referenced Study Sequence, of undefined length, has so many items."""
    whole = encoded(ct_instance())
    place = whole.index(struct.pack("<HH", 0x0010, 0x0010))
    begin = struct.pack("<HH2sHL", 0x0008, 0x1110, b"SQ", 0, 0xFFFFFFFF)
    end = struct.pack("<HHL", 0xFFFE, 0xE0DD, 0)
    return before + whole[:place] + begin + item * count + end + whole[place:]


def test_a_sequence_of_a_million_items_is_walked_over_and_not_built() -> None:
    """pydicom would make a million data sets of it, which takes minutes and gigabytes."""
    item = struct.pack("<HHL", 0xFFFE, 0xE000, 0)
    begun = time.process_time()
    header = read_header(BytesIO(with_items(1_000_000, item)), ExplicitVRLittleEndian)
    assert (header.study_instance_uid, header.attributes["Modality"]) == (STUDY_UID, "CT")
    assert time.process_time() - begun < 15


def test_an_odd_header_that_is_too_long_to_be_parsed_is_refused_by_name() -> None:
    # A text of a group that is none makes it odd.
    odd = struct.pack("<HH2sHL", 0x0008, 0x0001, b"UN", 0, 0xFFFFFFFF) + struct.pack("<HHL", 0xFFFE, 0xE0DD, 0)
    item = struct.pack("<HHL", 0xFFFE, 0xE000, 100_000) + raw(0x0008, 0x0100, b"SH", b"A" * 65_000)[:8] + b"A" * 99_992
    begun = time.process_time()
    with pytest.raises(CannotUnderstand, match="too long"):
        read_header(BytesIO(with_items(60, item, before=odd)), ExplicitVRLittleEndian)
    assert time.process_time() - begun < 15
    read_header(BytesIO(with_items(1, struct.pack("<HHL", 0xFFFE, 0xE000, 0), before=odd)), ExplicitVRLittleEndian)


def test_what_is_too_long_for_a_description_is_not_remembered_either(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    remembered = header_values._remembered

    def remember(raw: bytes, *rest: Any) -> Any:
        asked.append(len(raw))
        return remembered(raw, *rest)

    monkeypatch.setattr(header_values, "_remembered", remember)
    long = header_of(ct_instance(1, StudyDescription="x" * 60_000), ImplicitVRLittleEndian)
    assert "StudyDescription" not in long.attributes
    assert asked
    assert max(asked) <= 256
