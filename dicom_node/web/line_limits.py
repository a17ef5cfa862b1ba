"""Line limits: how many lines whoever sends requests that are refused may have written of them.

Each thing is told once a minute, and of one sender so many different ones: nobody fills a disk, or hides among his own
noise what he is after, by asking. Senders whom nobody knows are as many as they like, and share a bound that hides
nothing of those who are known. What is left out is counted, and a later line says how many it was.
"""

import threading
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass, field

#: The same is told again after so long; so many different things of one sender, and of all unknown, are told within it.
SECONDS = 60.0
OF_ONE, OF_ALL = 20, 200

#: Senders remembered, of those who are known and of the others.
_MOST = 1000


@dataclass(frozen=True, kw_only=True)
class LeftOut:
    """How many lines before one were left out, each told by one line alone."""

    #: Of the line's own sender.
    own: int = 0
    #: Of anybody, for the bound that senders whom nobody knows share.
    unknown: int = 0

    @property
    def total(self) -> int:
        """Both together."""
        return self.own + self.unknown

    @property
    def words(self) -> str:
        """What a line says of it behind its own words; nothing where nothing was left out."""
        own = f"; {self.own} before were left out" if self.own else ""
        return own + (f"; {self.unknown} of unknown senders were left out" if self.unknown else "")


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
    #: Apart, so that no number of unknown senders has one who is known forgotten.
    _known: OrderedDict[str, _Sender] = field(default_factory=OrderedDict, init=False)
    _unknown: OrderedDict[str, _Sender] = field(default_factory=OrderedDict, init=False)
    #: When the last lines of all unknown senders were told.
    _lines: deque[float] = field(default_factory=deque, init=False)
    #: Of them all, and of senders who are remembered no more.
    _left_out: int = field(default=0, init=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False)

    def admit(self, sender: str, what: str, *, is_known: bool) -> LeftOut | None:
        """What was left out before this line and is told by none yet; None: this one is left out, too."""
        now = self.clock()
        with self._lock:
            one = self._sender(self._known if is_known else self._unknown, sender)
            one.told = {thing: at for thing, at in one.told.items() if 0 <= now - at < SECONDS}
            if what in one.told or len(one.told) >= OF_ONE:
                one.left_out += 1
                return None
            if not is_known and not self._is_room(now):
                self._left_out += 1
                return None
            one.told[what] = now
            left_out = LeftOut(own=one.left_out, unknown=self._left_out)
            one.left_out = self._left_out = 0
            return left_out

    def _is_room(self, now: float) -> bool:
        """Whether one more line of an unknown sender may be told; it is then counted."""
        while self._lines and not 0 <= now - self._lines[0] < SECONDS:
            self._lines.popleft()
        if len(self._lines) >= OF_ALL:
            return False
        self._lines.append(now)
        return True

    def _sender(self, senders: OrderedDict[str, _Sender], name: str) -> _Sender:
        one = senders.setdefault(name, _Sender())
        senders.move_to_end(name)
        while len(senders) > _MOST:
            _, forgotten = senders.popitem(last=False)
            self._left_out += forgotten.left_out
        return one
