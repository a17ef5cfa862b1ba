"""A header: the attributes of a data set that stand before its pixels, as far as this node wants them."""

import io
import math
import struct
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO, cast

from pydicom.charset import decode_bytes
from pydicom.datadict import dictionary_VM, dictionary_VR, tag_for_keyword
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.errors import BytesLengthException
from pydicom.filereader import read_dataset
from pydicom.tag import BaseTag

from dicom_node.core.errors import CannotUnderstand
from dicom_node.core.received_instance import EncodedDataSet
from dicom_node.core.study import KEPT_KEYWORDS

_UIDS = ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID")

# PS3.5 Annex A. Every other transfer syntax encodes its data set in Explicit VR Little Endian.
_IMPLICIT = frozenset({"1.2.840.10008.1.2"})
_BIG_ENDIAN = frozenset({"1.2.840.10008.1.2.2"})
_DEFLATED = frozenset({"1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.4.95", "1.2.840.10008.1.2.4.205"})

# Headers are far smaller; more is a deflated stream that was made to fill the memory.
_MAXIMUM_INFLATED_BYTES = 64 << 20

# LO holds 64 characters and real writers a little more; this much is no description any more.
_MAXIMUM_VALUE_BYTES = 4096

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

# Characters that return a text to its first character set (PS3.5 Section 6.1.2.5.3).
_DELIMITERS = {0x0A, 0x0C, 0x0D, 0x5C}


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


def read_header(data_set: EncodedDataSet, transfer_syntax_uid: str) -> Header:
    """Read an encoded data set's header, never its pixels; CannotUnderstand where there is none to read.

    An attribute whose value does not fit its VR or VM is left out: scanners write such, and the image still counts.
    """
    wanted = {int(tag): name for name in _UIDS + KEPT_KEYWORDS if (tag := tag_for_keyword(name)) is not None}
    last = max(wanted)

    def is_past(tag: BaseTag, _vr: str | None, _length: int) -> bool:
        return int(tag) > last

    try:
        dataset = read_dataset(
            cast(BinaryIO, _inflated(data_set, transfer_syntax_uid)),
            transfer_syntax_uid in _IMPLICIT,
            transfer_syntax_uid not in _BIG_ENDIAN,
            stop_when=is_past,
            specific_tags=list(wanted),
        )
    except BROKEN_BYTES as error:
        raise CannotUnderstand("the data set's header cannot be read; check the sender's encoding") from error
    values = {name: value for tag, name in wanted.items() if (value := _value(dataset, tag, name)) is not None}
    uids = [str(values.pop(name, "")) for name in _UIDS]
    return Header(
        sop_class_uid=uids[0],
        sop_instance_uid=uids[1],
        study_instance_uid=uids[2],
        series_instance_uid=uids[3],
        attributes=values,
    )


def _inflated(data_set: EncodedDataSet, transfer_syntax_uid: str) -> EncodedDataSet:
    data_set.seek(0)
    if transfer_syntax_uid not in _DEFLATED:
        return data_set
    # A raw deflate stream without a zlib header (PS3.5 Annex A.5).
    return io.BytesIO(zlib.decompressobj(wbits=-zlib.MAX_WBITS).decompress(data_set.read(), _MAXIMUM_INFLATED_BYTES))


def _value(dataset: Dataset, tag: int, keyword: str) -> Any:
    """The attribute's value, or None where it is absent, empty, or not what its VR and VM allow."""
    # Without this, pydicom converts an empty value by itself, and raises on a VR that is none.
    element = dataset.get_item(tag, keep_deferred=True)
    if not isinstance(element, RawDataElement) or not element.value or len(element.value) > _MAXIMUM_VALUE_BYTES:
        return None
    vr, vm = dictionary_VR(tag), dictionary_VM(tag)
    try:
        if vr == "US":
            order = "<" if element.is_little_endian else ">"
            return struct.unpack(f"{order}H", element.value)[0]
        text = _text(element.value, dataset)
        # Descriptions hold backslashes that were not meant to separate anything.
        parts = [text] if vm == "1" else text.split("\\")
        values = tuple(_READERS.get(vr, _as_text)(part) for part in parts)
    except (ValueError, LookupError, OverflowError, struct.error):
        return None
    if vm.isdigit() and len(values) != int(vm):
        return None
    if values == ("",):
        return None
    return values if len(values) > 1 else values[0]


def _text(value: bytes, dataset: Dataset) -> str:
    encodings = dataset.original_character_set or "iso8859"
    names = [encodings] if isinstance(encodings, str) else list(encodings)
    # A database may refuse a NUL, and writers pad with it.
    return decode_bytes(value, names, _DELIMITERS).replace("\x00", "")


def _as_text(text: str) -> str:
    return text.strip()


def _as_decimal(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{number} is no decimal string")
    return number


def _as_integer(text: str) -> int:
    number = _as_decimal(text)
    if not number.is_integer():
        raise ValueError(f"{number} is no integer string")
    return int(number)


_READERS: dict[str, Callable[[str], Any]] = {"DS": _as_decimal, "IS": _as_integer}
