import shutil
import socket
import sys
import threading
from pathlib import Path

import pytest

from dicom_node import broker
from dicom_node.broker import OwnRedis, answers, broker_url, own_redis, redis_program, socket_path
from dicom_node.core.errors import SettingsError


def test_the_socket_lies_in_the_data_folder_where_the_kernel_can_name_it(tmp_path: Path) -> None:
    folder = Path("/srv/node")
    assert socket_path(folder) == folder / "redis.sock"
    assert broker_url(socket_path(folder)) == "redis+socket:///srv/node/redis.sock"


@pytest.mark.parametrize("name", ["d" * 120, "ä" * 55])
def test_a_socket_whose_path_would_be_too_long_gets_a_short_one_of_its_own(tmp_path: Path, name: str) -> None:
    path = socket_path(tmp_path / name)
    try:
        assert len(str(path).encode()) <= 100
        assert path.parent.stat().st_mode & 0o077 == 0, "others could reach the queue"
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(str(path))
    finally:
        shutil.rmtree(path.parent)


def test_nothing_answers_where_no_socket_is(tmp_path: Path) -> None:
    assert not answers(tmp_path / "none.sock")


@pytest.mark.parametrize(
    ("reply", "there"), [(b"+PONG\r\n", True), (b"-LOADING Redis is loading\r\n", False), (b"", False)]
)
def test_only_a_pong_is_an_answer(reply: bytes, there: bool) -> None:
    path = socket_path(Path("x" * 120))
    asked = []

    def serve(server: socket.socket) -> None:
        connection, _ = server.accept()
        with connection:
            asked.append(connection.recv(64))
            connection.sendall(reply)

    try:
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(str(path))
            server.listen()
            thread = threading.Thread(target=serve, args=(server,))
            thread.start()
            assert answers(path) is there
            thread.join(10)
    finally:
        shutil.rmtree(path.parent)
    assert asked == [b"PING\r\n"]


def test_our_redis_listens_on_no_port_and_keeps_nothing_on_disk(tmp_path: Path) -> None:
    command = own_redis(tmp_path / "redis.sock")._command
    options = dict(zip(command[1::2], command[2::2], strict=True))
    assert (options["--port"], options["--unixsocketperm"], options["--save"]) == ("0", "700", "")
    assert (options["--appendonly"], options["--maxmemory-policy"]) == ("no", "noeviction")


def test_without_any_redis_the_mend_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(broker, "find_spec", lambda _name: None)
    with pytest.raises(
        SettingsError, match=rf"no redis-server was found for {sys.platform}: install .+ or set broker\.url"
    ):
        redis_program()


def test_our_redis_as_a_part_looks_for_its_program_at_each_start(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(broker, "find_spec", lambda _name: None)
    path = socket_path(Path("x" * 120))
    part = OwnRedis(path)
    assert not part.alive()
    part.stop()
    try:
        with monkeypatch.context() as nowhere:
            nowhere.setenv("PATH", str(tmp_path))
            with pytest.raises(SettingsError, match="no redis-server was found"):
                part.start()
            assert not part.alive()
        if shutil.which("redis-server") is None:
            pytest.skip("not checked: redis-server is not installed")
        part.start()
        assert part.alive()
        assert answers(path)
    finally:
        part.stop()
        shutil.rmtree(path.parent)
    assert not part.alive()


def test_a_redis_on_the_path_goes_before_the_one_that_is_carried(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    program = tmp_path / "redis-server"
    program.write_text("#!/bin/sh\n", encoding="ascii")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert redis_program() == str(program)
