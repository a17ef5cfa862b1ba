"""The worker's heartbeat: while it beats, the index knows the worker and its job is its own."""

import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from dicom_node.archive.index import Index
from dicom_node.core.errors import IndexUnavailable
from dicom_node.core.job import Lease

log = logging.getLogger(__name__)

#: Beats in the time of one lease: several may fail before another worker takes over.
_BEATS_PER_LEASE = 6
#: sysexits.h EX_SOFTWARE: the process found a fault in itself, and whoever watches it starts a new one.
FAULTY = 70


def _end_process() -> None:
    """End at once: a thread that hangs in foreign code can be asked nothing."""
    os._exit(FAULTY)


class Heartbeat:
    """A thread that tells the index of this worker, and renews the lease of the job in hand, but not for ever."""

    def __init__(
        self,
        index: Index,
        worker: str,
        *,
        lease_seconds: float,
        maximum_reading_seconds: float,
        clock: Callable[[], float],
        end_process: Callable[[], None] = _end_process,
    ) -> None:
        """A job in hand for longer than `maximum_reading_seconds` hangs: its lease runs out, and this process ends."""
        self._index = index
        self._worker = worker
        self._lease_seconds = lease_seconds
        self._maximum_reading_seconds = maximum_reading_seconds
        self._clock = clock
        self._end_process = end_process
        self._lease: Lease | None = None
        self._held_since = 0.0
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)

    def start(self) -> None:
        """Begin to beat."""
        self._thread.start()

    def stop(self) -> None:
        """Beat no more."""
        self._ending.set()
        self._thread.join(timeout=5)

    @contextmanager
    def holding(self, lease: Lease) -> Iterator[None]:
        """Renew this lease until the job has ended."""
        self._held_since = time.monotonic()
        self._lease = lease
        self._beat()
        try:
            yield
        finally:
            self._lease = None
            self._beat()

    def _run(self) -> None:
        while not self._ending.wait(self._lease_seconds / _BEATS_PER_LEASE):
            lease = self._lease
            if lease is not None and time.monotonic() - self._held_since > self._maximum_reading_seconds:
                log.error("a reading hangs; this worker ends", extra={"job_uid": lease.job_uid, "exit_status": FAULTY})
                self._end_process()
                return
            self._beat()

    def _beat(self) -> None:
        lease, now = self._lease, self._clock()
        try:
            self._index.workers.beat(self._worker, job_uid=lease.job_uid if lease else None, at=now)
            if lease is not None and not self._index.jobs.renew(lease, now + self._lease_seconds):
                log.warning("the job in hand is no longer ours", extra={"job_uid": lease.job_uid})
        except IndexUnavailable:
            log.warning("a heartbeat did not reach the index")
        # The rim of a thread: without it the worker would read on, and lose every job that takes longer than a lease.
        except Exception as error:
            log.error("a heartbeat failed", extra={"error": type(error).__name__})
