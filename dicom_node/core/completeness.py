"""When a study has arrived: from facts and a clock reading, whether it is complete, and if not, when to look again."""

from dataclasses import dataclass
from typing import Protocol

from dicom_node.core.geometry import position_of, stack_slices
from dicom_node.core.image_type import is_localizer
from dicom_node.core.study import Series, Study

#: Modalities whose images are slices of a volume when they have positions.
VOLUMETRIC_MODALITIES = frozenset({"CT", "MR", "PT"})


class Timers(Protocol):
    """The two quiet times."""

    @property
    def quiet_seconds_when_whole(self) -> float:
        """How long nothing may come when nothing is seen to lack."""

    @property
    def quiet_seconds_otherwise(self) -> float:
        """How long nothing may come when something lacks or a sender is still there."""


@dataclass(frozen=True, kw_only=True)
class StudyFacts:
    """What is known of a study's arrival."""

    #: Seconds since 1970, UTC.
    last_received_at: float
    #: Associations that sent for this study and have not ended.
    open_associations: int
    #: Associations that sent for this study and broke or were aborted.
    aborted_associations: int = 0
    #: Series Instance UID, and what its volume lacks; series that lack nothing are left out.
    missing: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """Whether a study is complete, and why."""

    complete: bool
    #: When time alone can change the verdict, seconds since 1970; None once complete.
    check_again_at: float | None
    reason: str


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


def verdict(facts: StudyFacts, now: float, timers: Timers) -> Verdict:
    """Judge a study: quiet long enough for what is known of its senders and its volumes.

    A sender that stays on the line and silent hangs, and is not waited for longer than slices that never come.
    """
    doubts = _doubts(facts)
    wait = timers.quiet_seconds_otherwise if doubts else timers.quiet_seconds_when_whole
    # A clock set back must not make anyone wait longer than the quiet time from now.
    since = min(facts.last_received_at, now)
    known = "; ".join(doubts) if doubts else "all associations ended and no slices are missing"
    if now - since >= wait:
        return Verdict(complete=True, check_again_at=None, reason=f"{known}; nothing came for {now - since:.1f} s")
    return Verdict(complete=False, check_again_at=since + wait, reason=f"{known}; waiting for {wait:g} s without news")


def _doubts(facts: StudyFacts) -> list[str]:
    """What speaks for more to come."""
    doubts = []
    if facts.open_associations:
        doubts.append(_counted(facts.open_associations, "association", "still open"))
    if facts.aborted_associations:
        doubts.append(_counted(facts.aborted_associations, "association", "broken off"))
    doubts.extend(f"series {uid}: {missing}" for uid, missing in facts.missing[:1])
    if len(facts.missing) > 1:
        doubts.append(_counted(len(facts.missing) - 1, "more series", "incomplete"))
    return doubts


def _counted(count: int, noun: str, state: str) -> str:
    plural = "s" if count > 1 and not noun.endswith("s") else ""
    return f"{count} {noun}{plural} {'is' if count == 1 else 'are'} {state}"
