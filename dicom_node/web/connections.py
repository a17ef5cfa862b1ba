"""Connections to the web server: so many in all and from one address, and each must say soon what it asks.

The Storage SCP shares this process's file descriptors: whoever holds connections open and says nothing on them must not
take those that a study comes in by.
"""

import asyncio
import logging
import socket
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

log = logging.getLogger(__name__)

#: Of a head, of what stands between chunks of a body and of what stands behind them: the parser itself takes any.
LONGEST_HEAD_BYTES = 64 << 10

_BODY_FOLLOWS = frozenset({b"content-length", b"transfer-encoding"})

#: Requests behind one that is being answered; browsers send none, and each is kept in memory.
_MOST_AHEAD = 16


@dataclass(kw_only=True)
class Connections:
    """The connections of one server, which counts them in its own thread alone."""

    #: In all, and from one address; what comes beyond is closed at once.
    most: int = 400
    most_of_address: int = 100
    #: How long a request's head may take from the connection, or from the answer before it, on.
    head_seconds: float = 10.0
    #: Proxies bring everybody by one address: for them the bound of all holds alone.
    proxies: Collection[str] = ()
    _open: Counter[str] = field(default_factory=Counter)

    def admit(self, address: str) -> bool:
        """Count a connection, where there is room for one of this address."""
        full = self._open.total() >= self.most
        if full or (address not in self.proxies and self._open[address] >= self.most_of_address):
            return False
        self._open[address] += 1
        return True

    def ended(self, address: str) -> None:
        """A connection that was admitted is over."""
        self._open[address] -= 1
        if not self._open[address]:
            del self._open[address]

    def protocol(self) -> type[asyncio.Protocol]:
        """What the server speaks on each connection."""
        return type("BoundedProtocol", (_Bounded,), {"bounds": self})


class _Bounded(HttpToolsProtocol):
    """HTTP/1.1 on a connection that was counted, by a request whose head is short and comes in time."""

    bounds: Connections

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._admitted: str | None = None
        self._patience: asyncio.TimerHandle | None = None
        #: Bytes since the last that made a head whole or belonged to a body.
        self._unread = 0
        self._in_body = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as the class above
        super().connection_made(transport)
        address = self.client[0] if self.client else ""
        if not self.bounds.admit(address):
            # One line a connection would fill the disk for whoever asks.
            log.debug("a connection was refused: there are too many", extra={"address": address})
            transport.abort()
            return
        self._admitted = address
        # Else the end of a short answer waits for the client to acknowledge its beginning, which it does 40 ms later.
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        if self._patience is not None:
            self._patience.cancel()
        if self._admitted is not None:
            self.bounds.ended(self._admitted)
            self._admitted = None

    def data_received(self, data: bytes) -> None:
        self._unread += len(data)
        super().data_received(data)
        if self._unread > LONGEST_HEAD_BYTES and not self.transport.is_closing():
            self.send_400_response("The request's head is too long.")

    def on_header(self, name: bytes, value: bytes) -> None:
        # What stands behind a body is no header: whoever asks was looked at by those before it.
        if not self._in_body:
            super().on_header(name, value)

    def on_message_begin(self) -> None:
        self._in_body = False
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        self._unread, self._in_body = 0, True
        # What is raised here is answered with 400.
        if len(self.pipeline) >= _MOST_AHEAD:
            raise ValueError("too many requests ahead of their answers")
        if len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers) > LONGEST_HEAD_BYTES:
            raise ValueError("the head is too long")
        hosts = sum(name == b"host" for name, _ in self.headers)
        if hosts > 1 or (not hosts and self.parser.get_http_version() != "1.0"):
            # RFC 9112 Section 3.2
            raise ValueError("a request names one host")
        upgrades = self.parser.should_upgrade()
        if upgrades and any(name in _BODY_FOLLOWS and value != b"0" for name, value in self.headers):
            # The parser would take the body for the next request.
            raise ValueError("a request with a body offers no upgrade")
        super().on_headers_complete()
        if upgrades:
            # Nor does it read what comes behind such a head as HTTP.
            self.cycle.keep_alive = False

    def on_body(self, body: bytes) -> None:
        self._unread = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._unread = 0
        super().on_message_complete()

    def on_response_complete(self) -> None:
        self._await_head()
        super().on_response_complete()

    def _await_head(self) -> None:
        if self._patience is not None:
            self._patience.cancel()
        self._patience = self.loop.call_later(self.bounds.head_seconds, self._head_is_late)

    def _head_is_late(self) -> None:
        if self.cycle is None or self.cycle.response_complete:
            self.transport.abort()
