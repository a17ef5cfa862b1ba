"""Performed procedure steps: what a modality tells of what it made, and what that says of a study (PS3.4 Annex F)."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum

from dicom_node.core.errors import NotificationRefused
from dicom_node.core.status import MAY_NOT_BE_UPDATED, MISSING_VALUE, PROCESSING_FAILURE

#: How steps are called as a source of counts.
MPPS = "MPPS"


class StepState(StrEnum):
    """Performed Procedure Step Status (0040,0252)."""

    IN_PROGRESS = "IN PROGRESS"
    COMPLETED = "COMPLETED"
    DISCONTINUED = "DISCONTINUED"


@dataclass(frozen=True, kw_only=True)
class PerformedStep:
    """One step, as far as completeness asks."""

    sop_instance_uid: str
    state: StepState = StepState.IN_PROGRESS
    #: Of the scheduled steps that it performs.
    study_instance_uids: tuple[str, ...]
    #: Series Instance UID to how many instances of it the step refers to.
    series: Mapping[str, int] = field(default_factory=dict)
    #: Why it was discontinued: the meaning of a code, or empty.
    reason: str = ""

    @property
    def is_final(self) -> bool:
        """Whether it can change no more."""
        return self.state is not StepState.IN_PROGRESS


@dataclass(frozen=True, kw_only=True)
class StepChange:
    """What an N-SET changes; None leaves it as it is."""

    state: StepState | None = None
    series: Mapping[str, int] | None = None
    reason: str | None = None


def changed(step: PerformedStep, change: StepChange) -> PerformedStep:
    """The step after an N-SET; NotificationRefused where the standard forbids it (PS3.4 Section F.7.2.2)."""
    if step.is_final:
        words = "Performed Procedure Step Object may no longer be updated"
        raise NotificationRefused(words, status=PROCESSING_FAILURE, error_id=MAY_NOT_BE_UPDATED)
    given = {name: value for name, value in vars(change).items() if value is not None}
    after = replace(step, **given)
    # A step that was discontinued before it made anything is taken: to refuse it would leave it in progress for ever.
    if after.state is StepState.COMPLETED and not after.series:
        raise NotificationRefused("Performed Series Sequence is empty in a completed step", status=MISSING_VALUE)
    return after


@dataclass(frozen=True, kw_only=True)
class StepCounts:
    """What all steps of one study tell of it, as a source of counts."""

    source: str
    #: By Series Instance UID, and of the whole study under "" where that is known.
    counts: Mapping[str, int]
    #: Nothing of the study is being made any more.
    final: bool


def counts_of(steps: Iterable[PerformedStep]) -> StepCounts | None:
    """The sums over the ended steps of one study; None where none has counted anything.

    The whole study is counted only where every step of it has ended, is of this study alone, and says of each of its
    series what is in it: some modalities name the series and leave out their instances.
    """
    known = list(steps)
    ended = [step for step in known if step.is_final]
    alone = [step for step in ended if len(step.study_instance_uids) == 1]
    sums: dict[str, int] = {}
    for step in alone:
        for series, count in step.series.items():
            sums[series] = sums.get(series, 0) + count
    uncounted = {series for step in alone for series, count in step.series.items() if not count}
    counts = {series: count for series, count in sums.items() if series not in uncounted}
    if not counts:
        return None
    final = len(alone) == len(known)
    if final and not uncounted:
        counts[""] = sum(counts.values())
    return StepCounts(source=_source(ended), counts=counts, final=final)


def is_mpps(source: str) -> bool:
    """Whether a source of counts is performed steps, whatever became of them."""
    return source == MPPS or source.startswith(f"{MPPS} (")


def _source(ended: Sequence[PerformedStep]) -> str:
    discontinued = [step for step in ended if step.state is StepState.DISCONTINUED]
    return f"{MPPS} ({len(discontinued)} of {len(ended)} steps discontinued)" if discontinued else MPPS
