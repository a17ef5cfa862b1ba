"""What the index knows of a worker: that it is there, on which device, and what it can read."""

import logging
import threading
import time
from collections.abc import Sequence

from dicom_node.archive.index import Index
from dicom_node.core.errors import IndexUnavailable
from workers.pipe import Ready

log = logging.getLogger(__name__)


class Presence:
    """The worker's row in the index: there once it can read, or once it is known that it cannot."""

    def __init__(self, index: Index, worker: str, queues: Sequence[str], device: str) -> None:
        self._index = index
        self._worker, self._queues, self._device = worker, tuple(queues), device
        self._there = False
        #: Device and bundles as they were last to be told; of two threads.
        self._last: tuple[str, tuple[str, ...]] | None = None
        self._telling = threading.Lock()

    def ready(self, ready: Ready) -> None:
        """Tell what this worker can read."""
        if self._told(ready.device, ready.bundles):
            log.info("worker ready", extra={"worker": self._worker, "bundles": list(ready.bundles)})

    def trouble(self, reason: str) -> None:
        """Tell that it can read nothing for now."""
        log.error("this worker cannot read; it tries again", extra={"worker": self._worker, "reason": reason})
        self._told(self._device, ())

    def missed(self) -> None:
        """The index does not know this worker: tell it again, if there is anything to tell yet."""
        with self._telling:
            if self._last is not None:
                self._there = False
                self._tell(*self._last)

    def ended(self) -> None:
        """The worker goes home."""
        with self._telling:
            self._last = None
        try:
            self._index.workers.ended(self._worker)
        except IndexUnavailable:
            log.warning("the index does not know that this worker ended", extra={"worker": self._worker})

    def _told(self, device: str, bundles: Sequence[str]) -> bool:
        with self._telling:
            self._last = (device, tuple(bundles))
            return self._tell(*self._last)

    def _tell(self, device: str, bundles: Sequence[str]) -> bool:
        workers = self._index.workers
        try:
            if not self._there or not workers.can(self._worker, device=device, bundles=bundles):
                workers.began(self._worker, device=device, bundles=bundles, queues=self._queues, at=time.time())
        except IndexUnavailable:
            log.warning("the index does not know yet what this worker can", extra={"worker": self._worker})
            return False
        self._there = True
        return True
