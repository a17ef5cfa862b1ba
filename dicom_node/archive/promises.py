"""The index's promises: what peers asked us to keep, what we found, and whether they know (PS3.4 Annex J).

A transaction is answered once: what was found when it was first looked is written down, and told until the peer has
acknowledged it. Only then is its UID free again.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import sqlalchemy as sa

from dicom_node.archive.transactions import Transactions
from dicom_node.core.commitment import PromiseReport, PromiseRequest

#: Answers that were acknowledged are kept for so long, for people to see.
_FORGOTTEN_AFTER_SECONDS = 86400.0


@dataclass(frozen=True, kw_only=True)
class PromiseRow:
    """One transaction."""

    transaction_uid: str
    calling_ae_title: str
    #: SOP Class UID and SOP Instance UID of each object.
    objects: tuple[tuple[str, str], ...]
    asked_at: float
    #: SOP Instance UID to Failure Reason; None: nobody has looked yet.
    failed: Mapping[str, int] | None
    attempts: int
    next_try_at: float
    #: None: the answer is owed.
    told_at: float | None
    reason: str

    def report(self, failed: Mapping[str, int]) -> PromiseReport:
        """The answer, where these are not kept."""
        return PromiseReport(transaction_uid=self.transaction_uid, objects=self.objects, failed=failed)


class Promises:
    """The promises of the index."""

    def __init__(self, transactions: Transactions) -> None:
        self._transactions = transactions
        self._promises = transactions.tables["promises"]

    def ask(self, request: PromiseRequest, at: float) -> bool:
        """Write down what a peer asks, durable at return; False where it has asked for something else by this UID.

        The same question again, before its answer was acknowledged, is the same transaction, and its answer is due at
        once: who asks is there.
        """
        promises = self._promises
        objects = [list(pair) for pair in request.objects]
        row = {"calling_ae_title": request.calling_ae_title, "objects": objects}
        with self._transactions.write() as connection:
            known = self._find(connection, request.transaction_uid)
            if known is not None and known.told_at is None:
                is_same = known.calling_ae_title == request.calling_ae_title and known.objects == request.objects
                if is_same:
                    self._change(connection, known, next_try_at=at)
                return is_same
            old = promises.c.told_at < at - _FORGOTTEN_AFTER_SECONDS
            same = promises.c.transaction_uid == request.transaction_uid
            connection.execute(sa.delete(promises).where(sa.or_(old, same)))
            new = {"transaction_uid": request.transaction_uid, "asked_at": at, "next_try_at": at, **row}
            connection.execute(sa.insert(promises).values(**new))
        return True

    def due(self, now: float, limit: int, *, without: Collection[str] = ()) -> list[PromiseRow]:
        """Answers that are owed and to be told now, but those to these AE titles; the longest due first."""
        promises = self._promises
        owed = (promises.c.told_at.is_(None), promises.c.next_try_at <= now)
        query = sa.select(promises).where(*owed, promises.c.calling_ae_title.not_in(sorted(without)))
        with self._transactions.read() as connection:
            rows = connection.execute(query.order_by(promises.c.next_try_at).limit(limit)).mappings().all()
        return [_row(row) for row in rows]

    def find(self, transaction_uid: str) -> PromiseRow | None:
        """One transaction; None where it is not known, or forgotten."""
        with self._transactions.read() as connection:
            return self._find(connection, transaction_uid)

    def owed(self) -> dict[str, int]:
        """How many answers are owed, by AE title."""
        promises = self._promises
        query = sa.select(promises.c.calling_ae_title, sa.func.count()).where(promises.c.told_at.is_(None))
        with self._transactions.read() as connection:
            rows = connection.execute(query.group_by(promises.c.calling_ae_title)).all()
        return {str(title): int(count) for title, count in rows}

    def looked(self, row: PromiseRow, failed: Mapping[str, int], studies: Sequence[str], at: float) -> None:
        """Write down what is not kept, and of which studies something is, durable before the peer is told."""
        studies_of = self._transactions.tables["promised_studies"]
        with self._transactions.write() as connection:
            self._change(connection, row, failed=dict(failed))
            for study in sorted(set(studies)):
                promised = {"study_instance_uid": study, "promised_at": at}
                self._transactions.upsert(connection, studies_of, promised, {"promised_at": at})

    def told(self, row: PromiseRow, at: float) -> None:
        """The peer has acknowledged the answer."""
        with self._transactions.write() as connection:
            self._change(connection, row, told_at=at, reason="")

    def missed(self, row: PromiseRow, *, reason: str, next_try_at: float) -> None:
        """The peer could not be told, and why."""
        due = self._promises.c.next_try_at
        # One that was asked for anew meanwhile stays due.
        later = sa.case((due == row.next_try_at, next_try_at), else_=due)
        with self._transactions.write(durable=False) as connection:
            self._change(connection, row, attempts=row.attempts + 1, reason=reason, next_try_at=later)

    def postpone(self, rows: Sequence[PromiseRow], *, next_try_at: float) -> None:
        """Nobody has tried to tell these, since their peer is known to be away."""
        promises = self._promises
        transactions = promises.c.transaction_uid.in_([row.transaction_uid for row in rows])
        # One that was asked for anew meanwhile is due.
        same = (transactions, promises.c.told_at.is_(None), promises.c.next_try_at <= max(r.next_try_at for r in rows))
        with self._transactions.write(durable=False) as connection:
            connection.execute(sa.update(promises).where(*same).values(next_try_at=next_try_at))

    def give_up(self, row: PromiseRow) -> None:
        """Nobody can be told; who asks again is answered anew."""
        promises = self._promises
        same = promises.c.transaction_uid == row.transaction_uid
        with self._transactions.write() as connection:
            connection.execute(sa.delete(promises).where(same, promises.c.told_at.is_(None)))

    def _change(self, connection: sa.Connection, row: PromiseRow, **values: object) -> None:
        promises = self._promises
        same = (promises.c.transaction_uid == row.transaction_uid, promises.c.asked_at == row.asked_at)
        connection.execute(sa.update(promises).where(*same).values(**values))

    def _find(self, connection: sa.Connection, transaction_uid: str) -> PromiseRow | None:
        query = sa.select(self._promises).where(self._promises.c.transaction_uid == transaction_uid)
        row = connection.execute(query.with_for_update()).mappings().first()
        return None if row is None else _row(row)


def _row(row: sa.RowMapping) -> PromiseRow:
    fields = {name: row[name] for name in PromiseRow.__dataclass_fields__}
    return PromiseRow(**{**fields, "objects": tuple((pair[0], pair[1]) for pair in row["objects"])})
