"""Syslog as a place for audit messages: over TLS (RFC 5425), TCP (RFC 6587) or UDP (RFC 5426).

It holds nobody up: a thread of its own sends. What a receiver that is away cannot take waits, up to a bound, and is
sent when it is back.
The file of the audit trail has everything in any case.
"""

import logging
import os
import queue
import socket
import ssl
import threading
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from dicom_node.audit import host_name, syslog_line
from dicom_node.core.errors import SettingsError

log = logging.getLogger(__name__)

#: RFC 5425 Section 4.1, and what is usual for the others.
_PORTS = {"tls": 6514, "tcp": 601, "udp": 514}
_TIMEOUT_SECONDS = 10.0
_LONGEST_QUEUE = 10_000
_WAIT_SECONDS = 5.0


@dataclass(frozen=True, kw_only=True)
class SyslogAddress:
    """Where messages go."""

    kind: str
    host: str
    port: int

    @classmethod
    def of(cls, url: str) -> "SyslogAddress":
        """Of tls://host:port, tcp://host:port or udp://host:port; SettingsError for anything else."""
        parts = urlsplit(url)
        if parts.scheme not in _PORTS or not parts.hostname:
            raise SettingsError(f'[access] audit_syslog is "{url}"; write tls://host:6514, tcp://host or udp://host')
        return cls(kind=parts.scheme, host=parts.hostname, port=parts.port or _PORTS[parts.scheme])


class Syslog:
    """Sends messages from a thread of its own, in their order."""

    def __init__(self, address: SyslogAddress, *, authority: Path | None = None) -> None:
        """`authority` is a file with the certificates that the receiver's may be signed by; None: the system's."""
        self._address = address
        self._authority = authority
        self._waiting: queue.Queue[bytes] = queue.Queue(_LONGEST_QUEUE)
        self._ending = threading.Event()
        self._socket: socket.socket | None = None
        self._thread = threading.Thread(target=self._run, name="syslog", daemon=True)

    @property
    def alive(self) -> bool:
        """Whether it sends."""
        return self._thread.is_alive()

    def start(self) -> None:
        """Begin to send."""
        self._thread.start()

    def stop(self) -> None:
        """Send what waits, for a moment, and end."""
        self._ending.set()
        if self._thread.is_alive():
            self._thread.join(_TIMEOUT_SECONDS)

    def write(self, message: str, at: float) -> None:
        """Let a message be sent; OSError when too many wait."""
        line = syslog_line(message, at, host=host_name(), process=os.getpid())
        try:
            self._waiting.put_nowait(line)
        except queue.Full:
            raise OSError("too many audit messages wait for the syslog receiver") from None

    def _run(self) -> None:
        held: bytes | None = None
        while not (self._ending.is_set() and held is None and self._waiting.empty()):
            try:
                held = held or self._waiting.get(timeout=0.2)
            except queue.Empty:
                continue
            try:
                self._send(held)
                held = None
            except OSError as error:
                log.error("the syslog receiver does not take audit messages", extra={"reason": type(error).__name__})
                self._close()
                if self._ending.wait(_WAIT_SECONDS):
                    break
        self._close()

    def _send(self, line: bytes) -> None:
        if self._socket is None:
            self._socket = self._connect()
        # Octet counting: RFC 5425 Section 4.3, RFC 6587 Section 3.4.1.
        self._socket.sendall(line if self._address.kind == "udp" else b"%d %s" % (len(line), line))

    def _connect(self) -> socket.socket:
        where = (self._address.host, self._address.port)
        if self._address.kind == "udp":
            family, *_ = socket.getaddrinfo(*where, type=socket.SOCK_DGRAM)[0]
            opened = socket.socket(family, socket.SOCK_DGRAM)
            opened.connect(where)
            return opened
        opened = socket.create_connection(where, timeout=_TIMEOUT_SECONDS)
        if self._address.kind == "tcp":
            return opened
        context = ssl.create_default_context(cafile=None if self._authority is None else str(self._authority))
        return context.wrap_socket(opened, server_hostname=self._address.host)

    def _close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None
