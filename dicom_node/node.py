"""A running node: its parts start in order, are watched, and stop in reverse order; one node holds a data folder."""

import fcntl
import gc
import resource
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from dicom_node.core.errors import SettingsError
from dicom_node.parts import Supervisor
from dicom_node.scp.application_entity import ApplicationEntity

#: How often the parts are looked at.
WATCH_SECONDS = 0.5
SWITCH_SECONDS = 0.001


@dataclass(frozen=True, kw_only=True)
class Node:
    """Parts in the order in which they start, and what to close after they stopped."""

    supervisor: Supervisor
    application_entity: ApplicationEntity
    web_port: Callable[[], int | None]
    close: Callable[[], None]
    #: Mends what an earlier run left, before the first part starts.
    recover: Callable[[], object]

    def run(self, announce: Callable[["Node"], None]) -> None:
        """Run until SIGINT or SIGTERM; the caller's thread watches the parts."""
        # Many threads that each compute for a moment: one that holds the index's write lock must not wait five
        # milliseconds for another that computes.
        sys.setswitchinterval(SWITCH_SECONDS)
        _raise_descriptors()
        ending = threading.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: ending.set())
        try:
            self.recover()
            self.supervisor.start()
            # What stands now stands to the end: to look through it for garbage again and again is in vain.
            gc.freeze()
            announce(self)
            while not ending.wait(WATCH_SECONDS):
                self.supervisor.watch()
        finally:
            self.supervisor.stop()
            self.close()


@contextmanager
def sole_owner(data_dir: Path) -> Iterator[None]:
    """Hold the data folder; SettingsError where another node holds it."""
    data_dir.mkdir(parents=True, exist_ok=True, mode=0o750)
    with (data_dir / "node.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            mend = "stop it, or give this one another data_dir of [node] (--data-dir)"
            raise SettingsError(f"another node uses {data_dir}: {mend}") from error
        yield


def _raise_descriptors() -> None:
    """Let this process have as many file descriptors as it may: associations, pages and files share them."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    # Some systems refuse what they name as their bound.
    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
