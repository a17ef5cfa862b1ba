"""The associations that are open now, and the connections that may become one: nobody has more than its share.

A connection is no association before it asks for one: who only connects, such as a health check or a port scanner,
keeps no peer out. Of those of one address, as many may be silent as there may be associations; with one more, the one
that has been silent the longest is hung up.
"""

import logging
import threading
from collections.abc import Callable

from pynetdicom.association import Association

log = logging.getLogger(__name__)

#: Of an address, also where fewer associations may be open.
_FEWEST_SILENT = 16


class OpenAssociations:
    """Counts associations and connections; safe to call from many threads."""

    def __init__(self, *, maximum: int, maximum_per_peer: int) -> None:
        self._maximum, self._maximum_per_peer = maximum, maximum_per_peer
        self._maximum_silent = max(maximum, _FEWEST_SILENT)
        #: By address; the one that has been silent the longest is the first.
        self._silent: dict[Association, str] = {}
        #: By calling AE title and address.
        self._open: dict[Association, tuple[str, str]] = {}
        self._lock = threading.Lock()

    def connected(self, association: Association, hang_up: Callable[[Association], None]) -> None:
        """A connection came that has asked for nothing yet; `hang_up` ends one that has been silent for too long."""
        address = _address(association)
        with self._lock:
            alike = [other for other, where in self._silent.items() if where == address]
            self._silent[association] = address
            longest = alike[0] if len(alike) >= self._maximum_silent else None
            if longest is not None:
                del self._silent[longest]
        if longest is not None:
            log.debug("a connection was silent while too many others were; it was hung up")
            hang_up(longest)

    def admits(self, association: Association, calling_ae_title: str) -> bool:
        """Whether one more association may be opened; it counts until it has ended."""
        peer = (calling_ae_title, _address(association))
        with self._lock:
            self._silent.pop(association, None)
            of_peer = sum(other == peer for other in self._open.values())
            if len(self._open) >= self._maximum or of_peer >= self._maximum_per_peer:
                return False
            self._open[association] = peer
            return True

    def ended(self, association: Association) -> None:
        """The connection is over, whatever came of it."""
        with self._lock:
            self._silent.pop(association, None)
            self._open.pop(association, None)


def _address(association: Association) -> str:
    information = association.requestor.address_info
    return "" if information is None else information.address
