"""The lines of an overview: what people are told of studies, jobs, queues, deliveries and workers.

`to_json` turns an overview or a study's detail into plain dicts and lists: the keys are the field names below, states
and priorities their own terms, times seconds since 1970 UTC, durations end in `_seconds`, what is not known is null.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from datetime import UTC, datetime
from typing import Any

from dicom_node.archive.study_rows import HistoryRow
from dicom_node.core.lifecycle import DeliveryState, JobState, StudyState
from dicom_node.core.priority import Priority

#: A worker that was not heard of for this long is called silent.
SILENT_AFTER_SECONDS = 60.0

_S = StudyState

#: The studies in three groups, as people ask for them: who needs me, what is going on, what is done.
NEED_A_PERSON = (_S.FAILED,)
IN_HAND = (_S.RECEIVING, _S.COMPLETE, _S.QUEUED, _S.READING, _S.REPORTED)
DONE = (_S.DELIVERED, _S.COMMITTED, _S.NOT_ROUTED, _S.WITHDRAWN)


@dataclass(frozen=True, kw_only=True)
class Result:
    """What an algorithm's report says, in short."""

    text: str
    findings: int | None
    #: The ACR actionable finding category, or empty.
    priority: str
    inference_seconds: float | None
    #: Name and seconds of each step.
    steps: tuple[tuple[str, float], ...]
    #: Why it is so urgent, in words.
    priority_reason: str = ""
    #: Code and words of each way in which the series is unlike those that the algorithm was trained on.
    caveats: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, kw_only=True)
class StudyLine:
    """A study, in one line."""

    study_instance_uid: str
    state: StudyState
    reason: str
    priority: Priority
    #: When it entered its state.
    since: float
    first_received_at: float
    last_received_at: float
    instances: int
    #: Instances that came with a UID that other content held already.
    conflicts: int
    calling_ae_title: str
    #: Of its current jobs.
    algorithms: tuple[str, ...]
    results: tuple[Result, ...]
    #: Algorithms that gave up after their last attempt: nobody tries them again until a person asks.
    dead_letters: tuple[str, ...]
    #: When its files left the disk; None while they are there.
    evicted_at: float | None = None


@dataclass(frozen=True, kw_only=True)
class ConditionLine:
    """Something that is wrong with the node as a whole."""

    condition: str
    reason: str
    since: float


@dataclass(frozen=True, kw_only=True)
class QueueLine:
    """One queue of jobs, by the index."""

    queue: str
    waiting: int
    reading: int
    oldest_waiting_seconds: float | None


@dataclass(frozen=True, kw_only=True)
class DeliveryLine:
    """One object's way to one peer."""

    study_instance_uid: str
    sop_instance_uid: str
    sop_class_uid: str
    peer: str
    state: DeliveryState
    attempts: int
    #: When it is sent again; of an accepted one, when its storage commitment is asked for again.
    next_try_at: float | None
    reason: str
    accepted_at: float | None
    #: When the peer said by storage commitment that it keeps it.
    committed_at: float | None = None


@dataclass(frozen=True, kw_only=True)
class PeerLine:
    """How many objects go to one peer, by state, and whether it is there."""

    peer: str
    waiting: int
    accepted: int
    committed: int
    failed: int
    oldest_waiting_seconds: float | None = None
    #: Storage commitments that were asked for and have no answer yet.
    commitments_open: int = 0
    #: Since when no association could be had, why, and when one is asked for again.
    away_since: float | None = None
    next_try_at: float | None = None
    reason: str = ""


@dataclass(frozen=True, kw_only=True)
class WorkerLine:
    """One worker, and how long ago it was heard."""

    worker: str
    device: str
    queues: tuple[str, ...]
    bundles: tuple[str, ...]
    started_at: float
    heartbeat_at: float
    heartbeat_age_seconds: float
    silent: bool
    job_uid: str | None
    #: Of the job that it reads now.
    study_instance_uid: str | None
    #: What its reading process does, and when that was last heard.
    step: str
    moved_at: float | None
    #: Of its device's memory; None where that has none of its own.
    memory_used_bytes: int | None
    memory_total_bytes: int | None


@dataclass(frozen=True, kw_only=True)
class Overview:
    """The whole node at one moment."""

    now: float
    #: State to priority to count; every state and priority is there.
    studies_by_state: Mapping[StudyState, Mapping[Priority, int]]
    queues: tuple[QueueLine, ...]
    #: What is wrong with the node, the longest standing first.
    conditions: tuple[ConditionLine, ...]
    #: Current jobs that gave up after their last attempt.
    dead_letters: int
    #: Those that need a person, then those in hand by priority, then those done, the newest first; each group is cut.
    studies: tuple[StudyLine, ...]
    #: Waiting and failed ones, the next due first.
    deliveries: tuple[DeliveryLine, ...]
    peers: tuple[PeerLine, ...]
    workers: tuple[WorkerLine, ...]

    def count(self, state: StudyState) -> int:
        """How many studies are in a state."""
        return sum(self.studies_by_state[state].values())

    def group(self, states: Sequence[StudyState]) -> tuple[StudyLine, ...]:
        """The listed studies that are in one of these states."""
        return tuple(study for study in self.studies if study.state in states)


@dataclass(frozen=True, kw_only=True)
class SeriesLine:
    """A series, in one line."""

    series_instance_uid: str
    modality: str
    number: int | None
    description: str
    instances: int
    conflicts: int
    size_bytes: int


@dataclass(frozen=True, kw_only=True)
class JobLine:
    """A job with its times and outcome."""

    job_uid: str
    algorithm: str
    route: str
    series_instance_uid: str
    priority: Priority
    state: JobState
    reason: str
    #: False when a late instance or a person's wish made it history.
    current: bool
    attempts: int
    queued_at: float
    started_at: float | None
    ended_at: float | None
    #: A QUEUED job rests until then.
    next_try_at: float | None
    worker: str | None
    result: Result | None
    #: FAILED because every attempt it may have was used up.
    dead_letter: bool
    #: Each finding of its report, with what was measured.
    findings: tuple[Mapping[str, Any], ...] = ()


@dataclass(frozen=True, kw_only=True)
class HeldLine:
    """An object that failed its checks and is sent to nobody."""

    sop_instance_uid: str
    sop_class_uid: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class WithdrawalLine:
    """A result that a person took back."""

    asked_at: float
    actor: str
    #: Whether for the safety of the patient, or else for its quality.
    safety: bool
    reason: str
    #: Names of the peers that may have it, and are told.
    peers: tuple[str, ...]
    #: When the notes that tell them were written, or given up; None while a worker owes them.
    written_at: float | None


@dataclass(frozen=True, kw_only=True)
class StudyDetail:
    """All that the index knows of one study."""

    now: float
    study: StudyLine
    history: tuple[HistoryRow, ...]
    series: tuple[SeriesLine, ...]
    jobs: tuple[JobLine, ...]
    deliveries: tuple[DeliveryLine, ...]
    held: tuple[HeldLine, ...] = ()
    withdrawals: tuple[WithdrawalLine, ...] = ()


def to_json(value: Any) -> Any:
    """An overview or a detail as dicts, lists, text and numbers."""
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: to_json(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Mapping):
        return {str(key): to_json(part) for key, part in value.items()}
    if isinstance(value, (tuple, list)):
        return [to_json(part) for part in value]
    return str(value) if isinstance(value, str) else value


def result_of(summary: Mapping[str, Any] | None) -> Result | None:
    """A job's summary, whatever of it is there."""
    if not summary:
        return None
    findings, seconds, steps = (summary.get(key) for key in ("findings", "inference_seconds", "steps"))
    return Result(
        text=str(summary.get("result") or ""),
        findings=findings if isinstance(findings, int) else None,
        priority=str(summary.get("priority") or ""),
        inference_seconds=float(seconds) if isinstance(seconds, (int, float)) else None,
        steps=_steps(steps),
        priority_reason=str(summary.get("priority_reason") or ""),
        caveats=tuple((str(caveat["code"]), str(caveat["words"])) for caveat in summary.get("caveats") or ()),
    )


def _steps(steps: Any) -> tuple[tuple[str, float], ...]:
    pairs: Iterable[Any] = steps.items() if isinstance(steps, Mapping) else steps if isinstance(steps, list) else ()
    return tuple((str(name), float(seconds)) for name, seconds in pairs)


def time_in_words(at: float) -> str:
    """A moment to the second: 2024-02-29T10:15:00Z."""
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def duration_in_words(seconds: float) -> str:
    """A duration in its two largest units: 0.4 s, 12 s, 4 min 12 s, 3 h 5 min, 2 d 4 h."""
    if seconds < 9.95:
        return f"{max(0.0, seconds):.1f} s"
    left = round(seconds)
    for unit, size, below, smaller in (("d", 86400, "h", 3600), ("h", 3600, "min", 60), ("min", 60, "s", 1)):
        if left >= size:
            rest = left % size // smaller
            return f"{left // size} {unit} {rest} {below}" if rest else f"{left // size} {unit}"
    return f"{left} s"
