"""Study locks: no file of a study is removed while an instance of it is filed, in whichever thread or process.

The lock is on the directory that the study lies in, one of 256, which it shares with others.
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dicom_node.archive.directories import make_directory
from dicom_node.archive.places import spread_of


class StudyLocks:
    """Locks in one area of the archive; safe to share between threads and processes."""

    def __init__(self, area: Path) -> None:
        self._area = area

    @contextmanager
    def filing(self, *study_uids: str) -> Iterator[None]:
        """Hold while instances of these studies are filed and indexed; waits while one of them is emptied."""
        held: list[int] = []
        try:
            # Each directory once, however many of the studies lie in it: there are fewer of them than open files.
            for spread in sorted({spread_of(uid) for uid in study_uids}):
                held.append(self._opened(spread))
                fcntl.flock(held[-1], fcntl.LOCK_SH)
            yield
        finally:
            for descriptor in held:
                os.close(descriptor)

    @contextmanager
    def emptying(self, study_uid: str) -> Iterator[bool]:
        """Hold while the study's files are removed; False where an instance is just being filed: try again later."""
        descriptor = self._opened(spread_of(study_uid))
        try:
            yield _is_had(descriptor)
        finally:
            os.close(descriptor)

    def _opened(self, spread: str) -> int:
        directory = f"{self._area}/{spread}"
        try:
            return os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
        except FileNotFoundError:
            make_directory(Path(directory))
            return os.open(directory, os.O_RDONLY | os.O_DIRECTORY)


def _is_had(descriptor: int) -> bool:
    """Whether the lock could be had for us alone."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
