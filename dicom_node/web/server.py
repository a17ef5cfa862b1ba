"""The web server: an application on a port, in a thread of its own."""

import logging
import socket
import threading
from collections.abc import Sequence

import uvicorn
from fastapi import FastAPI

from dicom_node.core.errors import SettingsError
from dicom_node.web.connections import Connections

log = logging.getLogger(__name__)

#: How long an answer in progress may take when the server stops, and how long the server may take to start.
_PATIENCE_SECONDS = 5


class WebServer:
    """Serves an application until it is stopped; port 0 takes any free one."""

    def __init__(
        self,
        application: FastAPI,
        host: str,
        port: int,
        *,
        trusted_proxies: Sequence[str] = (),
        connections: Connections | None = None,
    ) -> None:
        """`trusted_proxies` are addresses whose word is believed on whom they ask for."""
        self._connections = Connections(proxies=frozenset(trusted_proxies)) if connections is None else connections
        self._application = application
        # Streams of an application that has any look at it.
        self._ending: threading.Event = getattr(application.state, "ending", threading.Event())
        self._trusted_proxies = list(trusted_proxies)
        self._host = host
        self._asked_port = port
        self._socket: socket.socket | None = None
        self._server: uvicorn.Server | None = None
        self._thread: threading.Thread | None = None

    @property
    def port(self) -> int:
        """The port it listens on, or the one asked for while it does not."""
        return self._asked_port if self._socket is None else int(self._socket.getsockname()[1])

    @property
    def alive(self) -> bool:
        """Whether it serves."""
        return self._thread is not None and self._thread.is_alive()

    def start(self) -> None:
        """Serve; return when requests are answered, SettingsError when the port is not to be had."""
        self._ending.clear()
        self._socket = self._listen()
        config = uvicorn.Config(
            self._application,
            log_config=None,
            access_log=False,
            server_header=False,
            # Else whoever asks from this machine could name any address as his own.
            proxy_headers=bool(self._trusted_proxies),
            forwarded_allow_ips=self._trusted_proxies,
            lifespan="off",
            http=self._connections.protocol(),
            loop="uvloop",
            # None are served, and they would leave the count.
            ws="none",
            timeout_graceful_shutdown=_PATIENCE_SECONDS,
        )
        self._server = uvicorn.Server(config)
        # An address may hold a patient's name: a search by DICOMweb is one. No level and no handler lets it be logged.
        logging.getLogger("uvicorn.access").disabled = True
        # uvicorn takes signals in a main thread only, so the node keeps its own.
        arguments = {"sockets": [self._socket]}
        self._thread = threading.Thread(target=self._server.run, kwargs=arguments, name="web server", daemon=True)
        self._thread.start()
        self._wait_until_started()
        log.info("web page served", extra={"host": self._host, "port": self.port})

    def stop(self) -> None:
        """Finish the answers in progress and listen no more."""
        self._ending.set()
        if self._server is not None:
            self._server.should_exit = True
        if self._thread is not None:
            self._thread.join(timeout=2 * _PATIENCE_SECONDS)
        if self._socket is not None:
            self._socket.close()
        self._server = self._thread = self._socket = None

    def _listen(self) -> socket.socket:
        family = socket.AF_INET6 if ":" in self._host else socket.AF_INET
        try:
            return socket.create_server((self._host, self._asked_port), family=family, backlog=128)
        except OSError as error:
            raise SettingsError(
                f"the web page cannot listen on {self._host} port {self._asked_port}: {error.strerror}; "
                "choose another [web] port, or stop what uses this one"
            ) from error

    def _wait_until_started(self) -> None:
        waited = threading.Event()
        for _ in range(_PATIENCE_SECONDS * 100):
            if self._server is None or self._server.started or not self.alive:
                return
            waited.wait(0.01)
