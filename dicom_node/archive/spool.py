"""A spool: a data set in a file of incoming/ while it comes in, so that an object of any size needs little memory."""

import hashlib
import os
from contextlib import suppress
from pathlib import Path

# Readable by the node's own user and group: the file holds patient data.
FILE_MODE = 0o640

#: After so many bytes the kernel is asked to begin to write them, so that the last wait is no long one.
_WRITE_BACK_BYTES = 8 << 20


class Spool:
    """A file that is being written, with its file meta information before its data set; for one thread.

    It is read as a file that holds the data set alone.
    """

    def __init__(self, path: Path, file_meta: bytes) -> None:
        """A new file that begins with these bytes; OSError where the disk does not take it."""
        self.path = path
        self.size_bytes = 0
        self._digest = hashlib.sha256()
        self._start = len(file_meta)
        self._at = self._begun_to_write = 0
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, FILE_MODE)
        try:
            write_all(self._file, file_meta)
        except BaseException:  # nobody else knows of the file, also when the process ends
            self.discard()
            raise

    @property
    def sha256(self) -> str:
        """The checksum of what the data set holds so far, 64 hex digits."""
        return self._digest.hexdigest()

    def write(self, data: bytes | memoryview, /) -> int:
        """Take what comes next of the data set; OSError where the disk does not."""
        write_all(self._file, data)
        self._digest.update(data)
        self.size_bytes += len(data)
        if self.size_bytes - self._begun_to_write >= _WRITE_BACK_BYTES:
            # Such pages are written at once, and what is written is not kept in memory.
            os.posix_fadvise(self._file, self._begun_to_write, 0, os.POSIX_FADV_DONTNEED)
            self._begun_to_write = self.size_bytes
        return len(data)

    def read(self, size: int = -1, /) -> bytes:
        """So many bytes of the data set from here on, or all."""
        left = max(0, self.size_bytes - self._at)
        data = os.pread(self._file, left if size < 0 else min(size, left), self._start + self._at)
        self._at += len(data)
        return data

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        """Go to this place of the data set."""
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self.size_bytes}[whence]
        self._at = max(0, base + offset)
        return self._at

    def tell(self) -> int:
        """Where in the data set this is."""
        return self._at

    def sync(self) -> None:
        """Let everything be on the disk at return; OSError where it is not."""
        os.fsync(self._file)

    def keep(self) -> None:
        """The file stays: it has got its name."""
        if self._file >= 0:
            os.close(self._file)
        self._file = -1

    def discard(self) -> None:
        """Leave nothing of it, unless it is kept."""
        if self._file >= 0:
            self.keep()
            # On a disk that became read-only it stays, and the next start removes it; its sender gets an answer.
            with suppress(OSError):
                self.path.unlink(missing_ok=True)


def write_all(descriptor: int, data: bytes | memoryview) -> None:
    """Write to a file's end; the kernel may take less at once than it is given."""
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]
