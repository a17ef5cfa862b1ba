"""How often a password may be tried: so many times for a user and from an address, then whoever asks must wait."""

import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

#: Names and addresses that are remembered; beyond that the oldest go.
_MOST = 10_000


@dataclass(kw_only=True)
class LoginLimits:
    """Counts failures in this process's memory, each for `wait_seconds` from the last one on.

    An attempt counts before its password is looked at, so that many at once are no way round.
    """

    attempts: int
    wait_seconds: float
    clock: Callable[[], float]
    _failures: dict[tuple[str, str], list[float]] = field(default_factory=dict)
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
        """The attempt was right: what counted against this user is forgotten, and this attempt of the address."""
        with self._lock:
            self._failures.pop(("user", user), None)
            if tries := self._failures.get(("address", address)):
                tries.pop()

    def _wait(self, key: tuple[str, str], now: float) -> float:
        tries = [at for at in self._failures.get(key, []) if now - at < self.wait_seconds]
        if not tries:
            self._failures.pop(key, None)
            return 0.0
        self._failures[key] = tries
        return tries[-self.attempts] + self.wait_seconds - now if len(tries) >= self.attempts else 0.0


def _keys(user: str, address: str) -> Iterable[tuple[str, str]]:
    return (("user", user), ("address", address))
