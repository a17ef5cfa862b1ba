"""Turns: who may write into an SQLite index now, of all threads and processes that want to.

SQLite lets those who find the database locked sleep for longer and longer, up to a tenth of a second, and whoever comes
just when it is free goes first: next to a process with many writing threads another one hardly ever writes. Here each
waits for its turn: one thread of a process at a time, and between processes at a gate. Who holds the gate is next, and
whoever wrote last has to pass it again.

The locks are the kernel's (flock) and end with the process that holds them. Nothing rests on them but the order:
SQLite's own lock guards the data, also against programs that know no turns.
"""

import fcntl
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from dicom_node.core.errors import IndexUnavailable

#: How often a lock that another process holds is tried again.
_AGAIN_SECONDS = 0.0005


class Turns:
    """The turns of one index, as one process sees them."""

    def __init__(
        self,
        index: Path,
        *,
        patience_seconds: float,
        clock: Callable[[], float] = time.monotonic,
        rest: Callable[[float], None] = time.sleep,
    ) -> None:
        """Two files beside the index are locked, and never written to."""
        self._paths = [index.with_name(index.name + ending) for ending in ("-gate", "-turn")]
        #: Of gate and turn, from the first turn on.
        self._open: list[int] = []
        self._threads = threading.Lock()
        self._patience_seconds = patience_seconds
        self._clock, self._rest = clock, rest

    @contextmanager
    def taken(self) -> Iterator[None]:
        """It is our turn while inside; IndexUnavailable when it does not come in time."""
        until = self._clock() + self._patience_seconds
        if not self._threads.acquire(timeout=self._patience_seconds):
            raise _never_came(self._patience_seconds)
        try:
            gate, turn = self._opened()
            with self._locked(gate, until):
                self._lock(turn, until)
            try:
                yield
            finally:
                fcntl.flock(turn, fcntl.LOCK_UN)
        finally:
            self._threads.release()

    def close(self) -> None:
        """Give the files back, until another turn is taken."""
        with self._threads:
            while self._open:
                os.close(self._open.pop())

    def _opened(self) -> list[int]:
        try:
            for path in self._paths[len(self._open) :]:
                self._open.append(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640))
        except OSError as error:
            raise IndexUnavailable(f"no lock can be made beside the index ({error.strerror}); see its disk") from error
        return self._open

    @contextmanager
    def _locked(self, descriptor: int, until: float) -> Iterator[None]:
        self._lock(descriptor, until)
        try:
            yield
        finally:
            fcntl.flock(descriptor, fcntl.LOCK_UN)

    def _lock(self, descriptor: int, until: float) -> None:
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError:
                if self._clock() >= until:
                    raise _never_came(self._patience_seconds) from None
                self._rest(_AGAIN_SECONDS)


def _never_came(seconds: float) -> IndexUnavailable:
    return IndexUnavailable(f"the index is written to by others for {seconds:.0f} s; see its disk, and what holds it")
