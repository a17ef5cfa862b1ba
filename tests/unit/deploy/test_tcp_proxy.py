"""The proxy forwards what it should, and breaks what it should."""

import socket
import threading
from collections.abc import Iterator
from contextlib import closing

import pytest

from deploy.tcp_proxy import TcpProxy

PATIENCE_SECONDS = 5.0


@pytest.fixture
def echo_port() -> Iterator[int]:
    """A server that says back what it is told, until the other side ends."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve(connection: socket.socket) -> None:
        with connection:
            try:
                while data := connection.recv(4096):
                    connection.sendall(data)
            except OSError:
                return

    def accept() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=serve, args=(connection,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    with closing(listener):
        yield int(listener.getsockname()[1])


@pytest.fixture
def proxy(echo_port: int) -> Iterator[TcpProxy]:
    """A proxy before that server."""
    proxy = TcpProxy(echo_port)
    proxy.start()
    yield proxy
    proxy.stop()


def connected(proxy: TcpProxy, seconds: float = PATIENCE_SECONDS) -> socket.socket:
    """A connection to the proxy."""
    return socket.create_connection(("127.0.0.1", proxy.port), timeout=seconds)


def received(connection: socket.socket, count: int) -> bytes:
    """So many bytes, or fewer where the connection ends."""
    data = b""
    while len(data) < count and (more := connection.recv(count - len(data))):
        data += more
    return data


def test_a_large_message_passes_whole_both_ways(proxy: TcpProxy) -> None:
    message = bytes(range(256)) * 4096
    with connected(proxy) as connection:
        sender = threading.Thread(target=connection.sendall, args=(message,))
        sender.start()
        assert received(connection, len(message)) == message
        sender.join()


def test_the_end_of_one_direction_is_passed_on_after_its_last_byte(proxy: TcpProxy) -> None:
    with connected(proxy) as connection:
        connection.sendall(b"the last word")
        connection.shutdown(socket.SHUT_WR)
        assert received(connection, 100) == b"the last word"


def test_a_cut_resets_every_open_connection(proxy: TcpProxy) -> None:
    with connected(proxy) as one, connected(proxy) as other:
        for connection in (one, other):
            connection.sendall(b"x")
            assert received(connection, 1) == b"x"
        assert proxy.cut() == 2
        for connection in (one, other):
            with pytest.raises(ConnectionResetError):
                connection.recv(1)


def test_an_announced_cut_comes_within_its_bytes_and_only_once(proxy: TcpProxy) -> None:
    done = proxy.cut_after(10)
    with connected(proxy) as connection:
        connection.sendall(b"1234")
        assert received(connection, 4) == b"1234"
        assert not done.is_set()
        connection.sendall(b"567890")
        with pytest.raises(ConnectionResetError):
            connection.recv(1)
        assert done.wait(PATIENCE_SECONDS)
    with connected(proxy) as connection:
        connection.sendall(b"x" * 100)
        assert received(connection, 100) == b"x" * 100


def test_two_announced_cuts_both_come_and_a_spared_one_does_not(proxy: TcpProxy) -> None:
    first, second = proxy.cut_after(1), proxy.cut_after(5)
    for done in (first, second):
        with connected(proxy) as connection:
            connection.sendall(b"1234")
            with pytest.raises(ConnectionResetError):
                connection.recv(1)
        assert done.wait(PATIENCE_SECONDS)
    third = proxy.cut_after(1)
    proxy.spare()
    with connected(proxy) as connection:
        connection.sendall(b"x")
        assert received(connection, 1) == b"x"
    assert not third.is_set()


def test_stalled_bytes_arrive_when_it_is_healed(proxy: TcpProxy) -> None:
    with connected(proxy, seconds=0.2) as connection:
        connection.sendall(b"a")
        assert received(connection, 1) == b"a"
        proxy.stall()
        connection.sendall(b"b")
        with pytest.raises(TimeoutError):
            connection.recv(1)
        proxy.heal()
        connection.settimeout(PATIENCE_SECONDS)
        assert received(connection, 1) == b"b"


def test_it_refuses_until_it_is_healed(proxy: TcpProxy) -> None:
    proxy.refuse()
    with pytest.raises(ConnectionResetError), connected(proxy) as connection:
        connection.recv(1)
    proxy.heal()
    with connected(proxy) as connection:
        connection.sendall(b"x")
        assert received(connection, 1) == b"x"


def test_where_nobody_listens_behind_it_a_connection_ends(proxy: TcpProxy) -> None:
    lonely = TcpProxy(1)
    lonely.start()
    with connected(lonely) as connection:
        assert connection.recv(1) == b""
    lonely.stop()
