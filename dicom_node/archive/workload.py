"""The workload: what waits in which order, what failed, and how long readings took of late."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

import sqlalchemy as sa

from dicom_node.archive.index import Index
from dicom_node.core.lifecycle import JobState
from dicom_node.core.priority import QUEUES, Priority, queue_of
from dicom_node.core.queue_order import place

#: Jobs that are listed.
_MOST = 100


@dataclass(frozen=True, kw_only=True)
class WaitingJob:
    """A job that waits, in the order in which workers take them."""

    study_instance_uid: str
    algorithm: str
    priority: Priority
    queued_at: float
    next_try_at: float | None
    reason: str


@dataclass(frozen=True, kw_only=True)
class FailedJob:
    """A current job that ended without a report."""

    study_instance_uid: str
    algorithm: str
    reason: str
    attempts: int
    ended_at: float | None
    dead_letter: bool
    worker: str
    #: The last lines of the study's history about it, the latest last.
    lines: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Bucket:
    """What ended within one stretch of time."""

    begins_at: float
    count: int
    #: From the last image to the report; None where nothing ended.
    median_seconds: float | None
    longest_seconds: float | None


def read_waiting(index: Index, now: float, maximum_waiting_seconds: float) -> list[WaitingJob]:
    """The jobs that are taken next."""
    jobs = index.transactions.tables["jobs"]
    names = ("study_instance_uid", "algorithm", "priority", "queued_at", "next_try_at", "reason")
    query = sa.select(*(jobs.c[name] for name in names)).where(jobs.c.state == JobState.QUEUED.value)
    with index.transactions.read() as connection:
        rows = connection.execute(query).mappings().all()
    found = [WaitingJob(**{**row, "priority": Priority(row["priority"])}) for row in rows]
    found.sort(key=lambda job: place(job.priority, job.queued_at, now, maximum_waiting_seconds))
    return found[:_MOST]


def read_failed(index: Index) -> list[FailedJob]:
    """Current jobs that failed, the latest first."""
    jobs, history = (index.transactions.tables[name] for name in ("jobs", "history"))
    query = (
        sa.select(jobs)
        .where(jobs.c.state == JobState.FAILED.value, jobs.c.current.is_(True))
        .order_by(jobs.c.ended_at.desc())
        .limit(_MOST)
    )
    with index.transactions.read() as connection:
        rows = connection.execute(query).mappings().all()
        uids = [row["study_instance_uid"] for row in rows]
        told = sa.select(history.c.study_instance_uid, history.c.subject, history.c.cause)
        told = told.where(history.c.study_instance_uid.in_(uids)).order_by(history.c.number)
        lines: dict[tuple[str, str], list[str]] = {}
        for uid, subject, cause in connection.execute(told):
            lines.setdefault((uid, subject), []).append(cause)
    return [
        FailedJob(
            **{name: row[name] for name in ("study_instance_uid", "algorithm", "reason", "attempts", "ended_at")},
            dead_letter=row["dead_letter"],
            worker=row["worker"] or "",
            lines=tuple(lines.get((row["study_instance_uid"], f"job {row['algorithm']}"), ())[-5:]),
        )
        for row in rows
    ]


def read_service_seconds(index: Index, since: float) -> dict[str, float]:
    """How long a worker had a job of each queue, in the median of those that were reported since then."""
    jobs = index.transactions.tables["jobs"]
    seconds = (jobs.c.ended_at - jobs.c.started_at).label("seconds")
    query = sa.select(jobs.c.priority, seconds).where(*_reported_since(jobs, since), jobs.c.started_at.is_not(None))
    found: dict[str, list[float]] = {queue: [] for queue in QUEUES}
    with index.transactions.read() as connection:
        for priority, lasted in connection.execute(query):
            found[queue_of(Priority(priority))].append(lasted)
    everything = [lasted for some in found.values() for lasted in some]
    return {queue: median(some or everything) for queue, some in found.items() if some or everything}


def read_buckets(index: Index, now: float, *, stretch_seconds: float, count: int) -> list[Bucket]:
    """The last `count` stretches of time, the present one last."""
    jobs, studies = (index.transactions.tables[name] for name in ("jobs", "studies"))
    first = (now // stretch_seconds - count + 1) * stretch_seconds
    query = (
        sa.select(jobs.c.ended_at, studies.c.last_received_at)
        .join(studies, studies.c.study_instance_uid == jobs.c.study_instance_uid)
        .where(*_reported_since(jobs, first))
    )
    lasted: list[list[float]] = [[] for _ in range(count)]
    with index.transactions.read() as connection:
        for ended_at, last_received_at in connection.execute(query):
            number = int((ended_at - first) // stretch_seconds)
            if 0 <= number < count:
                lasted[number].append(max(0.0, ended_at - last_received_at))
    return [_bucket(first + number * stretch_seconds, some) for number, some in enumerate(lasted)]


def read_last_accepted(index: Index) -> dict[str, float]:
    """When each peer last accepted an object."""
    deliveries = index.transactions.tables["deliveries"]
    query = sa.select(deliveries.c.peer, sa.func.max(deliveries.c.accepted_at)).group_by(deliveries.c.peer)
    with index.transactions.read() as connection:
        return {peer: at for peer, at in connection.execute(query) if at is not None}


def _reported_since(jobs: sa.Table, since: float) -> tuple[sa.ColumnElement[bool], ...]:
    # By the index of jobs that owe no answer and when they ended.
    return (jobs.c.answer_owed.is_(False), jobs.c.ended_at >= since, jobs.c.state == JobState.REPORTED.value)


def _bucket(begins_at: float, lasted: Sequence[float]) -> Bucket:
    return Bucket(
        begins_at=begins_at,
        count=len(lasted),
        median_seconds=median(lasted) if lasted else None,
        longest_seconds=max(lasted, default=None),
    )
