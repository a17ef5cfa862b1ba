"""How often a job is tried, and how long it rests between two attempts."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Attempts:
    """The rule: the wait after a failed attempt doubles up to the longest; after the last one there is none."""

    maximum: int
    first_wait_seconds: float = 2.0
    maximum_wait_seconds: float = 300.0

    def wait_after(self, attempt: int) -> float | None:
        """Seconds between the end of this attempt, the first being 1, and the next one; None after the last."""
        if attempt >= self.maximum:
            return None
        # A power too large for a float would be longer than any maximum.
        return min(self.first_wait_seconds * 2.0 ** min(attempt - 1, 1000), self.maximum_wait_seconds)
