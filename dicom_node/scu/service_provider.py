"""The upper layer's thread of an association, which rests until there are bytes, or something to send.

Both kinds have one: associations that we ask for [requested_association], and those that we accept (`scp/upper_layer`).
"""

import threading
from collections.abc import Callable
from typing import Protocol, cast

from pynetdicom.association import Association
from pynetdicom.dul import DULServiceProvider
from pynetdicom.fsm import StateMachine

#: PS3.8 Section 9.2.1: no association.
IDLE = "Sta1"


class Rousable(Protocol):
    """A connection at which a thread rests."""

    def wake(self) -> None:
        """Let the thread that rests here look at what else there is to do."""


class ServiceProvider(DULServiceProvider):
    """Wakes its thread for whatever others have for it."""

    def __init__(self, association: Association, machine: type["NoticedStateMachine"], notice: Callable[[], None]):
        """`notice` lets the association's own thread look at what there is to do."""
        super().__init__(association)
        self._notice = notice
        self.state_machine = machine(self, notice)

    def send_pdu(self, primitive: object) -> None:
        """Put a primitive into the queue, and let the thread look at it."""
        super().send_pdu(primitive)  # type: ignore[arg-type]  # of any of pynetdicom's types
        self._wake()

    def kill_dul(self) -> None:
        """Let the thread end."""
        super().kill_dul()
        self._wake()

    def stop_dul(self) -> bool:
        """Wait for the end of the thread, where its connection has ended; whether it has."""
        if self.state_machine.current_state != IDLE:
            return False
        self.kill_dul()
        if threading.current_thread() is not self:
            self.join()
        return True

    def _wake(self) -> None:
        cast(Rousable, self.socket).wake()


class NoticedStateMachine(StateMachine):
    """The state machine, of whose actions the association's own thread hears at once."""

    def __init__(self, dul: DULServiceProvider, notice: Callable[[], None]) -> None:
        super().__init__(dul)
        self._notice = notice

    def do_action(self, event: str) -> None:
        """Act, and let the association look at what came of it."""
        try:
            super().do_action(event)
        finally:
            self._notice()
