"""A TCP connection, whichever side opened it: what we want of it beside what pynetdicom asks of the kernel."""

import socket
import struct

# Only Linux can be told; elsewhere a peer that writes in two pieces waits for its acknowledgement.
_QUICKACK: int | None = getattr(socket, "TCP_QUICKACK", None)


def send_at_once(connection: socket.socket) -> None:
    """Messages are written in two pieces, and the second would wait for the peer's acknowledgement of the first."""
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def acknowledge_at_once(connection: socket.socket) -> None:
    """A peer that writes its messages in two pieces would wait for our acknowledgement of the first: 40 ms each time.

    The kernel forgets the wish after a while (tcp(7), TCP_QUICKACK): tell it again with whatever is sent or read.
    """
    if _QUICKACK is not None:
        try:  # noqa: SIM105 - suppress takes longer than the call
            connection.setsockopt(socket.IPPROTO_TCP, _QUICKACK, 1)
        except OSError:
            pass


def limit_reading(connection: socket.socket, seconds: float) -> None:
    """Let what waits in the kernel for a number of bytes go on with fewer after so long (socket(7), SO_RCVTIMEO)."""
    _limit(connection, socket.SO_RCVTIMEO, seconds)


def limit_sending(connection: socket.socket, seconds: float) -> None:
    """Let a peer that takes nothing for so long make what is being sent fail, instead of holding its sender for ever.

    By the kernel (socket(7), SO_SNDTIMEO): a limit of Python's would hold for reading, too.
    """
    _limit(connection, socket.SO_SNDTIMEO, seconds)


def _limit(connection: socket.socket, option: int, seconds: float) -> None:
    whole, rest = divmod(seconds, 1)
    connection.setsockopt(socket.SOL_SOCKET, option, struct.pack("ll", int(whole), int(rest * 1_000_000)))
