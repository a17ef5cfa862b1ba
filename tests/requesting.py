"""Associations that pynetdicom asks for, of which an answer reaches the thread that waits for it, and no other."""

import threading
from typing import Any

from pynetdicom import AE, evt
from pynetdicom.association import Association

#: How often the thread that pauses says so again.
_SAY_SECONDS = 0.02


class Requestor(AE):
    """pynetdicom's application entity, with a gate of ours in each association that it asks for."""

    def associate(self, *args: Any, evt_handlers: Any = None, **kwargs: Any) -> Association:
        """As pynetdicom's."""
        # Before the association's thread runs.
        gate = (evt.EVT_CONN_OPEN, lambda event: _Gate.of(event.assoc))
        return super().associate(*args, evt_handlers=[gate, *(evt_handlers or ())], **kwargs)


class _Gate(threading.Event):
    """Where the association's own thread pauses, so that an answer is its sender's.

    pynetdicom's lets it by where it was held up again before it ran, as on a busy machine; and what serves a peer's
    request takes back at its end that the association pauses, for which whoever asks just then waits without a limit.
    """

    def __init__(self, association: Association) -> None:
        super().__init__()
        self._association, self._passing = association, threading.Lock()
        self.set()

    @classmethod
    def of(cls, association: Association) -> None:
        association._reactor_checkpoint = cls(association)

    def wait(self, timeout: float | None = None) -> bool:
        if timeout is not None:
            return super().wait(timeout)
        while not self._passes():
            self._association._is_paused = True
        return True

    def clear(self) -> None:
        with self._passing:
            super().clear()

    def _passes(self) -> bool:
        super().wait(_SAY_SECONDS)
        with self._passing:
            if is_let_go := self.is_set():
                self._association._is_paused = False
        return is_let_go
