"""Durations that the index remembers, counted into buckets by the database itself."""

from collections.abc import Sequence
from dataclasses import dataclass

import sqlalchemy as sa

from dicom_node.archive.index import Index
from dicom_node.archive.resending import SENT_AGAIN
from dicom_node.core.lifecycle import JobState, StudyState


@dataclass(frozen=True, kw_only=True)
class Durations:
    """How many of some durations were no longer than each bound."""

    #: Upper bound in seconds and how many are at most that, rising.
    buckets: tuple[tuple[float, int], ...]
    count: int
    total_seconds: float


def read_time_to_result(index: Index, bounds: Sequence[float]) -> Durations:
    """From a study's last instance to its report's acceptance by every peer.

    Studies that a person asked for again, or had sent again, are left out: their clock did not start with an instance.
    """
    tables = index.transactions.tables
    studies, deliveries, history = (tables[name] for name in ("studies", "deliveries", "history"))
    asked_again = sa.select(history.c.number).where(
        history.c.study_instance_uid == studies.c.study_instance_uid,
        sa.or_(
            sa.and_(history.c.after == StudyState.COMPLETE.value, history.c.before != StudyState.RECEIVING.value),
            history.c.cause == SENT_AGAIN,
        ),
    )
    seconds = (sa.func.max(deliveries.c.accepted_at) - studies.c.last_received_at).label("seconds")
    query = (
        sa.select(seconds)
        .join(deliveries, deliveries.c.study_instance_uid == studies.c.study_instance_uid)
        .where(studies.c.state.in_([StudyState.DELIVERED.value, StudyState.COMMITTED.value]), ~asked_again.exists())
        .group_by(studies.c.study_instance_uid, studies.c.last_received_at)
    )
    return _counted(index, query.subquery(), bounds)


def read_job_durations(index: Index, bounds: Sequence[float]) -> Durations:
    """From a job's claim to its report, of the jobs that ended in one."""
    jobs = index.transactions.tables["jobs"]
    query = sa.select((jobs.c.ended_at - jobs.c.started_at).label("seconds"))
    return _counted(index, query.where(jobs.c.state == JobState.REPORTED.value).subquery(), bounds)


def read_inference_durations(index: Index, bounds: Sequence[float]) -> Durations:
    """The inference alone, as the jobs' summaries tell it."""
    jobs = index.transactions.tables["jobs"]
    query = sa.select(jobs.c.summary["inference_seconds"].as_float().label("seconds"))
    return _counted(index, query.where(jobs.c.state == JobState.REPORTED.value).subquery(), bounds)


def _counted(index: Index, durations: sa.Subquery, bounds: Sequence[float]) -> Durations:
    seconds = durations.c.seconds
    at_most = [sa.func.coalesce(sa.func.sum(sa.case((seconds <= bound, 1), else_=0)), 0) for bound in bounds]
    query = sa.select(sa.func.count(seconds), sa.func.coalesce(sa.func.sum(seconds), 0.0), *at_most)
    with index.transactions.read() as connection:
        count, total, *counts = connection.execute(query).one()
    buckets = tuple((bound, int(found)) for bound, found in zip(bounds, counts, strict=True))
    return Durations(buckets=buckets, count=count, total_seconds=float(total))
