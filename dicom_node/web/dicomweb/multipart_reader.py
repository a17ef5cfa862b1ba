"""multipart/related as it is read: a body that comes in pieces, taken apart while it comes, in bounded memory."""

import re
from collections.abc import Mapping
from enum import Enum
from typing import Protocol

#: Of one part; real ones are two or three lines.
_LONGEST_HEAD = 16 << 10

#: Blanks behind a boundary; real ones have none.
_LONGEST_LINE = 200

#: Of one body.
_MOST_PARTS = 100_000

#: RFC 2046 Section 5.1.1.
_BOUNDARY = re.compile(r'boundary="?([0-9A-Za-z\'()+_,\-./:=? ]{0,69}[0-9A-Za-z\'()+_,\-./:=?])"?')


class Malformed(Exception):
    """The body is no multipart body, or ends before its last boundary."""


class Taker(Protocol):
    """Takes the parts."""

    def begin(self, head: Mapping[str, str]) -> None:
        """A part begins; its headers by their names in small letters."""

    def take(self, data: memoryview) -> None:
        """More of the part."""

    def end(self) -> None:
        """The part is whole."""


class _State(Enum):
    PREAMBLE = "before the first boundary"
    HEAD = "in the headers of a part"
    DATA = "in a part"
    DONE = "behind the last boundary"


def boundary_of(content_type: str) -> str:
    """The boundary that a Content-Type names; empty where it names none."""
    found = _BOUNDARY.search(content_type[:1000])
    return found[1].strip() if found else ""


class MultipartReader:
    """Takes a body apart; `feed` it, then `close` it."""

    def __init__(self, boundary: str, taker: Taker) -> None:
        self._delimiter = b"\r\n--" + boundary.encode("ascii")
        self._taker = taker
        # As if a line had ended before the body: the first boundary then looks like all others.
        self._held = bytearray(b"\r\n")
        self._state = _State.PREAMBLE
        self._parts = 0

    def feed(self, data: bytes) -> None:
        """Take the next bytes of the body; Malformed where they make none."""
        self._held += data
        while self._step():
            pass

    def close(self) -> None:
        """The body ended; Malformed where its last boundary did not come."""
        if self._state is not _State.DONE:
            raise Malformed(f"the body ends {self._state.value}")

    def _step(self) -> bool:
        """Whether there may be more to do."""
        if self._state is _State.DONE:
            self._held.clear()
            return False
        return self._read_head() if self._state is _State.HEAD else self._read_data()

    def _read_head(self) -> bool:
        """What is held begins with the end of the boundary's line."""
        end = self._held.find(b"\r\n\r\n")
        if end < 0 or end > _LONGEST_HEAD:
            if len(self._held) > _LONGEST_HEAD:
                raise Malformed("the headers of a part are too long")
            return False
        head = _headers(bytes(self._held[2:end]))
        del self._held[: end + 4]
        self._state = _State.DATA
        self._taker.begin(head)
        return True

    def _read_data(self) -> bool:
        at = self._held.find(self._delimiter)
        if at < 0:
            # The end of what is held may be the beginning of a boundary.
            self._give(len(self._held) - len(self._delimiter) + 1)
            return False
        end = at + len(self._delimiter)
        line = self._held.find(b"\r\n", end)
        rest = bytes(self._held[end : line if line >= 0 else len(self._held)])
        if not rest.startswith(b"--"):
            is_open = line < 0 and rest.strip(b" \t") in (b"", b"-", b"\r")
            if rest.strip(b" \t") and not is_open:
                # It only begins like the boundary.
                self._give(end)
                return True
            if line < 0:
                if len(rest) > _LONGEST_LINE:
                    raise Malformed("the line of a boundary does not end")
                return False
        self._give(at)
        if self._state is _State.DATA:
            self._taker.end()
        self._parts += 1
        if self._parts > _MOST_PARTS:
            raise Malformed("the body has too many parts")
        self._state = _State.DONE if rest.startswith(b"--") else _State.HEAD
        del self._held[: len(self._delimiter) + len(rest)]
        return True

    def _give(self, count: int) -> None:
        if count <= 0:
            return
        if self._state is _State.DATA:
            piece = bytes(self._held[:count])
            self._taker.take(memoryview(piece))
        del self._held[:count]


def _headers(head: bytes) -> dict[str, str]:
    lines = (line.partition(b":") for line in head.split(b"\r\n") if line)
    return {
        name.decode("latin-1").strip().lower(): value.decode("latin-1").strip() for name, colon, value in lines if colon
    }
