"""Receivers: the receive path as the node puts it together, and associations with it by pynetdicom."""

import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path

from pydicom import Dataset
from pydicom.uid import (
    CTImageStorage,
    ExplicitVRLittleEndian,
)
from pynetdicom.association import Association
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.presentation import PresentationContext, build_context

from dicom_node.archive.files import Archive
from dicom_node.archive.index import Index
from dicom_node.core.received_instance import ReceivedInstance
from dicom_node.intake import Intake
from dicom_node.reception.storage import Reception
from dicom_node.scp.application_entity import ApplicationEntity, Timeouts
from dicom_node.settings import AdmissionSettings, NodeSettings, Settings
from tests.instances import data_set_of, received
from tests.requesting import Requestor

SECONDS = 30.0

#: Runs one of DCMTK's programs.
Dcmtk = Callable[..., subprocess.CompletedProcess[str]]

_PATIENCE = (("network", 30.0), ("acse", 2.0), ("dimse", 60.0))


class Receiver:
    """The receive path as the node puts it together."""

    def __init__(self, root: Path, **settings: object) -> None:
        self.root = root / "archive"
        self.index = Index.open(f"sqlite:///{root / 'index.sqlite'}")
        self.archive = Archive(self.root)
        self.intake = Intake(archive=self.archive, studies=self.index.studies)
        self.entity = entity_of(self.intake, **settings)

    def kept(self, uid: str) -> list[bytes]:
        """The data sets kept under a SOP Instance UID, the evidence first."""
        return [data_set_of(self.archive.path_of(row.path)) for row in self.index.studies.find(uid)]

    def endings(self) -> list[tuple[int, int]]:
        """Of each study, how many associations that sent of it are open, and how many were aborted."""
        found = self.index.studies.receptions()
        return [(reception.open_associations, reception.aborted_associations) for reception in found]


def entity_of(reception: Reception, **settings: object) -> ApplicationEntity:
    grace = settings.pop("grace", 2.0)
    network, acse, dimse = (settings.pop(name, usual) for name, usual in _PATIENCE)
    node = NodeSettings(host="127.0.0.1", port=0, minimum_free_megabytes=settings.pop("minimum_free_megabytes", 0))  # type: ignore[arg-type]  # a test's own keyword
    whole = Settings(node=node, admission=AdmissionSettings(**settings))  # type: ignore[arg-type]  # as above
    return ApplicationEntity(whole, reception, timeouts=Timeouts(grace=grace, network=network, acse=acse, dimse=dimse))  # type: ignore[arg-type]  # as above


@contextmanager
def receiving(root: Path, **settings: object) -> Iterator[Receiver]:
    receiver = Receiver(root, **settings)
    receiver.entity.start()
    try:
        yield receiver
    finally:
        receiver.entity.stop()
        receiver.index.close()


@contextmanager
def associated(
    entity: ApplicationEntity, *contexts: PresentationContext, calling: str = "SCANNER", called: str = "TRIAGE"
) -> Iterator[Association]:
    """An association that proposes these contexts, or CT in Explicit VR; released at the end when it still lives."""
    ae = Requestor(ae_title=calling)
    ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = SECONDS
    proposed = list(contexts) or [build_context(CTImageStorage, ExplicitVRLittleEndian)]
    association = ae.associate("127.0.0.1", entity.port, contexts=proposed, ae_title=called)
    try:
        yield association
    finally:
        if association.is_established:
            association.release()
        if association.is_alive():
            association.join(SECONDS)
        # pynetdicom leaves a socket open where its peer went first.
        if association.dul.socket is not None and association.dul.socket.socket is not None:
            association.dul.socket.socket.close()


def propose(*requests: ReceivedInstance) -> list[PresentationContext]:
    """One presentation context for each SOP class and transfer syntax among the requests."""
    pairs = sorted({(request.sop_class_uid, request.transfer_syntax_uid) for request in requests})
    return [build_context(sop_class, syntax) for sop_class, syntax in pairs]


def c_store(association: Association, request: ReceivedInstance, *, context_class: str | None = None) -> C_STORE:
    """Send the request's bytes as they are, right or wrong, and return the answer."""
    wanted = (context_class or request.sop_class_uid, [request.transfer_syntax_uid])
    (context_id,) = (
        context.context_id
        for context in association.accepted_contexts
        if (context.abstract_syntax, context.transfer_syntax) == wanted
    )
    # Our thread, not the association's own, takes the answer.
    association._reactor_checkpoint.clear()
    while association.is_alive() and not association._is_paused:
        time.sleep(0.0001)
    try:
        association.dimse.send_msg(primitive(request), context_id)
        _, answer = association.dimse.get_msg(block=True)
    finally:
        association._reactor_checkpoint.set()
    assert isinstance(answer, C_STORE), "the node did not answer"
    return answer


def primitive(request: ReceivedInstance) -> C_STORE:
    store = C_STORE()
    store.MessageID, store.Priority = 1, 2
    store.AffectedSOPClassUID, store.AffectedSOPInstanceUID = request.sop_class_uid, request.sop_instance_uid
    store.DataSet = BytesIO(request.data_set.read())
    return store


def answers(entity: ApplicationEntity, *requests: ReceivedInstance) -> list[C_STORE]:
    """The answers to these requests, over one association."""
    with associated(entity, *propose(*requests)) as association:
        return [c_store(association, request) for request in requests]


def send(entity: ApplicationEntity, *datasets: Dataset) -> list[int]:
    """The statuses of these data sets' C-STORE, over one association."""
    return [int(answer.Status or 0) for answer in answers(entity, *(received(ds) for ds in datasets))]


def eventually(condition: Callable[[], bool]) -> bool:
    until = time.monotonic() + SECONDS
    # Asked once more, what held a moment ago may not: whoever was let in may not have left yet.
    while not (holds := condition()) and time.monotonic() < until:
        time.sleep(0.02)
    return holds
