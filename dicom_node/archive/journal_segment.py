"""A segment of the journal: a file of fixed size whose blocks are on the disk already, and are only overwritten.

    page 0      the segment's beginning: its turn, counted up each time that it is written anew
    page 1..    records, each from the beginning of a page on: a head with checksums, the file's path, its file meta
                information, its data set
    behind it   what was there before: records of an earlier turn, or zeros

To write into blocks that are there takes one wait for the disk and changes nothing of the file system: no size, no
block map, no journal of its own. What a stop leaves of a record that was being written, its checksums tell.
"""

import errno
import hashlib
import mmap
import os
import struct
import zlib
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from dicom_node.archive.directories import sync_directory
from dicom_node.archive.spool import FILE_MODE

#: Records begin at a multiple of it; also what a disk wants that is written to past the page cache.
PAGE = 4096

_MAGIC_OF_SEGMENT, _MAGIC_OF_RECORD = b"DNJ1", b"DNR1"
# Magic and turn; the checksum of both follows.
_BEGINNING = struct.Struct("<4sQ")
# Magic, turn, length of path, of file meta information and of data set, SHA-256 of the data set; the checksum follows.
_HEAD = struct.Struct("<4sQHHQ32s")
_CHECKSUM = struct.Struct("<L")
_PREFIX = _HEAD.size + _CHECKSUM.size

_ZEROS_BYTES = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Record:
    """A file that was answered for, as the journal holds it."""

    #: Relative to the archive's root.
    path: str
    #: Of the data set, 64 hex digits.
    sha256: str
    file_meta: bytes
    data_set: bytes | memoryview

    @property
    def size_bytes(self) -> int:
        """In the journal, in whole pages."""
        size = _PREFIX + len(self.path.encode()) + len(self.file_meta) + len(self.data_set)
        return -(-size // PAGE) * PAGE

    def write_into(self, buffer: memoryview, turn: int) -> None:
        """Fill a buffer of as many bytes as it has."""
        path = self.path.encode()
        digest = bytes.fromhex(self.sha256)
        head = _HEAD.pack(_MAGIC_OF_RECORD, turn, len(path), len(self.file_meta), len(self.data_set), digest)
        before = head + _CHECKSUM.pack(zlib.crc32(path + self.file_meta, zlib.crc32(head))) + path + self.file_meta
        end = len(before) + len(self.data_set)
        buffer[: len(before)] = before
        buffer[len(before) : end] = self.data_set
        buffer[end:] = bytes(len(buffer) - end)


class Segment:
    """A segment that is written to; for one thread at a time."""

    def __init__(self, path: Path, size_bytes: int) -> None:
        """A new one, all its blocks on the disk; OSError, and nothing left, where the disk does not take it."""
        self.path, self.size_bytes = path, size_bytes
        self._turn, self._at = 0, PAGE
        # What lies there already an earlier process left, and it may answer for files: it is nobody's to remove here.
        path.touch(FILE_MODE, exist_ok=False)
        try:
            _fill(path, size_bytes)
            self._file = _opened_past_cache(path)
        except BaseException:  # also what ends the process
            path.unlink(missing_ok=True)
            raise
        self._page = mmap.mmap(-1, PAGE)

    @property
    def turn(self) -> int:
        """How often it was begun."""
        return self._turn

    @property
    def room(self) -> int:
        """Bytes that are left of it."""
        return self.size_bytes - self._at

    def begin(self) -> None:
        """Be empty; on the disk with the first record."""
        self._turn, self._at = self._turn + 1, PAGE
        beginning = _BEGINNING.pack(_MAGIC_OF_SEGMENT, self._turn)
        self._page[: len(beginning) + _CHECKSUM.size] = beginning + _CHECKSUM.pack(zlib.crc32(beginning))
        _write_at(self._file, memoryview(self._page), 0)

    def write(self, records: memoryview) -> int:
        """Write whole records, on the disk at return; where they begin. OSError where the disk does not take them."""
        start = self._at
        _write_at(self._file, records, start)
        os.fdatasync(self._file)
        self._at += len(records)
        return start

    def close(self) -> None:
        """Nothing more is written; the file stays."""
        os.close(self._file)

    def remove(self) -> None:
        """Nothing in it counts any more, and it goes."""
        self.close()
        with suppress(OSError):
            self.path.unlink(missing_ok=True)


def records_of(path: Path) -> Iterator[Record]:
    """The whole records of a segment's current turn, the earliest first; OSError where the disk fails.

    Of records that were written at once a stop may leave a later one whole and an earlier one not: nobody was answered
    for either, and a whole one is as good as any.
    """
    with path.open("rb") as file:
        turn = _turn_of(file.read(PAGE))
        at = PAGE
        while turn is not None:
            file.seek(at)
            record, size = _record_of(file.read(PAGE), turn, path, at)
            if not size:
                return
            if record is not None:
                yield record
            at += size


def _turn_of(page: bytes) -> int | None:
    end = _BEGINNING.size
    if len(page) < PAGE or _CHECKSUM.unpack_from(page, end)[0] != zlib.crc32(page[:end]):
        return None
    magic, turn = _BEGINNING.unpack_from(page)
    return int(turn) if magic == _MAGIC_OF_SEGMENT else None


def _record_of(page: bytes, turn: int, path: Path, at: int) -> tuple[Record | None, int]:
    """The record that begins here, None where its data set is not whole, and its size; 0 where none begins."""
    if len(page) < PAGE:
        return None, 0
    magic, its_turn, path_size, meta_size, data_size, digest = _HEAD.unpack_from(page)
    behind = _PREFIX + path_size + meta_size
    if (magic, its_turn) != (_MAGIC_OF_RECORD, turn) or behind > PAGE:
        return None, 0
    named = page[_PREFIX:behind]
    if _CHECKSUM.unpack_from(page, _HEAD.size)[0] != zlib.crc32(named, zlib.crc32(page[: _HEAD.size])):
        return None, 0
    with path.open("rb") as file:
        file.seek(at + behind)
        data_set = file.read(data_size)
    record = Record(
        path=named[:path_size].decode(), sha256=digest.hex(), file_meta=named[path_size:], data_set=data_set
    )
    is_whole = hashlib.sha256(data_set).digest() == digest
    return (record if is_whole else None), record.size_bytes if is_whole else -(-(behind + data_size) // PAGE) * PAGE


def _fill(path: Path, size_bytes: int) -> None:
    """Write zeros into every block, so that none is new to the file system later."""
    zeros = bytes(_ZEROS_BYTES)
    descriptor = os.open(path, os.O_WRONLY)
    try:
        os.posix_fallocate(descriptor, 0, size_bytes)
        for at in range(0, size_bytes, _ZEROS_BYTES):
            _write_at(descriptor, memoryview(zeros)[: size_bytes - at], at)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    sync_directory(path.parent)


def _opened_past_cache(path: Path) -> int:
    """For writing, past the page cache where the file system can: nobody reads it but after a stop."""
    try:
        return os.open(path, os.O_WRONLY | os.O_DIRECT)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        return os.open(path, os.O_WRONLY)


def _write_at(descriptor: int, data: memoryview, at: int) -> None:
    while data:
        written = os.pwrite(descriptor, data, at)
        data, at = data[written:], at + written
