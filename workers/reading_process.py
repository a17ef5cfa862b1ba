"""A reading process as its worker sees it: a child that does the computing, and that can be killed at any moment."""

import logging
import os
import queue
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from contextlib import suppress
from multiprocessing.connection import Connection

from workers.pipe import Answer, Beat, Begin, Failed, Ready, Reported, Request

log = logging.getLogger(__name__)

#: The module that a reading process runs.
READING_LOOP = "workers.reading_loop"
#: A child whose end of the pipe is closed has this long to be gone by itself.
_END_SECONDS = 5.0
#: struct timeval of Linux and the BSDs.
_TIMEVAL = "ll"

#: What people should think of first when a process is killed by these.
_OFTEN = {
    signal.SIGKILL: "; often the machine's memory ran out",
    signal.SIGSEGV: "; a library or a driver is at fault",
    signal.SIGBUS: "; often a disk or the memory is at fault",
}


class Gone(Exception):
    """The process is there no more; the text says how it ended."""


class ReadingProcess:
    """One child process, from its start to its end."""

    def __init__(self, begin: Begin, *, sending_seconds: float, module: str = READING_LOOP) -> None:
        """Start it; it answers Ready once it can read. It ends with the thread that starts it, and with its pipe.

        A request that it does not take from the pipe within `sending_seconds` is an OSError.
        """
        ours, theirs = socket.socketpair()
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack(_TIMEVAL, int(sending_seconds) or 1, 0))
        command = [sys.executable, "-m", module, str(theirs.fileno()), str(os.getpid())]
        # A group of its own: what is sent to the worker's group, as Ctrl-C is, does not reach it.
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            pass_fds=(theirs.fileno(),),
            start_new_session=True,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
        )
        theirs.close()
        self._pipe = Connection(ours.detach())
        self._answers: queue.SimpleQueue[Ready | Reported | Failed | Gone] = queue.SimpleQueue()
        self._step, self._moved_at, self._gone = "starting", time.monotonic(), False
        self._memory_bytes: tuple[int, int] | None = None
        self._listener = threading.Thread(target=self._listen, name="reading process", daemon=True)
        self._listener.start()
        with suppress(OSError):  # it is gone already, which the listener says
            self.ask(begin)

    @property
    def pid(self) -> int:
        """The process number."""
        return self._process.pid

    @property
    def step(self) -> str:
        """What it last said it was doing."""
        return self._step

    @property
    def memory_bytes(self) -> tuple[int, int] | None:
        """Taken and whole memory of its device, as it last said; None where that has none of its own."""
        return self._memory_bytes

    @property
    def gone(self) -> bool:
        """Whether it has closed its end of the pipe."""
        return self._gone

    def silent_seconds(self) -> float:
        """How long nothing was heard of it."""
        return time.monotonic() - self._moved_at

    def ask(self, request: Request) -> None:
        """Send a request; OSError when the process is gone, or takes nothing."""
        self._moved_at = time.monotonic()
        self._pipe.send(request)

    def answer(self, timeout: float) -> Ready | Reported | Failed | None:
        """The next answer, or None when there is none within the time; raises Gone once there can be none."""
        try:
            answer = self._answers.get(timeout=max(0.0, timeout))
        except queue.Empty:
            return None
        if isinstance(answer, Gone):
            raise Gone(self._ending())
        return answer

    def kill(self) -> None:
        """End it at once, with whatever it started itself; also while it is stopped."""
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)

    def close(self) -> None:
        """Kill it, and give everything back."""
        if self._process.poll() is None:
            self.kill()
        try:
            self._process.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            # A driver may hold a process that is already killed; another must not wait for it.
            log.error("a reading process that was killed does not end", extra={"pid": self.pid})
        self._listener.join(_END_SECONDS)
        self._pipe.close()

    def _listen(self) -> None:
        while True:
            try:
                answer: Answer = self._pipe.recv()
            except (EOFError, OSError):
                break
            self._moved_at = time.monotonic()
            if isinstance(answer, Beat):
                self._step, self._memory_bytes = answer.step, answer.memory_bytes
            else:
                self._answers.put(answer)
        self._gone = True
        self._answers.put(Gone())

    def _ending(self) -> str:
        """How it ended, in words."""
        try:
            status = self._process.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()
            return "the reading process closed its pipe"
        if status >= 0:
            return f"the reading process ended with status {status}; the worker's log tells why"
        often = _OFTEN.get(signal.Signals(-status), "") if -status in list(signal.Signals) else ""
        return f"the reading process was killed by signal {-status}{often}"
