"""The overview: the whole node, or one study, read from the index in a few queries."""

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

import sqlalchemy as sa

from dicom_node.archive.deliveries import DeliveryRow, is_of_current_job
from dicom_node.archive.index import Index
from dicom_node.archive.jobs import JobRow
from dicom_node.archive.lines import (
    DONE,
    IN_HAND,
    NEED_A_PERSON,
    SILENT_AFTER_SECONDS,
    ConditionLine,
    DeliveryLine,
    HeldLine,
    HistoryLine,
    JobLine,
    Overview,
    PeerLine,
    QueueLine,
    SeriesLine,
    StudyDetail,
    StudyLine,
    WithdrawalLine,
    WorkerLine,
    result_of,
    to_json,
)
from dicom_node.archive.peers import PeerAway
from dicom_node.archive.studies import HistoryRow
from dicom_node.archive.transactions import Transactions
from dicom_node.archive.withdrawals import Withdrawal
from dicom_node.core.errors import UnknownStudy
from dicom_node.core.lifecycle import DeliveryState, JobState, StudyState
from dicom_node.core.priority import QUEUES, Priority, queue_of

__all__ = ["Overview", "StudyDetail", "read_lines", "read_overview", "read_study", "to_json"]


def read_overview(index: Index, now: float, limit: int = 200) -> Overview:
    """The node as the index knows it; at most `limit` studies of each group, and `limit` deliveries."""
    groups = (_studies(index, states, limit) for states in (NEED_A_PERSON, IN_HAND, DONE))
    away = {peer.peer: peer for peer in index.peers.all_away()}
    return Overview(
        now=now,
        studies_by_state=_counts(index),
        queues=_queues(index, now),
        conditions=tuple(ConditionLine(**vars(row)) for row in index.conditions.rows()),
        dead_letters=index.jobs.dead_letters(),
        studies=tuple(study for group in groups for study in group),
        deliveries=tuple(_delivery(row, away) for row in index.deliveries.unfinished(limit)),
        peers=_peers(index, away, now),
        workers=_workers(index, now),
    )


def read_study(index: Index, study_instance_uid: str, now: float) -> StudyDetail:
    """One study's whole story; UnknownStudy where there is none."""
    lines = _study_lines(index, _table(index, "studies").c.study_instance_uid == study_instance_uid)
    if not lines:
        raise UnknownStudy(f"study {study_instance_uid} is not in the index; `dicom-node status` lists those that are")
    current = _current_jobs(index, study_instance_uid)
    away = {peer.peer: peer for peer in index.peers.all_away()}
    return StudyDetail(
        now=now,
        study=lines[0],
        history=tuple(_history(row) for row in index.studies.history(study_instance_uid)),
        series=_series(index, study_instance_uid),
        jobs=tuple(_job(row, current) for row in index.jobs.of_study(study_instance_uid)),
        deliveries=tuple(_delivery(row, away) for row in index.deliveries.of_study(study_instance_uid)),
        held=tuple(
            HeldLine(sop_instance_uid=held.sop_instance_uid, sop_class_uid=held.sop_class_uid, reason=held.reason)
            for held in index.reports.held(study_instance_uid)
        ),
        withdrawals=tuple(map(_withdrawal, index.withdrawals.of_study(study_instance_uid))),
    )


def read_lines(index: Index, uids: Sequence[str]) -> list[StudyLine]:
    """The lines of these studies, in no order."""
    return _study_lines(index, _table(index, "studies").c.study_instance_uid.in_(uids), limit=len(uids))


def _transactions(index: Index) -> Transactions:
    # The parts of the index share one; the overview's joins belong to none of them.
    return index.transactions


def _table(index: Index, name: str) -> sa.Table:
    return _transactions(index).tables[name]


def _read(index: Index, query: sa.Select[Any]) -> Sequence[sa.RowMapping]:
    with _transactions(index).read() as connection:
        return connection.execute(query).mappings().all()


def _counts(index: Index) -> dict[StudyState, dict[Priority, int]]:
    studies = _table(index, "studies")
    query = sa.select(studies.c.state, studies.c.priority, sa.func.count().label("count"))
    counts = {state: dict.fromkeys(Priority, 0) for state in StudyState}
    for row in _read(index, query.group_by(studies.c.state, studies.c.priority)):
        counts[StudyState(row["state"])][Priority(row["priority"])] = row["count"]
    return counts


def _queues(index: Index, now: float) -> tuple[QueueLine, ...]:
    jobs = _table(index, "jobs")
    query = sa.select(
        jobs.c.priority, jobs.c.state, sa.func.count().label("count"), sa.func.min(jobs.c.queued_at).label("oldest")
    )
    query = query.where(jobs.c.state.in_([JobState.QUEUED.value, JobState.READING.value]))
    rows = _read(index, query.group_by(jobs.c.priority, jobs.c.state))
    return tuple(
        _queue(queue, [row for row in rows if queue_of(Priority(row["priority"])) == queue], now) for queue in QUEUES
    )


def _queue(queue: str, rows: Sequence[sa.RowMapping], now: float) -> QueueLine:
    waiting = [row for row in rows if row["state"] == JobState.QUEUED.value]
    oldest = min((row["oldest"] for row in waiting), default=None)
    return QueueLine(
        queue=queue,
        waiting=sum(row["count"] for row in waiting),
        reading=sum(row["count"] for row in rows) - sum(row["count"] for row in waiting),
        oldest_waiting_seconds=None if oldest is None else max(0.0, now - oldest),
    )


def _studies(index: Index, states: Sequence[StudyState], limit: int) -> list[StudyLine]:
    studies = _table(index, "studies")
    urgency = sa.case({priority.value: rank for rank, priority in enumerate(Priority)}, value=studies.c.priority)
    newest = studies.c.last_received_at.desc()
    order = (urgency, newest) if states is IN_HAND else (newest,)
    return _study_lines(index, studies.c.state.in_([state.value for state in states]), order, limit)


def _study_lines(
    index: Index,
    condition: sa.ColumnElement[bool],
    order: Sequence[sa.ColumnElement[Any]] = (),
    limit: int = 1,
) -> list[StudyLine]:
    studies, instances = _table(index, "studies"), _table(index, "instances")
    of_study = instances.c.study_instance_uid == studies.c.study_instance_uid
    # Subqueries run for the listed studies only: a join would count every instance of the archive first.
    count = sa.select(sa.func.count()).select_from(instances).where(of_study)
    query = (
        sa.select(
            studies,
            count.scalar_subquery().label("instances"),
            count.where(instances.c.conflict.is_(True)).scalar_subquery().label("conflicts"),
            sa.select(instances.c.calling_ae_title).where(of_study).limit(1).scalar_subquery().label("sender"),
        )
        .where(condition)
        .order_by(*order)
        .limit(limit)
    )
    rows = _read(index, query)
    jobs = _jobs_of(index, [row["study_instance_uid"] for row in rows])
    return [_study_line(row, jobs.get(row["study_instance_uid"], [])) for row in rows]


def _jobs_of(index: Index, studies: Sequence[str]) -> dict[str, list[sa.RowMapping]]:
    """The current jobs of these studies."""
    jobs = _table(index, "jobs")
    query = sa.select(jobs.c.study_instance_uid, jobs.c.algorithm, jobs.c.summary, jobs.c.dead_letter)
    found: dict[str, list[sa.RowMapping]] = {}
    for row in _read(index, query.where(jobs.c.study_instance_uid.in_(studies), jobs.c.current.is_(True))):
        found.setdefault(row["study_instance_uid"], []).append(row)
    return found


def _study_line(row: sa.RowMapping, jobs: Sequence[sa.RowMapping]) -> StudyLine:
    results = (result_of(job["summary"]) for job in jobs)
    return StudyLine(
        study_instance_uid=row["study_instance_uid"],
        state=StudyState(row["state"]),
        reason=row["reason"],
        priority=Priority(row["priority"]),
        since=row["state_since"],
        first_received_at=row["first_received_at"],
        last_received_at=row["last_received_at"],
        instances=row["instances"],
        conflicts=row["conflicts"],
        calling_ae_title=row["sender"] or "",
        algorithms=tuple(sorted({job["algorithm"] for job in jobs})),
        results=tuple(result for result in results if result is not None),
        dead_letters=tuple(sorted({job["algorithm"] for job in jobs if job["dead_letter"]})),
        evicted_at=row["evicted_at"],
    )


def _series(index: Index, study_instance_uid: str) -> tuple[SeriesLine, ...]:
    instances = _table(index, "instances")
    query = (
        sa.select(
            instances.c.series_instance_uid,
            sa.func.min(instances.c.sop_instance_uid).label("first"),
            sa.func.count().label("instances"),
            sa.func.sum(sa.case((instances.c.conflict, 1), else_=0)).label("conflicts"),
            sa.func.sum(instances.c.size_bytes).label("size_bytes"),
        )
        .where(instances.c.study_instance_uid == study_instance_uid)
        .group_by(instances.c.series_instance_uid)
    )
    rows = _read(index, query)
    first = sa.select(instances.c.sop_instance_uid, instances.c.attributes)
    headers = _read(index, first.where(instances.c.sop_instance_uid.in_([row["first"] for row in rows])))
    attributes = {row["sop_instance_uid"]: row["attributes"] for row in headers}
    lines = [_series_line(row, attributes[row["first"]]) for row in rows]
    return tuple(sorted(lines, key=lambda line: (line.number is None, line.number or 0, line.series_instance_uid)))


def _series_line(row: sa.RowMapping, attributes: Mapping[str, Any]) -> SeriesLine:
    number = attributes.get("SeriesNumber")
    return SeriesLine(
        series_instance_uid=row["series_instance_uid"],
        modality=str(attributes.get("Modality") or ""),
        number=number if isinstance(number, int) else None,
        description=str(attributes.get("SeriesDescription") or ""),
        instances=row["instances"],
        conflicts=int(row["conflicts"]),
        size_bytes=int(row["size_bytes"]),
    )


def _peers(index: Index, away: Mapping[str, PeerAway], now: float) -> tuple[PeerLine, ...]:
    deliveries = _table(index, "deliveries")
    oldest = sa.func.min(deliveries.c.waiting_since).label("oldest")
    query = sa.select(deliveries.c.peer, deliveries.c.state, sa.func.count().label("count"), oldest)
    # What a peer has stays there; but nobody waits for what a superseded job left.
    arrived = deliveries.c.state.in_([DeliveryState.ACCEPTED.value, DeliveryState.COMMITTED.value])
    query = query.where(sa.or_(arrived, is_of_current_job(_transactions(index).tables)))
    found: dict[str, dict[str, sa.RowMapping]] = {}
    for row in _read(index, query.group_by(deliveries.c.peer, deliveries.c.state)):
        found.setdefault(row["peer"], {})[row["state"]] = row
    commitments = index.commitments.open_by_peer()
    return tuple(
        _peer(peer, by_state, commitments.get(peer, 0), away.get(peer), now) for peer, by_state in sorted(found.items())
    )


def _peer(
    peer: str, by_state: Mapping[str, sa.RowMapping], commitments: int, away: PeerAway | None, now: float
) -> PeerLine:
    waiting = by_state.get(DeliveryState.WAITING.value)
    since = None if waiting is None else waiting["oldest"]
    return PeerLine(
        peer=peer,
        **{state.lower(): by_state[state]["count"] if state in by_state else 0 for state in DeliveryState},
        oldest_waiting_seconds=None if since is None else max(0.0, now - since),
        commitments_open=commitments,
        away_since=None if away is None else away.since,
        next_try_at=None if away is None else away.next_try_at,
        reason="" if away is None else away.reason,
    )


def _workers(index: Index, now: float) -> tuple[WorkerLine, ...]:
    workers = index.workers.rows()
    jobs = _table(index, "jobs")
    reading = [worker.job_uid for worker in workers if worker.job_uid]
    query = sa.select(jobs.c.job_uid, jobs.c.study_instance_uid).where(jobs.c.job_uid.in_(reading))
    studies = {row["job_uid"]: row["study_instance_uid"] for row in _read(index, query)}
    return tuple(
        WorkerLine(
            **{field.name: getattr(worker, field.name) for field in fields(worker)},
            heartbeat_age_seconds=max(0.0, now - worker.heartbeat_at),
            silent=now - worker.heartbeat_at > SILENT_AFTER_SECONDS,
            study_instance_uid=studies.get(worker.job_uid or ""),
        )
        for worker in workers
    )


def _current_jobs(index: Index, study_instance_uid: str) -> frozenset[str]:
    jobs = _table(index, "jobs")
    query = sa.select(jobs.c.job_uid).where(jobs.c.study_instance_uid == study_instance_uid, jobs.c.current.is_(True))
    return frozenset(row["job_uid"] for row in _read(index, query))


def _job(row: JobRow, current: frozenset[str]) -> JobLine:
    job = row.job
    return JobLine(
        job_uid=job.job_uid,
        algorithm=job.algorithm,
        route=job.route,
        series_instance_uid=job.series_instance_uid,
        priority=job.priority,
        state=job.state,
        reason=job.reason,
        current=job.job_uid in current,
        attempts=job.attempts,
        queued_at=row.queued_at,
        started_at=row.started_at,
        ended_at=row.ended_at,
        next_try_at=row.next_try_at,
        worker=row.worker,
        result=result_of(row.summary),
        dead_letter=row.dead_letter,
    )


def _withdrawal(row: Withdrawal) -> WithdrawalLine:
    return WithdrawalLine(
        asked_at=row.asked_at,
        actor=row.actor,
        safety=row.safety,
        reason=row.reason,
        peers=tuple(sorted(row.objects)),
        written_at=row.written_at,
    )


def _history(row: HistoryRow) -> HistoryLine:
    return HistoryLine(**{field.name: getattr(row, field.name) for field in fields(HistoryLine)})


def _delivery(row: DeliveryRow, away: Mapping[str, PeerAway]) -> DeliveryLine:
    shared = ("study_instance_uid", "sop_instance_uid", "sop_class_uid", "peer", "state", "attempts")
    times = ("accepted_at", "committed_at")
    next_try_at, reason = _next(row, away.get(row.peer))
    values = {name: getattr(row, name) for name in (*shared, *times)}
    return DeliveryLine(**values, next_try_at=next_try_at, reason=reason)


def _next(row: DeliveryRow, away: PeerAway | None) -> tuple[float | None, str]:
    """When something is done about a delivery, and why not now."""
    if row.state is DeliveryState.WAITING:
        if away is not None and away.next_try_at > row.next_try_at:
            return away.next_try_at, away.reason
        return row.next_try_at, row.reason
    if row.state is DeliveryState.ACCEPTED and row.commitment:
        asked = "asked for" if row.transaction_uid else "not asked for yet"
        return row.next_try_at, f"{row.reason}; storage commitment {asked}"
    return None, row.reason
