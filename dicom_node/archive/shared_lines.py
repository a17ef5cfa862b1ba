"""Lines that the overview and a study's detail share, and how they are read from the index."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import sqlalchemy as sa

from dicom_node.archive.delivery_rows import DeliveryRow
from dicom_node.archive.index import Index
from dicom_node.archive.lines import DeliveryLine, StudyLine, result_of
from dicom_node.archive.peers import PeerAway
from dicom_node.core.lifecycle import DeliveryState, StudyState
from dicom_node.core.priority import Priority


class JobFacts(NamedTuple):
    """What the line of a study tells of a current job."""

    algorithm: str
    summary: Mapping[str, Any] | None
    dead_letter: bool


def read_rows(index: Index, query: sa.Select[Any]) -> Sequence[sa.RowMapping]:
    """The rows of a question that belongs to none of the index's parts: its joins cross them."""
    with index.transactions.read() as connection:
        return connection.execute(query).mappings().all()


def table_of(index: Index, name: str) -> sa.Table:
    """A table of the index."""
    return index.transactions.tables[name]


def study_lines(
    index: Index,
    condition: sa.ColumnElement[bool],
    order: Sequence[sa.ColumnElement[Any]] = (),
    limit: int = 1,
    jobs: Mapping[str, Sequence[JobFacts]] | None = None,
) -> list[StudyLine]:
    """The studies of which this holds, at most `limit`; `jobs` are their current ones, where they were read already."""
    studies, instances = table_of(index, "studies"), table_of(index, "instances")
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
    rows = read_rows(index, query)
    jobs = _jobs_of(index, [row["study_instance_uid"] for row in rows]) if jobs is None else jobs
    return [_study_line(row, jobs.get(row["study_instance_uid"], [])) for row in rows]


def _jobs_of(index: Index, studies: Sequence[str]) -> dict[str, list[JobFacts]]:
    """The current jobs of these studies."""
    jobs = table_of(index, "jobs")
    query = sa.select(jobs.c.study_instance_uid, jobs.c.algorithm, jobs.c.summary, jobs.c.dead_letter)
    found: dict[str, list[JobFacts]] = {}
    for row in read_rows(index, query.where(jobs.c.study_instance_uid.in_(studies), jobs.c.current.is_(True))):
        facts = JobFacts(row["algorithm"], row["summary"], row["dead_letter"])
        found.setdefault(row["study_instance_uid"], []).append(facts)
    return found


def _study_line(row: sa.RowMapping, jobs: Sequence[JobFacts]) -> StudyLine:
    results = (result_of(job.summary) for job in jobs)
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
        algorithms=tuple(sorted({job.algorithm for job in jobs})),
        results=tuple(result for result in results if result is not None),
        dead_letters=tuple(sorted({job.algorithm for job in jobs if job.dead_letter})),
        evicted_at=row["evicted_at"],
    )


def delivery_line(row: DeliveryRow, away: Mapping[str, PeerAway]) -> DeliveryLine:
    """A delivery, with what keeps it waiting."""
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
