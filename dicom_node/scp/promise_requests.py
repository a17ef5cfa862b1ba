"""Storage commitment with us as the provider: what peers ask, and the answers over the same association."""

import logging
import threading
import time
from collections.abc import Callable
from typing import cast

from pydicom import Dataset
from pynetdicom.association import Association
from pynetdicom.dimse_primitives import N_ACTION
from pynetdicom.events import Event

from dicom_node.archive.header import BROKEN_BYTES
from dicom_node.core.commitment import PromiseReport, PromiseRequest
from dicom_node.core.errors import IndexUnavailable
from dicom_node.core.status import (
    INVALID_ARGUMENT,
    NO_SUCH_ACTION,
    NO_SUCH_ARGUMENT,
    NO_SUCH_INSTANCE,
    PROCESSING_FAILURE,
    RESOURCE_LIMITATION,
    SUCCESS,
    UNRECOGNISED_OPERATION,
    in_hex,
)
from dicom_node.core.uid import is_uid
from dicom_node.scp.accepted_association import AcceptedAssociation
from dicom_node.scu.storage_commitment import (
    ACTION_TYPE,
    STORAGE_COMMITMENT_PUSH_MODEL,
    WELL_KNOWN_INSTANCE,
    event_report,
)

log = logging.getLogger(__name__)

#: How often it is looked whether an association is still there.
_LOOK_SECONDS = 0.25

#: Takes a question, durable at return; False where its transaction UID is in use for another.
TakeRequest = Callable[[PromiseRequest], bool]


class PromiseRequests:
    """Takes N-ACTIONs, and remembers which association each transaction came over."""

    def __init__(self, take: TakeRequest, wake: Callable[[], None], *, patience_seconds: float) -> None:
        """`wake` is called when there is something to answer, and its N-ACTION was."""
        self._take, self._wake = take, wake
        self._patience_seconds = patience_seconds
        self._lock = threading.Lock()
        self._asked_over: dict[str, _Asked] = {}

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
            facts = {"calling_ae_title": asker, "status": in_hex(status)}
            log.warning("a storage commitment request was refused", extra=facts)
        return status

    def tell_here(self, transaction_uid: str, answer: Callable[[], PromiseReport]) -> bool:
        """Tell the peer over the association on which it asked; False where that has ended, or it says nothing."""
        with self._lock:
            asked = self._asked_over.get(transaction_uid)
        # The peer must not hear what we keep before it hears that we take the question.
        if asked is None or not asked.is_answered(self._patience_seconds):
            return False
        association = asked.association
        event_type, information = event_report(answer())
        status = association.own_requests.report(
            event_type,
            information,
            sop_class_uid=STORAGE_COMMITMENT_PUSH_MODEL,
            instance_uid=WELL_KNOWN_INSTANCE,
            patience_seconds=self._patience_seconds,
        )
        with self._lock:
            if self._asked_over.get(transaction_uid) is asked:
                del self._asked_over[transaction_uid]
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
        except BROKEN_BYTES:
            return NO_SUCH_ARGUMENT
        if not asked.objects or not is_uid(asked.transaction_uid) or not all(map(_are_uids, asked.objects)):
            return INVALID_ARGUMENT
        return SUCCESS if self._is_taken(asked, cast(AcceptedAssociation, event.assoc)) else INVALID_ARGUMENT

    def _is_taken(self, request: PromiseRequest, association: AcceptedAssociation) -> bool:
        # Remembered before it is taken: from then on somebody may look where its answer goes.
        asked, uid = _Asked(association), request.transaction_uid
        before = self._remember(uid, asked)
        is_taken = False
        try:
            if not (is_taken := self._take(request)):
                return False
        finally:
            if not is_taken:
                self._restore(uid, before)
                asked.end(is_taken=False)
        association.after_answer(asked.end)
        association.after_answer(self._wake)
        return True

    def _remember(self, transaction_uid: str, asked: "_Asked") -> "_Asked | None":
        with self._lock:
            for ended in [uid for uid, known in self._asked_over.items() if not known.association.is_established]:
                del self._asked_over[ended]
            before = self._asked_over.get(transaction_uid)
            self._asked_over[transaction_uid] = asked
        return before

    def _restore(self, transaction_uid: str, before: "_Asked | None") -> None:
        with self._lock:
            if before is None:
                self._asked_over.pop(transaction_uid, None)
            else:
                self._asked_over[transaction_uid] = before


class _Asked:
    """Where a question came from."""

    def __init__(self, association: AcceptedAssociation) -> None:
        self.association = association
        self._is_taken = False
        self._answered = threading.Event()

    def end(self, *, is_taken: bool = True) -> None:
        """The peer was told whether its question is taken, or will be told that it is not."""
        self._is_taken = is_taken
        self._answered.set()

    def is_answered(self, patience_seconds: float) -> bool:
        """Whether the association is there and the question was answered, by a success; waits for that."""
        until = time.monotonic() + patience_seconds
        while self.association.is_established and time.monotonic() < until:
            if self._answered.wait(_LOOK_SECONDS):
                return self._is_taken and bool(self.association.is_established)
        return False


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
