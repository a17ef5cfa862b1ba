"""The error tree: the class decides, the message tells a person what is wrong and what to do.

NodeError
|-- SettingsError               the settings file or environment cannot be used
|   `-- IndexDamaged            the SQLite index is no whole database any more
|-- UnknownStudy                a study that is not in the index
|-- AccountError                a user or token that is not there, is there already, or cannot be
|-- IndexUnavailable            the database does not answer, or takes no change now
|   `-- IndexConflict           it took a change back for the sake of another; done again, it mostly succeeds
|-- ExpressionError             a route's `when` that is no expression of the small language
|-- QueryInvalid                a search for what cannot be searched, or with a value that is none
|-- IntakeError (.status)       an instance that is not kept; the status goes back to its sender
|   |-- NotAuthorised           0x0124
|   |-- DuplicateInstance       0x0111
|   |-- SOPClassNotSupported    0x0122
|   |-- TransferSyntaxNotSupported  0xC122, over STOW-RS alone
|   |-- OutOfResources          0xA700
|   |-- DatasetMismatch         0xA900
|   `-- CannotUnderstand        0xC000
|-- NotificationRefused (.status)  an N-CREATE or N-SET that is not taken
|-- QueryFailed                 a peer that answered a C-FIND with no use to us
|-- IllegalTransition           a state that does not follow from the one before
|   `-- EvictedStudy            a study whose files have left the disk
|-- QueueUnavailable            the broker does not answer; the index keeps the job
|-- TriageError (.retryable)    a job that did not end in a report
|   |-- NotApplicable           the algorithm does not read such a series: an answer, no fault
|   |-- InconsistentGeometry    slices that make no volume
|   |-- UnreadableInstance      an instance that is missing, cut short or cannot be decoded
|   |-- BundleInvalid           retryable: weights or metadata that are not there, or not what they claim
|   |-- EvidenceInvalid         a report that failed its own checks and must not be sent
|   |-- OutOfDeviceMemory       retryable
|   `-- Interrupted             retryable: a reading that broke off
|       `-- ArchiveUnusable     the archive's disk failed, or is not there
`-- DeliveryError (.retryable)  a report that did not reach its peer
    |-- PeerUnreachable         retryable
    |-- AssociationRejected     retryable
    |   `-- ContextsRejected    it came about, and the peer takes none of what we would send
    |-- ReportNotTaken          retryable: it did not acknowledge what we answered about what we keep
    `-- StoreFailed (.status)   the peer answered a failure status
"""

import errno
from typing import ClassVar

from dicom_node.core.status import (
    CANNOT_UNDERSTAND,
    DATA_SET_MISMATCH,
    DUPLICATE_INSTANCE,
    NOT_AUTHORISED,
    OUT_OF_RESOURCES,
    SOP_CLASS_NOT_SUPPORTED,
    TRANSFER_SYNTAX_NOT_SUPPORTED,
)


class NodeError(Exception):
    """Whatever this node raises on purpose."""


class SettingsError(NodeError):
    """The settings cannot be used; the message names every fault with its line and its mend."""


class IndexDamaged(SettingsError):
    """The file of the SQLite index is no database any more; it can be made again from the archive."""


class UnknownStudy(NodeError):
    """A Study Instance UID that the index does not hold."""


class AccountError(NodeError):
    """A user or token that is not there, is there already, or cannot be."""


class IndexUnavailable(NodeError):
    """The index's database does not answer, is locked, or has no room; nothing of the change was kept."""


class IndexConflict(IndexUnavailable):
    """The database took a transaction back because another was in its way (a deadlock); nothing of it was kept."""


class ExpressionError(NodeError):
    """Text that is no expression over attribute keywords."""


class QueryInvalid(NodeError):
    """A search by an attribute that cannot be searched by, or with a value that its VR does not allow."""


class IntakeError(NodeError):
    """An instance that was not kept; `status` is the C-STORE status that says so (PS3.4 Annex B.2.3)."""

    status: ClassVar[int] = CANNOT_UNDERSTAND


class NotAuthorised(IntakeError):
    """The sender may not store here (PS3.7 Annex C.5.24)."""

    status = NOT_AUTHORISED


class DuplicateInstance(IntakeError):
    """Another content of this SOP Instance UID is here, and the settings refuse a second (PS3.7 Annex C.5.7)."""

    status = DUPLICATE_INSTANCE


class SOPClassNotSupported(IntakeError):
    """The SOP class is not one this node stores (PS3.7 Annex C.5.23)."""

    status = SOP_CLASS_NOT_SUPPORTED


class TransferSyntaxNotSupported(IntakeError):
    """Over STOW-RS alone: the transfer syntax is not one that this node stores (PS3.18 Table 10.5.3-2)."""

    status = TRANSFER_SYNTAX_NOT_SUPPORTED


class OutOfResources(IntakeError):
    """No room on disk, or the index does not take the row."""

    status = OUT_OF_RESOURCES


class DatasetMismatch(IntakeError):
    """The data set is not the instance that the command announced."""

    status = DATA_SET_MISMATCH


class CannotUnderstand(IntakeError):
    """The data set cannot be read, or its UIDs are no UIDs."""

    status = CANNOT_UNDERSTAND


class NotificationRefused(NodeError):
    """An N-CREATE or N-SET that is not taken; `status` and `error_id` say why (PS3.7 Annex C)."""

    def __init__(self, message: str, *, status: int, error_id: int | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.error_id = error_id


class QueryFailed(NodeError):
    """A peer answered a C-FIND with a failure status, or does not hold or count the study."""


class IllegalTransition(NodeError):
    """A study, job or delivery was asked to enter a state that its table does not allow."""


class EvictedStudy(IllegalTransition):
    """What is asked needs the study's files, and they have left the disk."""


class QueueUnavailable(NodeError):
    """The broker did not take the message; the job stays QUEUED in the index and is sent again."""


class TriageError(NodeError):
    """A job that ended without a report; `retryable` says whether another attempt can help."""

    retryable: ClassVar[bool] = False


class NotApplicable(TriageError):
    """The algorithm does not read such a series; an answer, not a fault."""


class InconsistentGeometry(TriageError):
    """Slices that do not make one regular volume."""


class UnreadableInstance(TriageError):
    """An instance that is missing, cut short, altered, or cannot be decoded."""


class BundleInvalid(TriageError):
    """A bundle whose files are missing, altered, or do not fit this software.

    It may be just being copied, and another worker may have a whole one.
    """

    retryable = True


class EvidenceInvalid(TriageError):
    """A report that failed the checks every outgoing object must pass."""


class OutOfDeviceMemory(TriageError):
    """The device's memory did not suffice."""

    retryable = True


class Interrupted(TriageError):
    """A reading that broke off for a reason that need not be there the next time."""

    retryable = True


class ArchiveUnusable(Interrupted):
    """The archive's disk failed, is full, or is not mounted where this worker looks for it."""

    @classmethod
    def by_disk(cls, error: OSError) -> "ArchiveUnusable":
        """By a disk that failed: what was in the way and what to do, without a path."""
        name = errno.errorcode.get(error.errno or 0, "without a number")
        return cls(f"the archive's disk was not usable ({type(error).__name__}, {name}); see its room and its mount")


class DeliveryError(NodeError):
    """An object that its peer did not take."""

    retryable: ClassVar[bool] = False


class PeerUnreachable(DeliveryError):
    """No connection, or it broke."""

    retryable = True


class AssociationRejected(DeliveryError):
    """The peer refused the association."""

    retryable = True


class ContextsRejected(AssociationRejected):
    """The peer is there, but accepted none of the presentation contexts: other objects may find it ready."""


class CommitmentNotTaken(DeliveryError):
    """The peer took an association for storage commitment, and ended it or fell silent when it was asked."""

    retryable = True


class ReportNotTaken(DeliveryError):
    """The peer did not acknowledge our answer to its storage commitment request."""

    retryable = True


class StoreFailed(DeliveryError):
    """The peer answered a C-STORE with a failure status."""

    def __init__(self, message: str, *, status: int) -> None:
        super().__init__(message)
        self.status = status
