"""The answers of peers that were asked for storage commitment (PS3.4 Annex J.3.3), and what they change."""

from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa

from dicom_node.archive.commitment_rows import Answered, CommitmentRow, commitment_row
from dicom_node.archive.delivery_rows import DeliveryRow, delivery_row, is_of_current_job, select_deliveries
from dicom_node.archive.settlement import Settlement
from dicom_node.archive.transactions import Transactions
from dicom_node.core.commitment import DUPLICATE_TRANSACTION, CommitmentReport, failure_in_words
from dicom_node.core.lifecycle import DELIVERY_TRANSITIONS, CommitmentState, DeliveryState, check_transition

ACTOR = "storage commitment"


class Answers:
    """What peers said of the transactions that they were asked in."""

    def __init__(self, transactions: Transactions) -> None:
        self._transactions = transactions
        self._settlement = Settlement(transactions)
        self._commitments = transactions.tables["commitments"]
        self._deliveries = transactions.tables["deliveries"]
        self._is_current = is_of_current_job(transactions.tables)

    def answer(
        self, report: CommitmentReport, *, maximum_refusals: int, send_again_at: float, at: float
    ) -> Answered | None:
        """Take a peer's answer; None where no such transaction is known.

        An answer counts for what was accepted before the question was asked, and once: a report that was sent again
        since then is asked for by a later transaction. What the peer does not keep waits to be sent again, or fails
        for good after too many refusals.
        """
        found = self._find(report.transaction_uid)
        if found is None:
            return None
        with self._transactions.write() as connection:
            self._transactions.study_state(connection, found.study_instance_uid)
            asked = self._transaction(connection, report.transaction_uid)
            if asked is None or asked.answered_at is not None:
                return Answered(study_instance_uid=found.study_instance_uid, peer=found.peer, committed=(), refused=())
            rows = self._answerable(connection, asked)
            committed = [row for row in rows if row.sop_instance_uid in report.committed - report.failed.keys()]
            failed = [row for row in rows if row.sop_instance_uid in report.failed]
            for row in committed:
                self._commit(connection, row, at)
            current = self._current(connection, asked.study_instance_uid)
            refused = []
            for row in failed:
                failure = report.failed[row.sop_instance_uid]
                if failure == DUPLICATE_TRANSACTION:
                    self._ask_again(connection, row, send_again_at if asked.attempts == 1 else asked.next_try_at)
                    continue
                refused.append(row)
                if row.sop_instance_uid in current:
                    self._refuse(connection, row, failure, maximum_refusals, send_again_at, at)
                else:
                    self._leave(connection, row, failure, at)
            self._end(connection, asked, len(committed), report.failed, at)
            self._settlement.settle(connection, asked.study_instance_uid, at)
        return Answered(
            study_instance_uid=asked.study_instance_uid,
            peer=asked.peer,
            committed=tuple(row.sop_instance_uid for row in committed),
            refused=tuple(row.sop_instance_uid for row in refused),
        )

    def _answerable(self, connection: sa.Connection, asked: CommitmentRow) -> list[DeliveryRow]:
        deliveries = self._deliveries
        among = sa.and_(
            deliveries.c.study_instance_uid == asked.study_instance_uid,
            deliveries.c.sop_instance_uid.in_(asked.objects),
            deliveries.c.accepted_at <= asked.asked_at,
            *self._asked_of(asked.peer),
        )
        return self._rows(connection, among)

    def _commit(self, connection: sa.Connection, row: DeliveryRow, at: float) -> None:
        self._update(connection, row, DeliveryState.COMMITTED, {"committed_at": at})
        cause = f"object {row.sop_instance_uid}: the peer keeps it"
        self._note(connection, row.study_instance_uid, row.peer, row.state, DeliveryState.COMMITTED, cause, at)

    def _ask_again(self, connection: sa.Connection, row: DeliveryRow, next_try_at: float) -> None:
        """The failure says nothing of the object: a new transaction asks for it, soon only the first time."""
        self._update(connection, row, DeliveryState.ACCEPTED, {"next_try_at": next_try_at})

    def _leave(self, connection: sa.Connection, row: DeliveryRow, failure: int, at: float) -> None:
        """The object was superseded and is not sent again; if its job ever counts again, the peer is asked anew."""
        reason = f"superseded; {_refusal(row, failure)}"
        values = {"transaction_uid": None, "next_try_at": at, "reason": reason}
        self._update(connection, row, DeliveryState.ACCEPTED, values)
        cause = f"object {row.sop_instance_uid}: {reason}"
        self._note(connection, row.study_instance_uid, row.peer, row.state, row.state, cause, at)

    def _refuse(
        self, connection: sa.Connection, row: DeliveryRow, failure: int, maximum: int, send_again_at: float, at: float
    ) -> None:
        """Let the object be sent again, or fail."""
        refusals = row.refusals + 1
        reason = _refusal(row, failure)
        waiting, failed = DeliveryState.WAITING, DeliveryState.FAILED
        values: dict[str, Any] = {"refusals": refusals, "reason": reason, "next_try_at": send_again_at}
        values |= {"commitment": False, "transaction_uid": None, "accepted_at": None, "waiting_since": at}
        after = waiting if refusals < maximum else failed
        check_transition(DELIVERY_TRANSITIONS, row.state, waiting)
        self._update(connection, row, after, values)
        cause = f"object {row.sop_instance_uid}: {reason}"
        self._note(connection, row.study_instance_uid, row.peer, row.state, waiting, cause, at)
        if after is failed:
            check_transition(DELIVERY_TRANSITIONS, waiting, failed)
            cause = f"object {row.sop_instance_uid}: refused for good after {refusals} times"
            self._note(connection, row.study_instance_uid, row.peer, waiting, failed, cause, at)

    def _end(
        self, connection: sa.Connection, asked: CommitmentRow, committed: int, failed: Mapping[str, int], at: float
    ) -> None:
        """The transaction has its answer."""
        whole = committed == len(asked.objects) and not failed
        state = CommitmentState.COMMITTED if whole else CommitmentState.FAILED
        words = sorted({failure_in_words(failure) for failure in failed.values()})
        reason = f"{committed} of {len(asked.objects)} object(s) kept{': ' if words else ''}{'; '.join(words)}"
        same = self._commitments.c.transaction_uid == asked.transaction_uid
        change = sa.update(self._commitments).where(same)
        connection.execute(change.values(state=state.value, reason=reason, answered_at=at))

    def _current(self, connection: sa.Connection, study: str) -> set[str]:
        """SOP Instance UIDs of the objects of the study's current jobs."""
        deliveries = self._deliveries
        query = sa.select(deliveries.c.sop_instance_uid)
        query = query.where(deliveries.c.study_instance_uid == study, self._is_current)
        return set(connection.execute(query).scalars())

    def _find(self, transaction_uid: str) -> CommitmentRow | None:
        """As `_transaction`, and nothing is locked."""
        commitments = self._commitments
        query = sa.select(commitments).where(commitments.c.transaction_uid == transaction_uid)
        with self._transactions.read() as connection:
            row = connection.execute(query).mappings().first()
        return None if row is None else commitment_row(row)

    def _transaction(self, connection: sa.Connection, transaction_uid: str) -> CommitmentRow | None:
        commitments = self._commitments
        query = sa.select(commitments).where(commitments.c.transaction_uid == transaction_uid).with_for_update()
        row = connection.execute(query).mappings().first()
        return None if row is None else commitment_row(row)

    def _rows(self, connection: sa.Connection, condition: sa.ColumnElement[bool]) -> list[DeliveryRow]:
        query = select_deliveries(self._transactions.tables).where(condition)
        query = query.order_by(self._deliveries.c.sop_instance_uid)
        return [delivery_row(row) for row in connection.execute(query).mappings()]

    def _asked_of(self, peer: str) -> tuple[sa.ColumnElement[bool], ...]:
        deliveries = self._deliveries
        accepted = deliveries.c.state == DeliveryState.ACCEPTED.value
        return deliveries.c.peer == peer, accepted, deliveries.c.commitment.is_(True)

    def _update(
        self, connection: sa.Connection, row: DeliveryRow, state: DeliveryState, values: Mapping[str, Any]
    ) -> bool:
        if state is not row.state and state is not DeliveryState.FAILED:
            check_transition(DELIVERY_TRANSITIONS, row.state, state)
        deliveries = self._deliveries
        same = (deliveries.c.sop_instance_uid == row.sop_instance_uid, deliveries.c.peer == row.peer)
        change = sa.update(deliveries).where(*same, deliveries.c.fence == row.fence)
        change = change.where(deliveries.c.state == row.state.value)
        done = connection.execute(change.values(state=state.value, fence=row.fence + 1, **values))
        return done.rowcount == 1

    def _note(
        self, connection: sa.Connection, study: str, peer: str, before: str, after: str, cause: str, at: float
    ) -> None:
        facts = {"before": before, "after": after, "cause": cause, "actor": ACTOR}
        self._settlement.note(connection, study, peer, at=at, **facts)


def _refusal(row: DeliveryRow, failure: int) -> str:
    return f"peer {row.peer} accepted it and answered by storage commitment {failure_in_words(failure)}"
