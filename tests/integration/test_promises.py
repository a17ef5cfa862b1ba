"""Storage commitment that we give, with real peers: pynetdicom's, and Orthanc."""

import json
import logging
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import pytest
import sqlalchemy as sa
from pydicom import Dataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, MRImageStorage
from pynetdicom import AE, build_role, evt
from pynetdicom.association import Association
from pynetdicom.presentation import build_context
from pynetdicom.sop_class import (  # type: ignore[attr-defined]  # made at run time
    StorageCommitmentPushModel,
    Verification,
)

from dicom_node.archive.files import Archive
from dicom_node.archive.index import Index
from dicom_node.commitment import Commitment
from dicom_node.core.commitment import CommitmentReport
from dicom_node.core.lifecycle import StudyState
from dicom_node.intake import Intake
from dicom_node.parts import Periodic
from dicom_node.promise import Promising
from dicom_node.scp.application_entity import ApplicationEntity, Timeouts
from dicom_node.scp.commitment_events import CommitmentEvents
from dicom_node.scp.promise_requests import PromiseRequests
from dicom_node.scu import storage_commitment
from dicom_node.scu.storage_commitment import CommitmentRequest
from dicom_node.settings import DeliverySettings, NodeSettings, Peer, Settings
from tests.instances import STUDY_UID, ct_instance, received, sop_uid, write_instance
from tests.peers import free_port

WELL_KNOWN = "1.2.840.10008.1.20.1.1"
TRANSACTION = "2.25.4711"
SECONDS = 10.0

pytestmark = [
    pytest.mark.filterwarnings(r"ignore:unclosed <socket\.socket:ResourceWarning"),
    # Where both sides end an association at once, pynetdicom's reactor may end by an InvalidEventError.
    pytest.mark.filterwarnings(
        r"ignore:Exception in thread Thread-\d+ \(run_reactor\):pytest.PytestUnhandledThreadExceptionWarning"
    ),
]


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
        settings = Settings(node=node, peers=peers, delivery=DeliverySettings(timeout_seconds=3.0))
        commitment = Commitment(settings, self.index, self.clock)
        promising = Promising(settings, self.index, self.archive, self.clock)
        telling = Periodic("promises", promising.step, 0.05)
        requests = PromiseRequests(promising.ask, telling.wake, patience_seconds=3.0)
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


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    site = Site(tmp_path, Index.open(f"sqlite:///{tmp_path / 'index.sqlite'}"), Archive(tmp_path / "archive"))
    yield site
    site.index.close()


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
        """Wait until it was told so often."""
        until(lambda: len(self.told) >= count)

    @contextmanager
    def asking(self, port: int, *, roles: Sequence[Any] = ()) -> Iterator[Association]:
        """An association on which it asks, and takes answers."""
        ae = AE(ae_title="SCANNER")
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
            if association.is_established:
                association.release()
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


def until(holds: Callable[[], bool], seconds: float = SECONDS) -> None:
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


def test_what_is_held_is_promised_over_the_association_that_asked(site: Site) -> None:
    site.hold(1, 2)
    scanner = Scanner()
    with site.serving(), scanner.asking(site.port) as association:
        assert ask(association, question(*images(1, 2))) == 0x0000
        scanner.wait()
        until(lambda: site.index.promises.owed() == {})
    assert scanner.told == [(1, TRANSACTION, [sop_uid(1), sop_uid(2)], {}, True)]


def test_what_is_missing_altered_or_of_another_class_is_named_with_its_reason(site: Site) -> None:
    site.hold(1, 2, 3, 4)
    site.path(2).unlink()
    altered = bytearray(site.path(3).read_bytes())
    altered[-1] ^= 1
    site.path(3).chmod(0o600)
    site.path(3).write_bytes(altered)
    asked = [*images(1, 2, 3), (MRImageStorage, sop_uid(4)), *images(5)]
    scanner = Scanner()
    with site.serving(), scanner.asking(site.port) as association:
        assert ask(association, question(*asked)) == 0x0000
        scanner.wait()
    lost = {sop_uid(2): 0x0112, sop_uid(3): 0x0112, sop_uid(4): 0x0119, sop_uid(5): 0x0112}
    assert scanner.told == [(2, TRANSACTION, [sop_uid(1)], lost, True)]


def test_a_peer_that_has_gone_is_told_on_an_association_that_we_open_as_its_provider(site: Site) -> None:
    site.hold(1)
    scanner = Scanner()
    with scanner.listening() as peer, site.serving(peer) as promising:
        promising.tell_here = lambda *_: False
        with scanner.asking(site.port) as association:
            assert ask(association, question(*images(1))) == 0x0000
        scanner.wait()
        until(lambda: site.index.promises.owed() == {})
    assert scanner.told == [(1, TRANSACTION, [sop_uid(1)], {}, False)]
    assert scanner.roles == [(False, True)]


def test_a_peer_that_knows_no_role_selection_is_told_all_the_same(site: Site) -> None:
    site.hold(1)
    scanner = Scanner()
    with scanner.listening(takes_role=False) as peer, site.serving(peer) as promising:
        promising.tell_here = lambda *_: False
        with scanner.asking(site.port) as association:
            assert ask(association, question(*images(1))) == 0x0000
        scanner.wait()


def test_a_peer_that_is_away_is_told_after_growing_waits_and_after_a_restart_and_once(site: Site) -> None:
    site.hold(1)
    scanner, port = Scanner(), free_port()
    peer = Peer(name="scanner", ae_title="SCANNER", host="127.0.0.1", port=port)
    with site.serving(peer) as promising:
        promising.tell_here = lambda *_: False
        with scanner.asking(site.port) as association:
            assert ask(association, question(*images(1))) == 0x0000
        until(lambda: (row := site.index.promises.find(TRANSACTION)) is not None and row.attempts == 1)
    first = site.index.promises.find(TRANSACTION)
    assert first is not None
    assert "does not answer" in first.reason
    assert first.failed is None, "nobody has heard anything yet"
    with site.serving(peer):
        site.later += 3
        until(lambda: (row := site.index.promises.find(TRANSACTION)) is not None and row.attempts == 2)
    second = site.index.promises.find(TRANSACTION)
    assert second is not None
    assert second.next_try_at - site.clock() > 1.5 * (first.next_try_at - first.asked_at) - 1
    with scanner.listening(port), site.serving(peer):
        site.later += 10
        scanner.wait()
        until(lambda: site.index.promises.owed() == {})
        site.later += 10_000
        time.sleep(0.3)
    assert len(scanner.told) == 1


def test_an_answer_that_is_not_acknowledged_is_told_again_and_is_the_same_whatever_happened_since(site: Site) -> None:
    site.hold(1)
    scanner = Scanner(statuses=[0x0110, 0x0000])
    with scanner.listening() as peer, site.serving(peer) as promising:
        promising.tell_here = lambda *_: False
        with scanner.asking(site.port) as association:
            assert ask(association, question(*images(1))) == 0x0000
        until(lambda: (row := site.index.promises.find(TRANSACTION)) is not None and row.attempts == 1)
        site.path(1).unlink()
        site.later += 5
        scanner.wait(2)
        until(lambda: site.index.promises.owed() == {})
    assert scanner.told[0] == scanner.told[1]


def test_the_same_question_again_is_one_transaction_and_another_by_its_uid_is_refused(site: Site) -> None:
    site.hold(1, 2)
    scanner = Scanner()
    with site.serving() as promising, scanner.asking(site.port) as association:
        promising.tell_here, here = (lambda *_: False), promising.tell_here
        assert ask(association, question(*images(1))) == 0x0000
        assert ask(association, question(*images(1))) == 0x0000
        assert ask(association, question(*images(2))) == 0x0115
        promising.tell_here = here
        site.later += 5
        scanner.wait()
        until(lambda: site.index.promises.owed() == {})
        # Acknowledged: its UID is free.
        assert ask(association, question(*images(2))) == 0x0000
        scanner.wait(2)
    assert [kept for _, _, kept, _, _ in scanner.told] == [[sop_uid(1)], [sop_uid(2)]]


def test_a_stranger_that_has_gone_is_told_when_it_is_entered_as_a_peer(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    site.hold(1)
    scanner = Scanner()
    with caplog.at_level(logging.WARNING, "dicom_node"), site.serving() as promising:
        promising.tell_here = lambda *_: False
        with scanner.asking(site.port) as association:
            assert ask(association, question(*images(1))) == 0x0000
        until(lambda: (row := site.index.promises.find(TRANSACTION)) is not None and row.attempts == 1)
    row = site.index.promises.find(TRANSACTION)
    assert row is not None
    assert "no peer of the settings has the AE title SCANNER" in row.reason
    with scanner.listening() as peer, site.serving(peer):
        site.later += 5
        scanner.wait()


def test_people_see_that_a_peer_cannot_be_told_and_no_more_when_it_was(site: Site) -> None:
    site.hold(1)
    scanner, port = Scanner(), free_port()
    peer = Peer(name="scanner", ae_title="SCANNER", host="127.0.0.1", port=port)
    with site.serving(peer) as promising:
        promising.tell_here = lambda *_: False
        with scanner.asking(site.port) as association:
            assert ask(association, question(*images(1))) == 0x0000
        until(lambda: attempts(site) == 1)
        assert site.index.conditions.rows() == []
        for _ in range(3):
            before = attempts(site)
            site.later += 30
            until(lambda known=before: attempts(site) > known)  # type: ignore[misc]  # bound at once
        until(lambda: bool(site.index.conditions.rows()))
        (condition,) = site.index.conditions.rows()
        assert condition.reason.startswith("SCANNER cannot be told what we keep of what it sent: peer scanner")
        with scanner.listening(port):
            site.later += 100
            scanner.wait()
            until(lambda: site.index.conditions.rows() == [])


def attempts(site: Site) -> int:
    row = site.index.promises.find(TRANSACTION)
    return 0 if row is None else row.attempts


def test_what_the_peer_asks_while_we_tell_it_is_served(site: Site) -> None:
    """The answer is sent by another thread than the association's, which goes on."""
    site.hold(*range(1, 301))
    scanner = Scanner()
    asked = question(*images(*range(1, 301)))
    with site.serving(), scanner.asking(site.port) as association:
        assert ask(association, asked) == 0x0000
        scanner.wait()
        assert association.send_c_echo().Status == 0x0000
        assert association.send_c_store(ct_file(site.folder, 500)).Status == 0x0000
        assert ask(association, question(*images(500), transaction="2.25.9")) == 0x0000
        scanner.wait(2)
    assert [(kind, len(kept)) for kind, _, kept, _, _ in scanner.told] == [(1, 300), (1, 1)]


def ct_file(folder: Path, number: int) -> Path:
    return write_instance(folder / f"{number}.dcm", ct_instance(number))


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({"action": 2}, 0x0123),
        ({"instance": "1.2.3"}, 0x0112),
        ({"asked": None}, 0x0114),
        ({"asked": question()}, 0x0115),
        ({"asked": question(*images(1), transaction="")}, 0x0115),
    ],
)
def test_a_question_that_breaks_the_rules_is_refused_by_its_status(
    site: Site, changes: dict[str, Any], status: int
) -> None:
    scanner = Scanner()
    with site.serving(), scanner.asking(site.port) as association:
        asked = changes.pop("asked", question(*images(1)))
        assert ask(association, asked, **changes) == status
    assert site.index.promises.owed() == {}


@pytest.mark.parametrize(
    ("role", "status"), [(None, 0x0000), ((True, False), 0x0000), ((True, True), 0x0000), ((False, True), 0x0211)]
)
def test_who_takes_the_role_of_the_provider_alone_cannot_ask(
    site: Site, role: tuple[bool, bool] | None, status: int
) -> None:
    site.hold(1)
    scanner = Scanner()
    roles = [] if role is None else [build_role(StorageCommitmentPushModel, scu_role=role[0], scp_role=role[1])]
    with site.serving(), scanner.asking(site.port, roles=roles) as association:
        if status == 0x0000:
            assert ask(association, question(*images(1))) == status
            scanner.wait()
        # pynetdicom would not let the provider ask.
        context = next(c for c in association.accepted_contexts if c.abstract_syntax == StorageCommitmentPushModel)
        assert context.as_scp is bool(role and role[1])
        answer, _ = association.send_n_event_report(question(*images(1)), 1, StorageCommitmentPushModel, WELL_KNOWN)
        # Nobody was asked by this transaction.
        assert answer.Status == 0x0115
        if status != 0x0000:
            context._as_scu = True
            assert ask(association, question(*images(1))) == status


def test_a_study_that_was_promised_does_not_leave_the_disk(site: Site) -> None:
    site.hold(1)
    now = site.clock()
    site.index.studies.move(STUDY_UID, StudyState.COMPLETE, cause="all here", actor="assembly", at=now)
    site.index.studies.move(STUDY_UID, StudyState.NOT_ROUTED, cause="no route", actor="assembly", at=now)
    candidates = site.index.evictions.candidates
    assert len(candidates([StudyState.NOT_ROUTED], now + 9, 5)) == 1
    scanner = Scanner()
    with site.serving(), scanner.asking(site.port) as association:
        assert ask(association, question(*images(1))) == 0x0000
        scanner.wait()
    assert candidates([StudyState.NOT_ROUTED], now + 9, 5) == []


@contextmanager
def orthanc(program: Path, folder: Path, node_port: int) -> Iterator[tuple[Peer, int]]:
    """An Orthanc that knows us as a modality: as our peer, and its port for REST."""
    port, http = free_port(), free_port()
    settings: dict[str, Any] = {
        "Name": "MODALITY",
        "DicomAet": "ORTHANC",
        "DicomPort": port,
        "HttpPort": http,
        "RemoteAccessAllowed": False,
        "StorageDirectory": str(folder / "orthanc"),
        "IndexDirectory": str(folder / "orthanc"),
        "DicomModalities": {"triage": ["TRIAGE", "127.0.0.1", node_port]},
        "Plugins": [],
    }
    (folder / "orthanc.json").write_text(json.dumps(settings))
    log = (folder / "orthanc.log").open("wb")
    process = subprocess.Popen([program, folder / "orthanc.json"], stdout=log, stderr=log)
    try:
        until(lambda: is_open(http) and is_open(port), 30)
        yield Peer(name="modality", ae_title="ORTHANC", host="127.0.0.1", port=port), http
    finally:
        process.terminate()
        process.wait(20)
        log.close()


def is_open(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True


def rest(http: int, path: str, body: object = None) -> Any:
    data = None if body is None else json.dumps(body).encode()
    with urlopen(Request(f"http://127.0.0.1:{http}{path}", data=data), timeout=20) as answer:
        return json.load(answer)


def commitment_by_orthanc(http: int, *objects: tuple[str, str]) -> dict[str, Any]:
    """Let Orthanc ask us, and what it then knows."""
    instances = [{"SOPClassUID": kind, "SOPInstanceUID": uid} for kind, uid in objects]
    asked = rest(http, "/modalities/triage/storage-commitment", {"DicomInstances": instances, "Timeout": 10})
    found: dict[str, Any] = {}

    def answered() -> bool:
        found.update(rest(http, asked["Path"]))
        return bool(found["Status"] != "Pending")

    until(answered, 20)
    return found


def test_orthanc_asks_and_is_told_what_is_kept_and_what_is_not(
    site: Site, program: Callable[[str], Path], tmp_path: Path
) -> None:
    with orthanc(program("Orthanc"), tmp_path, site.port) as (peer, http), site.serving(peer):
        for number in (1, 2):
            path = write_instance(tmp_path / f"{number}.dcm", ct_instance(number))
            rest_import(http, path)
        for study in rest(http, "/studies"):
            sent = rest(http, "/modalities/triage/store", {"Resources": [study], "Synchronous": True})
            assert sent["FailedInstancesCount"] == 0
        whole = commitment_by_orthanc(http, *images(1, 2))
        site.path(2).unlink()
        partly = commitment_by_orthanc(http, *images(1, 2), (MRImageStorage, sop_uid(1)))
        until(lambda: site.index.promises.owed() == {})
    assert whole["Status"] == "Success"
    assert {one["SOPInstanceUID"] for one in whole["Success"]} == {sop_uid(1), sop_uid(2)}
    assert partly["Status"] == "Failure"
    assert {one["SOPInstanceUID"]: one["Description"] for one in partly["Failures"]}[sop_uid(2)]


def rest_import(http: int, path: Path) -> None:
    with urlopen(Request(f"http://127.0.0.1:{http}/instances", data=path.read_bytes()), timeout=20) as answer:
        assert json.load(answer)["Status"] == "Success"


@dataclass
class Asking:
    """Our own side of storage commitment, with a row in the index for each answer, which it takes its time to end."""

    peer: Peer
    index: Index
    #: Until the handler returns, when its row is there for all to see.
    dawdles: float

    def ask(self, number: int, *, timeout_seconds: float = SECONDS) -> bool:
        """Ask for one object and stay until the row is there."""
        uid = f"2.25.{number + 1}"
        request = CommitmentRequest(transaction_uid=uid, objects=tuple(images(1)))
        return storage_commitment.ask(
            self.peer,
            request,
            self._take,
            ae_title="TRIAGE",
            timeout_seconds=timeout_seconds,
            linger_seconds=SECONDS,
            is_answered=lambda: uid in self._rows(),
        )

    def _take(self, report: CommitmentReport) -> bool:
        self.index.studies.association_opened(report.transaction_uid, "PACS", 1.0)
        time.sleep(self.dawdles)
        return True

    def _rows(self) -> set[str]:
        associations = self.index.transactions.tables["associations"]
        with self.index.transactions.read() as connection:
            return set(connection.execute(sa.select(associations.c.association_id)).scalars())


@pytest.fixture
def endings(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """How each association ended that was opened to ask for storage commitment."""
    found: list[str] = []
    opened = storage_commitment.association

    @contextmanager
    def noted(*args: Any, **kwargs: Any) -> Iterator[Association]:
        with opened(*args, **kwargs) as association:
            yield association
        found.append("released" if association.is_released else "aborted")

    monkeypatch.setattr(storage_commitment, "association", noted)
    return found


def test_a_hundred_answers_over_the_asking_associations_end_none_of_them_badly(site: Site, endings: list[str]) -> None:
    site.hold(1)
    peer = Peer(name="pacs", ae_title="TRIAGE", host="127.0.0.1", port=site.port)
    # As fast as it goes, and so that it is still in hand when its row is seen.
    asking = [Asking(peer, site.index, dawdles) for dawdles in (0.0, 0.001, 0.03)]
    answered: list[bool] = []

    def ask_all() -> None:
        answered.extend(asking[number % 3].ask(number) for number in range(100))

    with site.serving():
        thread = threading.Thread(target=ask_all, daemon=True)
        thread.start()
        thread.join(120)
        assert not thread.is_alive(), f"hangs after {len(endings)} associations"
        # Each of our answers was heard.
        until(lambda: site.index.promises.owed() == {})
    assert answered == [True] * 100
    assert endings == ["released"] * 100


def test_an_answer_that_takes_too_long_to_keep_ends_the_association_by_an_abort(site: Site, endings: list[str]) -> None:
    site.hold(1)
    peer = Peer(name="pacs", ae_title="TRIAGE", host="127.0.0.1", port=site.port)
    began = time.monotonic()
    with site.serving():
        assert Asking(peer, site.index, 2.5).ask(1, timeout_seconds=0.8)
        assert time.monotonic() - began < 2.3
        time.sleep(max(0.0, began + 3.0 - time.monotonic()))
    assert endings == ["aborted"]
