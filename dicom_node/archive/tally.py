"""The tally: how long studies waited, were read and took to arrive, and what became of deliveries, counted once each.

Every change leaves a line in the history, whose numbers only grow. The tally remembers the last number that it has
counted, in the index itself, so that a look costs what is new, however much there is, and counts go on after a restart.
"""

import json
import time
from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from itertools import accumulate
from threading import Lock
from typing import Any

import sqlalchemy as sa

from dicom_node.archive.index import Index
from dicom_node.archive.prepared_query import PreparedQuery
from dicom_node.archive.resending import SENT_AGAIN
from dicom_node.archive.transactions import UNDERWAY_SECONDS
from dicom_node.core.lifecycle import DeliveryState, JobState, StudyState
from dicom_node.core.priority import Priority, queue_of

#: Among the index's marks.
_MARK = "tally"

#: What becomes of an attempt to deliver an object; postponed is told only for another reason than before.
OUTCOMES = ("accepted", "committed", "failed", "postponed")

#: Lines of one query, and how long one look may go on where many are new, as after an update.
_LINES, _LOOK_SECONDS = 2000, 0.1


class Kind(StrEnum):
    """What is timed."""

    #: From a job's queueing, or its last attempt, to its claim by a worker.
    WAITING = "waiting"
    #: From a job's claim to its report.
    SERVICE = "service"
    #: From a study's last instance to its report.
    RESULT = "result"
    #: From a study's last instance to its report's acceptance by every peer.
    DELIVERY = "delivery"
    #: The inference of a job alone.
    INFERENCE = "inference"


@dataclass(frozen=True, kw_only=True)
class Durations:
    """How many of some durations were no longer than each bound."""

    #: Upper bound in seconds and how many are at most that, rising.
    buckets: tuple[tuple[float, int], ...]
    count: int
    total_seconds: float


@dataclass(kw_only=True)
class _Counts:
    """All that was counted, up to a line of the history; as JSON it is the index's mark."""

    bounds: list[float]
    number: int = 0
    #: Of kind and queue: how many were of each bucket, the last one without a bound.
    buckets: dict[str, list[int]] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    #: Of peer and outcome; the outcome first, since a peer's name may hold anything.
    deliveries: dict[str, int] = field(default_factory=dict)
    #: Of the state that studies entered.
    entered: dict[str, int] = field(default_factory=dict)


class Tally:
    """Counts the history of an index; safe to share between threads, for one process at a time."""

    def __init__(self, index: Index, bounds: Sequence[float], monotonic: Callable[[], float] = time.monotonic) -> None:
        self._transactions = index.transactions
        self._bounds = list(bounds)
        self._monotonic = monotonic
        self._lines = PreparedQuery(_lines(index.transactions.tables))
        self._counts: _Counts | None = None
        self._lock = Lock()

    @property
    def none(self) -> Durations:
        """What nothing has."""
        return Durations(buckets=tuple((bound, 0) for bound in self._bounds), count=0, total_seconds=0.0)

    def look(self) -> None:
        """Count what is new, or as much of it as a moment allows."""
        with self._lock:
            counts = self._counts = self._counts or self._known()
            before, until = counts.number, self._monotonic() + _LOOK_SECONDS
            while self._count(counts) == _LINES and self._monotonic() < until:
                pass
            if counts.number != before:
                self._keep(counts)

    def durations(self) -> dict[tuple[Kind, str], Durations]:
        """By what is timed and the queue of the study's priority, as of the last look; none where none ended."""
        counts = self._counts
        if counts is None:
            return {}
        found = {}
        for name, buckets in counts.buckets.items():
            kind, _, queue = name.partition(" ")
            at_most = list(accumulate(buckets))
            found[Kind(kind), queue] = Durations(
                buckets=tuple(zip(self._bounds, at_most[:-1], strict=True)),
                count=at_most[-1],
                total_seconds=counts.seconds[name],
            )
        return found

    def deliveries(self) -> dict[tuple[str, str], int]:
        """Ends of attempts, by peer and outcome."""
        known = {} if self._counts is None else self._counts.deliveries
        return {(name.partition(" ")[2], name.partition(" ")[0]): count for name, count in known.items()}

    def entered(self) -> dict[StudyState, int]:
        """How often a study entered each state."""
        known = {} if self._counts is None else self._counts.entered
        return {state: known.get(state.value, 0) for state in StudyState}

    def _known(self) -> _Counts:
        """What was counted before; nothing where that was with other bounds, or the index is an older one."""
        marks, history = (self._transactions.tables[name] for name in ("marks", "history"))
        with self._transactions.read() as connection:
            kept = connection.execute(sa.select(marks.c.value).where(marks.c.name == _MARK)).scalar()
            last = connection.execute(sa.select(sa.func.max(history.c.number))).scalar() or 0
        counts = _Counts(bounds=self._bounds) if kept is None else _Counts(**json.loads(kept))
        is_usable = counts.bounds == self._bounds and counts.number <= last
        return counts if is_usable else _Counts(bounds=self._bounds)

    def _keep(self, counts: _Counts) -> None:
        row = {"name": _MARK, "value": json.dumps(asdict(counts))}
        with self._transactions.write(durable=False) as connection:
            self._transactions.upsert(connection, self._transactions.tables["marks"], row, {"value": row["value"]})

    def _count(self, counts: _Counts) -> int:
        """Count the next lines; how many there were."""
        with self._transactions.read() as connection:
            rows = self._lines.rows(connection, last=counts.number, most=_LINES)
        for done, row in enumerate(rows):
            if self._is_outrun(counts.number, row):
                return done
            counts.number = row["number"]
            queue = queue_of(Priority(row["priority"] or Priority.ROUTINE))
            for kind, seconds in _timed(row):
                name = f"{kind} {queue}"
                buckets = counts.buckets.setdefault(name, [0] * (len(self._bounds) + 1))
                buckets[bisect_left(self._bounds, seconds)] += 1
                counts.seconds[name] = counts.seconds.get(name, 0.0) + seconds
            if row["subject"].startswith("delivery ") and (outcome := _outcome(row)):
                name = f"{outcome} {row['subject'].removeprefix('delivery ')}"
                counts.deliveries[name] = counts.deliveries.get(name, 0) + 1
            if not row["subject"] and row["before"] != row["after"]:
                counts.entered[row["after"]] = counts.entered.get(row["after"], 0) + 1
        return len(rows)

    def _is_outrun(self, number: int, row: Mapping[str, Any]) -> bool:
        """Whether a line before this one may yet come: a server numbers lines before they are committed."""
        if self._transactions.is_sqlite or row["number"] == number + 1:
            return False
        return 0 <= time.time() - float(row["at"]) < UNDERWAY_SECONDS


_OUTCOMES = {
    DeliveryState.ACCEPTED.value: OUTCOMES[0],
    DeliveryState.COMMITTED.value: OUTCOMES[1],
    DeliveryState.FAILED.value: OUTCOMES[2],
}


def _outcome(row: Mapping[str, Any]) -> str:
    if row["before"] == row["after"]:
        return OUTCOMES[3] if row["after"] == DeliveryState.WAITING.value else ""
    return _OUTCOMES.get(row["after"], "")


def _timed(row: Mapping[str, Any]) -> Iterator[tuple[Kind, float]]:
    """What a line of the history ends, and how long that took; what lies after its end has no duration."""
    if row["before"] == row["after"]:
        return
    of_job = row["subject"].startswith("job ")
    ended = [
        (of_job and row["after"] == JobState.READING.value, Kind.WAITING, row["entered_at"]),
        (of_job and row["after"] == JobState.REPORTED.value, Kind.SERVICE, row["entered_at"]),
        (not row["subject"] and row["after"] == StudyState.REPORTED.value, Kind.RESULT, row["last_received_at"]),
        (not row["subject"] and row["after"] == StudyState.DELIVERED.value, Kind.DELIVERY, row["last_received_at"]),
    ]
    for is_so, kind, since in ended:
        if is_so and since is not None and since <= row["at"] and not row["asked_again"]:
            yield kind, row["at"] - since
    if of_job and row["inference_seconds"] is not None:
        yield Kind.INFERENCE, row["inference_seconds"]


def _lines(tables: Mapping[str, sa.Table]) -> sa.Select[Any]:
    """The `most` next lines after the `last`, each with what its durations begin with."""
    history, studies, jobs = (tables[name] for name in ("history", "studies", "jobs"))
    earlier = sa.alias(history)
    of_study = (earlier.c.study_instance_uid == history.c.study_instance_uid, earlier.c.number < history.c.number)
    entered = sa.func.max(earlier.c.at).filter(earlier.c.before != earlier.c.after)
    # The first line of a job says that it is queued, and changes nothing.
    entered_at = sa.select(sa.func.coalesce(entered, sa.func.min(earlier.c.at))).where(
        *of_study, earlier.c.subject == history.c.subject
    )
    # Its clock did not start with an instance.
    asked_again = sa.select(earlier.c.number).where(
        *of_study,
        sa.or_(
            sa.and_(earlier.c.after == StudyState.COMPLETE.value, earlier.c.before != StudyState.RECEIVING.value),
            earlier.c.cause == SENT_AGAIN,
        ),
    )
    inference = (
        sa.select(jobs.c.summary["inference_seconds"].as_float())
        .where(jobs.c.study_instance_uid == history.c.study_instance_uid)
        .where(jobs.c.state == JobState.REPORTED.value, history.c.subject == "job " + jobs.c.algorithm)
        .order_by(jobs.c.ended_at.desc())
        .limit(1)
    )
    moved = history.c.before != history.c.after
    of_job = sa.and_(moved, history.c.subject.startswith("job "))
    # Lines of studies' results.
    has_result = history.c.after.in_((StudyState.REPORTED.value, StudyState.DELIVERED.value))
    of_result = sa.and_(moved, history.c.subject == "", has_result)
    reported = sa.and_(of_job, history.c.after == JobState.REPORTED.value)
    columns = [history.c[name] for name in ("number", "at", "before", "after", "subject")]
    return (
        sa.select(
            *columns,
            studies.c.priority,
            studies.c.last_received_at,
            sa.case((of_job, entered_at.scalar_subquery())).label("entered_at"),
            sa.case((of_result, asked_again.exists()), else_=sa.false()).label("asked_again"),
            sa.case((reported, inference.scalar_subquery())).label("inference_seconds"),
        )
        .select_from(history)
        .outerjoin(studies, studies.c.study_instance_uid == history.c.study_instance_uid)
        .where(history.c.number > sa.bindparam("last"))
        .order_by(history.c.number)
        .limit(sa.bindparam("most"))
    )
