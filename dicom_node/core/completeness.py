"""When a study has arrived: from facts and a clock reading, whether it is complete, and if not, when to look again.

Facts are ranked. Counts that a source told decide alone: all here is complete, a series cut short is not, whatever the
clock says. Without them geometry and the ends of associations choose between two quiet times.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

from dicom_node.core.expectation import Question, Shortfall, Source, Told, further_series, shortfalls, sources_of
from dicom_node.core.geometry import position_of, stack_slices
from dicom_node.core.image_type import is_localizer
from dicom_node.core.study import Series, Study

#: Modalities whose images are slices of a volume when they have positions.
VOLUMETRIC_MODALITIES = frozenset({"CT", "MR", "PT"})

#: What came so short a time ago may be followed by more at any moment: looking at it would only cost time.
GLANCE_SECONDS = 0.1

#: A sender has settled when it was silent for so many times its longest recent pause between two instances.
PAUSES = 2.0


class Timers(Protocol):
    """The waiting times."""

    @property
    def quiet_seconds_when_whole(self) -> float:
        """How long nothing may come when nothing is seen to lack."""

    @property
    def quiet_seconds_otherwise(self) -> float:
        """How long nothing may come when something lacks or a sender is still there."""

    @property
    def question_after_seconds(self) -> float:
        """How long nothing may come before a sender is asked what it holds."""

    @property
    def question_first_wait_seconds(self) -> float:
        """The shortest time between two questions about a study of which more is to come."""

    @property
    def maximum_waiting_seconds(self) -> float:
        """How long nothing may come while a sender says that it holds more of a series."""


@dataclass(frozen=True, kw_only=True)
class StudyFacts:
    """What is known of a study's arrival."""

    #: Seconds since 1970, UTC.
    last_received_at: float
    #: Associations that sent for this study and have not ended.
    open_associations: int
    #: Associations that sent for this study and broke or were aborted.
    aborted_associations: int = 0
    #: Performed procedure steps of this study of which the modality has not told the end.
    steps_in_progress: int = 0
    #: Series Instance UID, and what its volume lacks; series that lack nothing are left out.
    missing: tuple[tuple[str, str], ...] = ()
    #: What sources say there is.
    told: tuple[Told, ...] = ()
    #: The senders that can be asked.
    questions: tuple[Question, ...] = ()
    #: Evidence instances that are here, by Series Instance UID; a duplicate or a conflicting one is none.
    held: Mapping[str, int] = field(default_factory=dict)
    #: The longest pause between the newest instances.
    pause_seconds: float = 0.0
    #: When the last instance was first seen, by a clock that has been set back since it was received.
    seen_at: float | None = None

    @property
    def quiet_since(self) -> float:
        """Since when nothing came, by the clock as it goes now."""
        return self.last_received_at if self.seen_at is None else min(self.last_received_at, self.seen_at)


class Deciding(StrEnum):
    """The kind of fact that a verdict rests on."""

    COUNTS = "counts"
    GEOMETRY = "geometry and associations"
    QUIET = "quiet alone"


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """Whether a study is complete, and why."""

    complete: bool
    #: When time alone can change the verdict, seconds since 1970; None once complete or failed.
    check_again_at: float | None
    reason: str
    decided_by: Deciding
    #: It will not be complete by itself: a person must see to it.
    failed: bool = False


def missing_slices(study: Study) -> tuple[tuple[str, str], ...]:
    """Series Instance UID and what it lacks, for each volume that lacks slices."""
    found = ((series.series_instance_uid, _missing(series)) for series in study.series)
    return tuple((uid, missing) for uid, missing in found if missing is not None)


def _missing(series: Series) -> str | None:
    slices = [instance.attributes for instance in series.instances]
    volumetric = series.modality in VOLUMETRIC_MODALITIES and any(position_of(attributes) for attributes in slices)
    if not volumetric or any(is_localizer(attributes) for attributes in slices):
        return None
    return stack_slices(slices).missing


def settling_seconds(facts: StudyFacts, timers: Timers) -> float:
    """How long nothing may come before the sender is taken to have sent all it has for now.

    A slow sender that hands on what itself still receives holds, at any moment, no more than it has sent: what it
    counts before its usual pause is over proves nothing.
    """
    longest = timers.quiet_seconds_otherwise if facts.open_associations else timers.quiet_seconds_when_whole
    return min(max(timers.question_after_seconds, PAUSES * facts.pause_seconds), longest)


def first_look_at(last_received_at: float, timers: Timers, *, final: bool) -> float:
    """When to look for the first time: early enough to prepare, and not at what arrives just now.

    `final`: a source has counted what was made.
    """
    earliest = min(GLANCE_SECONDS, timers.question_after_seconds, timers.quiet_seconds_when_whole)
    return last_received_at + (0.0 if final else earliest)


def next_look_at(last_received_at: float, now: float) -> float:
    """When to look again for what changes without a new instance: an association that ends, an answer.

    The longer nothing came, the less a moment matters: a twentieth of the time since, and at most five seconds.
    """
    return now + min(max(GLANCE_SECONDS, (now - last_received_at) / 20.0), 5.0)


def question_due_at(facts: StudyFacts, question: Question, timers: Timers) -> float:
    """When to ask this sender next, seconds since 1970.

    Soon after the last instance; while it says that more is to come, or does not answer, after waits that grow.
    """
    settled = facts.quiet_since + settling_seconds(facts, timers)
    if question.asked_at is None:
        return settled
    if not question.answered:
        return max(settled, question.next_try_at)
    if question.asked_at >= settled:
        return question.next_try_at
    counted = [source for source in sources_of(facts.told) if source.name == question.source]
    if all(source.met_by(facts.held) for source in counted):
        return settled
    return max(settled, question.asked_at + timers.question_first_wait_seconds)


def verdict(facts: StudyFacts, now: float, timers: Timers) -> Verdict:
    """Judge a study: by the counts that were told, else quiet for long enough.

    A sender that stays on the line and silent hangs, and is not waited for longer than slices that never come.
    """
    # A clock set back must not make anyone wait longer than the quiet time from now.
    since = min(facts.quiet_since, now)
    short = shortfalls(facts.told, facts.held)
    answering = {question.source for question in facts.questions if question.answered}
    if any(one.source in answering for one in short):
        return _cut_short(facts, short, since, now, timers)
    if not short and (whole := _whole_by(facts, timers)):
        return _counted(facts, whole, since, now, timers)
    return _by_quiet(facts, short, since, now, timers)


def _cut_short(facts: StudyFacts, short: Sequence[Shortfall], since: float, now: float, timers: Timers) -> Verdict:
    """A sender that answers holds more of a series that is here: no quiet time makes up for that."""
    known = "; ".join(_listed([str(one) for one in short]))
    if now - since < timers.maximum_waiting_seconds:
        return Verdict(
            complete=False,
            check_again_at=since + timers.maximum_waiting_seconds,
            reason=f"{known}; waiting for the rest, and asking again",
            decided_by=Deciding.COUNTS,
        )
    reason = f"{known}; nothing came for {now - since:.1f} s; send the series again"
    return Verdict(complete=False, failed=True, check_again_at=None, reason=reason, decided_by=Deciding.COUNTS)


def _whole_by(facts: StudyFacts, timers: Timers) -> list[Source]:
    """The sources by whose counts all is here; none where another one counts more, or a gap is not accounted for.

    Whoever hands on what a modality still makes counts what there is by now.
    """
    sources = sources_of(facts.told)
    if facts.steps_in_progress or any(source.final and not source.met_by(facts.held) for source in sources):
        return []
    settled = facts.quiet_since + settling_seconds(facts, timers)
    gaps = {uid for uid, _ in facts.missing}
    return [
        source
        for source in sources
        if source.total is not None
        and (source.final or source.told_at >= settled)
        and source.met_by(facts.held)
        # Of what another one sent this source knows nothing; and a count of the whole study explains no gap in a part.
        and (not source.series or facts.held.keys() <= source.series.keys())
        and gaps <= source.series.keys()
    ]


def _counted(facts: StudyFacts, whole: Sequence[Source], since: float, now: float, timers: Timers) -> Verdict:
    """All is here by a source's counts: complete at once, unless someone is still sending."""
    known = [f"all {sum(facts.held.values())} instances that {source.name} counts are here" for source in whole]
    known += [f"series {uid}: {missing}, and yet that is all there is of it" for uid, missing in facts.missing]
    exact = any(source.final and source.total == sum(facts.held.values()) for source in whole)
    wait = 0.0 if exact and not facts.open_associations else settling_seconds(facts, timers)
    if facts.open_associations and not any(source.final for source in whole):
        # Who hands on what it still receives never counts more than it has sent.
        wait = max(wait, timers.quiet_seconds_when_whole)
    return _after_quiet(known, wait, since, now, Deciding.COUNTS)


def _by_quiet(facts: StudyFacts, short: Sequence[Shortfall], since: float, now: float, timers: Timers) -> Verdict:
    """Nobody's counts decide: the doubts choose the quiet time."""
    settled = facts.quiet_since + settling_seconds(facts, timers)
    doubts = [*_doubts(facts, _gaps(facts, settled), short), *([] if short else _unaccounted(facts))]
    deciding = Deciding.QUIET if doubts else Deciding.GEOMETRY
    doubts += [
        f"{question.source} has not told yet what it holds"
        for question in facts.questions
        if question.asked_at is None or (question.answered and question.asked_at < settled)
    ]
    # Who fell silent while more was to come gets the time again from then on.
    lacking = {one.source for one in short}
    silences = [question.vain_since or since for question in facts.questions if question.source in lacking]
    since = min(max([since, *silences]), now)
    wait = timers.quiet_seconds_otherwise if doubts else timers.quiet_seconds_when_whole
    known = doubts or ["all associations ended and no slices are missing"]
    return _after_quiet([*known, *_remarks(facts)], wait, since, now, deciding)


def _gaps(facts: StudyFacts, settled: float) -> list[tuple[str, str]]:
    """What volumes lack by their geometry, but for those that a source counts: there its count tells better."""
    sources = [source for source in sources_of(facts.told) if source.final or source.told_at >= settled]
    counted = {uid for source in sources for uid in source.series}
    return [(uid, missing) for uid, missing in facts.missing if uid not in counted]


def _unaccounted(facts: StudyFacts) -> list[str]:
    """The sources whose count of the study is neither here nor made up for by series of which nothing was sent."""
    here = sum(facts.held.values())
    return [
        f"{source.name} counts {source.total} instances, and {here} are here"
        for source in sources_of(facts.told)
        if source.total is not None and here + further_series(source, facts.held)[1] < source.total
    ]


def _remarks(facts: StudyFacts) -> list[str]:
    """What is worth telling and changes no waiting time; a forwarding rule may send only some series of a study."""
    vain = [f"{question.source} was asked in vain: {question.reason}" for question in facts.questions if question.vain]
    further = ((source.name, *further_series(source, facts.held)) for source in sources_of(facts.told))
    return vain + [
        f"{name} counts {instances} more instances in series of which it sent nothing ({count})"
        for name, count, instances in further
        if count
    ]


def _after_quiet(known: Sequence[str], wait: float, since: float, now: float, deciding: Deciding) -> Verdict:
    words = "; ".join(known)
    if now - since >= wait:
        reason = f"{words}; nothing came for {now - since:.1f} s"
        return Verdict(complete=True, check_again_at=None, reason=reason, decided_by=deciding)
    reason = f"{words}; waiting for {wait:g} s without news"
    return Verdict(complete=False, check_again_at=since + wait, reason=reason, decided_by=deciding)


def _doubts(facts: StudyFacts, gaps: Sequence[tuple[str, str]], short: Sequence[Shortfall]) -> list[str]:
    """What speaks for more to come."""
    doubts = []
    if facts.open_associations:
        doubts.append(_numbered(facts.open_associations, "association", "still open"))
    if facts.aborted_associations:
        doubts.append(_numbered(facts.aborted_associations, "association", "broken off"))
    if facts.steps_in_progress:
        doubts.append(_numbered(facts.steps_in_progress, "performed procedure step", "still in progress"))
    doubts += _listed([str(one) for one in short])
    return doubts + _listed([f"series {uid}: {missing}" for uid, missing in gaps])


def _listed(series: Sequence[str]) -> list[str]:
    """The first of several series, and how many more there are."""
    return [*series[:1], *([_numbered(len(series) - 1, "more series", "incomplete")] if len(series) > 1 else [])]


def _numbered(count: int, noun: str, state: str) -> str:
    plural = "s" if count > 1 and not noun.endswith("s") else ""
    return f"{count} {noun}{plural} {'is' if count == 1 else 'are'} {state}"
