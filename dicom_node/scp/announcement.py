"""What an association says of itself, and of an instance before it comes, as the reception wants to hear it."""

from typing import cast

from pynetdicom.association import Association
from pynetdicom.pdu_primitives import A_ASSOCIATE
from pynetdicom.presentation import PresentationContextTuple

from dicom_node.core.errors import SOPClassNotSupported
from dicom_node.reception.storage import Announcement, Sender
from dicom_node.scp.c_store import StoreRequest


def sender_of(association: Association) -> Sender:
    """Who sends, by the association's request."""
    request = cast(A_ASSOCIATE, association.requestor.primitive)
    return Sender(association, association.requestor.ae_title, request.called_ae_title)


def announced(request: StoreRequest, context: PresentationContextTuple) -> Announcement:
    """The instance, by its C-STORE request."""
    fault = None
    # PS3.7 Section 9.1.1.1.3: the SOP class is the one of the presentation context.
    if request.sop_class_uid != context.abstract_syntax:
        fault = SOPClassNotSupported("SOP class is not the presentation context's; mend the sender")
    return Announcement(request.sop_class_uid, request.sop_instance_uid, str(context.transfer_syntax), fault)
