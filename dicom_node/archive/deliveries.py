"""The index's deliveries: one object to one peer each, with its attempts and its next time."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from dicom_node.archive.transactions import Transactions
from dicom_node.core.lifecycle import DELIVERY_TRANSITIONS, DeliveryState, JobState, StudyState, check_transition
from dicom_node.core.priority import Priority


@dataclass(frozen=True, kw_only=True)
class DeliveryRow:
    """One object's way to one peer."""

    sop_instance_uid: str
    sop_class_uid: str
    study_instance_uid: str
    peer: str
    #: Of the object, relative to the archive's root.
    path: str
    state: DeliveryState
    attempts: int
    #: How often the peer answered a failure status.
    refusals: int
    next_try_at: float
    reason: str
    accepted_at: float | None


class Deliveries:
    """The deliveries of the index."""

    def __init__(self, transactions: Transactions) -> None:
        self._transactions = transactions
        self._deliveries = transactions.tables["deliveries"]
        self._reports = transactions.tables["reports"]

    def unplanned(self) -> list[tuple[str, tuple[str, ...]]]:
        """Objects of REPORTED studies that no delivery knows yet, with the peers their route names."""
        jobs, studies = self._transactions.tables["jobs"], self._transactions.tables["studies"]
        reports, deliveries = self._reports, self._deliveries
        known = sa.select(deliveries.c.sop_instance_uid).where(
            deliveries.c.sop_instance_uid == reports.c.sop_instance_uid
        )
        query = (
            sa.select(reports.c.sop_instance_uid, jobs.c.send_to)
            .join(jobs, jobs.c.job_uid == reports.c.job_uid)
            .join(studies, studies.c.study_instance_uid == reports.c.study_instance_uid)
            .where(studies.c.state == StudyState.REPORTED.value, jobs.c.current.is_(True), ~known.exists())
            .order_by(reports.c.written_at)
        )
        with self._transactions.read() as connection:
            return [(uid, tuple(peers)) for uid, peers in connection.execute(query).all()]

    def plan(self, sop_instance_uid: str, peers: Sequence[str], at: float) -> None:
        """Let an object wait for each of these peers, due at once."""
        query = sa.select(self._reports.c.study_instance_uid).where(
            self._reports.c.sop_instance_uid == sop_instance_uid
        )
        with self._transactions.write() as connection:
            study = connection.execute(query).scalar_one()
            for peer in peers:
                row = {"sop_instance_uid": sop_instance_uid, "peer": peer, "study_instance_uid": study}
                waiting = {"state": DeliveryState.WAITING.value, "next_try_at": at}
                connection.execute(sa.insert(self._deliveries).values(**row, **waiting))

    def due(self, now: float) -> list[DeliveryRow]:
        """Deliveries of current jobs' objects whose time has come: the most urgent study's first, then the oldest.

        An object whose study was opened again waits until its job counts again, if ever.
        """
        deliveries = self._deliveries
        jobs, studies = self._transactions.tables["jobs"], self._transactions.tables["studies"]
        waiting = sa.and_(deliveries.c.state == DeliveryState.WAITING.value, deliveries.c.next_try_at <= now)
        urgency = sa.case({term.value: rank for rank, term in enumerate(Priority)}, value=studies.c.priority)
        query = (
            self._query(sa.and_(waiting, jobs.c.current.is_(True)))
            .join(jobs, jobs.c.job_uid == self._reports.c.job_uid)
            .join(studies, studies.c.study_instance_uid == self._reports.c.study_instance_uid)
            .order_by(urgency, self._reports.c.written_at, deliveries.c.sop_instance_uid)
        )
        return self._fetch(query)

    def of_study(self, study_instance_uid: str) -> list[DeliveryRow]:
        """The study's deliveries."""
        return self._rows(self._deliveries.c.study_instance_uid == study_instance_uid)

    def unfinished(self) -> list[DeliveryRow]:
        """Every delivery that waits or has failed."""
        return self._rows(self._deliveries.c.state != DeliveryState.ACCEPTED.value)

    def accepted(self, row: DeliveryRow, *, reason: str, at: float) -> None:
        """The peer has the object; the study is DELIVERED with its last one."""
        self._change(row, DeliveryState.ACCEPTED, attempts=row.attempts + 1, reason=reason, accepted_at=at)
        self.settle(row.study_instance_uid, at)

    def postponed(self, row: DeliveryRow, *, reason: str, refused: bool, next_try_at: float) -> None:
        """The object did not arrive; it is tried again at the given time."""
        refusals = row.refusals + int(refused)
        change = {"attempts": row.attempts + 1, "refusals": refusals, "reason": reason, "next_try_at": next_try_at}
        self._change(row, DeliveryState.WAITING, **change)

    def failed(self, row: DeliveryRow, *, reason: str, at: float) -> None:
        """The peer will not take the object; the study has FAILED until a person asks again."""
        values = {"attempts": row.attempts + 1, "refusals": row.refusals + 1, "reason": reason}
        self._change(row, DeliveryState.FAILED, **values)
        self.settle(row.study_instance_uid, at)

    def settled(self) -> list[str]:
        """REPORTED studies of which everything is accepted or something has failed: those that `settle` would move."""
        jobs, studies = self._transactions.tables["jobs"], self._transactions.tables["studies"]
        reports, state = self._reports, self._deliveries.c.state
        open_ones = sa.func.sum(sa.case((state == DeliveryState.ACCEPTED.value, 0), else_=1))
        failed = sa.func.sum(sa.case((state == DeliveryState.FAILED.value, 1), else_=0))
        query = (
            sa.select(reports.c.study_instance_uid)
            .join(jobs, jobs.c.job_uid == reports.c.job_uid)
            .join(studies, studies.c.study_instance_uid == reports.c.study_instance_uid)
            .outerjoin(self._deliveries, self._deliveries.c.sop_instance_uid == reports.c.sop_instance_uid)
            .where(studies.c.state == StudyState.REPORTED.value, jobs.c.current.is_(True))
            .group_by(reports.c.study_instance_uid)
            .having(sa.or_(open_ones == 0, failed > 0))
        )
        with self._transactions.read() as connection:
            return list(connection.execute(query).scalars())

    def settle(self, study_instance_uid: str, at: float) -> None:
        """Let a REPORTED study be DELIVERED when each object of its current jobs was accepted by each of its peers.

        With one that has failed the study has FAILED: a late instance may have led back to what failed before.
        """
        jobs, reports, deliveries = self._transactions.tables["jobs"], self._reports, self._deliveries
        states = (
            sa.select(reports.c.sop_instance_uid, deliveries.c.state, deliveries.c.peer, deliveries.c.reason)
            .join(jobs, jobs.c.job_uid == reports.c.job_uid)
            .outerjoin(deliveries, deliveries.c.sop_instance_uid == reports.c.sop_instance_uid)
            .where(reports.c.study_instance_uid == study_instance_uid, jobs.c.current.is_(True))
        )
        with self._transactions.write() as connection:
            if self._transactions.study_state(connection, study_instance_uid) is not StudyState.REPORTED:
                return
            rows = connection.execute(states).all()
            failed = [
                f"delivery to {row.peer} failed: {row.reason}" for row in rows if row.state == DeliveryState.FAILED
            ]
            if failed:
                self._move(connection, study_instance_uid, StudyState.FAILED, failed[0], at)
            elif rows and all(row.state == DeliveryState.ACCEPTED for row in rows):
                accepted = f"{len({row.sop_instance_uid for row in rows})} object(s) accepted by every peer"
                cause = "; ".join((accepted, *self._failures(connection, study_instance_uid)))
                self._move(connection, study_instance_uid, StudyState.DELIVERED, cause, at)

    def _failures(self, connection: sa.Connection, study_instance_uid: str) -> list[str]:
        """What other current jobs of the study failed by: a delivered report must not hide it."""
        jobs = self._transactions.tables["jobs"]
        query = sa.select(jobs.c.algorithm, jobs.c.reason).where(
            jobs.c.study_instance_uid == study_instance_uid,
            jobs.c.current.is_(True),
            jobs.c.state == JobState.FAILED.value,
        )
        rows = connection.execute(query.order_by(jobs.c.ended_at)).all()
        return [f"{algorithm} failed: {reason}" for algorithm, reason in rows]

    def _move(self, connection: sa.Connection, uid: str, after: StudyState, cause: str, at: float) -> None:
        self._transactions.move_study(connection, uid, after, cause=cause, actor="delivery", at=at)

    def _change(self, row: DeliveryRow, state: DeliveryState, **values: Any) -> None:
        check_transition(DELIVERY_TRANSITIONS, row.state, state)
        deliveries = self._deliveries
        of_row = (deliveries.c.sop_instance_uid == row.sop_instance_uid, deliveries.c.peer == row.peer)
        with self._transactions.write() as connection:
            connection.execute(sa.update(deliveries).where(*of_row).values(state=state.value, **values))

    def _rows(self, condition: sa.ColumnElement[bool]) -> list[DeliveryRow]:
        deliveries = self._deliveries
        return self._fetch(self._query(condition).order_by(deliveries.c.next_try_at, deliveries.c.sop_instance_uid))

    def _query(self, condition: sa.ColumnElement[bool]) -> sa.Select[Any]:
        deliveries, reports = self._deliveries, self._reports
        return (
            sa.select(deliveries, reports.c.path, reports.c.sop_class_uid)
            .join(reports, reports.c.sop_instance_uid == deliveries.c.sop_instance_uid)
            .where(condition)
        )

    def _fetch(self, query: sa.Select[Any]) -> list[DeliveryRow]:
        with self._transactions.read() as connection:
            return [_row(row) for row in connection.execute(query).mappings()]


def _row(row: Mapping[Any, Any]) -> DeliveryRow:
    fields = {name: row[name] for name in DeliveryRow.__dataclass_fields__}
    return DeliveryRow(**{**fields, "state": DeliveryState(row["state"])})
