"""A node that gives promises, and a scanner that asks it for them."""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydicom import Dataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian
from pynetdicom import AE, evt
from pynetdicom.association import Association
from pynetdicom.presentation import build_context
from pynetdicom.sop_class import (  # type: ignore[attr-defined]  # made at run time
    StorageCommitmentPushModel,
    Verification,
)

from dicom_node.archive.files import Archive
from dicom_node.archive.index import Index
from dicom_node.commitment import Commitment
from dicom_node.intake import Intake
from dicom_node.parts import Periodic
from dicom_node.promise import Promising
from dicom_node.scp.application_entity import ApplicationEntity, Timeouts
from dicom_node.scp.commitment_events import CommitmentEvents
from dicom_node.scp.promise_requests import PromiseRequests
from dicom_node.settings import DeliverySettings, NodeSettings, Peer, Settings
from tests.instances import ct_instance, received, sop_uid, write_instance
from tests.peers import free_port
from tests.requesting import Requestor

WELL_KNOWN = "1.2.840.10008.1.20.1.1"
TRANSACTION = "2.25.4711"
SECONDS = 30.0


@dataclass
class Site:
    """A node's index, archive and clock, and what of it gives promises."""

    folder: Path
    index: Index
    archive: Archive
    #: Added to the true time.
    later: float = 0.0
    port: int = field(default_factory=free_port)

    def clock(self) -> float:
        return time.time() + self.later

    def hold(self, *numbers: int, **attributes: Any) -> None:
        """Take in images of these numbers."""
        intake = Intake(archive=self.archive, studies=self.index.studies)
        intake.association_opened("00000000-0000-4000-8000-000000000000", "SCANNER")
        for number in numbers:
            intake.store(received(ct_instance(number, **attributes)))

    def path(self, number: int) -> Path:
        (kept,) = self.index.studies.find(sop_uid(number))
        return self.archive.path_of(kept.path)

    @contextmanager
    def serving(self, *peers: Peer) -> Iterator[Promising]:
        """The application entity and its promises, with a thread that tells them."""
        node = NodeSettings(host="127.0.0.1", port=self.port, data_dir=self.folder, minimum_free_megabytes=0)
        settings = Settings(node=node, peers=peers, delivery=DeliverySettings(timeout_seconds=SECONDS))
        commitment = Commitment(settings, self.index, self.clock)
        promising = Promising(settings, self.index, self.archive, self.clock)
        telling = Periodic("promises", promising.step, 0.05)
        requests = PromiseRequests(promising.ask, telling.wake, patience_seconds=SECONDS)
        promising.tell_here = requests.tell_here
        events = CommitmentEvents(commitment.take, requests)
        intake = Intake(archive=self.archive, studies=self.index.studies)
        entity = ApplicationEntity(settings, intake, timeouts=Timeouts(grace=1.0), commitments=events)
        telling.start()
        entity.start()
        try:
            yield promising
        finally:
            entity.stop()
            telling.stop()
            for telling in promising._telling.values():
                telling.result()
            promising.close()


@dataclass
class Scanner:
    """A modality that asks for storage commitment, and is told."""

    #: Event type, transaction, what is kept, what is not and why, whether it came over an association of its own.
    told: list[tuple[int, str, list[str], dict[str, int], bool]] = field(default_factory=list)
    #: Status of its answers; the last one stays.
    statuses: list[int] = field(default_factory=lambda: [0x0000])
    came: threading.Event = field(default_factory=threading.Event)
    #: That serve what it is told over its own association, pynetdicom's.
    serving: list[threading.Thread] = field(default_factory=list)
    roles: list[tuple[bool | None, bool | None]] = field(default_factory=list)

    def report(self, event: evt.Event) -> tuple[int, None]:
        """Answer an N-EVENT-REPORT."""
        info = event.event_information
        kept = [str(item.ReferencedSOPInstanceUID) for item in info.get("ReferencedSOPSequence", [])]
        lost = {str(i.ReferencedSOPInstanceUID): int(i.FailureReason) for i in info.get("FailedSOPSequence", [])}
        here = event.assoc.is_requestor
        if here:
            self.serving.append(threading.current_thread())
        self.told.append((event.request.EventTypeID, str(info.TransactionUID), kept, lost, here))
        self.came.set()
        return self.statuses.pop(0) if len(self.statuses) > 1 else self.statuses[0], None

    def wait(self, count: int = 1) -> None:
        """Wait until it was told so often, and has answered.

        pynetdicom's thread that answers says at its end that the association does not pause: one that asks something
        just then waits for ever.
        """
        until(lambda: len(self.told) >= count)
        for thread in self.serving:
            thread.join(SECONDS)

    @contextmanager
    def asking(self, port: int, *, roles: Sequence[Any] = ()) -> Iterator[Association]:
        """An association on which it asks, and takes answers."""
        ae = Requestor(ae_title="SCANNER")
        ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = SECONDS
        contexts = [build_context(StorageCommitmentPushModel), build_context(CTImageStorage, ExplicitVRLittleEndian)]
        contexts.append(build_context(Verification))
        association = ae.associate(
            "127.0.0.1",
            port,
            contexts=contexts,
            ae_title="TRIAGE",
            ext_neg=list(roles),
            evt_handlers=[(evt.EVT_N_EVENT_REPORT, self.report)],
        )
        assert association.is_established
        try:
            yield association
        finally:
            # One that is still answering makes pynetdicom's release wait for ever, or break off.
            for thread in self.serving:
                thread.join(SECONDS)
            # So does one whose association's thread ends just then.
            releasing = threading.Thread(target=association.release, daemon=True)
            releasing.start()
            releasing.join(SECONDS)
            association.join(SECONDS)

    @contextmanager
    def listening(self, port: int = 0, *, takes_role: bool = True) -> Iterator[Peer]:
        """It also takes answers on associations that are opened to it."""
        ae = AE(ae_title="SCANNER")
        role = {"scu_role": True, "scp_role": True} if takes_role else {}
        ae.add_supported_context(StorageCommitmentPushModel, **role)
        handlers = [(evt.EVT_N_EVENT_REPORT, self.report), (evt.EVT_REQUESTED, self._requested)]
        server = ae.start_server(("127.0.0.1", port), block=False, evt_handlers=handlers)  # type: ignore[arg-type]  # its types want one kind of handler
        try:
            where = int(server.server_address[1])
            yield Peer(name="scanner", ae_title="SCANNER", host="127.0.0.1", port=where)
        finally:
            ae.shutdown()

    def _requested(self, event: evt.Event) -> None:
        for item in event.assoc.requestor.role_selection.values():
            self.roles.append((item.scu_role, item.scp_role))


def until(holds: Callable[[], bool], seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "it did not come about"
        time.sleep(0.02)


def question(*objects: tuple[str, str], transaction: str = TRANSACTION) -> Dataset:
    ds = Dataset()
    ds.TransactionUID, ds.ReferencedSOPSequence = transaction, []
    for sop_class_uid, sop_instance_uid in objects:
        item = Dataset()
        item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = sop_class_uid, sop_instance_uid
        ds.ReferencedSOPSequence.append(item)
    return ds


def images(*numbers: int) -> list[tuple[str, str]]:
    return [(CTImageStorage, sop_uid(number)) for number in numbers]


def ask(association: Association, asked: Dataset | None, *, action: int = 1, instance: str = WELL_KNOWN) -> int:
    status, _ = association.send_n_action(asked, action, StorageCommitmentPushModel, instance)
    return int(status.get("Status", -1))


def ct_file(folder: Path, number: int) -> Path:
    return write_instance(folder / f"{number}.dcm", ct_instance(number))
