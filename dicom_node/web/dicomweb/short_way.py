"""The short way of a request that only reads: from its address to its answer, past the framework's layers.

A viewer asks for each frame by itself, and what the framework does around a function of ours takes as long as the
function. What is not found here, such as a request that stores, goes the framework's way and is answered alike. A gate
takes it too, so that it is looked who asks in the thread that answers: to go to another and back takes as long again.
"""

import threading
from collections.abc import Callable, Iterable
from contextvars import copy_context
from typing import NamedTuple

from fastapi import Request, Response
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp, Receive, Scope, Send

from dicom_node.web.dicomweb.budget import busy
from dicom_node.web.dicomweb.refusal import REFUSED, refused
from dicom_node.web.threads import Threads

#: Requests that are answered at the same time: more than may be heavy or wait to be, see [budget].
_AT_ONCE = 40

#: Requests that wait for one of these to end; whoever comes then is told at once to come again.
_WAITING = 200

_METHODS = frozenset({"GET", "HEAD"})


#: What answers a request.
Answer = Callable[[Request], Response]


class _Way(NamedTuple):
    """An address, cut at its slashes, and what answers there."""

    #: A word, or nothing where a UID stands.
    words: tuple[str, ...]
    #: The name of what stands there, or nothing.
    names: tuple[str, ...]
    methods: frozenset[str]
    answer: Answer

    def parameters(self, parts: list[str], method: str) -> dict[str, str] | None:
        """What the address names; None where it is another's."""
        if method not in self.methods or any(
            word != part if word else not part for word, part in zip(self.words, parts, strict=True)
        ):
            return None
        return {name: part for name, part in zip(self.names, parts, strict=True) if name}


class ShortWay:
    """Answers what routes of plain functions would."""

    def __init__(
        self, *, prefix: str, routes: Iterable[BaseRoute], at_once: int = _AT_ONCE, waiting: int = _WAITING
    ) -> None:
        self._prefix = f"{prefix}/"
        self._threads = Threads(at_once, "dicomweb")
        self._places = threading.Semaphore(at_once + waiting)
        self._ways: dict[int, list[_Way]] = {}
        for route in routes:
            if isinstance(route, Route) and ":path}" not in route.path and route.methods and route.methods <= _METHODS:
                way = _way(route)
                self._ways.setdefault(len(way.words), []).append(way)

    @property
    def is_full(self) -> bool:
        """Whether what comes now has to wait for another's end."""
        return self._threads.is_full

    def find(self, scope: Scope) -> Answer | None:
        """What answers the request; None: the framework does."""
        if not scope["path"].startswith(self._prefix):
            return None
        parts = scope["path"][len(self._prefix) :].split("/")
        for way in self._ways.get(len(parts), ()):
            if (parameters := way.parameters(parts, scope["method"])) is not None:
                scope["path_params"] = parameters
                return way.answer
        return None

    async def give(self, answer: Answer, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer it, in a thread."""
        request = Request(scope, receive)
        try:
            response = await self._in_a_thread(answer, request)
        except REFUSED as error:
            response = refused(error)
        await response(scope, receive, send)

    async def _in_a_thread(self, answer: Answer, request: Request) -> Response:
        if not self._places.acquire(blocking=False):
            raise busy()
        # What the log says of a request goes with it. The place is the work's: whoever awaits it may go away, and the
        # thread is taken all the same.
        return await self._threads.run(copy_context().run, answer, request, done=self._places.release)


class ShortWayFirst:
    """ASGI middleware: what can goes the short way, and everything else through."""

    def __init__(self, application: ASGIApp, *, short: ShortWay) -> None:
        self._application, self._short = application, short

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer the request, or let it through."""
        if scope["type"] == "http" and (answer := self._short.find(scope)) is not None:
            await self._short.give(answer, scope, receive, send)
        else:
            await self._application(scope, receive, send)


def _way(route: Route) -> _Way:
    parts = route.path.removeprefix("/").split("/")
    names = tuple(part[1:-1] if part.startswith("{") else "" for part in parts)
    words = tuple("" if name else part for name, part in zip(names, parts, strict=True))
    return _Way(words, names, frozenset(route.methods or ()), route.endpoint)
