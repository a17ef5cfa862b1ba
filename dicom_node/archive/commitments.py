"""The index's storage commitments: one transaction for what a peer accepted of one study (PS3.4 Annex J)."""

from collections.abc import Collection, Mapping, Sequence

import sqlalchemy as sa

from dicom_node.archive.commitment_answers import Answers
from dicom_node.archive.commitment_rows import CommitmentDue, CommitmentRow, Silence, commitment_row
from dicom_node.archive.settlement import stands
from dicom_node.archive.transactions import Transactions
from dicom_node.core.lifecycle import CommitmentState, DeliveryState

#: Unanswered transactions are kept for so long: their answer still counts when it comes.
_FORGOTTEN_AFTER_SECONDS = 86400.0
_UNANSWERED_OF_A_STUDY = 30

#: Studies that are changed together where the settings ask a peer no more.
_STUDIES_A_CHANGE = 100


class Commitments(Answers):
    """The storage commitments of the index; how an answer is taken is in `Answers`."""

    def __init__(self, transactions: Transactions) -> None:
        super().__init__(transactions)
        self._waits = _waits(transactions.tables)

    def due(self, peer: str, now: float, limit: int) -> list[CommitmentDue]:
        """Studies of which the peer has accepted everything, and is to be asked for it now; the longest due first.

        Only what current jobs made counts: a report that was superseded before it went out is waited for by nobody.
        """
        deliveries = self._deliveries
        query = (
            sa.select(deliveries.c.study_instance_uid)
            .where(*self._asked_of(peer), self._is_current, deliveries.c.next_try_at <= now, ~self._waits)
            .group_by(deliveries.c.study_instance_uid)
            .order_by(sa.func.min(deliveries.c.next_try_at), deliveries.c.study_instance_uid)
            .limit(limit)
        )
        with self._transactions.read() as connection:
            return [self._due(connection, study, peer) for study in connection.execute(query).scalars().all()]

    def begin(self, due: CommitmentDue, transaction_uid: str, *, next_try_at: float, at: float) -> bool:
        """Write down what is about to be asked, before it is: the answer may be faster than the question's end.

        False, and nothing is written, where one of the deliveries has changed since it was read.
        """
        earlier = {row.transaction_uid for row in due.rows if row.transaction_uid}
        with self._transactions.write() as connection:
            self._transactions.study_state(connection, due.study_instance_uid)
            values = {"transaction_uid": transaction_uid, "next_try_at": next_try_at}
            if not all(self._update(connection, row, DeliveryState.ACCEPTED, values) for row in due.rows):
                connection.rollback()
                return False
            silent = self._close(connection, earlier, f"no answer until it was asked for again as {transaction_uid}")
            self._forget(connection, due, at - _FORGOTTEN_AFTER_SECONDS)
            row = {"peer": due.peer, "study_instance_uid": due.study_instance_uid, "attempts": due.unanswered + 1}
            row |= {"transaction_uid": transaction_uid, "state": CommitmentState.ASKED.value, "asked_at": at}
            objects = [row.sop_instance_uid for row in due.rows]
            new = sa.insert(self._commitments).values(objects=objects, next_try_at=next_try_at, **row)
            connection.execute(new)
            # A peer may be silent for months: the history tells of the first question and of the first silence.
            cause = f"storage commitment of {len(objects)} object(s) asked for" if due.unanswered == 0 else ""
            if due.unanswered == 1 and silent:
                cause = "no answer about storage commitment yet; it is asked for again until one comes"
            if cause:
                accepted = DeliveryState.ACCEPTED
                self._note(connection, due.study_instance_uid, due.peer, accepted, accepted, cause, at)
        return True

    def withdraw(self, transaction_uid: str, at: float) -> None:
        """The peer could not be reached to be asked: as if it had not been meant to, and due at once."""
        deliveries, commitments = self._deliveries, self._commitments
        same = deliveries.c.transaction_uid == transaction_uid
        found = self._find(transaction_uid)
        if found is None:
            return
        with self._transactions.write() as connection:
            # The study's row first, as everywhere: two orders would wait for each other.
            self._transactions.study_state(connection, found.study_instance_uid)
            connection.execute(sa.delete(commitments).where(commitments.c.transaction_uid == transaction_uid))
            again = sa.update(deliveries).where(same, deliveries.c.state == DeliveryState.ACCEPTED.value)
            connection.execute(again.values(transaction_uid=None, next_try_at=at, fence=deliveries.c.fence + 1))

    def not_taken(self, transaction_uid: str, *, reason: str, at: float) -> None:
        """The peer would not take the question, which says nothing of the objects; it is asked again in its time.

        The history tells of each reason once.
        """
        commitments = self._commitments
        with self._transactions.write() as connection:
            row = self._transaction(connection, transaction_uid)
            if row is None or row.state is not CommitmentState.ASKED:
                return
            earlier = sa.select(commitments.c.transaction_uid).where(
                commitments.c.study_instance_uid == row.study_instance_uid,
                commitments.c.peer == row.peer,
                commitments.c.reason == reason,
            )
            if connection.execute(earlier.limit(1)).first() is None:
                accepted, cause = DeliveryState.ACCEPTED, f"storage commitment: {reason}"
                self._note(connection, row.study_instance_uid, row.peer, accepted, accepted, cause, at)
            self._close(connection, [transaction_uid], reason)

    def waive(self, asked_peers: Collection[str], at: float) -> int:
        """Ask no more of peers that are not among these, by a change of the settings; returns how many objects.

        What they accepted stays ACCEPTED: nothing is claimed for them.
        """
        deliveries = self._deliveries
        waived = sa.and_(
            deliveries.c.commitment.is_(True),
            deliveries.c.state == DeliveryState.ACCEPTED.value,
            deliveries.c.peer.not_in(list(asked_peers)),
        )
        query = sa.select(deliveries.c.study_instance_uid).where(waived).distinct()
        with self._transactions.read() as connection:
            studies = sorted(connection.execute(query).scalars())
        count = 0
        for start in range(0, len(studies), _STUDIES_A_CHANGE):
            count += self._waive(studies[start : start + _STUDIES_A_CHANGE], waived, at)
        self._close_of_others_than(asked_peers)
        return count

    def _waive(self, studies: Sequence[str], waived: sa.ColumnElement[bool], at: float) -> int:
        with self._transactions.write() as connection:
            # The studies' rows first, in their order: two orders would wait for each other.
            for study in studies:
                self._transactions.study_state(connection, study)
            change = sa.update(self._deliveries).where(waived, self._deliveries.c.study_instance_uid.in_(studies))
            values = {"commitment": False, "transaction_uid": None, "fence": self._deliveries.c.fence + 1}
            count = connection.execute(change.values(**values)).rowcount
            for study in studies:
                self._settlement.settle(connection, study, at)
        return count

    def _close_of_others_than(self, asked_peers: Collection[str]) -> None:
        commitments = self._commitments
        open_ones = sa.update(commitments).where(
            commitments.c.state == CommitmentState.ASKED.value, commitments.c.peer.not_in(list(asked_peers))
        )
        failed = {"state": CommitmentState.FAILED.value, "reason": "the settings ask this peer no more"}
        with self._transactions.write() as connection:
            connection.execute(open_ones.values(**failed))

    def of_study(self, study_instance_uid: str) -> list[CommitmentRow]:
        """The study's transactions, the first asked first."""
        commitments = self._commitments
        query = sa.select(commitments).where(commitments.c.study_instance_uid == study_instance_uid)
        with self._transactions.read() as connection:
            rows = connection.execute(query.order_by(commitments.c.asked_at, commitments.c.attempts)).mappings()
            return [commitment_row(row) for row in rows]

    def open_by_peer(self) -> dict[str, int]:
        """How many transactions about what still counts wait for their answer, by peer."""
        commitments, deliveries = self._commitments, self._deliveries
        about = sa.select(deliveries.c.peer).where(
            deliveries.c.study_instance_uid == commitments.c.study_instance_uid,
            deliveries.c.transaction_uid == commitments.c.transaction_uid,
            self._is_current,
        )
        is_open = (commitments.c.state == CommitmentState.ASKED.value, about.correlate(commitments).exists())
        query = sa.select(commitments.c.peer, sa.func.count()).where(*is_open).group_by(commitments.c.peer)
        with self._transactions.read() as connection:
            rows = connection.execute(query).all()
        return {str(peer): int(count) for peer, count in rows}

    def silence(self, peer: str, now: float) -> Silence:
        """What the peer was asked since its last answer, and did not answer in time."""
        commitments = self._commitments
        of_peer = commitments.c.peer == peer
        last = sa.select(sa.func.max(commitments.c.answered_at)).where(of_peer, commitments.c.answered_at.is_not(None))
        in_vain = sa.or_(commitments.c.next_try_at <= now, commitments.c.state == CommitmentState.FAILED.value)
        counted = (sa.func.sum(sa.case((in_vain, 1), else_=0)), sa.func.max(commitments.c.asked_at))
        query = sa.select(*counted).where(of_peer, commitments.c.answered_at.is_(None))
        with self._transactions.read() as connection:
            answered_at = connection.execute(last).scalar_one()
            if answered_at is not None:
                query = query.where(commitments.c.asked_at > answered_at)
            count, asked_at = connection.execute(query).one()
        return Silence(unanswered=int(count or 0), asked_at=asked_at)

    def still_open(self, transaction_uids: Sequence[str]) -> int:
        """How many of these transactions have no answer yet."""
        commitments = self._commitments
        query = sa.select(sa.func.count()).where(
            commitments.c.transaction_uid.in_(transaction_uids), commitments.c.answered_at.is_(None)
        )
        with self._transactions.read() as connection:
            return int(connection.execute(query).scalar_one())

    def _due(self, connection: sa.Connection, study: str, peer: str) -> CommitmentDue:
        of_study = self._deliveries.c.study_instance_uid == study
        rows = self._rows(connection, sa.and_(of_study, *self._asked_of(peer), self._is_current))
        # An answer that left it accepted said nothing of it: to be asked for it was in vain all the same.
        transactions = {row.transaction_uid for row in rows if row.transaction_uid}
        commitments = self._commitments
        query = sa.select(sa.func.max(commitments.c.attempts)).where(commitments.c.transaction_uid.in_(transactions))
        attempts = connection.execute(query).scalar_one() if transactions else None
        return CommitmentDue(study_instance_uid=study, peer=peer, rows=tuple(rows), unanswered=int(attempts or 0))

    def _close(self, connection: sa.Connection, transaction_uids: Collection[str], reason: str) -> int:
        commitments = self._commitments
        same = commitments.c.transaction_uid.in_(list(transaction_uids))
        asked = sa.update(commitments).where(same, commitments.c.state == CommitmentState.ASKED.value)
        return connection.execute(asked.values(state=CommitmentState.FAILED.value, reason=reason)).rowcount

    def _forget(self, connection: sa.Connection, due: CommitmentDue, before: float) -> None:
        """Keep of the study's transactions the last answered one, and the unanswered ones that may yet be answered."""
        commitments = self._commitments
        of_due = (commitments.c.study_instance_uid == due.study_instance_uid, commitments.c.peer == due.peer)
        many = commitments.c.attempts <= due.unanswered - _UNANSWERED_OF_A_STUDY
        old = sa.and_(commitments.c.answered_at.is_(None), sa.or_(commitments.c.asked_at < before, many))
        last = sa.select(sa.func.max(commitments.c.answered_at)).where(*of_due)
        answered_at = connection.execute(last).scalar_one()
        if answered_at is not None:
            old = sa.or_(old, commitments.c.answered_at < answered_at)
        connection.execute(sa.delete(commitments).where(*of_due, old))


def _waits(tables: Mapping[str, sa.Table]) -> sa.ColumnElement[bool]:
    """Whether an object of a current job of the same study waits for the same peer."""
    jobs, reports, deliveries = (tables[name] for name in ("jobs", "reports", "deliveries"))
    others = sa.alias(deliveries)
    query = (
        sa.select(others.c.peer)
        .join(reports, reports.c.sop_instance_uid == others.c.sop_instance_uid)
        .join(jobs, jobs.c.job_uid == reports.c.job_uid)
        .where(others.c.study_instance_uid == deliveries.c.study_instance_uid, others.c.peer == deliveries.c.peer)
        .where(others.c.state == DeliveryState.WAITING.value, jobs.c.current.is_(True), stands(reports))
    )
    return query.correlate(deliveries).exists()
