"""Turns: who may write into an SQLite index now, of all threads and processes that want to.

SQLite lets those who find the database locked sleep for longer and longer, up to a tenth of a second, and whoever comes
just when it is free goes first: next to a process with many writing threads another one hardly ever writes. Here each
waits for its turn: one thread of a process at a time, and between processes at a gate. Who holds the gate is next, and
whoever wrote last has to pass it again.

The locks are the kernel's (flock) and end with the process that holds them. Nothing rests on them but the order, so
nobody waits for one for long: its holder may be stopped. SQLite's own lock guards the data, whoever comes when.
"""

import fcntl
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from dicom_node.core.errors import IndexUnavailable

log = logging.getLogger(__name__)

#: How often a lock that another process holds is tried again, and how long: no write takes nearly as long.
_AGAIN_SECONDS, _IN_ORDER_SECONDS = 0.0005, 1.0
#: Where a lock was not to be had, order is not even tried for so long: not every write must wait in vain.
_DISORDER_SECONDS = 10.0


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
        """Two files beside the index are locked, and never written to; `patience_seconds` is for our own threads."""
        self._paths = [index.with_name(index.name + ending) for ending in ("-gate", "-turn")]
        #: Of gate and turn, from the first turn on.
        self._open: list[int] = []
        self._threads = threading.Lock()
        self._patience_seconds = patience_seconds
        self._clock, self._rest = clock, rest
        #: Until when the order is left to SQLite.
        self._disorder_until: float | None = None

    @contextmanager
    def taken(self) -> Iterator[None]:
        """It is our turn while inside; IndexUnavailable when threads of this process do not let it come in time."""
        if not self._threads.acquire(timeout=self._patience_seconds):
            for_long = f"the index is being written to for {self._patience_seconds:.0f} s"
            raise IndexUnavailable(f"{for_long}; see its disk, and what holds it")
        try:
            turn = self._waited_for()
            try:
                yield
            finally:
                if turn is not None:
                    fcntl.flock(turn, fcntl.LOCK_UN)
        finally:
            self._threads.release()

    def close(self) -> None:
        """Give the files back, until another turn is taken."""
        with self._threads:
            while self._open:
                os.close(self._open.pop())

    def _waited_for(self) -> int | None:
        """The lock that makes it our turn; None where the order is left to SQLite."""
        if self._disorder_until is not None and self._clock() < self._disorder_until:
            return None
        try:
            gate, turn = self._opened()
            found = self._passed(gate, turn)
        except OSError as error:
            found = None
            log.warning("locks beside the index cannot be used", extra={"error": type(error).__name__})
        self._disorder_until = None if found is not None else self._clock() + _DISORDER_SECONDS
        return found

    def _passed(self, gate: int, turn: int) -> int | None:
        until = self._clock() + _IN_ORDER_SECONDS
        if not self._locked(gate, until):
            return None
        try:
            return turn if self._locked(turn, until) else None
        finally:
            fcntl.flock(gate, fcntl.LOCK_UN)

    def _locked(self, descriptor: int, until: float) -> bool:
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return True
            except BlockingIOError:
                if self._clock() >= until:
                    return False
                self._rest(_AGAIN_SECONDS)

    def _opened(self) -> list[int]:
        # For reading, which is enough for a lock: another user of the index may have made them.
        for path in self._paths[len(self._open) :]:
            self._open.append(os.open(path, os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC, 0o644))
        return self._open
