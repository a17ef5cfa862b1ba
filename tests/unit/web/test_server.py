import http.client
import socket
from pathlib import Path

import pytest

from dicom_node.archive.index import Index
from dicom_node.core.errors import SettingsError
from dicom_node.web.application import build_application
from dicom_node.web.server import WebServer
from tests.populated_index import NOW


@pytest.fixture
def server(tmp_path: Path) -> WebServer:
    """A server over an empty index, not yet started."""
    index = Index.open(f"sqlite:///{tmp_path / 'index.sqlite'}")
    return WebServer(build_application(index, dict, lambda: {"broker": True}, lambda: NOW), "127.0.0.1", 0)


def get(port: int, path: str) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


def test_a_server_answers_when_start_returns_and_is_gone_when_stop_does(server: WebServer) -> None:
    assert not server.alive
    server.start()
    port = server.port
    try:
        assert server.alive
        assert get(port, "/healthz") == (200, b'{"ok":true,"missed":[],"parts":{"broker":true}}')
        assert get(port, "/login")[0] == 200
    finally:
        server.stop()
    assert not server.alive
    with pytest.raises(ConnectionRefusedError):
        get(port, "/healthz")


def test_a_stopped_server_can_start_again(server: WebServer) -> None:
    for _ in range(2):
        server.start()
        try:
            assert get(server.port, "/healthz")[0] == 200
        finally:
            server.stop()


def test_stopping_what_never_started_does_nothing(server: WebServer) -> None:
    server.stop()
    assert not server.alive


def test_a_port_in_use_is_named_with_its_mend(server: WebServer) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        other = WebServer(server._application, "127.0.0.1", port)
        with pytest.raises(SettingsError, match=rf"port {port}.*choose another \[web\] port"):
            other.start()
        assert not other.alive
