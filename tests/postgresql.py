"""A PostgreSQL of a test's own, from Debian's programs: its folder and its socket go with it."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_PROGRAMS = Path("/usr/lib/postgresql")
#: The server does not run as root; Debian's package makes this user for it.
_USER = "postgres"
#: Nothing of it outlives the test: it need not wait for a disk.
_OPTIONS = "-c listen_addresses= -c fsync=off -c full_page_writes=off -c deadlock_timeout=50ms -c max_connections=60"


def programs() -> Path | None:
    """Where the newest server's programs are; None where there is none."""
    found = [folder for folder in _PROGRAMS.glob("*/bin") if os.access(folder / "initdb", os.X_OK)]
    return max(found, key=lambda folder: float(folder.parent.name), default=None)


@contextmanager
def postgresql(folder: Path) -> Iterator[str]:
    """A server whose programs are in `folder`, until the end of the block; the SQLAlchemy URL of an empty database."""
    # A socket's path is short, and a test's own folder is open to nobody else.
    place = Path(tempfile.mkdtemp(prefix="pg"))
    user = _USER if os.getuid() == 0 else None
    if user is not None:
        shutil.chown(place, user, user)
    data = place / "data"

    def run(*command: str) -> None:
        subprocess.run(command, check=True, cwd=place, user=user, group=user, stdout=subprocess.DEVNULL, timeout=60)

    try:
        run(str(folder / "initdb"), "-D", str(data), "-U", "node", "--auth=trust", "--no-sync", "--encoding=UTF8")
        start = ["start", "-w", "-l", str(place / "log"), "-o", f"{_OPTIONS} -k {place}"]
        run(str(folder / "pg_ctl"), "-D", str(data), *start)
        try:
            yield f"postgresql+psycopg://node@/postgres?host={place}"
        finally:
            run(str(folder / "pg_ctl"), "-D", str(data), "stop", "-m", "immediate")
    finally:
        shutil.rmtree(place)
