"""An association that we ask for, whose threads rest while there is nothing to do.

pynetdicom's look a thousand times a second whether there is: next to a node at work, that takes as much of a processor
as all that is sent.
"""

import os
import select
import threading
from collections.abc import Callable
from typing import cast

from pynetdicom import AE
from pynetdicom.association import Association
from pynetdicom.transport import AddressInformation, AssociationSocket

from dicom_node.scu.service_provider import NoticedStateMachine, ServiceProvider

#: How long a thread rests before it looks whether a time is up.
LOOK_SECONDS = 0.25
#: How often the thread that pauses says so again.
_SAY_SECONDS = 0.05
#: PS3.8 Section 9.2.1: waiting for the end of the connection.
_CLOSING = "Sta13"


class Requester(AE):
    """Asks for associations of this kind."""

    def _create_socket(self, assoc: Association, address: AddressInformation, _tls_args: object) -> AssociationSocket:
        # The first that is told of the new association, before a thread of it runs.
        assoc._reactor_checkpoint = checkpoint = Checkpoint(assoc)
        assoc.dul = _UpperLayer(assoc, checkpoint.notice)
        # They are passed on to the upper layer, which is a new one.
        assoc.acse_timeout, assoc.network_timeout = self.acse_timeout, self.network_timeout
        return _Connection(assoc, address)


class Checkpoint(threading.Event):
    """Where an association's thread pauses while another sends or releases, and rests until there is work for it.

    Whoever sends clears it, and waits for the word that the thread pauses. A thread that was let go and has not run
    yet has left its word behind: were it believed, that thread would go on, and take the answer that another waits for.
    """

    def __init__(self, assoc: Association) -> None:
        super().__init__()
        self._assoc = assoc
        self._work = threading.Event()
        #: Held by the thread as it goes on, and by whoever clears: then it has gone, or stays.
        self._passing = threading.Lock()
        self.set()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait for work, or for a moment; then as any event does, saying for as long as it lasts that it pauses."""
        if timeout is not None:
            return super().wait(timeout)
        if not self._has_work():
            self._work.wait(LOOK_SECONDS)
        self._work.clear()
        while not self._passes():
            # Somebody else may have taken it back, and whoever waits for it has no limit.
            self._assoc._is_paused = True
        return True

    def clear(self) -> None:
        """Let the thread pause when it comes here next, or stay."""
        with self._passing:
            super().clear()

    def set(self) -> None:
        """Let the thread go on."""
        super().set()
        self._work.set()

    def notice(self) -> None:
        """There may be work."""
        self._work.set()

    def _passes(self) -> bool:
        """Whether the thread goes on: it may have been held up again since it was woken."""
        super().wait(_SAY_SECONDS)
        with self._passing:
            if is_let_go := self.is_set():
                self._assoc._is_paused = False
        return is_let_go

    def _has_work(self) -> bool:
        assoc = self._assoc
        waiting = assoc.dimse.msg_queue.queue or assoc.dul.to_user_queue.queue
        return bool(waiting) or assoc._kill or not assoc.dul.is_alive()


class _UpperLayer(ServiceProvider):
    """The thread that sends and reads: it waits for bytes, or for something to send."""

    def __init__(self, assoc: Association, notice: Callable[[], None]) -> None:
        super().__init__(assoc, NoticedStateMachine, notice)
        # The connection waits instead.
        self._run_loop_delay = 0

    def run_reactor(self) -> None:
        """Serve the connection to its end."""
        try:
            super().run_reactor()
        finally:
            # Also where what a peer sent was too much for it: nobody is to wait for a thread that has ended.
            self._kill_thread = True
            self._connection.give_up()
            self._notice()

    @property
    def _connection(self) -> "_Connection":
        return cast(_Connection, self.socket)


class _Connection(AssociationSocket):
    """The connection: its thread waits here for bytes, and any other may wake it."""

    def __init__(self, assoc: Association, address: AddressInformation) -> None:
        self._waking, self._wake_fd = threading.Lock(), -1
        super().__init__(assoc, address=address)
        self._wake_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)

    def __del__(self) -> None:
        """Where no thread could be started for it, nobody has given it up."""
        self.give_up()

    @property
    def ready(self) -> bool:
        """Whether there are bytes; waits for them a moment, or until somebody wakes the thread."""
        waiting = select.poll()
        waiting.register(self._wake_fd, select.POLLIN)
        connection = self.socket if self._is_connected else None
        descriptor = -1 if connection is None else connection.fileno()
        if connection is not None:
            if descriptor < 0:
                self.event_queue.put("Evt17")
                return False
            waiting.register(descriptor, select.POLLIN)
        has_more_to_do = self.event_queue.queue or self.assoc.dul.state_machine.current_state == _CLOSING
        found = [each for each, _ in waiting.poll(0 if has_more_to_do else LOOK_SECONDS * 1000)]
        if self._wake_fd in found:
            os.eventfd_read(self._wake_fd)
        return descriptor in found

    def wake(self) -> None:
        """Let the thread that waits for bytes look at what else there is to do."""
        with self._waking:
            if self._wake_fd >= 0:
                os.eventfd_write(self._wake_fd, 1)

    def give_up(self) -> None:
        """Nobody waits here any more."""
        with self._waking:
            descriptor, self._wake_fd = self._wake_fd, -1
            if descriptor >= 0:
                os.close(descriptor)
