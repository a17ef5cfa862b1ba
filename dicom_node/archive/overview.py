"""The overview: the whole node, read from the index in a few queries."""

from collections.abc import Mapping, Sequence
from dataclasses import fields

import sqlalchemy as sa

from dicom_node.archive.delivery_rows import is_of_current_job
from dicom_node.archive.index import Index
from dicom_node.archive.lines import (
    DONE,
    IN_HAND,
    NEED_A_PERSON,
    SILENT_AFTER_SECONDS,
    ConditionLine,
    Overview,
    PeerLine,
    QueueLine,
    StudyDetail,
    StudyLine,
    WorkerLine,
    to_json,
)
from dicom_node.archive.peers import PeerAway
from dicom_node.archive.shared_lines import delivery_line, read_rows, study_lines, table_of
from dicom_node.archive.study_detail import read_study
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
        deliveries=tuple(delivery_line(row, away) for row in index.deliveries.unfinished(limit)),
        peers=_peers(index, away, now),
        workers=_workers(index, now),
    )


def read_lines(index: Index, uids: Sequence[str]) -> list[StudyLine]:
    """The lines of these studies, in no order."""
    return study_lines(index, table_of(index, "studies").c.study_instance_uid.in_(uids), limit=len(uids))


def _counts(index: Index) -> dict[StudyState, dict[Priority, int]]:
    studies = table_of(index, "studies")
    query = sa.select(studies.c.state, studies.c.priority, sa.func.count().label("count"))
    counts = {state: dict.fromkeys(Priority, 0) for state in StudyState}
    for row in read_rows(index, query.group_by(studies.c.state, studies.c.priority)):
        counts[StudyState(row["state"])][Priority(row["priority"])] = row["count"]
    return counts


def _queues(index: Index, now: float) -> tuple[QueueLine, ...]:
    jobs = table_of(index, "jobs")
    query = sa.select(
        jobs.c.priority, jobs.c.state, sa.func.count().label("count"), sa.func.min(jobs.c.queued_at).label("oldest")
    )
    query = query.where(jobs.c.state.in_([JobState.QUEUED.value, JobState.READING.value]))
    rows = read_rows(index, query.group_by(jobs.c.priority, jobs.c.state))
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
    studies = table_of(index, "studies")
    urgency = sa.case({priority.value: rank for rank, priority in enumerate(Priority)}, value=studies.c.priority)
    newest = studies.c.last_received_at.desc()
    order = (urgency, newest) if states is IN_HAND else (newest,)
    return study_lines(index, studies.c.state.in_([state.value for state in states]), order, limit)


def _peers(index: Index, away: Mapping[str, PeerAway], now: float) -> tuple[PeerLine, ...]:
    deliveries = table_of(index, "deliveries")
    peer, state, count = deliveries.c.peer, deliveries.c.state, sa.func.count().label("count")
    # What a peer has stays there, and is counted without its row; nobody waits for what a superseded job left.
    arrived = sa.select(peer, state, count, sa.null().label("oldest"))
    arrived = arrived.where(state.in_([DeliveryState.ACCEPTED.value, DeliveryState.COMMITTED.value]))
    open_ones = sa.select(peer, state, count, sa.func.min(deliveries.c.waiting_since).label("oldest"))
    open_ones = open_ones.where(state.in_([DeliveryState.WAITING.value, DeliveryState.FAILED.value]))
    open_ones = open_ones.where(is_of_current_job(index.transactions.tables))
    found: dict[str, dict[str, sa.RowMapping]] = {}
    for query in (arrived, open_ones):
        for row in read_rows(index, query.group_by(peer, state)):
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
    jobs = table_of(index, "jobs")
    reading = [worker.job_uid for worker in workers if worker.job_uid]
    query = sa.select(jobs.c.job_uid, jobs.c.study_instance_uid).where(jobs.c.job_uid.in_(reading))
    studies = {row["job_uid"]: row["study_instance_uid"] for row in read_rows(index, query)}
    return tuple(
        WorkerLine(
            **{field.name: getattr(worker, field.name) for field in fields(worker)},
            heartbeat_age_seconds=max(0.0, now - worker.heartbeat_at),
            silent=now - worker.heartbeat_at > SILENT_AFTER_SECONDS,
            study_instance_uid=studies.get(worker.job_uid or ""),
        )
        for worker in workers
    )
