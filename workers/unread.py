"""The algorithms for which a job waits, and which no worker has: people must see them."""

import logging
from collections.abc import Collection

from dicom_node.archive.index import Index
from dicom_node.archive.lines import SILENT_AFTER_SECONDS
from dicom_node.core.errors import IndexUnavailable

log = logging.getLogger(__name__)

#: Their name among the index's conditions.
NO_READER = "algorithms"
#: It is looked for them this often.
_LOOK_SECONDS = 10.0


class Unread:
    """What was last told of such algorithms, and when they were looked for."""

    def __init__(self, index: Index) -> None:
        self._index = index
        #: None: nothing was told yet.
        self._told: list[str] | None = None
        self._looked_at = 0.0

    def look(self, own: Collection[str], now: float) -> None:
        """Tell the index which are wanted and not read, where that changed; `own` are what this worker reads."""
        if self._told is not None and 0 <= now - self._looked_at < _LOOK_SECONDS:
            return
        try:
            unread = [name for name in self._index.workers.unread(now - SILENT_AFTER_SECONDS) if name not in own]
            if unread != self._told:
                self._tell(unread, now)
        except IndexUnavailable as error:
            log.info("the index was not asked for waiting jobs", extra={"reason": str(error)})
            return
        self._told, self._looked_at = unread, now

    def _tell(self, unread: list[str], now: float) -> None:
        if not unread:
            self._index.conditions.ended(NO_READER)
            return
        reason = f"jobs wait that no worker reads: {', '.join(unread)}; add the bundle or correct the route"
        log.error("no worker has an algorithm that is wanted", extra={"reason": reason})
        self._index.conditions.began(NO_READER, reason=reason, at=now)
