"""The worker's heartbeat: while it beats, the index knows the worker and what its reading process does.

The lease of the job in hand is renewed while the reading process moves. One that hangs keeps no job for long, also
when nothing else in this process notices.
"""

import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from dicom_node.archive.index import Index
from dicom_node.core.errors import IndexUnavailable
from dicom_node.core.job import Lease
from workers.readings import Limits, Pulse

log = logging.getLogger(__name__)

#: Beats in the time of one lease: several may fail before another worker takes over.
_BEATS_PER_LEASE = 6
#: Also with a long lease a worker is heard this often, and at the beginning and the end of a job, but no more often.
_LONGEST_INTERVAL, _SHORTEST_INTERVAL = 5.0, 0.5
#: After both limits of a reading process this worker has so long to lay the job down, before it is what hangs.
_LAYING_DOWN_SECONDS = 300.0
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
        limits: Limits,
        pulse: Callable[[], Pulse],
        clock: Callable[[], float],
        end_process: Callable[[], None] = _end_process,
        laying_down_seconds: float = _LAYING_DOWN_SECONDS,
        on_unknown: Callable[[], None] = lambda: None,
    ) -> None:
        """`pulse` tells of the reading process; `on_unknown` hears that the index does not know this worker.

        A job in hand long after the limits of a reading means that this process itself hangs: it ends.
        """
        self._index = index
        self._worker = worker
        self._lease_seconds = lease_seconds
        self._limits = limits
        self._longest_seconds = limits.reading_seconds + limits.silence_seconds + laying_down_seconds
        self._pulse = pulse
        self._clock = clock
        self._end_process = end_process
        self._on_unknown = on_unknown
        self._lease: Lease | None = None
        self._held_since = 0.0
        self._lost = False
        self._ending = False
        self._changed = threading.Event()
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)

    @property
    def lost(self) -> bool:
        """Whether the job in hand is known to be another's by now, or nobody's."""
        return self._lost

    def start(self) -> None:
        """Begin to beat."""
        self._thread.start()

    def stop(self) -> None:
        """Beat no more."""
        self._ending = True
        self._changed.set()
        self._thread.join(timeout=5)

    @contextmanager
    def holding(self, lease: Lease) -> Iterator[None]:
        """Renew this lease until the job has ended."""
        self._held_since, self._lost = time.monotonic(), False
        self._lease = lease
        self._changed.set()
        try:
            yield
        finally:
            self._lease = None
            self._changed.set()

    def _run(self) -> None:
        interval = min(self._lease_seconds / _BEATS_PER_LEASE, _LONGEST_INTERVAL)
        while not self._ending:
            self._changed.clear()
            lease = self._lease
            if lease is not None and time.monotonic() - self._held_since > self._longest_seconds:
                log.error("this worker hangs and ends", extra={"job_uid": lease.job_uid, "exit_status": FAULTY})
                self._end_process()
                return
            self._beat(lease)
            # A worker that reads many jobs a second tells of some of them.
            time.sleep(min(_SHORTEST_INTERVAL, interval))
            self._changed.wait(interval)

    def _beat(self, lease: Lease | None) -> None:
        now, pulse = self._clock(), self._pulse()
        moves = pulse.silent_seconds <= self._limits.silence_seconds
        try:
            known = self._index.workers.beat(
                self._worker,
                job_uid=lease.job_uid if lease else None,
                step=pulse.step,
                moved_at=now - pulse.silent_seconds,
                memory_bytes=pulse.memory_bytes,
                at=now,
            )
            if lease is not None and moves and not self._index.jobs.renew(lease, now + self._lease_seconds):
                self._lost = lease is self._lease
                log.warning("the job in hand is no longer ours", extra={"job_uid": lease.job_uid})
            if not known:
                self._on_unknown()
        except IndexUnavailable:
            log.warning("a heartbeat did not reach the index")
        # The rim of a thread: without it the worker would read on, and lose every job that takes longer than a lease.
        except Exception as error:
            log.error("a heartbeat failed", extra={"error": type(error).__name__})
