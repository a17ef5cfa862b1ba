"""multipart/related as it is written: parts behind boundaries (PS3.18 Section 8.6.1.2, RFC 2387)."""

import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

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
    return uuid.uuid4().hex


def content_type(boundary: str, inner: str) -> str:
    """Of the whole answer."""
    return f'multipart/related; type="{inner.split(";")[0]}"; boundary={boundary}'


def written(parts: Iterable[Part], boundary: str) -> Iterator[bytes]:
    """The bytes of the answer, part by part."""
    for part in parts:
        location = f"Content-Location: {part.location}\r\n" if part.location else ""
        yield f"--{boundary}\r\nContent-Type: {part.media_type}\r\n{location}\r\n".encode()
        yield from part.data
        yield b"\r\n"
    yield f"--{boundary}--\r\n".encode()


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
