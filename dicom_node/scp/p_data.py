"""P-DATA-TF PDUs, cut into the fragments of messages, however the bytes come in (PS3.8 Section 9.3.5)."""

import struct
from typing import NamedTuple

#: The type of a P-DATA-TF PDU.
P_DATA_TF = 0x04

#: Of a PDU and its first fragment: what stands before the fragment's bytes.
HEADERS_SIZE = 12

#: Of any PDU: its type, a reserved byte, the length of what follows.
PDU_HEADER = struct.Struct(">BxL")
# Of a presentation data value: the length of what follows, its context, its message control header (PS3.8 Annex E.2).
_PDV_HEADER = struct.Struct(">LBB")

_IS_COMMAND = 0b01
_IS_LAST = 0b10


class BrokenPDU(Exception):
    """Bytes that are no P-DATA-TF PDU, or fragments that make no message; the association cannot go on."""


class Piece(NamedTuple):
    """A fragment of a message, or as much of it as is there."""

    context_id: int
    is_command: bool
    #: Whether the message's command, or its data set, ends with this piece.
    is_end: bool
    data: memoryview


class Cutter:
    """Cuts a stream of P-DATA-TF PDUs; remembers where in a PDU it is."""

    def __init__(self) -> None:
        self._pdu_left = 0
        self._pdv_left = 0
        self._context_id = 0
        self._control = 0

    @property
    def in_pdu(self) -> bool:
        """Whether a PDU was begun and is not at its end."""
        return self._pdu_left > 0

    @property
    def left(self) -> int:
        """Bytes of the current PDU that are still to come."""
        return self._pdu_left

    @property
    def context_id(self) -> int:
        """The presentation context of the current fragment."""
        return self._context_id

    @property
    def data_left(self) -> int:
        """Bytes of the current fragment that are still to come, where it is one of a data set."""
        return 0 if self._control & _IS_COMMAND else self._pdv_left

    @property
    def more_follows(self) -> bool:
        """Whether another fragment of the message must come behind this one."""
        return not self._control & _IS_LAST

    def came(self, size: int) -> bool:
        """So many bytes of the current fragment came another way; whether its data set ends with them."""
        self._pdv_left -= size
        self._pdu_left -= size
        return not self._pdv_left and not self.more_follows

    def skip(self, size: int) -> int:
        """Leave out so much of the current PDU, or what is left of it; how much that is."""
        skipped = min(size, self._pdu_left)
        self._pdu_left -= skipped
        self._pdv_left = 0
        return skipped

    def cut(self, view: memoryview, start: int = 0) -> tuple[int, Piece | None]:
        """How many bytes of the view from a place on are used up, and the piece among them; none where too few are.

        The place is where the last one was used up; outside a PDU the header of one begins there. BrokenPDU where a
        length contradicts another.
        """
        at, size = start, len(view)
        if not self._pdu_left:
            if size - at < PDU_HEADER.size:
                return 0, None
            self._pdu_left, at = PDU_HEADER.unpack_from(view, at)[1], at + PDU_HEADER.size
            if not self._pdu_left:
                return at - start, None
        if not self._pdv_left:
            if size - at < _PDV_HEADER.size <= self._pdu_left:
                return at - start, None
            self._begin(view, at)
            at += _PDV_HEADER.size
        end = min(size, at + self._pdv_left)
        self._pdv_left -= end - at
        self._pdu_left -= end - at
        control = self._control
        is_end = not self._pdv_left and control & _IS_LAST > 0
        if end == at and not is_end:
            return at - start, None
        return end - start, Piece(self._context_id, control & _IS_COMMAND > 0, is_end, view[at:end])

    def _begin(self, view: memoryview, at: int) -> None:
        if self._pdu_left < _PDV_HEADER.size:
            raise BrokenPDU("a PDU ends within the header of a presentation data value")
        length, self._context_id, self._control = _PDV_HEADER.unpack_from(view, at)
        # The context and the message control header are counted, the length itself is not.
        if not 2 <= length <= self._pdu_left - 4:
            raise BrokenPDU("the length of a presentation data value contradicts that of its PDU")
        self._pdv_left = length - 2
        self._pdu_left -= _PDV_HEADER.size


def p_data(context_id: int, command: bytes, maximum_length: int = 0) -> bytes:
    """A whole command as P-DATA-TF PDUs, each no longer than the receiver allows; 0 allows any length."""
    step = max(1, maximum_length - _PDV_HEADER.size) if maximum_length else max(1, len(command))
    parts = []
    for start in range(0, max(1, len(command)), step):
        part = command[start : start + step]
        control = _IS_COMMAND | (_IS_LAST if start + step >= len(command) else 0)
        parts.append(PDU_HEADER.pack(P_DATA_TF, len(part) + _PDV_HEADER.size))
        parts.append(_PDV_HEADER.pack(len(part) + 2, context_id, control) + part)
    return b"".join(parts)
