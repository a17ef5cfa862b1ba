"""The archive's directories: made where they are missing, and their names on the disk before anyone relies on them."""

import os
import threading
from collections.abc import Sequence
from pathlib import Path

from dicom_node.archive.disk import wait_for

# For the node's own user and group, as its files.
_MODE = 0o750

#: So many are remembered; of others the disk is asked again.
_MOST_REMEMBERED = 10_000


class Directories:
    """Of which directories it is known that their own names are on the disk; safe to share between threads."""

    def __init__(self) -> None:
        self._durable: set[str] = set()
        self._changing = threading.Lock()

    def make(self, path: str) -> None:
        """Make a directory and its parents; `sync` must follow before anyone relies on them."""
        if os.path.isdir(path):
            return
        parent = _parent(path)
        if not Path(parent).is_dir():
            self.make(parent)
        with self._changing:
            # Its name may have been removed since it was made the last time.
            self._durable.discard(path)
        Path(path).mkdir(mode=_MODE, exist_ok=True)

    def sync(self, path: str, *, levels: int, with_file: int | None = None) -> None:
        """Let the names in a directory be on the disk at return, and its own, and those of so many above it.

        And `with_file`, an open file: the disk is waited for once.
        """
        new: list[str] = []
        folders = [path]
        for _ in range(levels):
            path, below = _parent(path), path
            if below not in self._durable:
                folders.append(path)
                new.append(below)
        sync_directories(folders, () if with_file is None else (with_file,))
        if new:
            with self._changing:
                if len(self._durable) + len(new) > _MOST_REMEMBERED:
                    self._durable.clear()
                self._durable.update(new)


def _parent(path: str) -> str:
    # A Path would take ten times as long, and each instance has four.
    return path.rpartition("/")[0]


def make_directory(path: Path) -> None:
    """Make a directory and its parents, each one's name on the disk before anything is put into it."""
    if path.is_dir():
        return
    if not path.parent.is_dir():
        make_directory(path.parent)
    path.mkdir(mode=_MODE, exist_ok=True)
    sync_directory(path.parent)


def sync_directory(path: str | Path) -> None:
    """Let the names in a directory be on the disk at return."""
    sync_directories([path])


def sync_directories(paths: Sequence[str | Path], files: Sequence[int] = ()) -> None:
    """Let the names in these directories be on the disk at return, and these open files, with one wait for all."""
    opened: list[int] = []
    try:
        for path in paths:
            opened += [os.open(path, os.O_RDONLY | os.O_DIRECTORY)]
        wait_for([*files, *opened])
    finally:
        for descriptor in opened:
            os.close(descriptor)
