"""Storage commitment with us as the provider: what peers ask, and the answers over the same association."""

import logging
import threading
from collections.abc import Callable
from typing import cast

from pydicom import Dataset
from pynetdicom.association import Association
from pynetdicom.dimse_primitives import N_ACTION
from pynetdicom.events import Event

from dicom_node.core.commitment import PromiseReport, PromiseRequest
from dicom_node.core.errors import IndexUnavailable
from dicom_node.core.uid import is_uid
from dicom_node.scp.accepted_association import AcceptedAssociation
from dicom_node.scu.storage_commitment import (
    ACTION_TYPE,
    INVALID_ARGUMENT,
    NO_SUCH_ARGUMENT,
    PROCESSING_FAILURE,
    STORAGE_COMMITMENT_PUSH_MODEL,
    SUCCESS,
    WELL_KNOWN_INSTANCE,
    event_report,
)

log = logging.getLogger(__name__)

#: PS3.7 Annex C.
UNRECOGNISED_OPERATION, NO_SUCH_INSTANCE, NO_SUCH_ACTION, RESOURCE_LIMITATION = 0x0211, 0x0112, 0x0123, 0x0213

#: Takes a question, durable at return; False where its transaction UID is in use for another.
TakeRequest = Callable[[PromiseRequest], bool]


class PromiseRequests:
    """Takes N-ACTIONs, and remembers which association each transaction came over."""

    def __init__(self, take: TakeRequest, wake: Callable[[], None], *, patience_seconds: float) -> None:
        """`wake` is called when there is something to answer, and its N-ACTION was."""
        self._take, self._wake = take, wake
        self._patience_seconds = patience_seconds
        self._lock = threading.Lock()
        self._asked_over: dict[str, AcceptedAssociation] = {}

    def action(self, event: Event) -> int:
        """N-ACTION (PS3.4 Section J.3.2): a status, never an exception."""
        asker = event.assoc.requestor.ae_title
        try:
            status = self._status(event, asker)
        except IndexUnavailable:
            status = RESOURCE_LIMITATION
        # The rim: whatever goes wrong inside, the peer gets an answer and its association lives.
        except Exception:
            log.exception("a storage commitment request could not be taken", extra={"calling_ae_title": asker})
            status = PROCESSING_FAILURE
        if status != SUCCESS:
            facts = {"calling_ae_title": asker, "status": f"0x{status:04X}"}
            log.warning("a storage commitment request was refused", extra=facts)
        return status

    def tell_here(self, transaction_uid: str, answer: Callable[[], PromiseReport]) -> bool:
        """Tell the peer over the association on which it asked; False where that has ended, or it says nothing."""
        with self._lock:
            association = self._asked_over.get(transaction_uid)
        if association is None or not association.is_established:
            return False
        event_type, information = event_report(answer())
        status = association.own_requests.report(
            event_type,
            information,
            sop_class_uid=STORAGE_COMMITMENT_PUSH_MODEL,
            instance_uid=WELL_KNOWN_INSTANCE,
            patience_seconds=self._patience_seconds,
        )
        with self._lock:
            self._asked_over.pop(transaction_uid, None)
        return status == SUCCESS

    def _status(self, event: Event, asker: str) -> int:
        request = cast(N_ACTION, event.request)
        if not _is_provider(event.assoc, event.context.context_id):
            return UNRECOGNISED_OPERATION
        if request.RequestedSOPInstanceUID != WELL_KNOWN_INSTANCE:
            return NO_SUCH_INSTANCE
        if request.ActionTypeID != ACTION_TYPE:
            return NO_SUCH_ACTION
        try:
            asked = _read(event.action_information, asker)
        # What pydicom raises for a data set that is none, or that lacks what it must have.
        except (AttributeError, EOFError, KeyError, NotImplementedError, TypeError, ValueError):
            return NO_SUCH_ARGUMENT
        if not asked.objects or not is_uid(asked.transaction_uid) or not all(map(_are_uids, asked.objects)):
            return INVALID_ARGUMENT
        if not self._take(asked):
            return INVALID_ARGUMENT
        self._remember(asked.transaction_uid, event.assoc)
        return SUCCESS

    def _remember(self, transaction_uid: str, association: Association) -> None:
        accepted = cast(AcceptedAssociation, association)
        with self._lock:
            for ended in [uid for uid, known in self._asked_over.items() if not known.is_established]:
                del self._asked_over[ended]
            self._asked_over[transaction_uid] = accepted
        # The peer must not hear what we keep before it hears that we take the question.
        accepted.after_answer(self._wake)


def _is_provider(association: Association, context_id: int) -> bool:
    """Whether we are the SCP on this context: not where the peer took that role (PS3.7 Annex D.3.3.4)."""
    contexts = association.accepted_contexts
    return any(context.context_id == context_id and context.as_scp for context in contexts)


def _read(information: Dataset, asker: str) -> PromiseRequest:
    return PromiseRequest(
        transaction_uid=str(information.TransactionUID),
        calling_ae_title=asker,
        objects=tuple(
            (str(item.ReferencedSOPClassUID), str(item.ReferencedSOPInstanceUID))
            for item in information.ReferencedSOPSequence
        ),
    )


def _are_uids(pair: tuple[str, str]) -> bool:
    return is_uid(pair[0]) and is_uid(pair[1])
