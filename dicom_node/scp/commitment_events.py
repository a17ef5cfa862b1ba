"""Answers to our storage commitment requests, on associations that the peer opens to us (PS3.4 Section J.3.3)."""

import logging

from pydicom.uid import UID
from pynetdicom import evt
from pynetdicom.events import Event, EventHandlerType
from pynetdicom.presentation import PresentationContext

from dicom_node.scu.storage_commitment import (
    PROCESSING_FAILURE,
    STORAGE_COMMITMENT_PUSH_MODEL,
    SUCCESS,
    TRANSFER_SYNTAXES,
    TakeReport,
    receive,
)

log = logging.getLogger(__name__)

#: PS3.7 Annex C: we ask for storage commitment and give none.
_UNRECOGNISED_OPERATION = 0x0211


class CommitmentEvents:
    """The part of an application entity that takes the answers."""

    def __init__(self, take: TakeReport) -> None:
        self._take = take

    def bindings(self) -> list[EventHandlerType]:
        """Event and handler pairs, as pynetdicom takes them."""
        return [(evt.EVT_N_EVENT_REPORT, self.report), (evt.EVT_N_ACTION, self.action)]

    def context(self) -> PresentationContext:
        """The presentation context, for a peer that is its SCP on an association of its own.

        PS3.4 Section J.3.3: such a peer proposes the SCP role by role selection (PS3.7 Annex D.3.3.4). Some do not, and
        send their answer all the same; the context is accepted in the default roles, too.
        """
        context = PresentationContext()
        context.abstract_syntax = UID(STORAGE_COMMITMENT_PUSH_MODEL)
        context.transfer_syntax = [UID(uid) for uid in TRANSFER_SYNTAXES]
        # Of the requestor: that it is not the SCU, and may be the SCP.
        context.scu_role, context.scp_role = False, True
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
            log.warning("an answer to no storage commitment request", extra={**facts, "status": f"0x{status:04X}"})
        return status, reply

    def action(self, _event: Event) -> tuple[int, None]:
        """N-ACTION: nobody may ask us to keep what we receive."""
        return _UNRECOGNISED_OPERATION, None
