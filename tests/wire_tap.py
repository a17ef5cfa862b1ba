"""A tap in the wire: what a sender sent of C-STORE requests, byte for byte, on its way to a receiver."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from dicom_node.scp.c_store import read_store_request
from dicom_node.scp.p_data import P_DATA_TF, PDU_HEADER, Cutter


class Tap:
    """Hands on the connections that come to its port, and remembers what their requestors sent."""

    def __init__(self, receiver_port: int) -> None:
        self._receiver_port = receiver_port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._streams: list[bytearray] = []
        self.port = int(self._listener.getsockname()[1])

    def serve(self) -> None:
        """One connection after the other, until the listener is closed."""
        with suppress(OSError):
            while True:
                sender, _ = self._listener.accept()
                stream = bytearray()
                self._streams.append(stream)
                receiver = socket.create_connection(("127.0.0.1", self._receiver_port))
                back = threading.Thread(target=_hand_on, args=(receiver, sender), daemon=True)
                back.start()
                _hand_on(sender, receiver, stream)
                back.join(10)
                sender.close()
                receiver.close()

    def close(self) -> None:
        """Take no more connections."""
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def data_sets(self) -> Iterator[tuple[str, bytes]]:
        """SOP Instance UID and encoded data set of each C-STORE request."""
        for stream in self._streams:
            command, data, uid = bytearray(), bytearray(), ""
            for is_command, is_end, piece in _pieces(bytes(stream)):
                (command if is_command else data).extend(piece)
                if is_end and is_command:
                    request = read_store_request(bytes(command))
                    uid = "" if request is None else request.sop_instance_uid
                    command.clear()
                elif is_end:
                    yield uid, bytes(data)
                    data.clear()


@contextmanager
def tapped(receiver_port: int) -> Iterator[Tap]:
    """A tap before this port."""
    tap = Tap(receiver_port)
    serving = threading.Thread(target=tap.serve, daemon=True)
    serving.start()
    try:
        yield tap
    finally:
        tap.close()
        serving.join(10)


def _hand_on(source: socket.socket, target: socket.socket, stream: bytearray | None = None) -> None:
    with suppress(OSError):
        while part := source.recv(65536):
            if stream is not None:
                stream += part
            target.sendall(part)
        target.shutdown(socket.SHUT_WR)


def _pieces(stream: bytes) -> Iterator[tuple[bool, bool, bytes]]:
    """Fragments of messages: whether each is of a command, whether it ends it or its data set, and its bytes."""
    at = 0
    while at + PDU_HEADER.size <= len(stream):
        kind, length = PDU_HEADER.unpack_from(stream, at)
        pdu, cutter = memoryview(stream)[at : at + PDU_HEADER.size + length], Cutter()
        at += len(pdu)
        while kind == P_DATA_TF and len(pdu):
            used, piece = cutter.cut(pdu)
            pdu = pdu[used:]
            if piece is not None:
                yield piece.is_command, piece.is_end, bytes(piece.data)
