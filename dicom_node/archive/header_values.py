"""The values of a header's elements as Python has them: texts and numbers, or nothing where they are none."""

import math
import struct
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, Protocol

from pydicom.charset import decode_bytes

# Begins the code of another character set (PS3.5 Section 6.1.2.5).
_ESCAPE = b"\x1b"

# Characters that return a text to its first character set (PS3.5 Section 6.1.2.5.3).
_DELIMITERS = {0x0A, 0x0C, 0x0D, 0x5C}

# LO holds 64 characters and real writers a little more; this much is no description any more.
_MAXIMUM_VALUE_BYTES = 4096

#: So many values are not decoded a second time.
_REMEMBERED = 512

#: Nor is a longer one remembered: what is refused for its length must not stay, either.
_SHORT_BYTES = 256


class ReadValue(Protocol):
    """Reads a value of this VR and VM, in this byte order and these character sets."""

    def __call__(self, raw: bytes, vr: str, vm: str, is_little_endian: bool, encodings: tuple[str, ...]) -> Any: ...


def value_of(raw: bytes, vr: str, vm: str, is_little_endian: bool, encodings: tuple[str, ...]) -> Any:
    """The attribute's value, or None where it is empty, or not what its VR and VM allow."""
    if len(raw) > _MAXIMUM_VALUE_BYTES:
        return None
    try:
        if vr == "US":
            return struct.unpack("<H" if is_little_endian else ">H", raw)[0]
        text = _text(raw, encodings)
        # Descriptions hold backslashes that were not meant to separate anything.
        parts = [text] if vm == "1" else text.split("\\")
        values = tuple(map(_READERS.get(vr, _as_text), parts))
    except (ValueError, LookupError, OverflowError, struct.error):
        return None
    if vm.isdigit() and len(values) != int(vm):
        return None
    if values == ("",):
        return None
    return values if len(values) > 1 else values[0]


def _text(value: bytes, encodings: Sequence[str]) -> str:
    if value.isascii() and _ESCAPE not in value:
        text = value.decode("ascii")
    else:
        text = decode_bytes(value, encodings, _DELIMITERS)
    # A database may refuse a NUL, and writers pad with it.
    return text.replace("\x00", "")


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


_remembered = lru_cache(maxsize=_REMEMBERED)(value_of)


def value_again(raw: bytes, vr: str, vm: str, is_little_endian: bool, encodings: tuple[str, ...]) -> Any:
    """As `value_of`, of values that come again and again: not for what says who a patient is."""
    read = _remembered if len(raw) <= _SHORT_BYTES else value_of
    return read(raw, vr, vm, is_little_endian, encodings)


_READERS: dict[str, Callable[[str], Any]] = {"DS": _as_decimal, "IS": _as_integer}
