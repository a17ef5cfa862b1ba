"""Settlement: the state that a study enters by its deliveries, in the same change as the delivery that led to it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from dicom_node.archive.prepared_query import PreparedQuery
from dicom_node.archive.transactions import Transactions
from dicom_node.core.delivery_plan import study_state_after_deliveries
from dicom_node.core.form import Form, form_of
from dicom_node.core.lifecycle import DeliveryState, JobState, StudyState

ACTOR = "delivery"

#: The states that deliveries decide about; a COMMITTED study stays so until somebody opens it again.
_OPEN = (StudyState.REPORTED, StudyState.DELIVERED)


@dataclass(frozen=True, kw_only=True)
class _Standing:
    """A delivery as the plan wants to see it."""

    sop_instance_uid: str
    sop_class_uid: str
    job_uid: str
    peer: str
    state: DeliveryState
    next_try_at: float
    reason: str
    commitment: bool
    instead: str
    alternative: bool
    form: Form


class Settlement:
    """Moves studies to DELIVERED, COMMITTED or FAILED, or back to REPORTED, as their deliveries say."""

    def __init__(self, transactions: Transactions) -> None:
        self._transactions = transactions
        self._unsettled = PreparedQuery(_unsettled(transactions.tables))
        self._of_study = PreparedQuery(_standings(transactions.tables))
        self._failed = PreparedQuery(_failed(transactions.tables))

    def settle(self, connection: sa.Connection, study_instance_uid: str, at: float) -> None:
        """Let the study enter the state that the deliveries of its current jobs' reports mean."""
        before = self._transactions.study_state(connection, study_instance_uid)
        if before not in _OPEN:
            return
        rows = self._standings(connection, study_instance_uid)
        if rows is None:
            return
        after, cause = study_state_after_deliveries(rows)
        if after is StudyState.DELIVERED:
            cause = "; ".join((cause, *self._failures(connection, study_instance_uid)))
        if before is StudyState.REPORTED and after is StudyState.COMMITTED:
            self._move(connection, study_instance_uid, StudyState.DELIVERED, "accepted by every peer", at)
        if after is not before:
            self._move(connection, study_instance_uid, after, cause, at)

    def note(
        self,
        connection: sa.Connection,
        study_instance_uid: str,
        peer: str,
        *,
        before: str,
        after: str,
        cause: str,
        at: float,
        actor: str = ACTOR,
    ) -> None:
        """Write a line about a delivery into the history of its study."""
        states = {"before": before, "after": after, "subject": f"delivery {peer}"}
        self._transactions.remark(connection, study_instance_uid, **states, cause=cause, actor=actor, at=at)

    def unsettled(self, since: float) -> list[str]:
        """REPORTED studies, in that state since then or later, of which nothing need be waited for any more."""
        with self._transactions.read() as connection:
            return self._unsettled.scalars(connection, since=since)

    def _standings(self, connection: sa.Connection, study_instance_uid: str) -> list[_Standing] | None:
        """The deliveries of the study's current reports; None while an object of them has none yet."""
        rows = self._of_study.rows(connection, uid=study_instance_uid)
        return None if any(row["peer"] is None for row in rows) else [_standing(row) for row in rows]

    def _failures(self, connection: sa.Connection, study_instance_uid: str) -> list[str]:
        """What other current jobs of the study failed by: a delivered report must not hide it."""
        rows = self._failed.tuples(connection, uid=study_instance_uid)
        return [f"{algorithm} failed: {reason}" for algorithm, reason in rows]

    def _move(self, connection: sa.Connection, uid: str, after: StudyState, cause: str, at: float) -> None:
        self._transactions.move_study(connection, uid, after, cause=cause, actor=ACTOR, at=at)


def _unsettled(tables: Mapping[str, sa.Table]) -> sa.Select[Any]:
    """Studies REPORTED `since` of which nothing that is required waits, or something has failed."""
    studies, jobs, reports, deliveries = (tables[name] for name in ("studies", "jobs", "reports", "deliveries"))
    required = sa.and_(deliveries.c.alternative.is_(False), deliveries.c.instead == "")
    waits = sa.and_(deliveries.c.state == DeliveryState.WAITING.value, required)
    return (
        sa.select(studies.c.study_instance_uid)
        .join(reports, reports.c.study_instance_uid == studies.c.study_instance_uid)
        .join(jobs, jobs.c.job_uid == reports.c.job_uid)
        .outerjoin(deliveries, deliveries.c.sop_instance_uid == reports.c.sop_instance_uid)
        .where(studies.c.state == StudyState.REPORTED.value, studies.c.state_since >= sa.bindparam("since"))
        .where(jobs.c.current.is_(True), _is_awaited(reports))
        .group_by(studies.c.study_instance_uid)
        .having(_count(deliveries.c.peer.is_(None)) == 0)
        .having(sa.or_(_count(waits) == 0, _count(deliveries.c.state == DeliveryState.FAILED.value) > 0))
    )


def _standings(tables: Mapping[str, sa.Table]) -> sa.Select[Any]:
    """Of each object of the current reports of the study `uid` its deliveries, or a row without a peer."""
    jobs, reports, deliveries = (tables[name] for name in ("jobs", "reports", "deliveries"))
    return (
        sa.select(deliveries, reports.c.sop_class_uid, reports.c.job_uid, reports.c.form)
        .select_from(reports)
        .join(jobs, jobs.c.job_uid == reports.c.job_uid)
        .outerjoin(deliveries, deliveries.c.sop_instance_uid == reports.c.sop_instance_uid)
        .where(reports.c.study_instance_uid == sa.bindparam("uid"), jobs.c.current.is_(True), _is_awaited(reports))
        .order_by(deliveries.c.sop_instance_uid, deliveries.c.peer)
    )


def _failed(tables: Mapping[str, sa.Table]) -> sa.Select[Any]:
    """Algorithm and reason of the current jobs of the study `uid` that have failed."""
    jobs = tables["jobs"]
    of_study = (jobs.c.study_instance_uid == sa.bindparam("uid"), jobs.c.current.is_(True))
    query = sa.select(jobs.c.algorithm, jobs.c.reason).where(*of_study, jobs.c.state == JobState.FAILED.value)
    return query.order_by(jobs.c.ended_at)


def _is_awaited(reports: sa.Table) -> sa.ColumnElement[bool]:
    """Whether a study is done only when its peers have this object."""
    is_result = reports.c.form != Form.REJECTION.value
    return sa.and_(reports.c.held == "", reports.c.unwanted.is_(False), is_result, stands(reports))


def stands(reports: sa.Table) -> sa.ColumnElement[bool]:
    """Whether an object was neither replaced by a later report of its job nor taken back."""
    return sa.and_(reports.c.replaced_at.is_(None), reports.c.withdrawn_at.is_(None))


def _count(condition: sa.ColumnElement[bool]) -> sa.ColumnElement[int]:
    return sa.func.sum(sa.case((condition, 1), else_=0))


def _standing(row: Mapping[Any, Any]) -> _Standing:
    fields = {name: row[name] for name in _Standing.__dataclass_fields__}
    terms = {"state": DeliveryState(row["state"]), "form": form_of(row["form"], row["sop_class_uid"])}
    return _Standing(**{**fields, **terms})
