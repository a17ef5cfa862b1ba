"""The index's deliveries: one object to one peer each, with its attempts and its next time."""

import logging
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from dicom_node.archive.delivery_rows import (
    DeliveryRow,
    counts,
    delivery_row,
    is_of_current_job,
    select_deliveries,
    waiting_row,
)
from dicom_node.archive.prepared import Prepared
from dicom_node.archive.prepared_query import PreparedQuery
from dicom_node.archive.settlement import Settlement, stands
from dicom_node.archive.transactions import Transactions
from dicom_node.core.form import UNREAD, Form, form_of
from dicom_node.core.lifecycle import DELIVERY_TRANSITIONS, DeliveryState, StudyState, check_transition
from dicom_node.core.priority import Priority

__all__ = ["Deliveries", "DeliveryRow"]

log = logging.getLogger(__name__)


class Deliveries:
    """The deliveries of the index."""

    def __init__(self, transactions: Transactions) -> None:
        self._transactions = transactions
        self._settlement = Settlement(transactions)
        self._deliveries = transactions.tables["deliveries"]
        self._reports = transactions.tables["reports"]
        self._unplanned = tuple(map(PreparedQuery, _unplanned(transactions.tables)))
        self._due = {
            least_tried: PreparedQuery(_due(transactions.tables, least_tried=least_tried))
            for least_tried in (False, True)
        }
        self._at_peer = PreparedQuery(_at_peer(transactions.tables))
        self._is_current = is_of_current_job(transactions.tables)
        deliveries = self._deliveries
        self._change_of_row = sa.update(deliveries).where(
            deliveries.c.sop_instance_uid == sa.bindparam("uid"),
            deliveries.c.peer == sa.bindparam("name"),
            deliveries.c.fence == sa.bindparam("number"),
            deliveries.c.state == sa.bindparam("before"),
        )
        self._changes_of_row: dict[frozenset[str], Prepared] = {}
        reports = self._reports
        self._study_of = PreparedQuery(
            sa.select(reports.c.study_instance_uid).where(reports.c.sop_instance_uid == sa.bindparam("uid"))
        )
        self._new_delivery = Prepared(sa.insert(deliveries), *waiting_row("", "", "", 0.0))

    def unplanned(self, since: float = 0.0) -> list[tuple[str, tuple[str, ...], Form, str]]:
        """Objects written since then that no delivery knows yet, with their route's peers, their form and their job."""
        with self._transactions.read() as connection:
            rows = [row for query in self._unplanned for row in query.tuples(connection, since=since)]
        return [(uid, tuple(peers), form_of(form, sop_class), job) for uid, peers, form, sop_class, job in rows]

    def unwanted(self, sop_instance_uids: Sequence[str], at: float) -> None:
        """No peer takes these objects: they are not missed, and their studies may be done without them."""
        reports = self._reports
        with self._transactions.write(durable=False) as connection:
            studies = self._studies_of(connection, sop_instance_uids)
            for uid in sop_instance_uids:
                same = reports.c.sop_instance_uid == uid
                connection.execute(sa.update(reports).where(same).values(unwanted=True))
            for study in sorted(set(studies.values())):
                self._settlement.settle(connection, study, at)

    def plan(self, sop_instance_uid: str, peers: Sequence[str], at: float) -> None:
        """Let an object wait for each of these peers, due at once."""
        self.plan_all([(sop_instance_uid, peers)], at)

    def plan_all(self, objects: Sequence[tuple[str, Sequence[str]]], at: float) -> None:
        """Let objects wait for their peers, in one change: nobody sees half of a report that can be sent."""
        with self._transactions.write(durable=False) as connection:
            studies = self._studies_of(connection, [uid for uid, _ in objects])
            rows = [waiting_row(uid, peer, studies[uid], at) for uid, peers in objects for peer in peers]
            for row in rows:
                self._new_delivery(connection, **row)

    def due_studies(self, peer: str, now: float, limit: int, *, least_tried: bool = False) -> list[str]:
        """Studies of which something is due at a peer: the most urgent first, then the oldest.

        With `least_tried` those before all that were tried more often. An object whose study was opened again waits
        until its job counts again, if ever.
        """
        wanted = {"name": peer, "now": now, "most": limit}
        with self._transactions.read() as connection:
            return self._due[least_tried].scalars(connection, **wanted)

    def waiting_for_others_than(self, peers: Collection[str]) -> set[str]:
        """Names of peers that something waits for and that are none of these."""
        deliveries = self._deliveries
        query = sa.select(deliveries.c.peer).where(deliveries.c.state == DeliveryState.WAITING.value, self._is_current)
        query = query.distinct()
        with self._transactions.read() as connection:
            return set(connection.execute(query).scalars()) - set(peers)

    def at_peer(self, study_instance_uid: str, peer: str) -> list[DeliveryRow]:
        """Deliveries of the study's current jobs' objects to one peer, whatever their state."""
        with self._transactions.read() as connection:
            rows = self._at_peer.rows(connection, uid=study_instance_uid, name=peer)
        return [delivery_row(row) for row in rows]

    def of_study(self, study_instance_uid: str) -> list[DeliveryRow]:
        """The study's deliveries."""
        return self._rows(self._deliveries.c.study_instance_uid == study_instance_uid)

    def unfinished(self, limit: int | None = None) -> list[DeliveryRow]:
        """Deliveries of current jobs' objects that wait or have failed, the next due first."""
        states = (DeliveryState.WAITING.value, DeliveryState.FAILED.value)
        return self._rows(sa.and_(self._deliveries.c.state.in_(states), self._is_current), limit)

    def accepted(self, row: DeliveryRow, *, reason: str, at: float, commitment: bool = False) -> bool:
        """The peer has the object; the study is DELIVERED with its last one.

        `commitment` says that the peer is to be asked for it. As all that change a row, False where the row is no
        longer what was read, and nothing changes: a late result of somebody else must not overwrite.
        """
        values = {"attempts": row.attempts + 1, "accepted_at": at, "commitment": commitment, "next_try_at": at}
        return self._change(row, DeliveryState.ACCEPTED, reason, at, transaction_uid=None, **values)

    def postponed(self, row: DeliveryRow, *, reason: str, refused: bool, next_try_at: float, at: float) -> bool:
        """The object did not arrive; it is tried again at the given time."""
        values = {"attempts": row.attempts + 1, "refusals": row.refusals + int(refused), "next_try_at": next_try_at}
        return self._change(row, DeliveryState.WAITING, reason, at, **values)

    def held(self, row: DeliveryRow, *, reason: str, until: float, at: float) -> bool:
        """The object was not sent, for what it refers to did not arrive; no attempt is counted."""
        return self._change(row, DeliveryState.WAITING, reason, at, next_try_at=until)

    def failed(self, row: DeliveryRow, *, reason: str, at: float, refused: bool = True) -> bool:
        """The object will not go to the peer; the study has FAILED until a person asks again."""
        values = {"attempts": row.attempts + int(refused), "refusals": row.refusals + int(refused)}
        return self._change(row, DeliveryState.FAILED, reason, at, **values)

    def also_to(self, peer: str, instead: str, *, reason: str, at: float, limit: int) -> int:
        """Let what waits for a peer also go to another one; returns how many objects, and leaves more than `limit`.

        One change a study, so that none holds up another.
        """
        deliveries = self._deliveries
        waiting = (deliveries.c.peer == peer, deliveries.c.state == DeliveryState.WAITING.value)
        without = (deliveries.c.commitment.is_(False), deliveries.c.instead == "", self._is_current)
        query = sa.select(deliveries.c.study_instance_uid, deliveries.c.sop_instance_uid)
        found: dict[str, list[str]] = {}
        with self._transactions.read() as connection:
            for study, uid in connection.execute(query.where(*waiting, *without).limit(limit)):
                found.setdefault(study, []).append(uid)
        return sum(
            self._also_to(study, uids, peer, instead, reason=reason, at=at, is_wanted=sa.and_(*waiting, *without))
            for study, uids in found.items()
        )

    def _also_to(
        self,
        study: str,
        uids: Sequence[str],
        peer: str,
        instead: str,
        *,
        reason: str,
        at: float,
        is_wanted: sa.ColumnElement[bool],
    ) -> int:
        """Let these objects of one study also go there, as far as they still wait."""
        deliveries = self._deliveries
        uid_of = deliveries.c.sop_instance_uid
        with self._transactions.write(durable=False) as connection:
            # Always the study's row first: two that lock in different orders would wait for each other.
            self._transactions.study_state(connection, study)
            query = sa.select(uid_of, deliveries.c.state).where(uid_of.in_(uids), is_wanted).order_by(uid_of)
            rows = connection.execute(query.with_for_update()).all()
            for uid, state in rows:
                change = sa.update(deliveries).where(uid_of == uid, deliveries.c.peer == peer)
                connection.execute(change.values(instead=instead, fence=deliveries.c.fence + 1))
                known = sa.select(deliveries.c.peer).where(uid_of == uid, deliveries.c.peer == instead)
                if connection.execute(known).first() is None:
                    new = waiting_row(uid, instead, study, at, alternative=True)
                    connection.execute(sa.insert(deliveries).values(**new))
                cause = f"object {uid} goes to {instead} too: {reason}"
                self._settlement.note(connection, study, peer, before=state, after=state, cause=cause, at=at)
            self._settlement.settle(connection, study, at)
        return len(rows)

    def unsettled(self, since: float = 0.0) -> list[str]:
        """REPORTED studies since then of which nothing need be waited for: those that `settle` would move."""
        return self._settlement.unsettled(since)

    def settle(self, study_instance_uid: str, at: float) -> None:
        """Let the study be DELIVERED, COMMITTED or FAILED as its deliveries say.

        With one that has failed the study has FAILED: a late instance may have led back to what failed before.
        """
        with self._transactions.write(durable=False) as connection:
            self._settlement.settle(connection, study_instance_uid, at)

    def _studies_of(self, connection: sa.Connection, uids: Sequence[str]) -> dict[str, str]:
        """The study of each object."""
        return {uid: study for uid in uids for study in self._study_of.scalars(connection, uid=uid)}

    def _change(self, row: DeliveryRow, state: DeliveryState, reason: str, at: float, **values: Any) -> bool:
        check_transition(DELIVERY_TRANSITIONS, row.state, state)
        study = row.study_instance_uid
        same = {"uid": row.sop_instance_uid, "name": row.peer, "number": row.fence, "before": row.state.value}
        with self._transactions.write(durable=False) as connection:
            # Always the study's row first: two that lock in different orders would wait for each other.
            self._transactions.study_state(connection, study)
            values = {"state": state.value, "reason": reason, "fence": row.fence + 1, **values}
            if self._change_of(values)(connection, **same, **values).rowcount != 1:
                facts = {"study_instance_uid": study, "sop_instance_uid": row.sop_instance_uid, "peer": row.peer}
                log.warning("a delivery changed meanwhile; what became of the earlier one is dropped", extra=facts)
                return False
            if state is not row.state or reason != row.reason:
                cause = f"object {row.sop_instance_uid}: {reason}"
                self._settlement.note(connection, study, row.peer, before=row.state, after=state, cause=cause, at=at)
            self._settlement.settle(connection, study, at)
        return True

    def _change_of(self, values: Collection[str]) -> Prepared:
        """The statement that gives these columns of a row values; others than are changed often are few."""
        known = self._changes_of_row.get(frozenset(values))
        if known is None:
            known = self._changes_of_row[frozenset(values)] = Prepared(self._change_of_row, *values)
        return known

    def _rows(self, condition: sa.ColumnElement[bool], limit: int | None = None) -> list[DeliveryRow]:
        deliveries = self._deliveries
        query = select_deliveries(self._transactions.tables).where(condition)
        query = query.order_by(deliveries.c.next_try_at, deliveries.c.sop_instance_uid).limit(limit)
        with self._transactions.read() as connection:
            return [delivery_row(row) for row in connection.execute(query).mappings()]


def _unplanned(tables: Mapping[str, sa.Table]) -> tuple[sa.Select[Any], sa.Select[Any]]:
    """Objects and where their route sends them: of studies REPORTED `since`, and what says why one was not read."""
    studies, jobs, reports, deliveries = (tables[name] for name in ("studies", "jobs", "reports", "deliveries"))
    known = sa.select(deliveries.c.sop_instance_uid).where(deliveries.c.sop_instance_uid == reports.c.sop_instance_uid)
    new = (
        sa.select(reports.c.sop_instance_uid, jobs.c.send_to, reports.c.form, reports.c.sop_class_uid, jobs.c.job_uid)
        .join(jobs, jobs.c.job_uid == reports.c.job_uid)
        .where(reports.c.held == "", reports.c.unwanted.is_(False), jobs.c.current.is_(True), ~known.exists())
        .where(stands(reports))
        .order_by(reports.c.written_at)
    )
    reported = (
        new.join(studies, studies.c.study_instance_uid == reports.c.study_instance_uid)
        .where(studies.c.state == StudyState.REPORTED.value, studies.c.state_since >= sa.bindparam("since"))
        .where(reports.c.form.not_in(UNREAD))
    )
    # Whatever the state of the study, which stays what it is.
    unread = new.where(reports.c.form.in_(UNREAD), reports.c.written_at >= sa.bindparam("since"))
    return reported, unread


def _due(tables: Mapping[str, sa.Table], *, least_tried: bool) -> sa.Select[Any]:
    """At the `most` so many studies of which something is due `now` at the peer of this `name`."""
    studies, jobs, reports, deliveries = (tables[name] for name in ("studies", "jobs", "reports", "deliveries"))
    urgency = sa.case({term.value: rank for rank, term in enumerate(Priority)}, value=studies.c.priority)
    tried = sa.func.max(deliveries.c.attempts)
    is_due = deliveries.c.next_try_at <= sa.bindparam("now")
    return (
        sa.select(studies.c.study_instance_uid)
        .select_from(deliveries)
        .join(reports, reports.c.sop_instance_uid == deliveries.c.sop_instance_uid)
        .join(jobs, jobs.c.job_uid == reports.c.job_uid)
        .join(studies, studies.c.study_instance_uid == deliveries.c.study_instance_uid)
        .where(deliveries.c.peer == sa.bindparam("name"), deliveries.c.state == DeliveryState.WAITING.value)
        .where(deliveries.c.commitment.is_(False), is_due, counts(tables))
        .group_by(studies.c.study_instance_uid, studies.c.priority)
        .order_by(*([tried] if least_tried else []), urgency)
        .order_by(sa.func.min(reports.c.written_at), studies.c.study_instance_uid)
        .limit(sa.bindparam("most"))
    )


def _at_peer(tables: Mapping[str, sa.Table]) -> sa.Select[Any]:
    """Deliveries of the current jobs of the study `uid` to the peer of this `name`."""
    jobs, reports, deliveries = (tables[name] for name in ("jobs", "reports", "deliveries"))
    return (
        select_deliveries(tables)
        .join(jobs, jobs.c.job_uid == reports.c.job_uid)
        .where(deliveries.c.study_instance_uid == sa.bindparam("uid"))
        .where(deliveries.c.peer == sa.bindparam("name"), counts(tables))
        .order_by(deliveries.c.sop_instance_uid)
    )
