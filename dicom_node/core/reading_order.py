"""The order in which people are offered studies to open: by urgency, then by waiting time.

A study's normal place follows from what was asked for (Requested Procedure Priority) and how long it has waited. What
an algorithm saw can only move a study up from there: without a finding, unread, failed or withdrawn, it stands where
it would without any algorithm. Whoever has waited too long moves up, too, so that flags of others starve nobody.
"""

from dataclasses import dataclass
from enum import StrEnum

from dicom_node.core.priority import Priority


class Urgency(StrEnum):
    """The groups of the worklist, the first to be opened first."""

    CRITICAL = "critical"
    ACTIONABLE = "actionable"
    ROUTINE = "routine"


_ORDER = tuple(Urgency)

#: What was asked for, as a group.
_ASKED = {Priority.STAT: Urgency.CRITICAL, Priority.HIGH: Urgency.ACTIONABLE}

#: The ACR actionable finding categories (RADLEX, as CID 7035 has them) by the first words of their meaning.
_FLAGS = (
    ("ACR Category 1", Urgency.CRITICAL),
    ("ACR Category 2", Urgency.ACTIONABLE),
    ("ACR Category 3", Urgency.ACTIONABLE),
)

#: How the flag begins that alone makes a study critical.
(MOST_URGENT,) = (words for words, urgency in _FLAGS if urgency is Urgency.CRITICAL)

_RANK = {priority: rank for rank, priority in enumerate(Priority)}


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A study that may be opened next."""

    study_instance_uid: str
    priority: Priority
    #: Of its last image, seconds since 1970.
    last_received_at: float
    #: What its standing results say: meanings of ACR categories; none where nothing was found or nothing read.
    flags: tuple[str, ...] = ()


def urgency_of(candidate: Candidate, now: float, longest_wait_seconds: float) -> Urgency:
    """The group: the most urgent of what was asked for, what was found, and having waited too long."""
    found = [urgency for flag in candidate.flags for words, urgency in _FLAGS if flag.startswith(words)]
    waits_long = now - candidate.last_received_at >= longest_wait_seconds
    reasons = [_ASKED.get(candidate.priority, Urgency.ROUTINE), *found, *([Urgency.ACTIONABLE] if waits_long else [])]
    return min(reasons, key=_ORDER.index)


def place(candidate: Candidate, now: float, longest_wait_seconds: float) -> tuple[int, int, float, str]:
    """What studies are sorted by: group, then for routine ones the priority asked for, then who waits longest."""
    urgency = urgency_of(candidate, now, longest_wait_seconds)
    within = _RANK[candidate.priority] if urgency is Urgency.ROUTINE else 0
    return _ORDER.index(urgency), within, candidate.last_received_at, candidate.study_instance_uid
