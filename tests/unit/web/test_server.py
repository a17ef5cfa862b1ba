import http.client
import socket
import subprocess
import sys
import threading
import time
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest
from fastapi import FastAPI, Request, Response

from dicom_node.archive.index import Index
from dicom_node.core.errors import SettingsError
from dicom_node.web.application import build_application
from dicom_node.web.connections import LONGEST_HEAD_BYTES, Connections
from dicom_node.web.server import WebServer
from tests.populated_index import NOW
from tests.visitors import Person, session


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


def test_silent_connections_are_bounded_closed_in_time_and_keep_nobody_out(server: WebServer) -> None:
    server._connections = Connections(most=40, most_of_address=30, head_seconds=1.0)
    server.start()
    with ExitStack() as stack:
        try:
            silent = []
            for number in range(300):
                one = stack.enter_context(socket.create_connection(("127.0.0.1", server.port), timeout=20))
                # Some say nothing, some never come to an end of their head.
                with suppress(ConnectionError):
                    one.sendall(b"GET /healthz HTTP/1.1\r\nX: " if number % 2 else b"")
                silent.append(one)
            assert [one for one in silent[30:] if not _closed(one)] == []
            assert server._connections._open["127.0.0.1"] <= 30
            deadline = time.monotonic() + 20
            while server._connections._open and time.monotonic() < deadline:
                time.sleep(0.05)
            assert [one for one in silent if not _closed(one)] == []
            assert get(server.port, "/healthz")[0] == 200
        finally:
            server.stop()


def test_a_head_that_comes_in_pieces_behind_an_answer_must_come_in_time_too(server: WebServer) -> None:
    server._connections = Connections(head_seconds=1.0)
    server.start()
    try:
        with socket.create_connection(("127.0.0.1", server.port), timeout=20) as one:
            one.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
            assert b" 200 " in one.recv(4096)
            one.sendall(b"GET /healthz HTTP/1.1\r\n")
            assert _closed(one)
    finally:
        server.stop()


def told(port: int, request: bytes) -> bytes:
    """Everything that a server answers to these bytes until it closes the connection, or falls silent."""
    with socket.create_connection(("127.0.0.1", port), timeout=2) as one:
        with suppress(ConnectionError):
            one.sendall(request)
        answer = b""
        with suppress(ConnectionError, TimeoutError):
            while piece := one.recv(1 << 16):
                answer += piece
        return answer


HEAD = b"GET /healthz HTTP/1.1\r\nHost: x\r\n"
POST = b"POST /login HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
LONG = b"a" * (LONGEST_HEAD_BYTES * 20)


@pytest.mark.parametrize(
    "request_bytes",
    [
        HEAD + b"X: " + LONG + b"\r\n\r\n",
        HEAD + b"X: a\r\n" * 20_000 + b"\r\n",
        b"GET /" + LONG + b" HTTP/1.1\r\nHost: x\r\n\r\n",
        # Between chunks, and behind them.
        POST + b"1;" + LONG,
        POST + b"1\r\nx\r\n0\r\nX: " + LONG,
    ],
)
def test_a_head_without_an_end_is_refused_before_it_fills_the_memory(server: WebServer, request_bytes: bytes) -> None:
    server.start()
    try:
        assert told(server.port, request_bytes).rpartition(b"HTTP/1.1 ")[2].startswith(b"400 ")
        assert get(server.port, "/healthz")[0] == 200
    finally:
        server.stop()


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"GET /healthz HTTP/1.1\r\n\r\n",
        HEAD + b"Host: y\r\n\r\n",
        HEAD + b"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        HEAD + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\nab",
        HEAD + b" folded: x\r\n\r\n",
        HEAD + b"X: a\x00b\r\n\r\n",
        b"nonsense\r\n\r\n",
    ],
)
def test_a_request_that_two_servers_might_read_in_two_ways_is_refused(server: WebServer, request_bytes: bytes) -> None:
    server.start()
    try:
        assert told(server.port, request_bytes).startswith(b"HTTP/1.1 400 ")
    finally:
        server.stop()


def test_what_stands_behind_a_body_becomes_no_header() -> None:
    seen: list[dict[str, str]] = []
    application = FastAPI()

    @application.post("/")
    async def take(request: Request) -> Response:
        await request.body()
        seen.append({name.decode(): value.decode() for name, value in request.scope["headers"]})
        return Response()

    server = WebServer(application, "127.0.0.1", 0)
    server.start()
    try:
        body = b"1\r\nx\r\n0\r\nCookie: session=stolen\r\n\r\n"
        head = b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
        assert b" 200 " in told(server.port, head + body)
    finally:
        server.stop()
    assert [sorted(headers) for headers in seen] == [["host", "transfer-encoding"]]


UPGRADE = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n"
NEXT = HEAD + b"\r\n"


@pytest.mark.parametrize(
    "follows", [b"Content-Length: %d\r\n\r\n" % len(NEXT) + NEXT, b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"]
)
def test_a_body_behind_an_offer_to_upgrade_is_never_read_as_the_next_request(server: WebServer, follows: bytes) -> None:
    server.start()
    try:
        answer = told(server.port, b"POST /login HTTP/1.1\r\nHost: x\r\n" + UPGRADE + follows)
        assert answer.startswith(b"HTTP/1.1 400 ")
        assert answer.count(b"HTTP/1.1 ") == 1
    finally:
        server.stop()


def test_an_offer_to_upgrade_is_answered_as_without_it_and_is_the_connections_last(server: WebServer) -> None:
    server.start()
    try:
        answer = told(server.port, HEAD + b"Content-Length: 0\r\n" + UPGRADE + b"\r\n" + NEXT)
        assert answer.startswith(b"HTTP/1.1 200 ")
        assert answer.count(b"HTTP/1.1 ") == 1
        assert b"connection: close" in answer.lower()
    finally:
        server.stop()


def test_requests_ahead_of_their_answers_are_bounded(server: WebServer) -> None:
    server.start()
    try:
        few = told(server.port, (HEAD + b"\r\n") * 10)
        assert few.count(b"HTTP/1.1 200 ") == 10
        many = told(server.port, (HEAD + b"\r\n") * 5000)
        assert many.count(b"HTTP/1.1 200 ") < 100
        assert get(server.port, "/healthz")[0] == 200
    finally:
        server.stop()


def test_one_address_leaves_room_for_others_and_a_proxy_is_everybody() -> None:
    connections = Connections(most=5, most_of_address=2, proxies={"10.0.0.9"})
    assert [connections.admit("10.0.0.1") for _ in range(3)] == [True, True, False]
    assert [connections.admit("10.0.0.9") for _ in range(4)] == [True, True, True, False]
    assert not connections.admit("10.0.0.2")
    connections.ended("10.0.0.9")
    assert connections.admit("10.0.0.2")


def _closed(connection: socket.socket) -> bool:
    """Whether the other end closes it before a long time is over."""
    try:
        while connection.recv(1000):
            pass
        return True
    except TimeoutError:
        return False
    except ConnectionError:
        return True


def test_a_port_in_use_is_named_with_its_mend(server: WebServer) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        other = WebServer(server._application, "127.0.0.1", port)
        with pytest.raises(SettingsError, match=rf"port {port}.*choose another \[web\] port"):
            other.start()
        assert not other.alive


def test_health_waits_for_no_thread(tmp_path: Path) -> None:
    """Pages that wait for something must not have a watcher take the node for dead."""
    index, going_on = Index.open(f"sqlite:///{tmp_path / 'index.sqlite'}"), threading.Event()
    waiting = threading.Semaphore(0)

    def lengths() -> None:
        waiting.release()
        going_on.wait(60)

    server = WebServer(build_application(index, lengths, lambda: {"broker": True}, lambda: NOW), "127.0.0.1", 0)
    server.start()
    person = Person(server.port, session(index))
    threads = [threading.Thread(target=person.get, args=("/overview",), daemon=True) for _ in range(60)]
    try:
        for thread in threads:
            thread.start()
        # As many as the framework has threads.
        assert all(waiting.acquire(timeout=30) for _ in range(40))
        began = time.monotonic()
        assert person.get("/healthz").status == 200
        assert time.monotonic() - began < 10
    finally:
        going_on.set()
        for thread in threads:
            thread.join(30)
        server.stop()
        index.close()


def test_a_node_takes_every_descriptor_that_it_may_have() -> None:
    script = (
        "import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (200, 300))\n"
        "from dicom_node.node import _raise_descriptors\n"
        "_raise_descriptors(); print(resource.getrlimit(resource.RLIMIT_NOFILE))"
    )
    told = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "(300, 300)"
