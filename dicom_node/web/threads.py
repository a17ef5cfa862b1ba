"""Threads that answer what waits for a disk or a database, and hand the answer back to the server's own thread.

The framework's way there and back takes about as long as to look a frame up.
"""

import asyncio
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, TypeVar

Answer = TypeVar("Answer")


class Threads:
    """Begun one by one as they are needed; they last as long as the process."""

    def __init__(self, count: int, name: str) -> None:
        self._most, self._name = count, name
        self._work: SimpleQueue[Callable[[], None]] = SimpleQueue()
        self._lock = threading.Lock()
        self._count = self._busy = 0

    @property
    def is_full(self) -> bool:
        """Whether what comes now has to wait for another's end."""
        return self._busy >= self._most

    async def run(self, deed: Callable[..., Answer], *given: Any, done: Callable[[], None] = lambda: None) -> Answer:
        """What `deed` answers or raises. `done` is called once: when it ended, or was given up unbegun.

        RuntimeError where there is no thread yet and none can be begun.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Answer] = loop.create_future()
        # Whoever takes it first: the thread that begins, or whoever awaits it and goes away before that.
        begun = threading.Lock()

        def work() -> None:
            answer: Any = None
            fault: BaseException | None = None
            is_awaited = begun.acquire(blocking=False)
            try:
                if is_awaited:
                    answer = deed(*given)
            except BaseException as error:  # whatever it is, it belongs to whoever asked
                fault = error
            finally:
                with self._lock:
                    self._busy -= 1
                if is_awaited:
                    done()
            if is_awaited:
                _hand_back(loop, future, answer, fault)

        try:
            self._begin_one()
        except RuntimeError:
            done()
            raise
        self._work.put(work)
        try:
            return await future
        except asyncio.CancelledError:
            if begun.acquire(blocking=False):
                done()
            raise

    def _begin_one(self) -> None:
        with self._lock:
            self._busy += 1
            if self._busy <= self._count or self._count >= self._most:
                return
            self._count += 1
        try:
            threading.Thread(target=self._serve, name=f"{self._name}-{self._count}", daemon=True).start()
        except RuntimeError:
            with self._lock:
                self._count -= 1
                if not self._count:
                    self._busy -= 1
                    raise
            # The others do its work when theirs is done.

    def _serve(self) -> None:
        while True:
            self._work.get()()


def _hand_back(
    loop: asyncio.AbstractEventLoop, future: "asyncio.Future[Any]", answer: Any, fault: BaseException | None
) -> None:
    def hand() -> None:
        if future.done():
            # Whoever asked went away.
            return
        if fault is None:
            future.set_result(answer)
        elif isinstance(fault, StopIteration):
            # A future takes any other.
            future.set_exception(RuntimeError("a deed ended by StopIteration"))
        else:
            future.set_exception(fault)

    try:
        loop.call_soon_threadsafe(hand)
    except RuntimeError:
        # The server stopped meanwhile: nobody awaits it.
        return
