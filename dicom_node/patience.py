"""Patience: no job, delivery or answer waits longer than the settings say, also after the clock was set back."""

import logging
from collections.abc import Callable

from dicom_node.archive.index import Index
from dicom_node.archive.waits import LongestWaits
from dicom_node.core.delivery_plan import longest_wait
from dicom_node.settings import Settings

log = logging.getLogger(__name__)

#: How often it is looked for waits that are too long.
PATIENCE_SECONDS = 15.0

#: So much the clock of a worker's machine may differ from ours.
_CLOCKS_DIFFER_SECONDS = 60.0


class Patience:
    """Looks for what waits too long, and ends that wait."""

    def __init__(self, settings: Settings, index: Index, clock: Callable[[], float]) -> None:
        self._index, self._clock = index, clock
        waits = settings.delivery
        objects = longest_wait(waits.maximum_wait_seconds)
        committing = max(waits.commitment_maximum_wait_seconds, waits.commitment_timeout_seconds)
        self._longest = LongestWaits(
            job=settings.queue.maximum_wait_seconds + _CLOCKS_DIFFER_SECONDS,
            lease=settings.queue.lease_seconds + _CLOCKS_DIFFER_SECONDS,
            delivery=objects,
            # What a peer says that it does not keep is sent again, and waits as a delivery does.
            commitment=max(longest_wait(committing), objects),
            promise=objects,
        )

    def step(self) -> None:
        """One round."""
        count = self._index.waits.shorten(self._longest, self._clock())
        if count:
            log.warning("waits were longer than the settings allow and were ended", extra={"count": count})
