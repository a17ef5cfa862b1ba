"""What a peer asks of us on an association that we opened: its N-EVENT-REPORTs, which have threads of their own.

pynetdicom serves each in a thread beside the one that waits to release, and tells nobody of it. An answer that comes
after the release request breaks the association off (PS3.8 Table 9-10: no P-DATA request is taken in Sta7), and a
thread that ends just then takes back the word that the association's own thread pauses, for which the releasing one
waits.
"""

import threading
from collections.abc import Callable
from typing import Any

from pynetdicom.association import Association
from pynetdicom.dimse_messages import N_EVENT_REPORT_RQ
from pynetdicom.dimse_primitives import N_EVENT_REPORT
from pynetdicom.events import Event


class PeerRequests:
    """Knows which of a peer's requests are being served, and takes no more after the last."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        #: That came and have not ended.
        self._open = 0
        self._is_closed = False

    def watch(self, assoc: Association) -> None:
        """Serve what comes on this association, from before it is established."""
        serve = assoc._serve_request
        assoc._serve_request = lambda msg, context_id: self._serve(serve, msg, context_id)  # type: ignore[method-assign]  # its maker takes no class of ours

    def came(self, event: Event) -> None:
        """A message has come in; its thread, if it gets one, has not begun yet."""
        if isinstance(event.message, N_EVENT_REPORT_RQ):
            with self._changed:
                self._open += 1

    def close(self, patience_seconds: float) -> bool:
        """Wait until all are answered, and take none from then on; False where one takes too long."""
        with self._changed:
            is_over = self._changed.wait_for(lambda: not self._open, patience_seconds)
            self._is_closed = True
        return is_over

    def _serve(self, serve: Callable[[Any, int], None], msg: Any, context_id: int) -> None:
        try:
            with self._changed:
                # Whom we do not answer tells us again, as one does whose association ended.
                is_wanted = not self._is_closed
            if is_wanted:
                serve(msg, context_id)
        finally:
            if isinstance(msg, N_EVENT_REPORT) and msg.MessageIDBeingRespondedTo is None:
                with self._changed:
                    self._open -= 1
                    self._changed.notify_all()
