"""A client that costs little: one connection, one request after the other, an answer received into the same memory.

Python's own client takes about as long to read an answer's head as a quick server to make the answer, and so hides what
is measured. This one reads of a head what it must and of a body nothing.
"""

import socket
from dataclasses import dataclass, field

#: Of an answer, at first; it grows.
_BYTES = 1 << 20

_HEAD_END = b"\r\n\r\n"


class ConnectionEnded(ConnectionError):
    """The server closed the connection before an answer, or within it."""


@dataclass
class Client:
    """One that stays connected to a port of this machine, and connects again when it is told to."""

    port: int
    token: str = ""
    _socket: socket.socket | None = None
    _held: bytearray = field(default_factory=lambda: bytearray(_BYTES))
    _filled: int = 0

    def ask(self, path: str, accept: str) -> tuple[int, int]:
        """Status and bytes of the body's answer; ConnectionEnded where there is none."""
        connection = self._socket or self._connected()
        token = f"Authorization: Bearer {self.token}\r\n" if self.token else ""
        head = f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{self.port}\r\nAccept: {accept}\r\n{token}\r\n"
        self._filled = 0
        try:
            connection.sendall(head.encode())
            start = self._until(_HEAD_END, 0) + len(_HEAD_END)
            status, headers = _head(bytes(self._held[:start]))
            if headers.get("transfer-encoding", "").lower() == "chunked":
                size = self._chunks(start)
            elif status == 204 or "content-length" in headers:
                size = int(headers.get("content-length", 0))
                self._fill(start + size)
            else:
                size = self._rest(start)
                headers["connection"] = "close"
        except OSError as error:
            self.close()
            raise ConnectionEnded("the server closed the connection") from error
        if headers.get("connection", "").lower() == "close":
            self.close()
        return status, size

    def body(self, size: int) -> bytes:
        """The end of what was received last, which is its body where it came in one piece."""
        return bytes(self._held[self._filled - size : self._filled])

    def close(self) -> None:
        """Connect no more."""
        if self._socket is not None:
            self._socket.close()
        self._socket = None

    def _connected(self) -> socket.socket:
        self._socket = socket.create_connection(("127.0.0.1", self.port), timeout=600)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return self._socket

    def _receive(self) -> int:
        if self._filled == len(self._held):
            self._held += bytes(len(self._held))
        assert self._socket is not None, "an answer is received over a connection"
        count = self._socket.recv_into(memoryview(self._held)[self._filled :])
        self._filled += count
        return count

    def _fill(self, end: int) -> None:
        while self._filled < end:
            if not self._receive():
                raise ConnectionEnded("the answer ended too soon")

    def _until(self, mark: bytes, start: int) -> int:
        """Where the mark stands, at `start` or behind it."""
        while (at := self._held.find(mark, start, self._filled)) < 0:
            if not self._receive():
                raise ConnectionEnded("the answer ended too soon")
        return at

    def _chunks(self, at: int) -> int:
        size = 0
        while True:
            end = self._until(b"\r\n", at)
            count = int(bytes(self._held[at:end]).partition(b";")[0], 16)
            at = end + 2 + count + 2
            self._fill(at)
            size += count
            if not count:
                return size

    def _rest(self, start: int) -> int:
        while self._receive():
            pass
        return self._filled - start


def _head(data: bytes) -> tuple[int, dict[str, str]]:
    status, *lines = data.decode("latin-1").split("\r\n")
    pairs = (line.partition(":") for line in lines if line)
    return int(status.split(" ")[1]), {name.lower(): value.strip() for name, _, value in pairs}
