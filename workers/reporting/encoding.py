"""Encoding: objects in Explicit VR Little Endian (PS3.5 Annex A.2), written and looked through as fast as bytes allow.

The library that reads and writes data sets takes longer over a report of many images than everything else does. What is
written here is what it would write, but that every sequence has its length.
"""

from collections.abc import Callable, Iterator, Sequence
from struct import Struct
from struct import error as StructError  # noqa: N812 - as `error` it would say of what
from types import MappingProxyType
from typing import NamedTuple

from pydicom import DataElement, Dataset
from pydicom.charset import convert_encodings, default_encoding
from pydicom.dataelem import RawDataElement
from pydicom.dataset import FileMetaDataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import correct_ambiguous_vr_element, write_data_element, write_file_meta_info
from pydicom.multival import MultiValue
from pydicom.uid import ExplicitVRLittleEndian
from pydicom.valuerep import AMBIGUOUS_VR, EXPLICIT_VR_LENGTH_32

_PREAMBLE = b"\0" * 128 + b"DICM"
_SHORT, _LONG = Struct("<HH2sH"), Struct("<HH2sHL")
_ITEM, _LENGTH = Struct("<HHL"), Struct("<L")
_ITEM_GROUP = 0xFFFE
#: Command elements and file meta information (PS3.7 Section E.1, PS3.10 Section 7.1).
_NOT_OF_A_DATA_SET = (0x0000, 0x0002)
#: Beyond this group a Group Length is retired, and not written (PS3.5 Section 7.2).
_LAST_WITH_LENGTH = 0x0006
_UNDEFINED = 0xFFFFFFFF
_MOST_IN_SHORT = 0xFFFF
#: Of no more than 8 bytes each, so that they have room in the same.
_MOST_VALUES = 0xFFFF // 8
_LONG_VRS = frozenset(str(vr).encode() for vr in EXPLICIT_VR_LENGTH_32)
#: In these ASCII is ASCII.
_ASCII_ENCODINGS = frozenset(("ascii", "iso8859", "iso-8859-1", "latin_1", "utf8"))
_SPECIFIC_CHARACTER_SET = 0x00080005


class Encoded(NamedTuple):
    """One element as it stands in the bytes of an object."""

    #: The element of the object itself, of which this one is a part; its own tag where it is no part of a sequence.
    within: int
    tag: int
    vr: bytes
    value: bytes


def as_file(dataset: Dataset) -> bytes:
    """The bytes of an object in the DICOM file format (PS3.10 Section 7); ValueError for another transfer syntax."""
    if dataset.file_meta.TransferSyntaxUID != ExplicitVRLittleEndian:
        raise ValueError(f"an object is to be written as {dataset.file_meta.TransferSyntaxUID}")
    if any(tag >> 16 in _NOT_OF_A_DATA_SET for tag in dataset.keys()):  # noqa: SIM118 - a data set iterates over elements
        raise ValueError("an object has elements of a command or of a file's meta information")
    meta = FileMetaDataset()
    meta.update(dataset.file_meta)
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = dataset.SOPClassUID, dataset.SOPInstanceUID
    file = DicomBytesIO()
    write_file_meta_info(file, meta, enforce_standard=True)
    return b"".join((_PREAMBLE, file.getvalue(), *_elements_of(dataset, (), [default_encoding])))


def elements(data: bytes) -> Iterator[Encoded]:
    """Every element of a data set, or of a file, at any depth, but for the sequences themselves.

    Raises ValueError for what was not written here: an unknown length, or an end before the end.
    """
    place = len(_PREAMBLE) if data.startswith(_PREAMBLE) else 0
    within, until, end = 0, 0, len(data)
    while place < end:
        try:
            group, number, vr, length = _SHORT.unpack_from(data, place)
            place += _SHORT.size
            if group == _ITEM_GROUP:
                continue
            if vr in _LONG_VRS:
                (length,) = _LENGTH.unpack_from(data, place)
                place += _LENGTH.size
        except StructError as cut:
            raise ValueError("an element breaks off") from cut
        if length == _UNDEFINED or place + length > end:
            raise ValueError("an element has no known length, or breaks off")
        tag = group << 16 | number
        if place > until:
            within, until = tag, place + length
        if vr != b"SQ":
            yield Encoded(within, tag, vr, data[place : place + length])
            place += length


def _elements_of(dataset: Dataset, ancestors: tuple[Dataset, ...], encodings: Sequence[str]) -> Iterator[bytes]:
    """The parts of a data set's bytes; the ancestors are the data sets that it stands in, the nearest first."""
    if _SPECIFIC_CHARACTER_SET in dataset:
        encodings = convert_encodings(dataset[_SPECIFIC_CHARACTER_SET].value)
    for element in sorted(dataset.values(), key=_tag_of):
        tag = int(element.tag)
        if tag & 0xFFFF == 0 and tag >> 16 > _LAST_WITH_LENGTH:
            continue
        if isinstance(element, RawDataElement):
            element = dataset[tag]
        if element.VR in AMBIGUOUS_VR:
            element = correct_ambiguous_vr_element(element, dataset, True, [dataset, *ancestors])
        vr = str(element.VR)
        if vr == "SQ":
            items = b"".join(_item(item, (dataset, *ancestors), encodings) for item in dataset[tag].value or ())
            yield _LONG.pack(tag >> 16, tag & 0xFFFF, b"SQ", 0, len(items))
            yield items
            continue
        write = _WRITERS.get(vr)
        value = None if write is None else write(element.value, encodings)
        if value is None:
            yield _by_the_library(element, encodings)
        elif vr in EXPLICIT_VR_LENGTH_32:
            yield _LONG.pack(tag >> 16, tag & 0xFFFF, vr.encode(), 0, len(value))
            yield value
        else:
            yield _SHORT.pack(tag >> 16, tag & 0xFFFF, vr.encode(), len(value)) + value


def _item(item: Dataset, ancestors: tuple[Dataset, ...], encodings: Sequence[str]) -> bytes:
    content = b"".join(_elements_of(item, ancestors, encodings))
    return _ITEM.pack(_ITEM_GROUP, 0xE000, len(content)) + content


def _tag_of(element: DataElement | RawDataElement) -> int:
    return int(element.tag)


def _uid(value: object, _encodings: Sequence[str]) -> bytes | None:
    if isinstance(value, str) and value.isascii() and len(value) <= 64:
        return _padded(value.encode("ascii"), b"\0")
    return None


def _code(value: object, _encodings: Sequence[str]) -> bytes | None:
    if isinstance(value, str) and value.isascii() and len(value) < _MOST_IN_SHORT:
        return _padded(value.encode("ascii"), b" ")
    return None


def _text(value: object, encodings: Sequence[str]) -> bytes | None:
    """A text in ASCII, where that is the same in the character sets; None for any other."""
    if isinstance(value, str) and value.isascii() and len(value) < _MOST_IN_SHORT:
        return _padded(value.encode("ascii"), b" ") if _ASCII_ENCODINGS.issuperset(encodings) else None
    return None


def _number_string(value: object, _encodings: Sequence[str]) -> bytes | None:
    """Numbers as the strings that they came as; None for none, and for more than have room."""
    if value is None or isinstance(value, str):
        return None
    values = value if isinstance(value, MultiValue) else [value]
    said = (one.original_string if hasattr(one, "original_string") else str(one) for one in values)
    joined = "\\".join(said)
    return _padded(joined.encode("ascii"), b" ") if len(joined) < _MOST_IN_SHORT else None


def _numbers(kind: str) -> Callable[[object, Sequence[str]], bytes | None]:
    one = Struct(f"<{kind}")

    def numbers(value: object, _encodings: Sequence[str]) -> bytes | None:
        if isinstance(value, int):
            return one.pack(value)
        return b"".join(map(one.pack, value)) if isinstance(value, MultiValue) and len(value) < _MOST_VALUES else None

    return numbers


def _bytes(value: object, _encodings: Sequence[str]) -> bytes | None:
    return _padded(value, b"\0") if isinstance(value, bytes) else None


def _padded(value: bytes, by: bytes) -> bytes:
    return value + by if len(value) % 2 else value


def _by_the_library(element: DataElement | RawDataElement, encodings: Sequence[str]) -> bytes:
    """A whole element of a kind that is rare, or that character sets make difficult."""
    file = DicomBytesIO()
    file.is_little_endian, file.is_implicit_VR = True, False
    write_data_element(file, element, list(encodings))
    return file.getvalue()


#: By VR: what writes an ordinary value of it; None for one that is not ordinary.
_WRITERS: MappingProxyType[str, Callable[[object, Sequence[str]], bytes | None]]
_WRITERS = MappingProxyType(
    {
        **dict.fromkeys(("UI",), _uid),
        **dict.fromkeys(("CS", "AE", "AS", "DA", "TM", "DT"), _code),
        **dict.fromkeys(("SH", "LO", "ST", "LT", "UC", "UT"), _text),
        **dict.fromkeys(("OB", "OW"), _bytes),
        **dict.fromkeys(("DS", "IS"), _number_string),
        "US": _numbers("H"),
        "UL": _numbers("L"),
    }
)
