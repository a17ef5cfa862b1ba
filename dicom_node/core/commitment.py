"""Storage commitment: what a peer answered about the objects it was asked to keep (PS3.4 Annex J)."""

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

#: Says something of the transaction and nothing of the object: it need not be sent again to be asked for again.
DUPLICATE_TRANSACTION = 0x0131


@dataclass(frozen=True, kw_only=True)
class CommitmentReport:
    """The answer to one transaction, from an N-EVENT-REPORT."""

    transaction_uid: str
    #: SOP Instance UIDs that the peer keeps.
    committed: frozenset[str]
    #: SOP Instance UID to Failure Reason of those that it does not.
    failed: Mapping[str, int]


def failure_in_words(reason: int) -> str:
    """A Failure Reason as people are told it."""
    return f"0x{reason:04X}, {FAILURE_REASONS.get(reason, 'failure')}"
