"""What the index tells of storage commitments: its transactions, what is due, and what an answer changed."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dicom_node.archive.delivery_rows import DeliveryRow
from dicom_node.core.lifecycle import CommitmentState


@dataclass(frozen=True, kw_only=True)
class CommitmentDue:
    """What a peer is to be asked to keep of one study."""

    study_instance_uid: str
    peer: str
    rows: tuple[DeliveryRow, ...]
    #: How often it was asked for in vain: no answer came, or one that says nothing of it.
    unanswered: int


@dataclass(frozen=True, kw_only=True)
class CommitmentRow:
    """One transaction."""

    transaction_uid: str
    peer: str
    study_instance_uid: str
    state: CommitmentState
    #: SOP Instance UIDs.
    objects: tuple[str, ...]
    attempts: int
    asked_at: float
    next_try_at: float
    answered_at: float | None
    reason: str


@dataclass(frozen=True, kw_only=True)
class Answered:
    """What an answer changed."""

    study_instance_uid: str
    peer: str
    committed: tuple[str, ...]
    #: SOP Instance UIDs that are sent again, have failed for good, or count no more.
    refused: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Silence:
    """What a peer left without an answer since its last one, about whichever study."""

    #: Transactions whose time is over, or that the peer did not even take.
    unanswered: int
    #: When it was asked last; None where it was not since then.
    asked_at: float | None


def commitment_row(row: Mapping[Any, Any]) -> CommitmentRow:
    """A transaction of such a row."""
    fields = {name: row[name] for name in CommitmentRow.__dataclass_fields__}
    return CommitmentRow(**{**fields, "state": CommitmentState(row["state"]), "objects": tuple(row["objects"])})
