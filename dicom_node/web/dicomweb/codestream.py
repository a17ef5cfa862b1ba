"""Codestreams: how large a compressed frame says that it is, before anybody decodes it."""

import struct

_J2K = b"\xff\x4f\xff\x51"

#: Of JPEG and JPEG-LS: starts of a frame; C4, C8 and CC mean other things (ITU-T T.81 Table B.1, T.87 Annex C.1.1).
_STARTS = frozenset({*range(0xC0, 0xD0), 0xF7} - {0xC4, 0xC8, 0xCC})


def pixels_of(frame: bytes) -> int:
    """Rows by columns as the codestream itself says; 0 where it does not say, such as RLE."""
    if (at := frame.find(_J2K, 0, 1 << 16)) >= 0 and len(frame) >= at + 24:
        # Size and offset of the reference grid (ITU-T T.800 Annex A.5.1).
        columns, rows, left, top = struct.unpack_from(">4L", frame, at + 8)
        return int(max(0, columns - left) * max(0, rows - top))
    return _of_jpeg(frame) if frame[:2] == b"\xff\xd8" else 0


def _of_jpeg(frame: bytes) -> int:
    at = 2
    while at + 9 <= len(frame) and frame[at] == 0xFF:
        kind = frame[at + 1]
        if kind in _STARTS:
            rows, columns = struct.unpack_from(">2H", frame, at + 5)
            return int(rows * columns)
        at += 1 if kind == 0xFF else 2 + struct.unpack_from(">H", frame, at + 2)[0]
    return 0
