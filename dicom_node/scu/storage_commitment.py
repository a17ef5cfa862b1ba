"""Storage commitment: a peer is asked to keep what it accepted, and answers by an N-EVENT-REPORT (PS3.4 Annex J).

And the other way round: a peer that asked us is told what we keep, on an association that we open to it.
"""

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import cast

from pydicom import Dataset
from pynetdicom import evt
from pynetdicom.association import Association
from pynetdicom.dimse_primitives import N_EVENT_REPORT
from pynetdicom.events import Event

from dicom_node.core.commitment import PROCESSING_FAILURE as NOT_KEPT
from dicom_node.core.commitment import CommitmentReport, PromiseReport
from dicom_node.core.errors import CommitmentNotTaken, IndexUnavailable, ReportNotTaken, StoreFailed
from dicom_node.core.uid import is_uid
from dicom_node.scu.association import ProposedContext, association
from dicom_node.settings import Peer

#: PS3.4 Section J.3.5: the SOP class, and its one well-known instance.
STORAGE_COMMITMENT_PUSH_MODEL = "1.2.840.10008.1.20.1"
WELL_KNOWN_INSTANCE = "1.2.840.10008.1.20.1.1"
#: PS3.4 Section J.3.2.1.1: Request Storage Commitment.
ACTION_TYPE = 1
#: PS3.4 Section J.3.3.1.1: all is kept, or failures exist.
EVENT_TYPES = (1, 2)

TRANSFER_SYNTAXES = ("1.2.840.10008.1.2.1", "1.2.840.10008.1.2")

#: PS3.7 Section 10.1.1.1.8 and Annex C.
SUCCESS, PROCESSING_FAILURE, NO_SUCH_EVENT_TYPE, NO_SUCH_ARGUMENT, INVALID_ARGUMENT = (
    0x0000,
    0x0110,
    0x0113,
    0x0114,
    0x0115,
)

#: How often it is looked whether the answers are there.
_LOOK_SECONDS = 0.05

#: Takes an answer; False where no such transaction is known.
TakeReport = Callable[[CommitmentReport], bool]


@dataclass(frozen=True, kw_only=True)
class CommitmentRequest:
    """One transaction."""

    transaction_uid: str
    #: SOP Class UID and SOP Instance UID of each object.
    objects: tuple[tuple[str, str], ...]


def ask(
    peer: Peer,
    request: CommitmentRequest,
    take: TakeReport,
    *,
    ae_title: str,
    timeout_seconds: float,
    linger_seconds: float,
    is_answered: Callable[[], bool],
) -> bool:
    """Ask a peer to keep objects, and stay on the association a little for the answer; whether it came over it.

    Most peers open an association of their own to answer, so `is_answered` ends the stay, too. Raises PeerUnreachable
    or AssociationRejected where no association came about, StoreFailed where the peer would not take the question, and
    CommitmentNotTaken where it ended the association or gave no status: it may have the question, and it may not. One
    transaction an association: an answer that came while another question is under way would be lost.
    """
    context = ProposedContext(STORAGE_COMMITMENT_PUSH_MODEL, TRANSFER_SYNTAXES)
    came = threading.Event()

    def taken(report: CommitmentReport) -> bool:
        if report.transaction_uid == request.transaction_uid:
            came.set()
        return take(report)

    handlers = [(evt.EVT_N_EVENT_REPORT, lambda event: receive(event, taken))]
    with association(peer, [context], ae_title=ae_title, timeout_seconds=timeout_seconds, handlers=handlers) as assoc:
        _ask(assoc, peer, request)
        until = time.monotonic() + linger_seconds
        while assoc.is_established and time.monotonic() < until and not is_answered():
            came.wait(_LOOK_SECONDS)
    return came.is_set()


def receive(event: Event, take: TakeReport) -> tuple[int, None]:
    """Answer an N-EVENT-REPORT (PS3.4 Section J.3.3): its status, and no reply."""
    request = cast(N_EVENT_REPORT, event.request)
    if request.EventTypeID not in EVENT_TYPES:
        return NO_SUCH_EVENT_TYPE, None
    try:
        report = _read(event.event_information)
    # What pydicom raises for a data set that is none; OSError for a sequence that breaks off.
    except (AttributeError, EOFError, KeyError, NotImplementedError, OSError, TypeError, ValueError):
        return NO_SUCH_ARGUMENT, None
    if not is_uid(report.transaction_uid):
        return INVALID_ARGUMENT, None
    try:
        return (SUCCESS if take(report) else INVALID_ARGUMENT), None
    except IndexUnavailable:
        # The peer may tell us again; else it is asked again.
        return PROCESSING_FAILURE, None


def tell(peer: Peer, answer: Callable[[], PromiseReport], *, ae_title: str, timeout_seconds: float) -> None:
    """Tell a peer what we keep of what it asked, and return when it has acknowledged it (PS3.4 Section J.3.3).

    `answer` is called once the peer is there. Raises PeerUnreachable or AssociationRejected where no association came
    about, and ReportNotTaken where the peer did not acknowledge.
    """
    context = ProposedContext(STORAGE_COMMITMENT_PUSH_MODEL, TRANSFER_SYNTAXES)
    roles = [STORAGE_COMMITMENT_PUSH_MODEL]
    with association(peer, [context], ae_title=ae_title, timeout_seconds=timeout_seconds, as_provider=roles) as assoc:
        event_type, information = event_report(answer())
        try:
            status, _ = assoc.send_n_event_report(
                information, event_type, STORAGE_COMMITMENT_PUSH_MODEL, WELL_KNOWN_INSTANCE
            )
        except RuntimeError as error:  # pynetdicom's word for an association that ended a moment ago
            raise ReportNotTaken(f"peer {peer.name} ended the association before it could be told") from error
    said = status.get("Status")
    if said != SUCCESS:
        words = "gave no status" if said is None else f"answered 0x{said:04X}"
        raise ReportNotTaken(f"peer {peer.name} {words} when it was told what we keep; its own log may say more")


def event_report(report: PromiseReport) -> tuple[int, Dataset]:
    """Event Type ID and Event Information of an answer (PS3.4 Table J.3-2)."""
    information = Dataset()
    information.TransactionUID = report.transaction_uid
    kept = [_reference(*pair) for pair in report.objects if pair[1] not in report.failed]
    lost = [_reference(*pair) for pair in report.objects if pair[1] in report.failed]
    for item in lost:
        item.FailureReason = report.failed[str(item.ReferencedSOPInstanceUID)]
    # Neither sequence may be empty.
    if kept:
        information.ReferencedSOPSequence = kept
    if lost:
        information.FailedSOPSequence = lost
    return EVENT_TYPES[bool(lost)], information


def _ask(assoc: Association, peer: Peer, request: CommitmentRequest) -> None:
    information = Dataset()
    information.TransactionUID = request.transaction_uid
    information.ReferencedSOPSequence = [_reference(*pair) for pair in request.objects]
    try:
        answer, _ = assoc.send_n_action(information, ACTION_TYPE, STORAGE_COMMITMENT_PUSH_MODEL, WELL_KNOWN_INSTANCE)
    except RuntimeError as error:  # pynetdicom's word for an association that ended a moment ago
        raise CommitmentNotTaken(f"peer {peer.name} ended the association before it could be asked") from error
    status = answer.get("Status")
    if status is None:
        why = f"peer {peer.name} gave no status when asked for storage commitment; does it offer that at all?"
        raise CommitmentNotTaken(why)
    if status != SUCCESS:
        why = f"peer {peer.name} answered 0x{status:04X} when asked for storage commitment; its own log may say more"
        raise StoreFailed(why, status=status)


def _reference(sop_class_uid: str, sop_instance_uid: str) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID = sop_class_uid
    item.ReferencedSOPInstanceUID = sop_instance_uid
    return item


def _read(information: Dataset) -> CommitmentReport:
    kept: Sequence[Dataset] = information.get("ReferencedSOPSequence") or ()
    lost: Sequence[Dataset] = information.get("FailedSOPSequence") or ()
    return CommitmentReport(
        transaction_uid=str(information.TransactionUID),
        committed=frozenset(str(item.ReferencedSOPInstanceUID) for item in kept),
        failed={str(item.ReferencedSOPInstanceUID): int(item.get("FailureReason") or NOT_KEPT) for item in lost},
    )
