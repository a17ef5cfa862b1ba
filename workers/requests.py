"""What a reading process is asked: heard by a thread of its own, so that its worker's end is noticed at any moment."""

import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection

from workers.pipe import Answer, Beat, Begin, Drop, Explain, Prepare, Read, Reject, Request

#: Beats of the same step are sent no more often.
_BEAT_SECONDS = 0.2


class Abandoned(Exception):
    """What is being done has lost its use."""


def _end_process() -> None:
    """End at once: what is computed here, nobody would take."""
    os._exit(0)


class Requests:
    """The requests of a worker, and the way of the answers back."""

    def __init__(self, pipe: Connection, end_process: Callable[[], None] = _end_process) -> None:
        """`end_process` is called when the worker is gone."""
        self._pipe = pipe
        self._end_process = end_process
        self._waiting: deque[Read | Explain | Reject | Prepare] = deque()
        self._arrived = threading.Condition()
        self._in_hand: Read | Explain | Reject | Prepare | None = None
        self._dropped = ""
        self._beat: tuple[str, float] = ("", 0.0)
        #: What beats say of the device's memory; known once there is a device.
        self.memory_bytes: Callable[[], tuple[int, int] | None] = lambda: None
        threading.Thread(target=self._listen, name="requests", daemon=True).start()

    def next(self, timeout: float) -> Read | Explain | Reject | Prepare | None:
        """The request that waits longest, or None when none arrives within the time."""
        with self._arrived:
            self._arrived.wait_for(lambda: bool(self._waiting), timeout)
            return self._waiting.popleft() if self._waiting else None

    def answer(self, answer: Answer) -> None:
        """Tell the worker; only from one thread."""
        self._pipe.send(answer)

    @contextmanager
    def in_hand(self, request: Read | Explain | Reject | Prepare) -> Iterator[None]:
        """What is done inside is for this request."""
        self._in_hand = request
        try:
            yield
        finally:
            self._in_hand = None

    def beat(self, step: str) -> None:
        """Tell the worker that this process moves, and where it is.

        Raises Abandoned when the reading in hand is not wanted any more, or a reading waits for what is being prepared
        to be out of its way.
        """
        last, at = self._beat
        now = time.monotonic()
        if step != last or now - at >= _BEAT_SECONDS:
            self._beat = (step, now)
            self.answer(Beat(step=step, memory_bytes=self.memory_bytes()))
        if self._lost_its_use():
            raise Abandoned

    def _lost_its_use(self) -> bool:
        request = self._in_hand
        if isinstance(request, Prepare):
            with self._arrived:
                return any(isinstance(other, Read) and other.series != request.series for other in self._waiting)
        return request is not None and request.job_uid == self._dropped

    def _listen(self) -> None:
        while True:
            try:
                request: Request = self._pipe.recv()
            except (EOFError, OSError):
                self._end_process()
                return
            if isinstance(request, Drop):
                self._dropped = request.job_uid
            elif not isinstance(request, Begin):
                # The pipe keeps the order: what was dropped before is asked for anew.
                if isinstance(request, Read | Explain | Reject) and request.job_uid == self._dropped:
                    self._dropped = ""
                with self._arrived:
                    self._waiting.append(request)
                    self._arrived.notify()
