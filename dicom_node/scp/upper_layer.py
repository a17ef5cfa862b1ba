"""The upper layer of an accepted association: what its bytes are, and who handles them.

    bytes of the connection                                [transport] read ahead into one buffer
      |
      v
    does a P-DATA-TF PDU of an established association begin?
      | yes                             | no: a request, a release, an abort, or nonsense
      v                                 |
    [store_messages] cuts it into       |
    fragments [p_data], to the end      |
    of the command [c_store]            |
      | a plain       | another: its    |
      | C-STORE       | bytes are put   |
      | request       | back            |
      v               v                 v
    [reception]     pynetdicom: decodes PDUs and messages, runs the state machine, calls [handlers]
    collects the data set, keeps it; [store_messages] answers

Both ways run in one thread an association, which waits for bytes and is woken for whatever else there is to do. A
second thread, pynetdicom's own, serves what is no plain C-STORE request and sees how the association ends.
"""

import logging
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, cast

from pynetdicom.pdu import A_ABORT_RQ
from pynetdicom.pdu_primitives import A_RELEASE

from dicom_node.reception.pace import Pace
from dicom_node.reception.storage import Storage
from dicom_node.scp.p_data import HEADERS_SIZE, P_DATA_TF, PDU_HEADER, BrokenPDU
from dicom_node.scp.processor import ask_for_short_turns
from dicom_node.scp.store_messages import StoreMessages
from dicom_node.scp.transport import LOOK_SECONDS, Connection
from dicom_node.scu.service_provider import IDLE, NoticedStateMachine, ServiceProvider

if TYPE_CHECKING:
    from pynetdicom.association import Association

log = logging.getLogger(__name__)

#: States and events of the state machine (PS3.8 Section 9.2.1).
_ESTABLISHED, _AWAITING_CLOSE = "Sta6", "Sta13"
#: Where messages of ours may go out: also before we answer the peer's release request.
_SENDING = (_ESTABLISHED, "Sta8")
_CLOSED, _ARTIM_EXPIRED, _INVALID_PDU = "Evt17", "Evt18", "Evt19"

#: The types that there are (PS3.8 Section 9.3.1).
_PDU_TYPES = range(1, 8)

#: The longest PDU without data: an association request with every context that there can be is half as long.
_LONGEST_PDU = 1 << 20

#: The longest message that pynetdicom gets to see, since it is held in memory; no plain C-STORE request is among them.
_LONGEST_MESSAGE = 64 << 20


class UpperLayer(ServiceProvider):
    """Reads PDUs, and takes plain C-STORE requests out of pynetdicom's hands."""

    def __init__(self, association: "Association", storage: Storage, notice: Callable[[], None]) -> None:
        """`notice` lets the association's own thread look at what there is to do."""
        super().__init__(association, _AcceptingStateMachine, notice)
        self._messages = StoreMessages(association, storage, self._answer)
        #: PDUs that were put back for pynetdicom, and bytes of the message that it decodes.
        self._put_back = self._decoded_bytes = 0
        #: How many bytes the PDU that waits for more of them has.
        self._wanted = 0
        self._pace = Pace()
        #: When it is looked at next.
        self._pace_at = 0.0
        #: Messages of ours, each as all its PDUs, that wait for this thread.
        self._outgoing: deque[bytes] = deque()

    @property
    def connection(self) -> Connection:
        """The connection; there is one from the beginning."""
        return cast(Connection, self.socket)

    def run_reactor(self) -> None:
        """Serve the connection to its end; what nobody foresaw ends this association alone."""
        try:
            self._react()
        except Exception as error:  # the rim of the thread: pynetdicom raises whatever nonsense makes it stumble over
            log.warning("an association broke off", extra={"error": type(error).__name__})
            log.debug("where it broke off", exc_info=True)
            self._break_off()
        finally:
            self._messages.drop()
            self.connection.give_up()
            self._kill_thread = True
            self._notice()

    def _react(self) -> None:
        """As pynetdicom's own loop, but that it waits for bytes in `ready`, and never sleeps before it looks again."""
        ask_for_short_turns()
        self._idle_timer.start()
        # The association's own thread waits for that before it looks at anything.
        self.assoc._dul_ready.set()
        events, machine = self.event_queue, self.state_machine
        while not self._kill_thread:
            # It never runs in an association that is established (PS3.8 Section 9.1.5).
            if machine.current_state != _ESTABLISHED and self.artim_timer.expired:
                events.put(_ARTIM_EXPIRED)
            if not self._process_recv_primitive() and self._is_transport_event():
                self._idle_timer.restart()
            if events.queue:
                machine.do_action(events.get_nowait())

    def send_message(self, pdus: bytes) -> None:
        """Send a whole message after what is in the queue, and with no answer to a C-STORE in between."""
        self._outgoing.append(pdus)
        self.connection.wake()

    def idle_timer_expired(self) -> bool:
        """Whether the peer was silent for too long; not while it waits for our answer."""
        return not self._messages.is_keeping and super().idle_timer_expired()

    def _process_recv_primitive(self) -> bool:
        if not self.to_provider_queue.queue:
            return False
        # Nothing may be sent after a release (PS3.8 Section 7.2.2); an abort wants nothing sent before it.
        if self._outgoing and isinstance(next(iter(self.to_provider_queue.queue), None), A_RELEASE):
            self._send_waiting()
        return super()._process_recv_primitive()

    def _send_waiting(self) -> None:
        while self._outgoing and self.state_machine.current_state in _SENDING:
            self.connection.send(self._outgoing.popleft())

    def _is_transport_event(self) -> bool:
        # The queue is empty when this is asked.
        if self._outgoing:
            self._send_waiting()
        if self.state_machine.current_state != _ESTABLISHED:
            return super()._is_transport_event()
        is_ready = self.connection.ready
        if is_ready:
            self._read_pdu_data()
        # Only now: what waited in the socket while this thread was held up came in time.
        if self.state_machine.current_state == _ESTABLISHED and not self.event_queue.queue and self._is_slow():
            self._give_up("a message came in too slowly; its association was aborted")
            return True
        return is_ready

    def _read_pdu_data(self) -> None:
        connection = self.connection
        try:
            if not connection.available and self._fill_rooms():
                return
            if (connection.hungry or not connection.available) and not self._read():
                return
            if self.state_machine.current_state != _ESTABLISHED and self._messages.in_pdu:
                # The association was aborted in the middle of a PDU, whose rest nobody wants.
                connection.use_up(self._messages.skip(connection.available))
            elif self._is_ours():
                self._take_pieces()
            else:
                self._pass_on()
        except BrokenPDU as error:
            self._give_up(f"{error}; its association was aborted")

    def _read(self) -> bool:
        wanted, self._wanted = self._wanted, 0
        return self._came(partial(self.connection.read_ahead, wanted)) > 0

    def _came(self, read: Callable[[], int]) -> int:
        """How many bytes were read; none at the end of the connection, or where none came for a moment."""
        try:
            size = read()
        except BlockingIOError:
            return 0
        except OSError:
            size = 0
        self._pace.came(size)
        if not size:
            self.event_queue.put(_CLOSED)
        return size

    def _fill_rooms(self) -> bool:
        """Read long fragments to where they stay, one after another; whether there was one to read."""
        found = False
        while self._is_undisturbed() and (room := self._messages.room()) is not None:
            found = True
            behind = HEADERS_SIZE if self._messages.more_follows(room) else 0
            read = self._came(partial(self.connection.read_into, room, behind))
            self._messages.filled(min(read, len(room)))
            if self.connection.available:
                self._take_pieces()
            if read < len(room) + behind:
                break
        return found

    def _is_undisturbed(self) -> bool:
        """Whether nothing else is to be done on an association that is established."""
        waiting = self.event_queue.queue or self.to_provider_queue.queue or self._outgoing or self._kill_thread
        return not waiting and not self.connection.available and self.state_machine.current_state == _ESTABLISHED

    def _is_ours(self) -> bool:
        """Whether what comes next is for `_take_pieces`: data, and no message of it is with pynetdicom."""
        if self._messages.in_pdu:
            return True
        if self.state_machine.current_state != _ESTABLISHED or self._put_back or self.assoc.dimse.message is not None:
            return False
        pdu = self.connection.next_pdu()
        return pdu is not None and pdu[0] == P_DATA_TF

    def _pass_on(self) -> None:
        """Let pynetdicom have the next PDU, when it is whole."""
        connection = self.connection
        pdu = connection.next_pdu()
        if pdu is None:
            connection.hungry = True
            return
        kind, size = pdu
        if kind in _PDU_TYPES:
            self._check_size(kind, size)
            if connection.available < size:
                self._wanted, connection.hungry = size, True
                return
        self._put_back = max(0, self._put_back - 1)
        super()._read_pdu_data()

    def _check_size(self, kind: int, size: int) -> None:
        longest = _LONGEST_PDU
        if kind == P_DATA_TF:
            # As we announced, where we announced a limit.
            longest = max(longest, (self.assoc.ae.maximum_pdu_size or _LONGEST_MESSAGE) + PDU_HEADER.size)
            if self.assoc.dimse.message is None:
                self._decoded_bytes = 0
            if self.connection.available >= size:
                self._decoded_bytes += size
        if size > longest or self._decoded_bytes > _LONGEST_MESSAGE:
            raise BrokenPDU("a PDU or message is longer than it may be")

    def _take_pieces(self) -> None:
        """Take what is there of fragments; the bytes of another's message are put back, and its PDUs counted."""
        connection = self.connection
        used, is_over, pdus = self._messages.take(connection.unread())
        connection.use_up(used)
        if pdus:
            connection.put_back(b"".join(pdus))
            self._put_back = len(pdus)
        elif not is_over:
            connection.hungry = self._messages.in_pdu or connection.available < PDU_HEADER.size

    def _answer(self, pdus: bytes) -> None:
        """Send the answer to a request that took its time."""
        self._idle_timer.restart()
        self.connection.send(pdus)
        self._pace.rest()

    def _is_slow(self) -> bool:
        """Whether a message trickles in."""
        now = time.monotonic()
        if now < self._pace_at:
            return False
        self._pace_at = now + LOOK_SECONDS
        begun = self._messages.in_message or self.connection.available or self.assoc.dimse.message
        patience = self.assoc.dimse_timeout
        if patience is None or not begun:
            self._pace.rest()
            return False
        return self._pace.is_slow(patience)

    def _give_up(self, why: str) -> None:
        """Abort the association; what was read ahead means nothing any more."""
        if self.state_machine.current_state != _AWAITING_CLOSE:
            # A peer that sends on though it was aborted is said to break the rules once.
            facts = {"reason": why, "calling_ae_title": self.assoc.requestor.ae_title}
            log.warning("a peer broke the rules", extra=facts)
        self._messages.begin_anew()
        self._put_back = 0
        self.connection.use_up(self.connection.available)
        self.event_queue.put(_INVALID_PDU)

    def _break_off(self) -> None:
        """Say that the association is over, past the state machine, which has failed."""
        abort = A_ABORT_RQ()
        # PS3.8 Section 9.3.8: by the service provider, for no reason that it gives.
        abort.source, abort.reason_diagnostic = 2, 0
        if self.connection.socket is not None:
            self.connection.send(abort.encode())
            self.connection.close()


class _AcceptingStateMachine(NoticedStateMachine):
    """Tells also who waits for the request of an association that none will come."""

    def do_action(self, event: str) -> None:
        """Act, and let who waits for what came of it look."""
        try:
            super().do_action(event)
        finally:
            if self.current_state == IDLE and self.dul.assoc.requestor.primitive is None:
                # Who waits for the request of an association need not wait on.
                self.dul.to_user_queue.put(None)
