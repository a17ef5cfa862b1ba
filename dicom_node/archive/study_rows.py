"""The rows of studies: what the index made of an instance, and what it tells of a study and its arrival."""

from dataclasses import dataclass
from enum import StrEnum

from dicom_node.core.lifecycle import StudyState


class Added(StrEnum):
    """What the index made of an instance."""

    #: It is new, and now part of its study.
    NEW = "NEW"
    #: The same bytes were already there; nothing changed.
    IDENTICAL = "IDENTICAL"
    #: Other bytes hold this UID already; these are kept beside them, flagged, and are no evidence.
    CONFLICT = "CONFLICT"


@dataclass(frozen=True, kw_only=True)
class Reception:
    """What is known of a study's arrival; open associations are those that sent of this study and have not ended."""

    study_instance_uid: str
    first_received_at: float
    last_received_at: float
    open_associations: int
    last_association_ended_at: float | None
    aborted_associations: int


@dataclass(frozen=True, kw_only=True)
class StudyRow:
    """A study's line in the index."""

    study_instance_uid: str
    state: StudyState
    reason: str
    state_since: float
    first_received_at: float
    last_received_at: float
    priority: str
    instances: int
    conflicts: int


@dataclass(frozen=True, kw_only=True)
class HistoryRow:
    """One line of a study's history."""

    at: float
    #: States of the study, or of the subject.
    before: str
    after: str
    cause: str
    actor: str
    #: Empty: the study itself; else "job ALGORITHM" or "delivery PEER".
    subject: str
