"""The states of a study, a job and a delivery, and which may follow which: one table each.

RECEIVING -> COMPLETE -> QUEUED -> READING -> REPORTED -> DELIVERED -> COMMITTED
COMPLETE -> NOT_ROUTED (with the reason)         READING -> QUEUED (another attempt)
COMPLETE -> REPORTED (the evidence is what was already read)
READING -> NOT_ROUTED (the algorithm answered that it does not read such a series)
any -> FAILED (with the reason)                  COMPLETE .. COMMITTED -> RECEIVING (a late instance)
FAILED | NOT_ROUTED | REPORTED .. COMMITTED | WITHDRAWN -> COMPLETE (asked for again by a person)
FAILED | NOT_ROUTED | REPORTED .. COMMITTED -> WITHDRAWN (a person took back what was sent;
    while it is read again, from RECEIVING to READING, it goes on, and only what was sent before is taken back)
DELIVERED -> REPORTED (a peer answered that it does not hold what it had accepted: it is sent again)
"""

from enum import StrEnum
from typing import TypeVar

from dicom_node.core.errors import IllegalTransition

StateT = TypeVar("StateT", bound=StrEnum)


class StudyState(StrEnum):
    """Where a study stands on its way."""

    RECEIVING = "RECEIVING"
    COMPLETE = "COMPLETE"
    NOT_ROUTED = "NOT_ROUTED"
    QUEUED = "QUEUED"
    READING = "READING"
    REPORTED = "REPORTED"
    DELIVERED = "DELIVERED"
    COMMITTED = "COMMITTED"
    FAILED = "FAILED"
    WITHDRAWN = "WITHDRAWN"


class JobState(StrEnum):
    """Where one algorithm's work on one study stands."""

    QUEUED = "QUEUED"
    READING = "READING"
    REPORTED = "REPORTED"
    NOT_APPLICABLE = "NOT_APPLICABLE"
    SUPERSEDED = "SUPERSEDED"
    FAILED = "FAILED"


class DeliveryState(StrEnum):
    """Where one object's way to one peer stands."""

    WAITING = "WAITING"
    #: The peer answered a C-STORE with success.
    ACCEPTED = "ACCEPTED"
    #: The peer answered by storage commitment that it keeps the object.
    COMMITTED = "COMMITTED"
    FAILED = "FAILED"


class CommitmentState(StrEnum):
    """Where one transaction of storage commitment stands: asked, and then answered whole or not."""

    ASKED = "ASKED"
    COMMITTED = "COMMITTED"
    FAILED = "FAILED"


_S, _J, _D = StudyState, JobState, DeliveryState

STUDY_TRANSITIONS: dict[StudyState, frozenset[StudyState]] = {
    _S.RECEIVING: frozenset({_S.COMPLETE, _S.FAILED}),
    _S.COMPLETE: frozenset({_S.QUEUED, _S.NOT_ROUTED, _S.REPORTED, _S.RECEIVING, _S.FAILED}),
    _S.NOT_ROUTED: frozenset({_S.RECEIVING, _S.COMPLETE, _S.WITHDRAWN, _S.FAILED}),
    _S.QUEUED: frozenset({_S.READING, _S.RECEIVING, _S.FAILED}),
    _S.READING: frozenset({_S.QUEUED, _S.REPORTED, _S.NOT_ROUTED, _S.RECEIVING, _S.FAILED}),
    _S.REPORTED: frozenset({_S.DELIVERED, _S.RECEIVING, _S.COMPLETE, _S.WITHDRAWN, _S.FAILED}),
    _S.DELIVERED: frozenset({_S.COMMITTED, _S.REPORTED, _S.RECEIVING, _S.COMPLETE, _S.WITHDRAWN, _S.FAILED}),
    _S.COMMITTED: frozenset({_S.RECEIVING, _S.COMPLETE, _S.WITHDRAWN, _S.FAILED}),
    _S.WITHDRAWN: frozenset({_S.RECEIVING, _S.COMPLETE, _S.FAILED}),
    _S.FAILED: frozenset({_S.RECEIVING, _S.COMPLETE, _S.REPORTED, _S.WITHDRAWN}),
}

JOB_TRANSITIONS: dict[JobState, frozenset[JobState]] = {
    _J.QUEUED: frozenset({_J.READING, _J.SUPERSEDED, _J.FAILED}),
    _J.READING: frozenset({_J.QUEUED, _J.REPORTED, _J.NOT_APPLICABLE, _J.SUPERSEDED, _J.FAILED}),
    _J.REPORTED: frozenset({_J.SUPERSEDED}),
    _J.NOT_APPLICABLE: frozenset({_J.SUPERSEDED}),
    _J.SUPERSEDED: frozenset({_J.QUEUED}),
    _J.FAILED: frozenset({_J.SUPERSEDED}),
}

DELIVERY_TRANSITIONS: dict[DeliveryState, frozenset[DeliveryState]] = {
    _D.WAITING: frozenset({_D.ACCEPTED, _D.WAITING, _D.FAILED}),
    _D.ACCEPTED: frozenset({_D.COMMITTED, _D.WAITING}),
    _D.COMMITTED: frozenset({_D.WAITING}),
    _D.FAILED: frozenset({_D.WAITING}),
}

#: A study in these will have another result than the one that was sent before.
BEING_READ = (_S.RECEIVING, _S.COMPLETE, _S.QUEUED, _S.READING)


def check_transition(table: dict[StateT, frozenset[StateT]], before: StateT, after: StateT) -> None:
    """Raise IllegalTransition unless the table lets `after` follow `before`."""
    if after not in table[before]:
        allowed = ", ".join(sorted(table[before])) or "nothing"
        raise IllegalTransition(f"{after} cannot follow {before}; only {allowed} can")


def study_state_after_jobs(jobs: list[JobState]) -> StudyState | None:
    """The state a study enters when its jobs stand so, or None while one still waits or reads."""
    current = [state for state in jobs if state is not JobState.SUPERSEDED]
    if not current or any(state in (JobState.QUEUED, JobState.READING) for state in current):
        return None
    if JobState.REPORTED in current:
        return StudyState.REPORTED
    return StudyState.FAILED if JobState.FAILED in current else StudyState.NOT_ROUTED
