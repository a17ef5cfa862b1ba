"""Handlers: from pynetdicom's events to our methods and back; thin.

A C-STORE request comes here only where [upper_layer] found it odd; plain ones go to [storage] without an event.
"""

import logging
from collections.abc import Callable
from io import BytesIO
from typing import cast

from pydicom.dataset import Dataset
from pynetdicom import evt
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.events import Event, EventHandlerType
from pynetdicom.pdu_primitives import A_ASSOCIATE, A_P_ABORT

from dicom_node.core.status import SUCCESS
from dicom_node.reception.storage import Outcome, Reception, Storage
from dicom_node.reception.watermark import DiskWatermark
from dicom_node.scp.announcement import announced, sender_of
from dicom_node.scp.c_store import StoreRequest
from dicom_node.scp.presentation_contexts import storage_sop_classes

log = logging.getLogger(__name__)


class Handlers:
    """The event handlers of one application entity; each runs in its association's thread."""

    def __init__(
        self,
        reception: Reception,
        watermark: DiskWatermark,
        count_refusal: Callable[[str, str], None] = lambda _what, _reason: None,
    ) -> None:
        """`count_refusal` hears of each instance and association that is refused: which of both, and why."""
        self.storage = Storage(reception, watermark, count_refusal, sop_classes=storage_sop_classes())
        self._count_refusal = count_refusal

    def bindings(self) -> list[EventHandlerType]:
        """Event and handler pairs, as pynetdicom takes them."""
        return [
            (evt.EVT_C_ECHO, self.echo),
            (evt.EVT_C_STORE, self.store),
            (evt.EVT_REJECTED, self.rejected),
            (evt.EVT_ACSE_RECV, self.acse_received),
            (evt.EVT_RELEASED, self.released),
            (evt.EVT_ABORTED, self.aborted),
        ]

    def echo(self, _event: Event) -> int:
        """C-ECHO (PS3.4 Annex A.4)."""
        return SUCCESS

    def store(self, event: Event) -> int | Dataset:
        """C-STORE (PS3.4 Annex B.2.3): the instance's fate as a status, never an exception."""
        request = cast(C_STORE, event.request)
        command = StoreRequest(
            request.MessageID or 0, str(request.AffectedSOPClassUID), str(request.AffectedSOPInstanceUID)
        )
        data_set = cast(BytesIO, request.DataSet)
        outcome = self.storage.keep(sender_of(event.assoc), announced(command, event.context), data_set)
        return SUCCESS if outcome.status == SUCCESS else _failure(outcome)

    def rejected(self, event: Event) -> None:
        """An association was refused."""
        request = cast(A_ASSOCIATE, event.assoc.requestor.primitive)
        answer = cast(A_ASSOCIATE, event.assoc.acceptor.primitive)
        facts = {"calling_ae_title": request.calling_ae_title, "called_ae_title": request.called_ae_title}
        log.warning("association rejected", extra={**facts, "reason": answer.reason_str})
        self._count_refusal("association", answer.reason_str)

    def acse_received(self, event: Event) -> None:
        """A connection that broke reaches us as a provider's abort, just before the event of the abort itself."""
        if isinstance(getattr(event, "primitive", None), A_P_ABORT):
            self.storage.association_ended(event.assoc, "lost")

    def released(self, event: Event) -> None:
        """The association ended in good order."""
        self.storage.association_ended(event.assoc, "released")

    def aborted(self, event: Event) -> None:
        """The association was aborted by either side."""
        self.storage.association_ended(event.assoc, "aborted")


def _failure(outcome: Outcome) -> Dataset:
    dataset = Dataset()
    dataset.Status = outcome.status
    dataset.ErrorComment = outcome.comment
    return dataset
