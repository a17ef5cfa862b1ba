"""The place of an instance's pixels: where in its file they lie, and how they are encoded.

A scan finds it in nearly every file; pydicom, which takes ten times as long, in the others.
"""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from struct import Struct

from dicom_node.archive.header_scan import Odd, places, scan

#: Float, double float and plain pixel data (PS3.3 Section C.7.6.24 and C.7.6.25).
PIXELS = (0x7FE00008, 0x7FE00009, 0x7FE00010)

#: Read of a file; the pixels of nearly all begin within it.
_HEAD_BYTES = 32 << 10

#: Where the data set's own length is told: behind preamble, prefix and an element of twelve bytes (PS3.10 Section 7.1).
_META, _META_LENGTH = 132, b"\x02\x00\x00\x00UL\x04\x00"
_TRANSFER_SYNTAX = 0x00020010

#: Encodings that the scan knows: of these two, and of every other that is encapsulated in Explicit VR.
_IMPLICIT, _EXPLICIT = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1"
_ENCAPSULATED = ("1.2.840.10008.1.2.4.", "1.2.840.10008.1.2.5")
_DEFLATED = frozenset({"1.2.840.10008.1.2.4.95", "1.2.840.10008.1.2.4.205"})

_SHORT, _LONG = Struct("<H").unpack, Struct("<L").unpack


@dataclass(frozen=True, kw_only=True)
class PixelPlace:
    """Where the pixels of an instance lie in its file, and how they are encoded."""

    transfer_syntax_uid: str
    #: Of the value in the file; -1 where there is none.
    start: int
    #: In bytes; None where the pixels are encapsulated.
    length: int | None
    rows: int
    columns: int
    samples: int
    bits_allocated: int
    frames: int
    photometric: str
    #: Of the element: 7FE00008, 7FE00009 or 7FE00010.
    tag: int
    vr: str

    @property
    def frame_bits(self) -> int:
        """Of a frame that is not encapsulated."""
        bits = self.rows * self.columns * self.samples * self.bits_allocated
        # Two pixels share their colours (PS3.3 Section C.7.6.3.1.2).
        return bits * 2 // 3 if self.photometric == "YBR_FULL_422" else bits


def scanned_place(path: Path) -> PixelPlace | None:
    """What a scan of a file's beginning finds; None where it finds no pixels there, or anything that is odd."""
    try:
        head = _head(path)
        begin, syntax = _data_set(head)
        return _found(head[begin:], begin, syntax)
    except (Odd, OSError, UnicodeDecodeError):
        return None


def _head(path: Path) -> bytes:
    file = os.open(path, os.O_RDONLY)
    try:
        return os.pread(file, _HEAD_BYTES, 0)
    finally:
        os.close(file)


def _data_set(head: bytes) -> tuple[int, str]:
    """Where the data set begins, and its transfer syntax, of those that a scan knows; Odd for others."""
    begin = _META + len(_META_LENGTH) + 4
    if head[128:_META] != b"DICM" or head[_META : _META + 8] != _META_LENGTH or len(head) < begin:
        raise Odd
    end = begin + int(_LONG(head[begin - 4 : begin])[0])
    found = scan(head[begin:end], (_TRANSFER_SYNTAX,), is_implicit=False, is_little_endian=True, is_whole=True)
    syntax = found.get(_TRANSFER_SYNTAX, b"").decode("ascii").rstrip("\x00 ")
    if syntax in _DEFLATED or not (syntax in (_IMPLICIT, _EXPLICIT) or syntax.startswith(_ENCAPSULATED)):
        raise Odd
    return end, syntax


def _found(data: bytes, begin: int, syntax: str) -> PixelPlace:
    values: dict[str, int | str] = {}
    for place in places(data, _LOOKED_FOR, is_implicit=syntax == _IMPLICIT):
        if place.tag in PIXELS:
            is_native = syntax in (_IMPLICIT, _EXPLICIT)
            if is_native != (place.length is not None):
                raise Odd
            return PixelPlace(
                transfer_syntax_uid=syntax,
                start=begin + place.start,
                length=place.length,
                tag=place.tag,
                vr=place.vr or "OW",
                **{**_DEFAULTS, "bits_allocated": BITS.get(place.tag, 0), **values},  # type: ignore[arg-type]  # by name
            )
        if (wanted := _WANTED.get(place.tag)) is not None:
            name, vr, read = wanted
            if place.vr not in ("", vr) or not place.length:
                raise Odd
            values[name] = read(data[place.start : place.start + place.length])
    raise Odd


def _integer(value: bytes) -> int:
    if len(value) != 2:
        raise Odd
    return int(_SHORT(value)[0])


def _frames(value: bytes) -> int:
    text = value.decode("ascii").strip(" \x00")
    # PS3.5 Section 6.2: an Integer String has at most 12 characters.
    if not text.isdigit() or len(text) > 12:
        raise Odd
    return max(1, int(text))


def _word(value: bytes) -> str:
    text = value.decode("ascii").strip(" \x00")
    if "\\" in text:
        raise Odd
    return text


#: Of pixels in floating point, whose images need not say it.
BITS: Mapping[int, int] = {0x7FE00008: 32, 0x7FE00009: 64}

_DEFAULTS: Mapping[str, int | str] = {"rows": 0, "columns": 0, "samples": 1, "frames": 1, "photometric": ""}

#: The elements that tell it: our name, their VR, and what makes our value of theirs.
_WANTED: Mapping[int, tuple[str, str, Callable[[bytes], int | str]]] = {
    0x00280002: ("samples", "US", _integer),
    0x00280004: ("photometric", "CS", _word),
    0x00280008: ("frames", "IS", _frames),
    0x00280010: ("rows", "US", _integer),
    0x00280011: ("columns", "US", _integer),
    0x00280100: ("bits_allocated", "US", _integer),
}

_LOOKED_FOR = frozenset({*_WANTED, *PIXELS})
