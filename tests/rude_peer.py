"""A peer that speaks to a port byte by byte, in whatever pieces and order a test wants; it knows no library."""

import socket
import struct
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

from dicom_node.core.received_instance import ReceivedInstance

ABORT, RELEASE_RQ, RELEASE_RP, ASSOCIATE_AC = 7, 5, 6, 2

#: A release request, and an abort by the user.
RELEASE = struct.pack(">BBLL", RELEASE_RQ, 0, 4, 0)
A_ABORT = struct.pack(">BBLBBBB", ABORT, 0, 4, 0, 0, 0, 0)

#: Of the contexts that the peer proposes.
CT_CONTEXT, ECHO_CONTEXT, REFUSED_CONTEXT, STEP_CONTEXT = 1, 3, 5, 7

VERIFICATION = "1.2.840.10008.1.1"
#: Modality Performed Procedure Step.
STEPS = "1.2.840.10008.3.1.2.3.3"
_CONTEXTS = {
    CT_CONTEXT: (CTImageStorage, ExplicitVRLittleEndian),
    ECHO_CONTEXT: (VERIFICATION, "1.2.840.10008.1.2"),
    REFUSED_CONTEXT: ("1.2.3.4", "1.2.840.10008.1.2"),
    STEP_CONTEXT: (STEPS, "1.2.840.10008.1.2"),
}


class RudePeer:
    """One connection."""

    def __init__(self, port: int, seconds: float = 60.0) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=seconds)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def send(self, *pieces: bytes) -> None:
        """Send each piece by itself."""
        for piece in pieces:
            self.socket.sendall(piece)

    def associate(self, maximum_length: int = 16384) -> None:
        """Open an association."""
        self.send(associate_rq(maximum_length))
        kind, _ = self.pdu()
        assert kind == ASSOCIATE_AC

    def pdu(self) -> tuple[int, bytes]:
        """Type and whole bytes of the next PDU; type 0 where the connection has ended."""
        try:
            header = self._read(6)
            return header[0], header + self._read(struct.unpack(">L", header[2:])[0])
        except (EOFError, ConnectionError):
            return 0, b""

    def close(self) -> None:
        """Go without a word."""
        self.socket.close()

    def _read(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            part = self.socket.recv(size - len(data))
            if not part:
                raise EOFError
            data += part
        return data


@contextmanager
def rude_peer(port: int) -> Iterator[RudePeer]:
    """An association with what listens there; its connection is closed at the end."""
    peer = RudePeer(port)
    try:
        peer.associate()
        yield peer
    finally:
        peer.close()


def associate_rq(maximum_length: int = 16384) -> bytes:
    """An association request for the contexts above."""
    body = _item(0x10, b"1.2.840.10008.3.1.1.1")
    for number, (abstract, transfer) in _CONTEXTS.items():
        syntaxes = _item(0x30, abstract.encode()) + _item(0x40, transfer.encode())
        body += _item(0x20, struct.pack(">BBBB", number, 0, 0, 0) + syntaxes)
    body += _item(0x50, _item(0x51, struct.pack(">L", maximum_length)) + _item(0x52, b"1.2.3.9"))
    request = struct.pack(">HH", 1, 0) + b"TRIAGE".ljust(16) + b"RUDE".ljust(16) + bytes(32) + body
    return struct.pack(">BBL", 1, 0, len(request)) + request


def associate_ac(maximum_length: int = 16384) -> bytes:
    """The acceptance of an association request, of its first context in Explicit VR Little Endian."""
    body = _item(0x10, b"1.2.840.10008.3.1.1.1")
    body += _item(0x21, struct.pack(">BBBB", 1, 0, 0, 0) + _item(0x40, ExplicitVRLittleEndian.encode()))
    body += _item(0x50, _item(0x51, struct.pack(">L", maximum_length)) + _item(0x52, b"1.2.3.9"))
    answer = struct.pack(">HH", 1, 0) + b"RUDE".ljust(16) + b"TRIAGE".ljust(16) + bytes(32) + body
    return struct.pack(">BBL", ASSOCIATE_AC, 0, len(answer)) + answer


@contextmanager
def reluctant_reader(bytes_a_second: int) -> Iterator[int]:
    """Listens, accepts one association, and then reads no faster than that, or nothing; its port."""
    done = threading.Event()
    with socket.socket() as listener:
        # So that the kernel takes little in its stead.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        listener.bind(("127.0.0.1", 0))
        listener.listen()

        def serve() -> None:
            accepted, _ = listener.accept()
            with accepted, suppress(OSError):
                accepted.recv(65536)
                accepted.sendall(associate_ac())
                while not done.wait(0.1):
                    accepted.recv(bytes_a_second // 10) if bytes_a_second else None

        serving = threading.Thread(target=serve, daemon=True)
        serving.start()
        try:
            yield int(listener.getsockname()[1])
        finally:
            done.set()
            serving.join(5)


def command(request: ReceivedInstance, *, message_id: int = 1, data_set_type: int = 1) -> bytes:
    """The command of a C-STORE request."""
    return command_set(
        (0x0002, _padded(request.sop_class_uid)),
        (0x0100, struct.pack("<H", 0x0001)),
        (0x0110, struct.pack("<H", message_id)),
        (0x0700, struct.pack("<H", 0)),
        (0x0800, struct.pack("<H", data_set_type)),
        (0x1000, _padded(request.sop_instance_uid)),
    )


def echo_command(message_id: int = 9) -> bytes:
    """The command of a C-ECHO request."""
    return command_set(
        (0x0002, _padded(VERIFICATION)),
        (0x0100, struct.pack("<H", 0x0030)),
        (0x0110, struct.pack("<H", message_id)),
        (0x0800, struct.pack("<H", 0x0101)),
    )


def create_command(sop_instance_uid: str, message_id: int = 1) -> bytes:
    """The command of an N-CREATE request of a performed procedure step."""
    return command_set(
        (0x0002, _padded(STEPS)),
        (0x0100, struct.pack("<H", 0x0140)),
        (0x0110, struct.pack("<H", message_id)),
        (0x0800, struct.pack("<H", 1)),
        (0x1000, _padded(sop_instance_uid)),
    )


def cancel_command(message_id: int = 1) -> bytes:
    """The command of a C-CANCEL request."""
    return command_set(
        (0x0100, struct.pack("<H", 0x0FFF)),
        (0x0120, struct.pack("<H", message_id)),
        (0x0800, struct.pack("<H", 0x0101)),
    )


def command_set(*elements: tuple[int, bytes]) -> bytes:
    """Elements of group 0000, and their length before them."""
    body = b"".join(struct.pack("<HHL", 0, number, len(value)) + value for number, value in elements)
    return struct.pack("<HHLL", 0, 0, 4, len(body)) + body


def pdv(data: bytes, *, is_command: bool = False, is_last: bool = True, context: int = CT_CONTEXT) -> bytes:
    """A presentation data value."""
    return struct.pack(">LBB", len(data) + 2, context, is_command | is_last << 1) + data


def p_data_tf(*values: bytes) -> bytes:
    """A P-DATA-TF PDU of these values."""
    body = b"".join(values)
    return struct.pack(">BBL", 4, 0, len(body)) + body


def fragments(data: bytes, sizes: Sequence[int], *, is_command: bool, context: int = CT_CONTEXT) -> list[bytes]:
    """Values that carry the data in pieces of these sizes, the last one what is left."""
    pieces, at = [], 0
    for size in sizes:
        pieces.append(data[at : at + size])
        at += size
    pieces.append(data[at:])
    last = len(pieces) - 1
    return [pdv(piece, is_command=is_command, is_last=n == last, context=context) for n, piece in enumerate(pieces)]


def whole(request: ReceivedInstance, *, message_id: int = 1) -> bytes:
    """A C-STORE request as most senders write it: a PDU for the command, one for the data set."""
    request.data_set.seek(0)
    data = request.data_set.read()
    return p_data_tf(pdv(command(request, message_id=message_id), is_command=True)) + p_data_tf(pdv(data))


def status_of(pdu: tuple[int, bytes]) -> int:
    """The status of a response that is whole in its PDU."""
    kind, data = pdu
    assert kind == 4, f"PDU of type {kind}"
    at = data.index(struct.pack("<HHL", 0, 0x0900, 2)) + 8
    return int(struct.unpack_from("<H", data, at)[0])


def serves(port: int, request: ReceivedInstance) -> bool:
    """Whether the next association is served, from this request to its release."""
    with rude_peer(port) as peer:
        peer.send(whole(request))
        answer = status_of(peer.pdu())
        peer.send(RELEASE)
        return answer == 0x0000 and peer.pdu()[0] == RELEASE_RP


def _item(kind: int, body: bytes) -> bytes:
    return struct.pack(">BBH", kind, 0, len(body)) + body


def _padded(uid: str) -> bytes:
    value = uid.encode()
    return value + b"\x00" * (len(value) % 2)
