"""The trace of a study: which of its steps took how long, from the association that brought it to its commitment.

Made of the lines of its history alone, so that it holds whichever process did the work, and of a study that was opened
again tells what came since then.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from dicom_node.core.lifecycle import DeliveryState, JobState, StudyState

#: States with which a study's trace may end; whether a DELIVERED one is to be committed, its deliveries say.
ENDS = (
    StudyState.DELIVERED,
    StudyState.COMMITTED,
    StudyState.NOT_ROUTED,
    StudyState.FAILED,
    StudyState.WITHDRAWN,
)

_OPENINGS = (StudyState.RECEIVING, StudyState.COMPLETE)


@dataclass(frozen=True, kw_only=True)
class Line:
    """A line of the history of a study."""

    #: Grows from line to line.
    number: int
    at: float
    before: str
    after: str
    #: Empty: the study; else "job ALGORITHM" or "delivery PEER".
    subject: str
    actor: str


@dataclass(frozen=True, kw_only=True)
class Course:
    """What is known of a study's way, up to a line of its history."""

    study_instance_uid: str
    #: From the first to the one that ends the trace.
    lines: Sequence[Line]
    #: When the first association that brought something of it began; None where that is not known.
    opened_at: float | None
    last_received_at: float
    #: Of its jobs, by algorithm: how long the writing of the report took, at the end of the reading.
    report_seconds: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Span:
    """A step, in seconds since 1970 UTC."""

    name: str
    begins_at: float
    ends_at: float
    #: Place of the span that it is part of, among all; None: of the first one.
    parent: int | None = None
    failed: bool = False
    attributes: Mapping[str, str] = field(default_factory=dict)


def spans_of(course: Course) -> tuple[Span, ...]:
    """The steps since the study was opened last; the first span is the whole. No span ends before it begins."""
    lines = _since_opening(course.lines)
    first_time = lines[0] is course.lines[0]
    last, begins_at = lines[-1], lines[0].at
    if first_time and course.opened_at is not None:
        begins_at = min(begins_at, course.opened_at)
    whole = Span(
        name="study",
        begins_at=begins_at,
        ends_at=last.at,
        failed=last.after == StudyState.FAILED,
        attributes={"study_instance_uid": course.study_instance_uid, "state": last.after},
    )
    spans = [whole]
    complete_at = next((line.at for line in lines if _enters(line, StudyState.COMPLETE)), None)
    received = lines[0].after == StudyState.RECEIVING
    if received and course.last_received_at <= last.at:
        spans.append(Span(name="receive", begins_at=begins_at, ends_at=max(begins_at, course.last_received_at)))
        if complete_at is not None and complete_at >= course.last_received_at:
            spans.append(Span(name="assemble", begins_at=course.last_received_at, ends_at=complete_at))
    for subject in dict.fromkeys(line.subject for line in lines if line.subject.startswith("job ")):
        spans += _of_job(subject, [line for line in lines if line.subject == subject], course, len(spans))
    for subject in dict.fromkeys(line.subject for line in lines if line.subject.startswith("delivery ")):
        spans += _of_delivery(subject, lines)
    return tuple(spans)


def _since_opening(lines: Sequence[Line]) -> Sequence[Line]:
    first = 0
    for place, line in enumerate(lines):
        if not line.subject and line.before != line.after and line.after in _OPENINGS:
            first = place if line.before not in _OPENINGS else first
    return lines[first:]


def _enters(line: Line, state: StudyState) -> bool:
    return not line.subject and line.before != line.after and line.after == state


def _of_job(subject: str, lines: Sequence[Line], course: Course, place: int) -> Iterator[Span]:
    algorithm = subject.removeprefix("job ")
    since = lines[0].at
    for line in lines:
        if line.before == line.after:
            continue
        named = {"algorithm": algorithm}
        if line.before == JobState.QUEUED:
            yield Span(name="queue wait", begins_at=since, ends_at=line.at, attributes=named)
            place += 1
        elif line.before == JobState.READING:
            is_reported = line.after == JobState.REPORTED
            named["worker"] = line.actor
            yield Span(name="read", begins_at=since, ends_at=line.at, failed=not is_reported, attributes=named)
            seconds = course.report_seconds.get(algorithm)
            if is_reported and seconds is not None:
                begins_at = max(since, line.at - seconds)
                yield Span(name="report", begins_at=begins_at, ends_at=line.at, parent=place)
                place += 1
            place += 1
        since = line.at


def _of_delivery(subject: str, lines: Sequence[Line]) -> Iterator[Span]:
    peer = {"peer": subject.removeprefix("delivery ")}
    reported_at = next((line.at for line in lines if _enters(line, StudyState.REPORTED)), None)
    ended = [line for line in lines if line.subject == subject and line.before == DeliveryState.WAITING]
    ended = [line for line in ended if line.after in (DeliveryState.ACCEPTED, DeliveryState.FAILED)]
    if reported_at is None or not ended:
        return
    failed = any(line.after == DeliveryState.FAILED for line in ended)
    yield Span(
        name="deliver", begins_at=reported_at, ends_at=max(reported_at, ended[-1].at), failed=failed, attributes=peer
    )
    committed = [line.at for line in lines if line.subject == subject and line.after == DeliveryState.COMMITTED]
    if committed and committed[-1] >= ended[-1].at:
        yield Span(name="commitment", begins_at=ended[-1].at, ends_at=committed[-1], attributes=peer)
