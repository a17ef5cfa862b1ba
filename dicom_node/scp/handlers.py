"""Handlers: from pynetdicom's events to the intake's methods and back; thin, and the rim where every error ends."""

import logging
import uuid
from io import BytesIO
from typing import Protocol, cast

from pydicom.dataset import Dataset
from pynetdicom import evt
from pynetdicom.association import Association
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.events import Event, EventHandlerType
from pynetdicom.pdu_primitives import A_ASSOCIATE, A_P_ABORT

from dicom_node.core.errors import IndexUnavailable, IntakeError, OutOfResources, SOPClassNotSupported
from dicom_node.core.received_instance import ReceivedInstance
from dicom_node.core.uid import is_uid
from dicom_node.scp.admission import DiskWatermark

log = logging.getLogger(__name__)

SUCCESS = 0x0000

# Of the range "Cannot understand" (PS3.4 Table B.2-1), for what nobody foresaw.
UNEXPECTED = 0xC0FF

_MAXIMUM_COMMENT = 64


class Reception(Protocol):
    """What the wire hands on; a Protocol because the intake must not be known here."""

    def store(self, received: ReceivedInstance) -> object:
        """Keep the instance, durable at return, or raise IntakeError."""

    def association_opened(self, association_id: str, calling_ae_title: str) -> None:
        """An association is about to send its first instance."""

    def association_ended(self, association_id: str, ending: str) -> None:
        """It is over: released, aborted or lost."""

    def free_bytes(self) -> int:
        """Room left for instances."""


class Handlers:
    """The event handlers of one application entity; each runs in its association's thread."""

    def __init__(self, reception: Reception, watermark: DiskWatermark) -> None:
        self._reception = reception
        self._watermark = watermark
        # Only associations that stored something: an echo leaves no trace in the index.
        self._sending: dict[Association, str] = {}

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
        try:
            self._keep(event)
        except IntakeError as error:
            outcome = {"status": f"0x{error.status:04X}", "reason": str(error)}
            log.warning("instance refused", extra={**_facts(event), **outcome})
            return _failure(error.status, str(error))
        # The rim: whatever goes wrong inside, the sender gets an answer and its association lives.
        except Exception:
            log.exception("instance could not be kept", extra=_facts(event))
            return _failure(UNEXPECTED, "the node failed; see its log")
        return SUCCESS

    def _keep(self, event: Event) -> None:
        try:
            self._watermark.check(self._reception.free_bytes())
            self._reception.store(self._received(event))
        # Of the association or of the instance: either way its sender may try again later.
        except IndexUnavailable as error:
            raise OutOfResources(str(error)) from error

    def rejected(self, event: Event) -> None:
        """An association was refused."""
        request, answer = _negotiation(event)
        facts = {"calling_ae_title": request.calling_ae_title, "called_ae_title": request.called_ae_title}
        log.warning("association rejected", extra={**facts, "reason": answer.reason_str})

    def acse_received(self, event: Event) -> None:
        """A connection that broke reaches us as a provider's abort, just before the event of the abort itself."""
        if isinstance(getattr(event, "primitive", None), A_P_ABORT):
            self._ended(event, "lost")

    def released(self, event: Event) -> None:
        """The association ended in good order."""
        self._ended(event, "released")

    def aborted(self, event: Event) -> None:
        """The association was aborted by either side."""
        self._ended(event, "aborted")

    def _received(self, event: Event) -> ReceivedInstance:
        request = cast(C_STORE, event.request)
        sop_class_uid = str(request.AffectedSOPClassUID)
        # PS3.7 Section 9.1.1.1.3: the SOP class is the one of the presentation context.
        if sop_class_uid != event.context.abstract_syntax:
            raise SOPClassNotSupported("SOP class is not the presentation context's; mend the sender")
        return ReceivedInstance(
            sop_class_uid=sop_class_uid,
            sop_instance_uid=str(request.AffectedSOPInstanceUID),
            transfer_syntax_uid=str(event.context.transfer_syntax),
            data_set=cast(BytesIO, request.DataSet),
            calling_ae_title=event.assoc.requestor.ae_title,
            called_ae_title=_negotiation(event)[0].called_ae_title,
            association_id=self._association_id(event),
        )

    def _association_id(self, event: Event) -> str:
        known = self._sending.get(event.assoc)
        if known is not None:
            return known
        association_id = str(uuid.uuid4())
        self._reception.association_opened(association_id, event.assoc.requestor.ae_title)
        self._sending[event.assoc] = association_id
        return association_id

    def _ended(self, event: Event, ending: str) -> None:
        association_id = self._sending.pop(event.assoc, None)
        if association_id is not None:
            self._reception.association_ended(association_id, ending)


def _negotiation(event: Event) -> tuple[A_ASSOCIATE, A_ASSOCIATE]:
    """The association's request and our answer."""
    requestor, acceptor = event.assoc.requestor, event.assoc.acceptor
    return cast(A_ASSOCIATE, requestor.primitive), cast(A_ASSOCIATE, acceptor.primitive)


def _failure(status: int, comment: str) -> Dataset:
    dataset = Dataset()
    dataset.Status = status
    # LO: no backslash, no control characters (PS3.5 Table 6.2-1); other characters have no character set in a command.
    text = comment.encode("ascii", errors="replace").decode().replace("\\", "/")
    dataset.ErrorComment = "".join(c for c in text if c.isprintable())[:_MAXIMUM_COMMENT].strip()
    return dataset


def _facts(event: Event) -> dict[str, object]:
    # What stands where a UID should be may be a name, and names stay out of the log.
    sop_instance_uid = str(cast(C_STORE, event.request).AffectedSOPInstanceUID)
    return {
        "sop_instance_uid": sop_instance_uid if is_uid(sop_instance_uid) else "not a UID",
        "calling_ae_title": event.assoc.requestor.ae_title,
    }
