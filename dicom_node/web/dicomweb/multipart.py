"""multipart/related as it is written: parts behind boundaries (PS3.18 Section 8.6.1.2, RFC 2387)."""

import os
import secrets
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

#: Read from the disk at once, so that an answer of any size needs little memory.
CHUNK_BYTES = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Part:
    """One part: its media type, and its bytes, here or in a file."""

    media_type: str
    data: Iterable[bytes]
    location: str = ""


def new_boundary() -> str:
    """One that stands in no part: nobody can guess it."""
    return secrets.token_hex(16)


def content_type(boundary: str, inner: str) -> str:
    """Of the whole answer."""
    return f'multipart/related; type="{inner.split(";")[0]}"; boundary={boundary}'


@dataclass(frozen=True, kw_only=True)
class Extent:
    """A part whose bytes lie in a file."""

    media_type: str
    location: str
    #: Its first byte, and how many.
    start: int
    length: int


def written(parts: Iterable[Part], boundary: str) -> Iterator[bytes]:
    """The bytes of the answer, part by part."""
    for part in parts:
        yield _head(part, boundary)
        yield from part.data
        yield b"\r\n"
    yield _end(boundary)


def collected(name: str, extents: Sequence[Extent], boundary: str) -> memoryview:
    """An answer of pieces of a file, each read to its place in it; EOFError where the file is too short."""
    heads, end = [_head(extent, boundary) for extent in extents], _end(boundary)
    size = sum(map(len, heads)) + sum(extent.length + 2 for extent in extents) + len(end)
    # Memory that nobody fills with zeros first.
    whole, at = np.empty(size, np.uint8).data, 0
    file = os.open(name, os.O_RDONLY)
    try:
        for head, extent in zip(heads, extents, strict=True):
            first = at + len(head)
            last = first + extent.length
            whole[at:first] = head
            _read_at(file, whole[first:last], extent.start)
            whole[last : last + 2] = b"\r\n"
            at = last + 2
    finally:
        os.close(file)
    whole[at:] = end
    return whole


def _read_at(file: int, place: memoryview, start: int) -> None:
    while place:
        count = os.preadv(file, [place], start)
        if not count:
            raise EOFError
        place, start = place[count:], start + count


def _head(part: Part | Extent, boundary: str) -> bytes:
    location = f"Content-Location: {part.location}\r\n" if part.location else ""
    return f"--{boundary}\r\nContent-Type: {part.media_type}\r\n{location}\r\n".encode()


def _end(boundary: str) -> bytes:
    return f"--{boundary}--\r\n".encode()


def read_file(path: Path, start: int = 0, length: int | None = None) -> Iterator[bytes]:
    """A file, or some of it, a piece at a time."""
    with path.open("rb") as file:
        file.seek(start)
        left = length
        while left is None or left > 0:
            chunk = file.read(CHUNK_BYTES if left is None else min(CHUNK_BYTES, left))
            if not chunk:
                return
            left = None if left is None else left - len(chunk)
            yield chunk
