"""A sender's side of the wire, over a plain socket: it costs little, and can break off after any byte."""

import socket
import struct
from types import TracebackType
from typing import Self

from dicom_node.scp.p_data import P_DATA_TF, PDU_HEADER, p_data

#: Types of PDUs (PS3.8 Section 9.3.1).
ASSOCIATE_AC, RELEASE_RQ, RELEASE_RP, ABORT = 2, 5, 6, 7

RELEASE = struct.pack(">BBLL", RELEASE_RQ, 0, 4, 0)
ABORTING = struct.pack(">BBLBBBB", ABORT, 0, 4, 0, 0, 0, 0)

_APPLICATION_CONTEXT = b"1.2.840.10008.3.1.1.1"
_CONTEXT_ID = 1
#: Of the data set's fragments.
_FRAGMENT_BYTES = 64 << 10


class Refused(Exception):
    """The other side did not take the association, or ended it."""


class WireSender:
    """One association that stores instances of one SOP class in one transfer syntax."""

    def __init__(
        self, port: int, *, sop_class_uid: str, transfer_syntax_uid: str, ae_title: str, seconds: float = 60.0
    ) -> None:
        """Open it; OSError where nobody listens, Refused where it is not accepted."""
        self._sop_class_uid = sop_class_uid
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=seconds)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            self._socket.sendall(_associate_rq(sop_class_uid, transfer_syntax_uid, ae_title))
            if self._pdu()[0] != ASSOCIATE_AC:
                raise Refused("the association was not accepted")
        except BaseException:  # nobody else can close it
            self._socket.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.close()

    def store(self, sop_instance_uid: str, data_set: bytes) -> int:
        """Send an instance; the status of its answer. OSError or Refused where the association ends before."""
        self._socket.sendall(self.message(sop_instance_uid, data_set))
        kind, pdu = self._pdu()
        if kind != P_DATA_TF:
            raise Refused(f"a PDU of type {kind} came for an answer")
        at = pdu.index(struct.pack("<HHL", 0, 0x0900, 2)) + 8
        return int(struct.unpack_from("<H", pdu, at)[0])

    def message(self, sop_instance_uid: str, data_set: bytes) -> bytes:
        """A C-STORE request, as PDUs."""
        elements = (
            (0x0002, _padded(self._sop_class_uid)),
            (0x0100, struct.pack("<H", 0x0001)),
            (0x0110, struct.pack("<H", 1)),
            (0x0700, struct.pack("<H", 0)),
            (0x0800, struct.pack("<H", 0x0001)),
            (0x1000, _padded(sop_instance_uid)),
        )
        command = b"".join(struct.pack("<HHL", 0, number, len(value)) + value for number, value in elements)
        parts = [p_data(_CONTEXT_ID, struct.pack("<HHLL", 0, 0, 4, len(command)) + command)]
        for at in range(0, len(data_set), _FRAGMENT_BYTES):
            part = data_set[at : at + _FRAGMENT_BYTES]
            control = 2 if at + len(part) == len(data_set) else 0
            parts.append(PDU_HEADER.pack(P_DATA_TF, len(part) + 6))
            parts.append(struct.pack(">LBB", len(part) + 2, _CONTEXT_ID, control) + part)
        return b"".join(parts)

    def send(self, data: bytes) -> None:
        """Any bytes."""
        self._socket.sendall(data)

    def release(self) -> None:
        """End the association in good order."""
        self._socket.sendall(RELEASE)
        self._pdu()

    def _pdu(self) -> tuple[int, bytes]:
        header = self._read(PDU_HEADER.size)
        kind, length = PDU_HEADER.unpack(header)
        return kind, header + self._read(length)

    def _read(self, size: int) -> bytes:
        data = bytearray()
        while len(data) < size:
            part = self._socket.recv(size - len(data))
            if not part:
                raise Refused("the association was ended")
            data += part
        return bytes(data)


def _associate_rq(sop_class_uid: str, transfer_syntax_uid: str, ae_title: str) -> bytes:
    syntaxes = _item(0x30, sop_class_uid.encode()) + _item(0x40, transfer_syntax_uid.encode())
    user = _item(0x51, struct.pack(">L", 16384)) + _item(0x52, b"1.2.3.9")
    body = (
        struct.pack(">HH", 1, 0)
        + b"TRIAGE".ljust(16)
        + ae_title.encode().ljust(16)
        + bytes(32)
        + _item(0x10, _APPLICATION_CONTEXT)
        + _item(0x20, struct.pack(">BBBB", _CONTEXT_ID, 0, 0, 0) + syntaxes)
        + _item(0x50, user)
    )
    return PDU_HEADER.pack(1, len(body)) + body


def _item(kind: int, body: bytes) -> bytes:
    return struct.pack(">BBH", kind, 0, len(body)) + body


def _padded(uid: str) -> bytes:
    value = uid.encode()
    return value + b"\x00" * (len(value) % 2)
