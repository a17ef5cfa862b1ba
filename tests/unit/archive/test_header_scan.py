"""What the scan finds, pydicom finds too; where it could be otherwise the scan says that the data set is odd."""

import struct
from io import BytesIO

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from dicom_node.archive.header import BROKEN_BYTES, _parsed, _scanned
from dicom_node.archive.header_scan import Odd, scan
from tests.instances import ct_instance, encoded

SYNTAXES = (ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian)
_SPECIFIC_CHARACTER_SET = 0x00080005

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:pydicom")


def with_sequences(*, undefined: bool) -> Dataset:
    item = Dataset()
    item.ReferencedSOPInstanceUID, item.PurposeOfReferenceCodeSequence = "1.2.3", Sequence([Dataset()])
    # Within an item it is not the instance's own.
    item.Modality = "MR"
    ds = ct_instance(ReferencedImageSequence=Sequence([item, item]), SpecificCharacterSet="ISO_IR 192")
    if undefined:
        for sequence in (ds["ReferencedImageSequence"], item["PurposeOfReferenceCodeSequence"]):
            sequence.is_undefined_length = True
        item.is_undefined_length_sequence_item = True
    return ds


@pytest.mark.parametrize("undefined", [False, True])
@pytest.mark.parametrize("syntax", SYNTAXES, ids=lambda uid: uid.name)
def test_sequences_are_passed_over(syntax: str, undefined: bool) -> None:
    data = BytesIO(encoded(with_sequences(undefined=undefined), syntax))
    found, expected = _scanned(data, syntax), _parsed(data, syntax)
    assert found is not None
    assert found.values[0x00080060] == b"CT"
    assert {tag: value for tag, value in found.values.items() if tag != _SPECIFIC_CHARACTER_SET} == expected.values
    assert (found.encodings, found.is_little_endian) == (expected.encodings, expected.is_little_endian)


@given(
    places=st.lists(st.tuples(st.integers(0, 900), st.integers(0, 255)), max_size=4),
    end=st.one_of(st.none(), st.integers(0, 900)),
    syntax=st.sampled_from(SYNTAXES),
    undefined=st.booleans(),
)
def test_of_damaged_bytes_too_the_scan_finds_what_pydicom_finds(
    places: list[tuple[int, int]], end: int | None, syntax: str, undefined: bool
) -> None:
    data = bytearray(encoded(with_sequences(undefined=undefined), syntax))
    for place, value in places:
        data[place % len(data)] = value
    damaged = BytesIO(bytes(data[:end]))
    found = _scanned(damaged, syntax)
    if found is None:
        return
    try:
        expected = _parsed(damaged, syntax)
    except BROKEN_BYTES:
        return
    wanted = {tag: value for tag, value in found.values.items() if tag != _SPECIFIC_CHARACTER_SET and value}
    assert wanted == expected.values


def element(group: int, number: int, vr: bytes, value: bytes) -> bytes:
    return struct.pack("<HH2sH", group, number, vr, len(value)) + value


def scanned(data: bytes, *, is_whole: bool = True) -> dict[int, bytes]:
    return scan(data, {0x00080060, 0x00200013}, is_implicit=False, is_little_endian=True, is_whole=is_whole)


MODALITY, BEHIND = element(8, 0x60, b"CS", b"CT"), element(0x28, 0x10, b"US", b"\x08\x00")


def test_a_beginning_is_enough_when_it_reaches_behind_the_wanted() -> None:
    assert scanned(MODALITY + BEHIND[:8], is_whole=False) == {0x00080060: b"CT"}
    assert scanned(MODALITY) == {0x00080060: b"CT"}
    with pytest.raises(Odd):
        scanned(MODALITY, is_whole=False)


@pytest.mark.parametrize(
    "data",
    [
        MODALITY[:-1],
        MODALITY + b"\x08\x00",
        element(8, 0x60, b"\x00\x00", b"CT"),
        element(8, 0x60, b"XX", b"CT"),
        struct.pack("<HH2sHL", 8, 0x60, b"UN", 0, 0xFFFFFFFF) + MODALITY,
        struct.pack("<HH2sHL", 8, 0x1140, b"SQ", 0, 0xFFFFFFFF) + MODALITY,
        (struct.pack("<HH2sHL", 8, 0x1140, b"SQ", 0, 0xFFFFFFFF) + struct.pack("<HHL", 0xFFFE, 0xE000, 0xFFFFFFFF))
        * 99,
    ],
    ids=["cut", "a tag cut", "no VR", "an unknown VR", "unknown and endless", "no item", "a hundred deep"],
)
def test_what_is_not_plain_is_odd(data: bytes) -> None:
    with pytest.raises(Odd):
        scanned(data)
