"""Peers of the node for tests: real Storage SCPs on free ports that answer as a test wants."""

import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from pydicom import Dataset
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import AE, evt
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]  # the module makes its names at run time

from dicom_node.settings import Peer
from tests.populated_index import SEG, SR

CT = "1.2.840.10008.5.1.4.1.1.2"


@dataclass
class Behaviour:
    """How a peer answers, and what it was sent."""

    #: Status by SOP class; what is not here is a success.
    statuses: Mapping[str, int] = field(default_factory=dict)
    #: Ends the association with the answer to the instance of this number, counted from 1.
    aborts_after: int | None = None
    #: SOP Instance UIDs in the order of their arrival.
    arrived: list[str] = field(default_factory=list)
    associations: int = 0

    def store(self, event: evt.Event) -> int | Dataset:
        """Answer a C-STORE."""
        self.arrived.append(str(event.request.AffectedSOPInstanceUID))
        status = self.statuses.get(str(event.request.AffectedSOPClassUID), 0x0000)
        if self.aborts_after is not None and len(self.arrived) >= self.aborts_after:
            event.assoc.abort()
        if status != 0xA700:
            return status
        answer = Dataset()
        answer.Status, answer.ErrorComment = status, "the disk is full"
        return answer

    def accepted(self, _event: evt.Event) -> None:
        """Count an association."""
        self.associations += 1


def free_port() -> int:
    """A port on which nothing listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


@contextmanager
def storage_peer(
    behaviour: Behaviour,
    *,
    name: str = "pacs",
    sop_classes: Sequence[str] = (SEG, SR, CT, Verification),
    syntaxes: Sequence[str] = (ExplicitVRLittleEndian, ImplicitVRLittleEndian),
    calling: Sequence[str] = (),
    port: int = 0,
) -> Iterator[Peer]:
    """A peer that runs until the end of the block."""
    ae = AE(ae_title="PACS")
    ae.require_calling_aet = list(calling)
    ae.require_called_aet = True
    for sop_class in sop_classes:
        ae.add_supported_context(sop_class, list(syntaxes))
    handlers = [(evt.EVT_C_STORE, behaviour.store), (evt.EVT_ACCEPTED, behaviour.accepted)]
    server = ae.start_server(("127.0.0.1", port), block=False, evt_handlers=handlers)  # type: ignore[arg-type]  # its types want one kind of handler
    try:
        yield Peer(name=name, ae_title="PACS", host="127.0.0.1", port=int(server.server_address[1]), results=True)
    finally:
        ae.shutdown()
