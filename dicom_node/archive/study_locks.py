"""Study locks: no file of a study is removed while an instance of it is filed, in whichever thread or process.

The lock is on the directory that the study lies in, one of 256, which it shares with others.
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
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
        with ExitStack() as stack:
            # Each directory once, however many of the studies lie in it: there are fewer of them than open files.
            for spread in sorted({spread_of(uid) for uid in study_uids}):
                stack.enter_context(self._locked(spread, fcntl.LOCK_SH))
            yield

    @contextmanager
    def emptying(self, study_uid: str) -> Iterator[bool]:
        """Hold while the study's files are removed; False where an instance is just being filed: try again later."""
        with ExitStack() as stack:
            try:
                stack.enter_context(self._locked(spread_of(study_uid), fcntl.LOCK_EX | fcntl.LOCK_NB))
            except BlockingIOError:
                yield False
            else:
                yield True

    @contextmanager
    def _locked(self, spread: str, kind: int) -> Iterator[None]:
        directory = self._area / spread
        try:
            descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
        except FileNotFoundError:
            make_directory(directory)
            descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.flock(descriptor, kind)
            yield
        finally:
            os.close(descriptor)
