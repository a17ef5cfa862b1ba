"""A scan of an encoded data set for some of its elements: a walk over tags and lengths that looks into no value.

It knows the plain encodings of PS3.5 Section 7.1 and no repairs: what is odd about a data set is for pydicom to judge,
which takes ten times as long.
"""

import struct
from collections.abc import Collection, Iterator
from typing import NamedTuple

_UNDEFINED = 0xFFFFFFFF
# Undefined, too, but of items that may be anything, such as compressed pixels.
_NO_SEQUENCE = -1
_ITEM, _ITEM_END, _SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD

# PS3.5 Section 7.1.2: those whose length has four bytes, and those whose has two.
_LONG = frozenset(b"OB OD OF OL OV OW SQ SV UC UN UR UT UV".split())
_SHORT = frozenset(b"AE AS AT CS DA DS DT FD FL IS LO LT PN SH SL SS ST TM UI UL US".split())

#: Sequences within sequences; real ones have a handful.
_DEEPEST = 32


class Odd(Exception):
    """The data set is not of the plainest encoding, or ends too soon."""


def scan(
    data: bytes, wanted: Collection[int], *, is_implicit: bool, is_little_endian: bool, is_whole: bool
) -> dict[int, bytes]:
    """The values of the wanted elements of the top level, by tag; Odd where that cannot be said with certainty.

    `data` begins with the data set; unless it `is_whole`, an element behind the wanted ones must be in it.
    """
    walk = _Walk(data, is_implicit=is_implicit, is_little_endian=is_little_endian)
    last, at, size = max(wanted), 0, len(data)
    found: dict[int, bytes] = {}
    plain = None if is_implicit else walk.explicit
    while at < size:
        if plain and at + 8 <= size and (element := plain(data, at))[2] in _SHORT:
            # Nearly every element there is, as `_Walk.element` and `_Walk.behind` would have it.
            tag, start, length = element[0] << 16 | element[1], at + 8, element[3]
            at = start + length
            if tag <= last and at > size:
                raise Odd
        else:
            tag, start, length = walk.element(at)
            if tag <= last:
                at = walk.behind(start, length, 0)
        if tag > last:
            return found
        if tag in wanted and length != _UNDEFINED:
            found[tag] = data[start:at]
    if not is_whole:
        raise Odd
    return found


class Place(NamedTuple):
    """An element of the top level, and where its value lies."""

    tag: int
    #: Empty in Implicit VR.
    vr: str
    start: int
    #: None: undefined.
    length: int | None


def places(
    data: bytes, wanted: Collection[int], *, is_implicit: bool, is_little_endian: bool = True
) -> Iterator[Place]:
    """The wanted elements of the top level in their order, each before its value is passed over; Odd as of `scan`.

    `data` begins with the data set, and may end anywhere: whoever asks for more than it holds is told Odd.
    """
    walk = _Walk(data, is_implicit=is_implicit, is_little_endian=is_little_endian)
    at, size = 0, len(data)
    plain = None if is_implicit else walk.explicit
    while at < size:
        if plain and at + 8 <= size and (element := plain(data, at))[2] in _SHORT:
            # As in `scan`.
            tag, start, length = element[0] << 16 | element[1], at + 8, element[3]
        else:
            tag, start, length = walk.element(at)
        if tag in wanted:
            vr = "" if is_implicit else data[at + 4 : at + 6].decode("ascii")
            yield Place(tag, vr, start, None if length in (_UNDEFINED, _NO_SEQUENCE) else length)
        at = walk.behind(start, length, 0) if length >= _UNDEFINED or length < 0 else start + length
        if at > size:
            raise Odd


class _Walk:
    """Over the elements of one encoding."""

    def __init__(self, data: bytes, *, is_implicit: bool, is_little_endian: bool) -> None:
        order = "<" if is_little_endian else ">"
        self._data, self._size = data, len(data)
        self._is_implicit = is_implicit
        self._implicit = struct.Struct(f"{order}HHL").unpack_from
        self.explicit = struct.Struct(f"{order}HH2sH").unpack_from
        self._long = struct.Struct(f"{order}L").unpack_from
        if is_implicit and data[4:6].isalpha() and data[4:6].isupper():
            # It is explicit, whatever was agreed.
            raise Odd

    def element(self, at: int) -> tuple[int, int, int]:
        """Tag, place of the value and length of the element that begins here."""
        if at + 8 > self._size:
            raise Odd
        if self._is_implicit:
            group, number, length = self._implicit(self._data, at)
            return group << 16 | number, at + 8, length
        group, number, vr, length = self.explicit(self._data, at)
        if vr in _SHORT:
            return group << 16 | number, at + 8, length
        if group == 0xFFFE:
            # Items and delimiters have no VR.
            return group << 16 | number, at + 8, self._long(self._data, at + 4)[0]
        if vr not in _LONG or at + 12 > self._size:
            raise Odd
        length = self._long(self._data, at + 8)[0]
        if length == _UNDEFINED and vr != b"SQ":
            length = _NO_SEQUENCE
        return group << 16 | number, at + 12, length

    def behind(self, start: int, length: int, depth: int) -> int:
        """The place behind a value."""
        if length == _NO_SEQUENCE:
            raise Odd
        end = self._behind_sequence(start, depth) if length == _UNDEFINED else start + length
        if end > self._size:
            raise Odd
        return end

    def _behind_sequence(self, at: int, depth: int) -> int:
        if depth == _DEEPEST:
            raise Odd
        while True:
            tag, start, length = self.element(at)
            if tag == _SEQUENCE_END and not length:
                return start
            if tag != _ITEM:
                raise Odd
            at = self._behind_item(start, depth) if length == _UNDEFINED else self.behind(start, length, depth)

    def _behind_item(self, at: int, depth: int) -> int:
        while True:
            tag, start, length = self.element(at)
            if tag == _ITEM_END and not length:
                return start
            if tag >> 16 == 0xFFFE:
                raise Odd
            at = self.behind(start, length, depth + 1)
