"""The index's waits: nothing that is to be tried again waits longer than it may, whatever becomes of the clock.

Every wait stands in its row as the time of its end. Where a clock is set back, or the settings have shorter waits than
before, that time lies further off than any wait is long.
"""

from dataclasses import dataclass

import sqlalchemy as sa

from dicom_node.archive.transactions import Transactions
from dicom_node.core.lifecycle import CommitmentState, DeliveryState, JobState


@dataclass(frozen=True, kw_only=True)
class LongestWaits:
    """How long a row may wait at most, in seconds."""

    #: A job that failed, for its next attempt.
    job: float
    #: A job in hand, for a sign of its worker.
    lease: float
    #: An object, for its next attempt at a peer.
    delivery: float
    #: An object that a peer accepted, and its transaction, for storage commitment.
    commitment: float
    #: An answer that is owed to a peer about what we keep.
    promise: float


class Waits:
    """The ends of all waits."""

    def __init__(self, transactions: Transactions) -> None:
        self._transactions = transactions

    def shorten(self, longest: LongestWaits, now: float) -> int:
        """End each wait that is longer than it may be now, a lease after its full time; how many there were."""
        with self._transactions.read() as connection:
            found = [rows for rows in self._too_long(longest, now) if connection.execute(sa.select(rows.any)).scalar()]
        # Each by itself: one that locks rows of several tables may wait for another that does so in another order.
        return sum(map(self._shorten, found))

    def _shorten(self, rows: "_TooLong") -> int:
        with self._transactions.write() as connection:
            return connection.execute(rows.change).rowcount

    def _too_long(self, longest: LongestWaits, now: float) -> list["_TooLong"]:
        tables = self._transactions.tables
        jobs, deliveries, commitments, promises = (
            tables[name] for name in ("jobs", "deliveries", "commitments", "promises")
        )
        waiting, accepted = (
            deliveries.c.state == state.value for state in (DeliveryState.WAITING, DeliveryState.ACCEPTED)
        )
        asked = commitments.c.state == CommitmentState.ASKED.value
        queued, reading = (jobs.c.state == state.value for state in (JobState.QUEUED, JobState.READING))
        return [
            _TooLong.of(jobs.c.next_try_at, queued, now + longest.job, now),
            _TooLong.of(jobs.c.lease_expires_at, reading, now + longest.lease, now + longest.lease),
            _TooLong.of(deliveries.c.next_try_at, waiting, now + longest.delivery, now),
            _TooLong.of(deliveries.c.next_try_at, accepted, now + longest.commitment, now),
            _TooLong.of(commitments.c.next_try_at, asked, now + longest.commitment, now),
            _TooLong.of(promises.c.next_try_at, promises.c.told_at.is_(None), now + longest.promise, now),
        ]


@dataclass(frozen=True, kw_only=True)
class _TooLong:
    """Rows that wait too long: whether there are any, and what ends their wait."""

    any: sa.Exists
    change: sa.Update

    @classmethod
    def of(cls, end: sa.Column[float], which: sa.ColumnElement[bool], latest: float, instead: float) -> "_TooLong":
        condition = sa.and_(which, end > latest)
        change = sa.update(end.table).where(condition).values({end.name: instead})
        return cls(any=sa.exists().where(condition), change=change)
