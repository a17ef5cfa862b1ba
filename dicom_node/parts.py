"""The parts of a running node: child processes and periodic work, started in order, watched, stopped in reverse."""

import errno
import logging
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from typing import Protocol

from dicom_node.core.errors import NodeError

log = logging.getLogger(__name__)


class Part(Protocol):
    """Something that runs beside the others."""

    name: str

    def start(self) -> None:
        """Begin; return when it can be relied on."""

    def alive(self) -> bool:
        """Whether it still does its work."""

    def stop(self) -> None:
        """End, and return when it has ended."""


class Served:
    """A server object of this process as a part."""

    def __init__(
        self, name: str, start: Callable[[], None], alive: Callable[[], bool], stop: Callable[[], None]
    ) -> None:
        self.name = name
        self._start, self._alive, self._stop = start, alive, stop

    def start(self) -> None:
        """Begin to serve."""
        self._start()

    def alive(self) -> bool:
        """Whether it still serves."""
        return self._alive()

    def stop(self) -> None:
        """Serve no more."""
        self._stop()


class Periodic:
    """Work that is done again and again in a thread of its own; one failed round does not end it.

    The interval is the longest that anything waits; who knows that there is work wakes it sooner.
    """

    #: How long it rests after a round that failed, before it waits for the next.
    REST_SECONDS = 5.0

    def __init__(self, name: str, step: Callable[[], None], interval_seconds: float) -> None:
        self.name = name
        self._step = step
        self._interval = interval_seconds
        self._ending = threading.Event()
        self._woken = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin with the first round."""
        self._ending.clear()
        self._thread = threading.Thread(target=self._run, name=self.name, daemon=True)
        self._thread.start()

    def alive(self) -> bool:
        """Whether rounds still come."""
        return self._thread is not None and self._thread.is_alive()

    def stop(self) -> None:
        """Let the round in progress finish, and no other begin."""
        self._ending.set()
        self._woken.set()
        if self._thread is not None:
            self._thread.join(timeout=60)

    def wake(self) -> None:
        """Begin the next round at once, or after the one in progress; from any thread."""
        self._woken.set()

    def _run(self) -> None:
        while True:
            # Before the round: what is told while it lasts is not missed by the next. And before the question: a stop
            # wakes, too.
            self._woken.clear()
            if self._ending.is_set():
                return
            try:
                self._step()
            # The rim of the thread: a busy database, a full disk, or a defect. The next round tries again, for whatever
            # went wrong with one study, the thread serves all others too.
            except Exception as error:
                log.error(
                    "a round of work failed", extra={"part": self.name, "error": type(error).__name__}, exc_info=True
                )
                self._ending.wait(self.REST_SECONDS)
            self._woken.wait(self._interval)


#: Becomes the program it is given, once the kernel knows that it must end with the process that started it: also when
#: that one is killed and can stop nothing. The signal follows the death of the starting *thread* (prctl(2),
#: PR_SET_PDEATHSIG = 1), which is the supervisor's: the node's main thread, that lives as long as the node. It may come
#: several times: the child of a thread that is killed becomes that of another, which is killed next.
_LAUNCHER = """
import ctypes, os, signal, sys
ctypes.CDLL(None).prctl(1, signal.SIGTERM, 0, 0, 0)
if os.getppid() != int(sys.argv[1]):
    sys.exit(1)
os.execvp(sys.argv[2], sys.argv[2:])
"""


def _launched(command: Sequence[str]) -> list[str]:
    """The command by way of the launcher, where there is such a kernel."""
    if not sys.platform.startswith("linux"):
        return list(command)
    # Without the user's and the site's modules: the launcher needs none, and is sooner gone.
    return [sys.executable, "-I", "-S", "-c", _LAUNCHER, str(os.getpid()), *command]


class ChildProcess:
    """A program of its own, in its own process group, that ends with us; start it from a thread that lives as long."""

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        *,
        environment: Mapping[str, str] | None = None,
        ready: Callable[[], bool] = lambda: True,
        ready_seconds: float = 30.0,
        stop_seconds: float = 20.0,
        on_exit: Callable[[int], None] = lambda _pid: None,
    ) -> None:
        self.name = name
        self._command = list(command)
        self._environment = dict(os.environ) | dict(environment or {})
        self._ready, self._ready_seconds, self._stop_seconds = ready, ready_seconds, stop_seconds
        self._on_exit = on_exit
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        """The process number, while there is one."""
        return self._process.pid if self._process is not None else None

    def start(self) -> None:
        """Start the program and wait until it is ready; NodeError when it ends or is silent too long."""
        if self._process is not None:
            self._on_exit(self._process.pid)
        if shutil.which(self._command[0], path=self._environment.get("PATH")) is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), self._command[0])
        # The launcher becomes the program, so that the process number is the program's.
        self._process = subprocess.Popen(_launched(self._command), env=self._environment, start_new_session=True)
        until = time.monotonic() + self._ready_seconds
        while not self._ready():
            if self._process.poll() is not None:
                raise NodeError(f"{self.name} ended with status {self._process.returncode} while it started")
            if time.monotonic() > until:
                self.stop()
                raise NodeError(f"{self.name} was not ready within {self._ready_seconds:.0f} s")
            time.sleep(0.05)

    def alive(self) -> bool:
        """Whether the process runs."""
        return self._process is not None and self._process.poll() is None

    def stop(self) -> None:
        """Ask it to end; after a while, make it."""
        if self._process is None:
            return
        self._signal(signal.SIGTERM)
        try:
            self._process.wait(self._stop_seconds)
        except subprocess.TimeoutExpired:
            log.warning("a part did not end when asked and was killed", extra={"part": self.name})
            self._signal(signal.SIGKILL)
            self._process.wait()
        # What the program itself started may have outlived it.
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._on_exit(self._process.pid)
        self._process = None

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None and self._process.poll() is None:
            os.killpg(self._process.pid, number)


class Supervisor:
    """Starts parts in order, starts again the ones that die, and stops all in reverse order."""

    #: Seconds before the second start of a part that keeps dying soon after its start; doubles up to the last.
    FIRST_WAIT, LAST_WAIT = 1.0, 60.0

    #: A part that lived for so many seconds did start well: its next death is again a first one.
    SETTLED_AFTER = 10.0

    def __init__(
        self,
        parts: Sequence[Part],
        clock: Callable[[], float] = time.monotonic,
        *,
        dispensable: Collection[str] = (),
    ) -> None:
        """`dispensable` names parts that the others can do without: one that cannot start is tried again later."""
        self._parts = list(parts)
        self._dispensable = frozenset(dispensable)
        self._clock = clock
        self._started: list[Part] = []
        self._deaths: dict[str, int] = {}
        #: When each was last started, or could not be.
        self._tried_at: dict[str, float] = {}
        self._next_start: dict[str, float] = {}

    def start(self) -> None:
        """Start every part, or none: when one cannot start, those before it are stopped and its error is raised.

        Only a dispensable one may begin later, as one that died.
        """
        try:
            for part in self._parts:
                self._begin(part)
                self._started.append(part)
        except BaseException:  # whatever the reason, also Ctrl-C: nothing may be left running
            self.stop()
            raise

    def health(self) -> dict[str, bool]:
        """Whether each part does its work."""
        return {part.name: part.alive() for part in self._parts}

    def watch(self) -> None:
        """Start again what has died; a part that keeps dying soon after its start waits longer each time."""
        for part in self._started:
            if part.alive():
                continue
            now = self._clock()
            if part.name not in self._next_start:
                settled = now - self._tried_at[part.name] >= self.SETTLED_AFTER
                deaths = self._deaths[part.name] = 1 if settled else self._deaths.get(part.name, 0) + 1
                wait = 0.0 if deaths == 1 else min(self.FIRST_WAIT * 2.0 ** (deaths - 2), self.LAST_WAIT)
                self._next_start[part.name] = now + wait
                log.error("a part died", extra={"part": part.name, "count": deaths, "wait_seconds": wait})
            if now >= self._next_start[part.name]:
                self._restart(part)

    def stop(self) -> None:
        """Stop the started parts, the last first."""
        while self._started:
            part = self._started.pop()
            try:
                part.stop()
            # Such as an index that is away, and cannot be told: the others must end all the same.
            except (NodeError, OSError) as error:
                log.error("a part did not stop in order", extra={"part": part.name, "reason": str(error)})
            else:
                log.info("a part stopped", extra={"part": part.name})

    def _begin(self, part: Part) -> None:
        try:
            part.start()
        except (NodeError, OSError) as error:
            if part.name not in self._dispensable:
                raise
            facts = {"part": part.name, "reason": str(error)}
            log.error("a part cannot start; the others go on without it, and it is tried again", extra=facts)
            return
        finally:
            # Also a start that failed: it may have taken its time, but nothing lived.
            self._tried_at[part.name] = self._clock()
        log.info("a part started", extra={"part": part.name})

    def _restart(self, part: Part) -> None:
        del self._next_start[part.name]
        try:
            part.start()
        except (NodeError, OSError) as error:
            log.error("a part could not be started again", extra={"part": part.name, "reason": str(error)})
            return
        finally:
            self._tried_at[part.name] = self._clock()
        log.info("a part was started again", extra={"part": part.name})
