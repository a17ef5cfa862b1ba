"""Storage commitment on associations that a peer opens to us, in both roles (PS3.4 Annex J).

As its user we take answers to what we asked of the peer; as its provider, requests to keep what the peer sent. Which of
the two we are on a presentation context is told by the role selection of the peer that opens the association.
"""

import logging

from pydicom.uid import UID
from pynetdicom import evt
from pynetdicom.events import Event, EventHandlerType
from pynetdicom.presentation import PresentationContext

from dicom_node.core.status import PROCESSING_FAILURE, SUCCESS, UNRECOGNISED_OPERATION, in_hex
from dicom_node.scp.promise_requests import PromiseRequests
from dicom_node.scu.storage_commitment import (
    STORAGE_COMMITMENT_PUSH_MODEL,
    TRANSFER_SYNTAXES,
    TakeReport,
    receive,
)

log = logging.getLogger(__name__)


class CommitmentEvents:
    """The part of an application entity that takes answers, and requests where it is to give promises."""

    def __init__(self, take: TakeReport, promises: PromiseRequests | None = None) -> None:
        """Without `promises` nobody may ask us to keep what we receive."""
        self._take = take
        self._promises = promises

    def bindings(self) -> list[EventHandlerType]:
        """Event and handler pairs, as pynetdicom takes them."""
        return [(evt.EVT_N_EVENT_REPORT, self.report), (evt.EVT_N_ACTION, self.action)]

    def context(self) -> PresentationContext:
        """The presentation context, for a peer that is its SCP, its SCU, or both, on an association of its own.

        PS3.4 Section J.3.3: who answers proposes the SCP role by role selection (PS3.7 Annex D.3.3.4). Some do not, and
        send their answer all the same; the context is accepted in the default roles, too.
        """
        context = PresentationContext()
        context.abstract_syntax = UID(STORAGE_COMMITMENT_PUSH_MODEL)
        context.transfer_syntax = [UID(uid) for uid in TRANSFER_SYNTAXES]
        # Of the requestor: whether it may be the SCU, and that it may be the SCP.
        context.scu_role, context.scp_role = self._promises is not None, True
        return context

    def report(self, event: Event) -> tuple[int, None]:
        """N-EVENT-REPORT: a status, never an exception."""
        facts = {"calling_ae_title": event.assoc.requestor.ae_title}
        try:
            status, reply = receive(event, self._take)
        # The rim: whatever goes wrong inside, the peer gets an answer and its association lives.
        except Exception:
            log.exception("an answer to a storage commitment request could not be taken", extra=facts)
            return PROCESSING_FAILURE, None
        if status != SUCCESS:
            log.warning("an answer to no storage commitment request", extra={**facts, "status": in_hex(status)})
        return status, reply

    def action(self, event: Event) -> tuple[int, None]:
        """N-ACTION: what a peer asks us to keep."""
        return UNRECOGNISED_OPERATION if self._promises is None else self._promises.action(event), None
