"""The transport connection: the listening server, and each accepted connection with what was read ahead of it."""

import logging
import os
import select
import socket
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from pynetdicom.transport import AssociationServer, AssociationSocket

from dicom_node.scp.p_data import PDU_HEADER
from dicom_node.scu.connection import acknowledge_at_once, limit_reading, limit_sending, send_at_once

if TYPE_CHECKING:
    from pynetdicom.association import Association

log = logging.getLogger(__name__)

#: Of each connection: a PDU of the usual length and the beginning of the next.
_BUFFER_BYTES = 256 << 10

#: How long a thread waits for bytes before it looks whether a time is up.
LOOK_SECONDS = 0.25


class Connection(AssociationSocket):
    """An accepted connection: bytes are read ahead into one buffer, and acknowledged at once.

    Two threads know it: the upper layer's, which reads, writes and waits here for bytes, and any other, which may wake
    it.
    """

    def __init__(self, association: "Association", accepted: socket.socket, *, patience_seconds: float) -> None:
        """`patience_seconds`: how long a peer may not take what is sent to it."""
        self._waking, self._wake_fd = threading.Lock(), -1
        super().__init__(association, client_socket=accepted)
        self._buffer = bytearray(_BUFFER_BYTES)
        self._start = self._end = 0
        #: What is there is not enough to go on.
        self.hungry = True
        self._wake_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._poll = select.poll()
        for descriptor in (accepted.fileno(), self._wake_fd):
            self._poll.register(descriptor, select.POLLIN)
        send_at_once(accepted)
        limit_sending(accepted, patience_seconds)
        limit_reading(accepted, LOOK_SECONDS)

    def __del__(self) -> None:
        """Where no thread could be started for it, nobody has given it up."""
        self.give_up()

    @property
    def ready(self) -> bool:
        """Whether there is something to go on with; waits for it a moment, or until somebody wakes the thread."""
        if self.socket is None or not self._is_connected:
            time.sleep(0.001)
            return False
        if not self.hungry and self._end > self._start:
            return True
        descriptor = self.socket.fileno()
        if descriptor < 0:
            self.event_queue.put("Evt17")
            return False
        has_more_to_do = self.event_queue.queue or self.assoc.dul.state_machine.current_state == "Sta13"
        is_ready = False
        for found, _ in self._poll.poll(0 if has_more_to_do else LOOK_SECONDS * 1000):
            if found == descriptor:
                is_ready = True
            else:
                os.eventfd_read(self._wake_fd)
        return is_ready

    def wake(self) -> None:
        """Let the thread that waits for bytes look at what else there is to do."""
        with self._waking:
            if self._wake_fd >= 0:
                os.eventfd_write(self._wake_fd, 1)

    def cut(self) -> None:
        """Let the connection end, from any thread: the one that reads finds it closed."""
        if (connected := self.socket) is not None:
            with suppress(OSError):
                connected.shutdown(socket.SHUT_RDWR)

    def hang_up(self) -> None:
        """Close the connection, whatever of it is still open."""
        if self.socket is not None:
            self._shutdown_socket()
        self.give_up()

    def give_up(self) -> None:
        """Nobody waits here any more."""
        with self._waking:
            descriptor, self._wake_fd = self._wake_fd, -1
            if descriptor >= 0:
                os.close(descriptor)
        # An association that has ended may be known to somebody for long.
        self._buffer, self._start, self._end = bytearray(), 0, 0

    def read_ahead(self, wanted: int = 0) -> int:
        """Read what is there, with room for so many bytes together with those before; how much, 0 at the end."""
        self._make_room(wanted)
        assert self.socket is not None
        read = self.socket.recv_into(memoryview(self._buffer)[self._end :])
        self._end += read
        self.hungry = False
        self.acknowledge()
        return read

    def read_into(self, room: memoryview, behind: int) -> int:
        """Fill the room, and read so many bytes behind it ahead, or what comes of all that in a moment; 0 at the end.

        Nothing must have been read ahead. The kernel waits for it by itself: between pieces nobody is woken.
        """
        assert self.socket is not None
        if behind:
            read = self.socket.recvmsg_into([room, memoryview(self._buffer)[:behind]], 0, socket.MSG_WAITALL)[0]
        else:
            read = self.socket.recv_into(room, 0, socket.MSG_WAITALL)
        self._start, self._end = 0, max(0, read - len(room))
        self.hungry = not self._end
        self.acknowledge()
        return read

    def send(self, bytestream: bytes) -> None:
        """Send, and be ready to acknowledge what comes back."""
        super().send(bytestream)
        self.acknowledge()

    def acknowledge(self) -> None:
        """Let the kernel acknowledge what came."""
        if self.socket is not None:
            acknowledge_at_once(self.socket)

    def unread(self) -> memoryview:
        """What was read ahead; it stays as it is until more is read."""
        return memoryview(self._buffer)[self._start : self._end]

    def use_up(self, size: int) -> None:
        """So many bytes are done with."""
        self._start += size
        if self._start == self._end:
            self._start = self._end = 0

    def put_back(self, data: bytes) -> None:
        """Let these bytes come before those that were read ahead."""
        self._buffer = bytearray(data) + self._buffer[self._start : self._end] + bytes(_BUFFER_BYTES)
        self._start, self._end = 0, len(self._buffer) - _BUFFER_BYTES
        self.hungry = False

    def next_pdu(self) -> tuple[int, int] | None:
        """Type and length, with its header, of the PDU that begins here; None where too few bytes are there."""
        if self._end - self._start < PDU_HEADER.size:
            return None
        kind, length = PDU_HEADER.unpack_from(self._buffer, self._start)
        return kind, PDU_HEADER.size + length

    @property
    def available(self) -> int:
        """How many bytes were read ahead."""
        return self._end - self._start

    def recv(self, nr_bytes: int) -> bytearray:
        """Bytes that were read ahead, for pynetdicom; fewer only where fewer are there."""
        data = self._buffer[self._start : min(self._end, self._start + nr_bytes)]
        self.use_up(len(data))
        return data

    def _shutdown_socket(self) -> None:
        """Close the connection, also where the peer was first."""
        if self.socket is not None:
            with suppress(OSError):
                self.socket.shutdown(socket.SHUT_RDWR)
            self.socket.close()

    def _make_room(self, wanted: int) -> None:
        """Let the buffer hold so much from what is unread on, and a good deal more than is unread."""
        unread = self._end - self._start
        size = max(wanted, unread + _BUFFER_BYTES // 4, _BUFFER_BYTES)
        if self._start + size <= len(self._buffer):
            return
        rest = self._buffer[self._start : self._end]
        if size > len(self._buffer):
            self._buffer = bytearray(size)
        self._buffer[:unread] = rest
        self._start, self._end = 0, unread


class Server(AssociationServer):
    """Listens; each connection is handed on in this thread, which takes a millisecond, and served in its own."""

    #: Connections that wait to be accepted: scanners send their studies at the end of the hour.
    request_queue_size = 128

    def service_actions(self) -> None:
        """Leave associations that have ended to Python: to look for them here would hold up whoever knocks."""

    def handle_error(self, _request: Any, _client_address: Any) -> None:
        """A connection that could not be handed on is closed; the others are served."""
        log.exception("a connection could not be taken")
