"""Readings asked of a reading process that is always there: one that is gone, hangs or takes too long is replaced."""

import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from dicom_node.core.errors import Interrupted, TriageError
from workers.pipe import WAITING, Begin, Drop, Explain, Failed, Prepare, Read, Ready, Reject, Reported
from workers.reading_process import READING_LOOP, Gone, ReadingProcess

log = logging.getLogger(__name__)

#: How often limits are looked at while an answer is waited for.
_TICK_SECONDS = 0.25
#: Importing torch from a slow disk, or waking a GPU, may be silent for so long.
_START_SECONDS = 300.0
#: Seconds before the next start of a process that did not even get ready; doubles up to the last.
_FIRST_WAIT, _LAST_WAIT = 1.0, 60.0


class Stopped(Interrupted):
    """The worker is asked to end and cannot wait for the reading."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """How long a reading process may take."""

    #: For one reading in all.
    reading_seconds: float
    #: Without any sign of it.
    silence_seconds: float


@dataclass(frozen=True, kw_only=True)
class Pulse:
    """What was last heard of the reading process."""

    step: str
    silent_seconds: float
    #: As its last beat told it.
    memory_bytes: tuple[int, int] | None = None


class Readings:
    """Has series read, one after the other, by one child process; not for two threads at a time, but for `pulse`."""

    def __init__(
        self,
        begin: Begin,
        limits: Limits,
        *,
        on_ready: Callable[[Ready], None] = lambda _ready: None,
        on_trouble: Callable[[str], None] = lambda _reason: None,
        module: str = READING_LOOP,
    ) -> None:
        """`on_ready` hears of a process that can read, and of bundles that changed; `on_trouble` of one that cannot."""
        self._begin = begin
        self._limits = limits
        self._on_ready, self._on_trouble = on_ready, on_trouble
        self._module = module
        self._process: ReadingProcess | None = None
        self._is_ready = False
        self._last_ready: Ready | None = None
        self._failures = 0
        self._next_start = 0.0

    @property
    def algorithms(self) -> tuple[str, ...]:
        """Names of the algorithms that can read now."""
        return self._last_ready.algorithms if self._last_ready else ()

    @property
    def broken(self) -> tuple[str, ...]:
        """Names of those whose bundle is there and cannot be used now."""
        return self._last_ready.broken if self._last_ready else ()

    @property
    def pulse(self) -> Pulse:
        """The reading process's last sign of life."""
        process = self._process
        if process is None:
            return Pulse(step="no reading process", silent_seconds=0.0)
        return Pulse(step=process.step, silent_seconds=process.silent_seconds(), memory_bytes=process.memory_bytes)

    def ready(self, stopping: Callable[[], bool]) -> bool:
        """Whether a reading can be asked for: starts a process where there is none, and waits until it is warm.

        False when the worker is stopping, or when a process that could not even start is given a rest.
        """
        while not stopping():
            process = self._process or self._started()
            if process is None:
                return False
            try:
                answer = process.answer(0.0 if self._is_ready else _TICK_SECONDS)
            except Gone as gone:
                self._end(str(gone))
                continue
            if isinstance(answer, Ready):
                self._welcome(answer)
            elif process.silent_seconds() > self._patience():
                self._end(self._silence(process))
            elif self._is_ready:
                return True
        return False

    def read(
        self,
        request: Read | Explain | Reject,
        *,
        stopped: Callable[[], bool],
        unwanted: Callable[[], bool] = lambda: False,
    ) -> Reported:
        """Have a series read by a process that is ready.

        Raises the TriageError that the reading ended in; Interrupted when the process broke, hung or took too long;
        Stopped as soon as `stopped` holds. Where `unwanted` holds the process is asked to end the reading by itself.
        """
        process = self._process
        if process is None:
            raise Interrupted("there is no reading process")
        began, dropped = time.monotonic(), False
        try:
            process.ask(request)
            while True:
                answer = process.answer(_TICK_SECONDS)
                if isinstance(answer, Ready):
                    self._welcome(answer)
                elif isinstance(answer, Failed):
                    if answer.last:
                        self._end(f"it is replaced: {answer.message}")
                    raise error_of(answer)
                elif answer is not None:
                    return answer
                self._keep_to_limits(process, began)
                if stopped():
                    raise Stopped("the worker was asked to stop and could not wait for the reading")
                if unwanted() and not dropped:
                    dropped = True
                    process.ask(Drop(job_uid=request.job_uid))
        except Gone as gone:
            raise self._ended(str(gone)) from None
        except OSError:
            raise self._ended("the reading process takes no request") from None
        except Stopped as stop:
            self._end(str(stop))
            raise

    def prepare(self, request: Prepare) -> None:
        """Let a process that has nothing else to do look at a series before its job comes; does not wait."""
        process = self._process
        if process is None or not self._is_ready or process.step != WAITING:
            return
        try:
            process.ask(request)
        except OSError:
            self._end("it takes no request")

    def close(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.close()
            self._process = None

    def _started(self) -> ReadingProcess | None:
        if time.monotonic() < self._next_start:
            return None
        try:
            self._process = ReadingProcess(
                self._begin, sending_seconds=self._limits.silence_seconds, module=self._module
            )
        except OSError as error:
            self._end(f"it cannot be started ({type(error).__name__}); see the machine's memory and processes")
        return self._process

    def _welcome(self, ready: Ready) -> None:
        if not self._is_ready:
            log.info("the reading process is ready", extra={"device": ready.device, "bundles": list(ready.bundles)})
        self._is_ready, self._failures, self._last_ready = True, 0, ready
        self._on_ready(ready)

    def _patience(self) -> float:
        silence = self._limits.silence_seconds
        return silence if self._is_ready else max(silence, _START_SECONDS)

    def _silence(self, process: ReadingProcess) -> str:
        seconds = process.silent_seconds()
        return f"the reading process gave no sign for {seconds:.0f} s at step '{process.step}' and was killed"

    def _keep_to_limits(self, process: ReadingProcess, began: float) -> None:
        """Raise Interrupted, the process killed, where a reading takes too long or is silent too long."""
        if process.silent_seconds() > self._limits.silence_seconds:
            hint = "; its device or a library hangs (maximum_silence_seconds)"
            raise self._ended(self._silence(process) + hint)
        if time.monotonic() - began > self._limits.reading_seconds:
            limit = f"{self._limits.reading_seconds:g} s (maximum_reading_seconds)"
            raise self._ended(f"the reading took more than {limit}, was at step '{process.step}', and was killed")

    def _ended(self, reason: str) -> Interrupted:
        """End the process for this reason, and return the error that its reading ends in."""
        self._end(reason)
        return Interrupted(reason)

    def _end(self, reason: str) -> None:
        """Let the process go; the next is started at once, unless this one never got ready."""
        log.error("a reading process ended", extra={"reason": reason})
        self.close()
        if not self._is_ready:
            self._failures += 1
            wait = min(_FIRST_WAIT * 2.0 ** (self._failures - 1), _LAST_WAIT)
            self._next_start = time.monotonic() + wait
            self._last_ready = None
            self._on_trouble(reason)
        self._is_ready = False


def error_of(failed: Failed) -> TriageError:
    """The error of the tree that the other process named."""
    kinds = {kind.__name__: kind for kind in _kinds_of(TriageError)}
    return kinds.get(failed.kind, TriageError)(failed.message)


def _kinds_of(error: type[TriageError]) -> Iterator[type[TriageError]]:
    for kind in error.__subclasses__():
        yield kind
        yield from _kinds_of(kind)
