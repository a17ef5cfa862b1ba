"""Drawn pictures on the disk, bounded: the longest unused go first, and any of them can be drawn again."""

import hashlib
import os
import tempfile
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

#: Pictures drawn at one time: they must not take the processor from what receives.
_AT_A_TIME = 2


class PictureCache:
    """Pictures by what they are made of, in a folder of their own."""

    def __init__(self, folder: Path, most_bytes: int) -> None:
        self._folder = folder
        self._most_bytes = most_bytes
        self._turns = threading.BoundedSemaphore(_AT_A_TIME)
        self._tidying = threading.Lock()
        self._written = 0

    def picture(self, made_of: tuple[object, ...], draw: Callable[[], bytes]) -> bytes:
        """The picture; drawn and kept where it is not there."""
        path = self._folder / f"{hashlib.sha256(repr(made_of).encode()).hexdigest()}.png"
        with suppress(OSError):
            data = path.read_bytes()
            os.utime(path)
            return data
        with self._turns:
            data = draw()
        # A full disk costs time, no picture.
        with suppress(OSError):
            self._keep(path, data)
        return data

    def _keep(self, path: Path, data: bytes) -> None:
        self._folder.mkdir(mode=0o750, parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=self._folder, suffix=".part", delete=False) as file:
            file.write(data)
        os.replace(file.name, path)
        self._written += len(data)
        # A look at the whole folder for every sixteenth of its bound is enough.
        if self._written * 16 >= self._most_bytes and self._tidying.acquire(blocking=False):
            try:
                self._written = 0
                self._tidy()
            finally:
                self._tidying.release()

    def _tidy(self) -> None:
        files = []
        for entry in os.scandir(self._folder):
            with suppress(OSError):
                found = entry.stat()
                files.append((found.st_mtime, found.st_size, entry.path))
        total = sum(size for _, size, _ in files)
        for _, size, path in sorted(files):
            if total <= self._most_bytes * 7 // 8:
                return
            with suppress(OSError):
                os.unlink(path)
                total -= size
