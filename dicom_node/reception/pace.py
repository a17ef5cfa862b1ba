"""Pace: how fast the messages of an association, or the body of a request, come in: what trickles is given up."""

import time

#: Bytes a second; who sends a message more slowly is given up.
_SLOWEST = 512


class Pace:
    """Of one association, or one request; for one thread at a time."""

    def __init__(self) -> None:
        #: Since when a message has been coming in, and how many bytes of it.
        self._since: float | None = None
        self._bytes = 0

    def came(self, size: int) -> None:
        """So many bytes came in."""
        self._bytes += size

    def rest(self) -> None:
        """No message is coming in."""
        self._since = None

    def is_slow(self, patience: float) -> bool:
        """Whether a message has been coming in for long, and hardly any of it came since this was asked last."""
        now = time.monotonic()
        if self._since is not None and now - self._since < patience:
            return False
        is_slow = self._since is not None and self._bytes < _SLOWEST * patience
        self._since, self._bytes = now, 0
        return is_slow
