"""The budget: memory and turns that requests share, so that receiving goes on whatever is asked for."""

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http import HTTPStatus
from typing import Any

from fastapi import Response
from fastapi.responses import StreamingResponse

from dicom_node.web.dicomweb.refusal import Refusal

#: What inflating, decoding and drawing may take together.
MOST_BYTES = 1 << 30

#: Requests that keep a processor busy, and those that wait for one of them to end.
_AT_ONCE, _WAITING = 4, 12

#: Requests that store, in all and of one visitor: what each holds in memory is bounded, and so is what all do.
_STORING, _STORING_OF_ONE = 24, 12

#: Nobody waits longer for another to end.
_PATIENCE_SECONDS = 10.0

_RETRY = {"Retry-After": "5"}


class Memory:
    """Bytes that are taken before the work begins, and given back behind it."""

    def __init__(self, most: int = MOST_BYTES, patience: float = _PATIENCE_SECONDS) -> None:
        self._left, self._patience = most, patience
        self._changed = threading.Condition()
        self.most = most

    @contextmanager
    def taken(self, count: int) -> Iterator[None]:
        """Hold so many bytes; refused for now where others hold too many, never for what is larger than all of it."""
        count = min(count, self.most)
        with self._changed:
            if not self._changed.wait_for(lambda: self._left >= count, self._patience):
                raise Refusal(HTTPStatus.SERVICE_UNAVAILABLE, "the node draws and converts too much just now", _RETRY)
            self._left -= count
        try:
            yield
        finally:
            with self._changed:
                self._left += count
                self._changed.notify_all()


class Turns:
    """Heavy requests, a few at a time: the other threads stay free for receiving and for whoever asks after us."""

    def __init__(self, at_once: int = _AT_ONCE, waiting: int = _WAITING, patience: float = _PATIENCE_SECONDS) -> None:
        self._turns, self._places = threading.Semaphore(at_once), threading.Semaphore(at_once + waiting)
        self._patience = patience

    def answer(self, make: Callable[[], Response]) -> Response:
        """What `make` answers; the turn lasts until the last byte is sent. Refused where too many wait."""
        if not self._places.acquire(blocking=False):
            raise busy()
        if not self._turns.acquire(timeout=self._patience):
            self._places.release()
            raise busy()
        try:
            response = make()
        except BaseException:  # also what ends the process: nobody else gives the turn back
            self._release()
            raise
        if isinstance(response, StreamingResponse):
            return _Held(response, self._release)
        self._release()
        return response

    def _release(self) -> None:
        self._turns.release()
        self._places.release()


class Places:
    """Requests at the same time, in all and of one visitor; for one thread, the server's."""

    def __init__(self, at_once: int = _STORING, of_one: int = _STORING_OF_ONE) -> None:
        self._at_once, self._of_one = at_once, of_one
        self._taken: Counter[str] = Counter()

    @contextmanager
    def taken(self, visitor: str) -> Iterator[None]:
        """Hold one; refused at once where there is none."""
        if self._taken.total() >= self._at_once or self._taken[visitor] >= self._of_one:
            raise busy()
        self._taken[visitor] += 1
        try:
            yield
        finally:
            self._taken[visitor] -= 1
            if not self._taken[visitor]:
                del self._taken[visitor]


class _Held(StreamingResponse):
    """A stream that gives its turn back when it ends, in whatever way."""

    def __init__(self, stream: StreamingResponse, release: Callable[[], None]) -> None:
        super().__init__(stream.body_iterator, stream.status_code, dict(stream.headers))
        self._release = release

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Send it."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._release()


def busy() -> Refusal:
    """What a request is told that finds no place."""
    return Refusal(HTTPStatus.SERVICE_UNAVAILABLE, "too many requests of this kind are being answered", _RETRY)
