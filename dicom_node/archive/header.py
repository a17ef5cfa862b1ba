"""A header: the attributes of a data set that stand before its pixels, as far as this node wants them."""

import io
import struct
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

from pydicom.charset import convert_encodings
from pydicom.datadict import dictionary_VM, dictionary_VR, tag_for_keyword
from pydicom.dataelem import RawDataElement
from pydicom.errors import BytesLengthException
from pydicom.filereader import read_dataset
from pydicom.tag import BaseTag

from dicom_node.archive.frame_places import MAXIMUM_BYTES, frame_places
from dicom_node.archive.header_scan import Odd, scan
from dicom_node.archive.header_values import ReadValue, value_again, value_of
from dicom_node.core.errors import CannotUnderstand
from dicom_node.core.received_instance import EncodedDataSet
from dicom_node.core.searchable import SEARCHED_KEYWORDS
from dicom_node.core.study import KEPT_KEYWORDS, MULTI_FRAME_CT

_UIDS = ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID")

# PS3.5 Annex A. Every other transfer syntax encodes its data set in Explicit VR Little Endian.
_IMPLICIT = frozenset({"1.2.840.10008.1.2"})
_BIG_ENDIAN = frozenset({"1.2.840.10008.1.2.2"})
_DEFLATED = frozenset({"1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.4.95", "1.2.840.10008.1.2.4.205"})

_SPECIFIC_CHARACTER_SET = 0x00080005

# A header is looked for in so many bytes of the data set: most are short, few are longer than the second.
_HEADER_BYTES = (32 << 10, 4 << 20, 64 << 20)

# An odd one, for pydicom, is looked for in no more: it takes minutes and gigabytes for a sequence of a million items.
_PARSED_BYTES = 4 << 20

_CHUNK_BYTES = 1 << 20

# Headers are far smaller; more is a deflated stream that was made to fill the memory.
_MAXIMUM_INFLATED_BYTES = 64 << 20

#: What broken bytes make pydicom raise: values and keys that are none, an end too soon, sequences without end.
BROKEN_BYTES = (
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    EOFError,
    NotImplementedError,
    OSError,
    RecursionError,
    BytesLengthException,
    struct.error,
    zlib.error,
)


@dataclass(frozen=True, kw_only=True)
class Header:
    """What a data set says of itself."""

    #: Empty where the data set has none.
    sop_class_uid: str
    sop_instance_uid: str
    study_instance_uid: str
    series_instance_uid: str
    #: Those of KEPT_KEYWORDS that are there and can be read: text, number, or a tuple of them.
    attributes: Mapping[str, Any]
    #: Those of SEARCHED_KEYWORDS, likewise; the patient's are among them.
    searchable: Mapping[str, Any] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, kw_only=True)
class _Wanted:
    """An element that this node wants, as the dictionary says it is."""

    keyword: str
    vr: str
    vm: str


@dataclass(frozen=True, kw_only=True)
class _Found:
    """The wanted elements that are there, by tag, undecoded."""

    values: Mapping[int, bytes]
    is_little_endian: bool
    #: Python's names of the character sets; empty where the data set names none.
    encodings: Sequence[str]


@cache
def _wanted() -> Mapping[int, _Wanted]:
    """By tag."""
    names = dict.fromkeys(_UIDS + KEPT_KEYWORDS + SEARCHED_KEYWORDS)
    tags = {name: int(tag) for name in names if (tag := tag_for_keyword(name)) is not None}
    return {tag: _Wanted(keyword=name, vr=dictionary_VR(tag), vm=dictionary_VM(tag)) for name, tag in tags.items()}


@cache
def _kept_tags() -> Mapping[int, _Wanted]:
    return {tag: element for tag, element in _wanted().items() if element.keyword in (*_UIDS, *KEPT_KEYWORDS)}


@cache
def _searched_tags() -> Mapping[int, _Wanted]:
    return {tag: element for tag, element in _wanted().items() if element.keyword in SEARCHED_KEYWORDS}


def read_header(data_set: EncodedDataSet, transfer_syntax_uid: str, character_set: str = "") -> Header:
    """Read an encoded data set's header, never its pixels; CannotUnderstand where there is none to read.

    `character_set` is that of its texts where it names none itself.

    An attribute whose value does not fit its VR or VM is left out: scanners write such, and the image still counts.
    """
    try:
        readable = _inflated(data_set, transfer_syntax_uid)
        found = _scanned(readable, transfer_syntax_uid) or _parsed(readable, transfer_syntax_uid)
        if not found.encodings:
            found = replace(found, encodings=_encodings(character_set) or ["iso8859"])
    except BROKEN_BYTES as error:
        raise CannotUnderstand("the data set's header cannot be read; check the sender's encoding") from error
    # Of a series most are the same in each instance; none of them says who the patient is.
    values = _values(found, _kept_tags(), value_again)
    uids = [str(values.pop(name, "")) for name in _UIDS]
    if uids[0] in MULTI_FRAME_CT:
        values = {**_frame_places(readable, transfer_syntax_uid), **values}
    return Header(
        sop_class_uid=uids[0],
        sop_instance_uid=uids[1],
        study_instance_uid=uids[2],
        series_instance_uid=uids[3],
        attributes=values,
        searchable=_OnDemand(lambda: _values(found, _searched_tags(), value_of)),
    )


def _frame_places(data_set: EncodedDataSet, transfer_syntax_uid: str) -> dict[str, Any]:
    """Where the frames lie; nothing where that cannot be read: the instance is kept, and the route says why not."""
    data_set.seek(0)
    try:
        return frame_places(
            data_set.read(MAXIMUM_BYTES),
            is_implicit=transfer_syntax_uid in _IMPLICIT,
            is_little_endian=transfer_syntax_uid not in _BIG_ENDIAN,
        )
    except BROKEN_BYTES:
        return {}


def _values(found: _Found, wanted: Mapping[int, _Wanted], read: ReadValue) -> dict[str, Any]:
    """The wanted elements that are there and can be read, by keyword."""
    rest = found.is_little_endian, tuple(found.encodings)
    return {
        element.keyword: value
        for tag, raw in found.values.items()
        if raw and (element := wanted.get(tag)) and (value := read(raw, element.vr, element.vm, *rest)) is not None
    }


class _OnDemand(Mapping[str, Any]):
    """Values that are decoded when somebody asks: of most instances nobody does, since their series is known."""

    def __init__(self, read: Callable[[], Mapping[str, Any]]) -> None:
        self._read = read
        self._held: Mapping[str, Any] | None = None

    def __getitem__(self, keyword: str) -> Any:
        return self._values[keyword]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    @property
    def _values(self) -> Mapping[str, Any]:
        if self._held is None:
            self._held = self._read()
        return self._held


def _scanned(data_set: EncodedDataSet, transfer_syntax_uid: str) -> _Found | None:
    """What a scan finds; None where the data set is odd."""
    is_little_endian = transfer_syntax_uid not in _BIG_ENDIAN
    for size in _HEADER_BYTES:
        data_set.seek(0)
        data = data_set.read(size)
        try:
            values = scan(
                data,
                _scanned_tags(),
                is_implicit=transfer_syntax_uid in _IMPLICIT,
                is_little_endian=is_little_endian,
                is_whole=len(data) < size,
            )
        except Odd:
            if len(data) < size:
                return None
            continue
        return _Found(
            values=values,
            is_little_endian=is_little_endian,
            encodings=_encodings(values.get(_SPECIFIC_CHARACTER_SET, b"").decode("iso8859")),
        )
    return None


@cache
def _scanned_tags() -> frozenset[int]:
    return frozenset((_SPECIFIC_CHARACTER_SET, *_wanted()))


def _encodings(character_sets: str) -> Sequence[str]:
    names = [name.strip(" \x00") for name in character_sets.split("\\")]
    return convert_encodings(names if len(names) > 1 else names[0]) if character_sets.strip(" \x00\\") else []


def _parsed(data_set: EncodedDataSet, transfer_syntax_uid: str) -> _Found:
    """What pydicom finds, which knows how to go on where others would give up."""
    wanted = _wanted()
    last = max(wanted)
    data_set.seek(0)
    data = data_set.read(_PARSED_BYTES)
    is_whole = len(data) < _PARSED_BYTES

    def is_past(tag: BaseTag, _vr: str | None, _length: int) -> bool:
        nonlocal is_whole
        is_whole = is_whole or int(tag) > last
        return int(tag) > last

    try:
        dataset = read_dataset(
            io.BytesIO(data),
            transfer_syntax_uid in _IMPLICIT,
            transfer_syntax_uid not in _BIG_ENDIAN,
            stop_when=is_past,
            specific_tags=list(wanted),
        )
    except BROKEN_BYTES:
        # An end too soon may be one that we made.
        if is_whole:
            raise
    if not is_whole:
        raise CannotUnderstand("the data set's header is too long and of an odd encoding; check the sender's")
    # Without keep_deferred, pydicom converts an empty value by itself, and raises on a VR that is none.
    elements = {tag: dataset.get_item(tag, keep_deferred=True) for tag in wanted if tag in dataset}
    raw: dict[int, RawDataElement] = {}
    for tag, element in elements.items():
        if isinstance(element, RawDataElement):
            raw[tag] = element
    names_none = dataset.get_item(_SPECIFIC_CHARACTER_SET) is None
    encodings = [] if names_none else dataset.original_character_set or []
    return _Found(
        values={tag: element.value for tag, element in raw.items() if element.value},
        is_little_endian=all(element.is_little_endian for element in raw.values()),
        encodings=[encodings] if isinstance(encodings, str) else list(encodings),
    )


def _inflated(data_set: EncodedDataSet, transfer_syntax_uid: str) -> EncodedDataSet:
    data_set.seek(0)
    if transfer_syntax_uid not in _DEFLATED:
        return data_set
    # A raw deflate stream without a zlib header (PS3.5 Annex A.5).
    stream, inflated = zlib.decompressobj(wbits=-zlib.MAX_WBITS), io.BytesIO()
    while inflated.tell() < _MAXIMUM_INFLATED_BYTES and (chunk := data_set.read(_CHUNK_BYTES)):
        inflated.write(stream.decompress(chunk, _MAXIMUM_INFLATED_BYTES - inflated.tell()))
    return inflated
