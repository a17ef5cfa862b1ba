"""Storage commitment: what is asked, and what is answered, whoever of us and a peer asks (PS3.4 Annex J)."""

from collections.abc import Mapping
from dataclasses import dataclass

#: Failure Reason (0008,1197): PS3.3 Section C.14.1.1.
FAILURE_REASONS: Mapping[int, str] = {
    0x0110: "processing failure",
    0x0112: "no such object instance",
    0x0119: "class and instance conflict",
    0x0122: "SOP class not supported",
    0x0131: "duplicate transaction UID",
    0x0213: "resource limitation",
}

PROCESSING_FAILURE, NO_SUCH_INSTANCE, CLASS_CONFLICT = 0x0110, 0x0112, 0x0119

#: Says something of the transaction and nothing of the object: it need not be sent again to be asked for again.
DUPLICATE_TRANSACTION = 0x0131


@dataclass(frozen=True, kw_only=True)
class CommitmentReport:
    """The answer to one transaction, in an N-EVENT-REPORT."""

    transaction_uid: str
    #: SOP Instance UIDs that are kept.
    committed: frozenset[str]
    #: SOP Instance UID to Failure Reason of those that are not.
    failed: Mapping[str, int]


@dataclass(frozen=True, kw_only=True)
class PromiseRequest:
    """What a peer asks us to keep, in one transaction."""

    transaction_uid: str
    #: Whom the answer goes to.
    calling_ae_title: str
    #: SOP Class UID and SOP Instance UID of each object.
    objects: tuple[tuple[str, str], ...]


@dataclass(frozen=True, kw_only=True)
class PromiseReport:
    """What a peer that asked us is told."""

    transaction_uid: str
    #: SOP Class UID and SOP Instance UID of each object that was asked for.
    objects: tuple[tuple[str, str], ...]
    #: SOP Instance UID to Failure Reason of those that we do not keep.
    failed: Mapping[str, int]


def failure_in_words(reason: int) -> str:
    """A Failure Reason as people are told it."""
    return f"0x{reason:04X}, {FAILURE_REASONS.get(reason, 'failure')}"
