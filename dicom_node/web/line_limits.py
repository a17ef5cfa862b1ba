"""Line limits: how many lines whoever sends requests that are refused may have written of them.

Each thing is told once a minute, and of one sender so many different ones: nobody fills a disk, or hides among his own
noise what he is after, by asking. What is left out is counted, and the sender's next line says how many it was.
"""

import threading
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass, field

#: The same is told again after so long; so many different things of one sender, and of all, are told within it.
SECONDS = 60.0
OF_ONE, OF_ALL = 20, 200

#: Senders remembered.
_MOST = 1000


@dataclass(kw_only=True)
class _Sender:
    """Whoever sends them."""

    #: When each thing was told.
    told: dict[str, float] = field(default_factory=dict)
    left_out: int = 0


@dataclass(kw_only=True)
class LineLimits:
    """Counts in this process's memory."""

    clock: Callable[[], float]
    _senders: OrderedDict[str, _Sender] = field(default_factory=OrderedDict, init=False)
    #: When the last lines of all were told.
    _lines: deque[float] = field(default_factory=deque, init=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False)

    def admit(self, sender: str, what: str) -> int | None:
        """How many lines of this sender were left out since his last one; None: this one is left out, too."""
        now = self.clock()
        with self._lock:
            one = self._sender(sender)
            one.told = {thing: at for thing, at in one.told.items() if 0 <= now - at < SECONDS}
            while self._lines and not 0 <= now - self._lines[0] < SECONDS:
                self._lines.popleft()
            if what in one.told or len(one.told) >= OF_ONE or len(self._lines) >= OF_ALL:
                one.left_out += 1
                return None
            one.told[what] = now
            self._lines.append(now)
            left_out, one.left_out = one.left_out, 0
            return left_out

    def _sender(self, name: str) -> _Sender:
        one = self._senders.setdefault(name, _Sender())
        self._senders.move_to_end(name)
        while len(self._senders) > _MOST:
            self._senders.popitem(last=False)
        return one
