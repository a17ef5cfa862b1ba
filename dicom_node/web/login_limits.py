"""How often a password may be tried: so many times for a user from an address, then whoever asks must wait.

A user alone, and an address alone, have bounds too, but much higher ones: else a stranger could keep a user out from
everywhere, and one forgetful user everybody behind the same address.
"""

import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

#: Names and addresses that are remembered; beyond that the oldest go.
_MOST = 10_000

#: Times the attempts of a user from an address that a user has from everywhere, and an address for everybody.
FOR_ALL = 10

#: User and address; None: any.
_Key = tuple[str | None, str | None]


@dataclass(kw_only=True)
class LoginLimits:
    """Counts failures in this process's memory, each for `wait_seconds` from the last one on.

    An attempt counts before its password is looked at, so that many at once are no way round.
    """

    attempts: int
    wait_seconds: float
    clock: Callable[[], float]
    _failures: dict[_Key, list[float]] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def try_once(self, user: str, address: str) -> float:
        """Begin an attempt: 0 where it may be, else the seconds to wait; then nothing is counted."""
        now = self.clock()
        with self._lock:
            wait = max(self._wait(key, now) for key in _keys(user, address))
            if wait <= 0:
                for key in _keys(user, address):
                    self._failures.setdefault(key, []).append(now)
                while len(self._failures) > _MOST:
                    del self._failures[next(iter(self._failures))]
        return max(0.0, wait)

    def succeeded(self, user: str, address: str) -> None:
        """The attempt was right: what counted against this user here is forgotten, and this attempt of the others."""
        with self._lock:
            self._failures.pop((user, address), None)
            for key in ((user, None), (None, address)):
                if tries := self._failures.get(key):
                    tries.pop()

    def _wait(self, key: _Key, now: float) -> float:
        tries = [at for at in self._failures.get(key, []) if now - at < self.wait_seconds]
        if not tries:
            self._failures.pop(key, None)
            return 0.0
        self._failures[key] = tries
        most = self.attempts * (FOR_ALL if None in key else 1)
        return tries[-most] + self.wait_seconds - now if len(tries) >= most else 0.0


def _keys(user: str, address: str) -> Iterable[_Key]:
    # Nobody yet has no bound from everywhere: whoever reached it would keep out all.
    return ((user, address), (user, None), (None, address)) if user else ((user, address), (None, address))
