"""Retention: which studies may leave the disk, and which of them do now: pure functions of facts and a clock."""

from collections.abc import Iterable
from dataclasses import dataclass

from dicom_node.core.lifecycle import StudyState

_SECONDS_A_DAY = 86400.0


@dataclass(frozen=True, kw_only=True)
class RetentionPolicy:
    """What must be so before a study may leave."""

    #: Since its last change; 0: no study ever leaves.
    days: float
    #: With less room than this on the disk, studies leave; 0: none does.
    wanted_free_bytes: float
    #: States whose studies need not stay: COMMITTED, and what the settings say beside it.
    states: frozenset[StudyState]

    @property
    def is_on(self) -> bool:
        """Whether a study can ever leave."""
        return self.days > 0 and self.wanted_free_bytes > 0


@dataclass(frozen=True, kw_only=True)
class HeldStudy:
    """A study on the disk, as far as retention asks."""

    study_instance_uid: str
    state: StudyState
    last_received_at: float
    state_since: float
    #: Of its instances.
    size_bytes: int
    #: Whether a job waits or is read, a delivery or storage commitment is not at its end, or we promised to keep it.
    has_open_work: bool


def may_leave(study: HeldStudy, policy: RetentionPolicy, now: float) -> bool:
    """Whether nothing holds the study here but room; the age counts from its last instance or last change of state."""
    since = max(study.last_received_at, study.state_since)
    return (
        policy.is_on
        and study.state in policy.states
        and not study.has_open_work
        and now - since > policy.days * _SECONDS_A_DAY
    )


def leaving(
    studies: Iterable[HeldStudy], policy: RetentionPolicy, *, free_bytes: float, now: float
) -> tuple[HeldStudy, ...]:
    """The studies that leave now, the oldest first: no more than it takes to have the wanted room again."""
    chosen = []
    for study in sorted(studies, key=lambda study: (study.last_received_at, study.study_instance_uid)):
        if free_bytes >= policy.wanted_free_bytes:
            break
        if may_leave(study, policy, now):
            chosen.append(study)
            free_bytes += study.size_bytes
    return tuple(chosen)
