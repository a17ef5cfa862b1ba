"""Refusals: how often instances were refused on each association, so that each reason is told once and not for each."""

import logging
import threading
from collections import Counter
from collections.abc import Hashable

from dicom_node.core.status import in_hex

log = logging.getLogger(__name__)


class Refusals:
    """The refusals of one way in; safe to call from many associations' threads."""

    def __init__(self) -> None:
        self._counts: dict[Hashable, Counter[int]] = {}
        self._lock = threading.Lock()

    def is_first(self, association: Hashable, status: int) -> bool:
        """An instance is refused: whether none was before, on this association and with this status."""
        with self._lock:
            counts = self._counts.setdefault(association, Counter())
            counts[status] += 1
            return counts[status] == 1

    def ended(self, association: Hashable, calling_ae_title: str) -> None:
        """The association is over: tell how many there were, where that is more than was told."""
        with self._lock:
            counts = self._counts.pop(association, Counter())
        for status, count in sorted(counts.items()):
            if count > 1:
                facts = {"calling_ae_title": calling_ae_title, "status": in_hex(status)}
                log.warning("instances refused on one association", extra={**facts, "instances": count})
