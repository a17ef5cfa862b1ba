"""C-ECHO to a peer (PS3.4 Annex A)."""

import time

from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]  # the module makes its names at run time

from dicom_node.core.errors import PeerUnreachable
from dicom_node.scu.association import ProposedContext, association
from dicom_node.settings import Peer

_TRANSFER_SYNTAXES = ("1.2.840.10008.1.2", "1.2.840.10008.1.2.1")


def echo(peer: Peer, *, ae_title: str, timeout_seconds: float) -> float:
    """Seconds from the request for an association to the answer; raises PeerUnreachable or AssociationRejected."""
    began = time.monotonic()
    context = ProposedContext(Verification, _TRANSFER_SYNTAXES)
    with association(peer, [context], ae_title=ae_title, timeout_seconds=timeout_seconds) as assoc:
        status = assoc.send_c_echo()
    if not status or status.Status != 0x0000:
        raise PeerUnreachable(f"peer {peer.name} accepted an association but did not answer the C-ECHO")
    return time.monotonic() - began
