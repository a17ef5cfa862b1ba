"""Peers of the node for tests: real Storage SCPs on free ports that answer as a test wants."""

import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from pydicom import Dataset
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import AE, build_role, evt
from pynetdicom.association import Association
from pynetdicom.sop_class import (  # type: ignore[attr-defined]  # the module makes its names at run time
    StorageCommitmentPushModel,
    Verification,
)

from deploy.rig import free_port as free_port
from dicom_node.settings import Peer
from tests.populated_index import SEG, SR
from tests.requesting import Requestor

CT = "1.2.840.10008.5.1.4.1.1.2"


@dataclass
class Behaviour:
    """How a peer answers, and what it was sent."""

    #: Status by SOP class; what is not here is a success.
    statuses: Mapping[str, int] = field(default_factory=dict)
    #: Ends the association with the answer to the instance of this number, counted from 1.
    aborts_after: int | None = None
    #: Ends the association with the answer to the instance of this UID.
    breaks_at: str = ""
    #: Answers nothing until this is set, while there is one.
    hangs: threading.Event | None = None
    #: SOP Instance UIDs in the order of their arrival.
    arrived: list[str] = field(default_factory=list)
    associations: int = 0

    def store(self, event: evt.Event) -> int | Dataset:
        """Answer a C-STORE."""
        self.arrived.append(str(event.request.AffectedSOPInstanceUID))
        status = self.statuses.get(str(event.request.AffectedSOPClassUID), 0x0000)
        if self.hangs is not None:
            self.hangs.wait(20)
        counted = self.aborts_after is not None and len(self.arrived) >= self.aborts_after
        if counted or self.arrived[-1] == self.breaks_at:
            event.assoc.abort()
        if status != 0xA700:
            return status
        answer = Dataset()
        answer.Status, answer.ErrorComment = status, "the disk is full"
        return answer

    def accepted(self, _event: evt.Event) -> None:
        """Count an association."""
        self.associations += 1


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


@dataclass
class Committing:
    """How a peer answers when it is asked for storage commitment, beside what it stores."""

    #: Where it opens an association to answer; None: it answers over ours.
    answers_to: Peer | None = None
    #: Status of the N-ACTION.
    status: int = 0x0000
    #: Ends the association instead of an answer to the N-ACTION.
    aborts: bool = False
    #: Says nothing after the N-ACTION.
    is_silent: bool = False
    #: SOP Instance UID to Failure Reason of what it does not keep, in the next answer only.
    fails: Mapping[str, int] = field(default_factory=dict)
    #: Leaves out the role selection that makes it the SCP of its own association.
    proposes_role: bool = True
    #: Answers this transaction instead of the one that was asked.
    transaction_uid: str = ""
    #: Transaction UIDs in the order of the questions, and the SOP Instance UIDs of each.
    asked: list[tuple[str, tuple[str, ...]]] = field(default_factory=list)
    #: Status of our answers to its N-EVENT-REPORTs.
    statuses: list[int] = field(default_factory=list)
    _threads: list[threading.Thread] = field(default_factory=list)

    def action(self, event: evt.Event) -> tuple[int, None]:
        """Answer an N-ACTION, and the transaction a moment later from another thread."""
        request = event.action_information
        objects = [
            (str(i.ReferencedSOPClassUID), str(i.ReferencedSOPInstanceUID)) for i in request.ReferencedSOPSequence
        ]
        self.asked.append((str(request.TransactionUID), tuple(uid for _, uid in objects)))
        if self.aborts:
            event.assoc.abort()
        elif self.status == 0x0000 and not self.is_silent:
            report = self._report(str(request.TransactionUID), objects)
            thread = threading.Thread(target=self._answer, args=(event.assoc, report))
            self._threads.append(thread)
            thread.start()
        return self.status, None

    def done(self) -> None:
        """Wait for the answers under way."""
        for thread in self._threads:
            thread.join(10)

    def _report(self, transaction_uid: str, objects: Sequence[tuple[str, str]]) -> Dataset:
        report = Dataset()
        report.TransactionUID = self.transaction_uid or transaction_uid
        fails, self.fails = self.fails, {}
        report.ReferencedSOPSequence = [_item(*pair) for pair in objects if pair[1] not in fails]
        if lost := [_item(*pair, fails[pair[1]]) for pair in objects if pair[1] in fails]:
            report.FailedSOPSequence = lost
        return report

    def _answer(self, assoc: Association, report: Dataset) -> None:
        time.sleep(0.1)
        if self.answers_to is None:
            self._send(assoc, report)
            return
        ae = Requestor(ae_title="PACS")
        ae.add_requested_context(StorageCommitmentPushModel)
        role = build_role(StorageCommitmentPushModel, scp_role=True)
        peer, roles = self.answers_to, [role] if self.proposes_role else []
        own = ae.associate(peer.host, peer.port, ae_title=peer.ae_title, ext_neg=roles)
        self._send(own, report)
        own.release()

    def _send(self, assoc: Association, report: Dataset) -> None:
        kind = 2 if "FailedSOPSequence" in report else 1
        well_known = "1.2.840.10008.1.20.1.1"
        status, _ = assoc.send_n_event_report(report, kind, StorageCommitmentPushModel, well_known)
        self.statuses.append(int(status.get("Status", -1)))


def _item(sop_class_uid: str, sop_instance_uid: str, reason: int | None = None) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = sop_class_uid, sop_instance_uid
    if reason is not None:
        item.FailureReason = reason
    return item


@contextmanager
def committing_peer(behaviour: Behaviour, committing: Committing, *, port: int = 0) -> Iterator[Peer]:
    """A peer that stores SEG and SR and is asked for storage commitment, until the end of the block."""
    ae = AE(ae_title="PACS")
    for sop_class in (SEG, SR):
        ae.add_supported_context(sop_class, [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
    ae.add_supported_context(StorageCommitmentPushModel)
    handlers = [
        (evt.EVT_C_STORE, behaviour.store),
        (evt.EVT_ACCEPTED, behaviour.accepted),
        (evt.EVT_N_ACTION, committing.action),
    ]
    server = ae.start_server(("127.0.0.1", port), block=False, evt_handlers=handlers)  # type: ignore[arg-type]  # its types want one kind of handler
    address = int(server.server_address[1])
    try:
        yield Peer(name="pacs", ae_title="PACS", host="127.0.0.1", port=address, results=True, commitment=True)
    finally:
        committing.done()
        ae.shutdown()
