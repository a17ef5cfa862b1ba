"""Storage commitment with real peers: rude ones of pynetdicom's, and Orthanc."""

import gc
import hashlib
import json
import logging
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import pytest
from pydicom.uid import UID
from pynetdicom.sop_class import StorageCommitmentPushModel  # type: ignore[attr-defined]  # made at run time

from dicom_node.archive.files import Archive
from dicom_node.archive.index import Index
from dicom_node.archive.jobs import ReportRow
from dicom_node.commitment import Commitment
from dicom_node.core.errors import PeerUnreachable
from dicom_node.core.lifecycle import CommitmentState, DeliveryState, StudyState
from dicom_node.delivery import Delivery
from dicom_node.intake import Intake
from dicom_node.scp.application_entity import ApplicationEntity, Timeouts
from dicom_node.scp.commitment_events import CommitmentEvents
from dicom_node.scu.verification import echo
from dicom_node.settings import DeliverySettings, NodeSettings, Peer, Settings
from tests.instances import ct_instance, write_instance
from tests.peers import Behaviour, Committing, committing_peer, free_port, storage_peer
from tests.populated_index import claim, objects, queue, study_uid, summary, uid
from tests.requesting import Requestor

pytestmark = [
    # pynetdicom leaves the socket of a refused connection to the garbage collector.
    pytest.mark.filterwarnings(r"ignore:unclosed <socket\.socket:ResourceWarning"),
    # Where both sides end an association at once, pynetdicom's reactor may end by an InvalidEventError: Evt15 in Sta13.
    pytest.mark.filterwarnings(
        r"ignore:Exception in thread Thread-\d+ \(run_reactor\):pytest.PytestUnhandledThreadExceptionWarning"
    ),
]

STUDY = study_uid("a")
SEG_UID, SR_UID = uid("seg", "a"), uid("sr", "a")


@dataclass
class Site:
    """A node's index, archive, port and clock, with one reported study."""

    folder: Path
    index: Index
    archive: Archive
    #: Added to the true time.
    later: float = 0.0
    port: int = field(default_factory=free_port)

    @property
    def us(self) -> Peer:
        """Our application entity, as a peer calls it."""
        return Peer(name="us", ae_title="TRIAGE", host="127.0.0.1", port=self.port)

    def clock(self) -> float:
        return time.time() + self.later

    def report(self) -> None:
        job = queue(self.index, "a", at=self.clock() - 9)
        lease = claim(self.index, job, at=self.clock() - 8)
        rows = [self._written(row) for row in objects("a")]
        self.index.jobs.report(lease, rows, summary=summary(2), at=self.clock() - 1)

    def _written(self, row: ReportRow) -> ReportRow:
        path = self.archive.path_of(row.path)
        path.parent.mkdir(parents=True, exist_ok=True)
        changes = {"SOPClassUID": UID(row.sop_class_uid), "SOPInstanceUID": UID(row.sop_instance_uid)}
        write_instance(path, ct_instance(**changes, StudyInstanceUID=UID(STUDY)))
        return replace(row, sha256=hashlib.sha256(path.read_bytes()).hexdigest())

    def settings(self, *peers: Peer) -> Settings:
        node = NodeSettings(host="127.0.0.1", port=self.port, data_dir=self.folder, minimum_free_megabytes=0)
        return Settings(node=node, peers=peers, delivery=DeliverySettings(timeout_seconds=20.0))

    @contextmanager
    def serving(self, *peers: Peer) -> Iterator[tuple[Delivery, Commitment]]:
        """Delivery, commitment, and the application entity that takes the answers."""
        settings = self.settings(*peers)
        commitment = Commitment(settings, self.index, self.clock)
        intake = Intake(archive=self.archive, studies=self.index.studies)
        events = CommitmentEvents(commitment.take)
        entity = ApplicationEntity(settings, intake, timeouts=Timeouts(grace=1.0), commitments=events)
        entity.start()
        try:
            yield Delivery(settings, self.index, self.archive, self.clock), commitment
        finally:
            entity.stop()

    def state(self) -> StudyState:
        return self.index.studies.rows(STUDY)[0].state

    def states(self) -> dict[str, DeliveryState]:
        return {row.sop_instance_uid: row.state for row in self.index.deliveries.of_study(STUDY)}


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    # A file, since other threads answer; a memory would be each thread's own.
    site = Site(tmp_path, Index.open(f"sqlite:///{tmp_path / 'index.sqlite'}"), Archive(tmp_path / "archive"))
    site.report()
    yield site
    site.index.close()


def until(holds: Callable[[], bool], seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "it did not come about"
        time.sleep(0.02)


def test_a_peer_that_answers_over_our_association_commits_the_study(site: Site) -> None:
    pacs = Committing()
    with committing_peer(Behaviour(), pacs) as peer, site.serving(peer) as (delivery, commitment):
        delivery.step()
        assert site.state() is StudyState.DELIVERED
        commitment.step()
    assert site.state() is StudyState.COMMITTED
    ((transaction, asked),) = pacs.asked
    assert sorted(asked) == sorted((SEG_UID, SR_UID))
    assert pacs.statuses == [0x0000]
    assert site.index.commitments.of_study(STUDY)[0].transaction_uid == transaction
    assert transaction.startswith("2.25.")


@pytest.mark.parametrize("proposes_role", [True, False])
def test_a_peer_that_opens_an_association_to_answer_commits_the_study(site: Site, proposes_role: bool) -> None:
    pacs = Committing(answers_to=site.us, proposes_role=proposes_role)
    with committing_peer(Behaviour(), pacs) as peer, site.serving(peer) as (delivery, commitment):
        delivery.step()
        commitment.step()
        until(lambda: site.state() is StudyState.COMMITTED)
    assert pacs.statuses == [0x0000]


def test_a_peer_that_answers_elsewhere_is_not_waited_for_the_next_time(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    pacs = Committing(is_silent=True)
    with committing_peer(Behaviour(), pacs) as peer, site.serving(peer) as (delivery, commitment):
        delivery.step()
        commitment.step()
        site.later += 400
        # Longer than a slow machine takes to ask.
        monkeypatch.setattr("dicom_node.commitment.LINGER_SECONDS", 60.0)
        began = time.monotonic()
        commitment.step()
        assert time.monotonic() - began < 30.0
    assert len(pacs.asked) == 2


def test_a_peer_that_never_answers_is_asked_again_after_growing_waits_with_new_transactions(site: Site) -> None:
    pacs = Committing(is_silent=True)
    with committing_peer(Behaviour(), pacs) as peer, site.serving(peer) as (delivery, commitment):
        delivery.step()
        for wait in (0, 100, 300, 400, 800):
            site.later += wait
            commitment.step()
    assert [asked for _, asked in pacs.asked] == [pacs.asked[0][1]] * 3
    assert len({transaction for transaction, _ in pacs.asked}) == 3
    assert site.state() is StudyState.DELIVERED


def test_what_a_peer_lost_is_sent_again_and_asked_for_again(site: Site) -> None:
    stored, pacs = Behaviour(), Committing(answers_to=site.us, fails={SEG_UID: 0x0112})
    with committing_peer(stored, pacs) as peer, site.serving(peer) as (delivery, commitment):
        delivery.step()
        commitment.step()
        until(lambda: site.state() is StudyState.REPORTED)
        assert site.states() == {SEG_UID: DeliveryState.WAITING, SR_UID: DeliveryState.COMMITTED}
        site.later += 5
        delivery.step()
        commitment.step()
        until(lambda: site.state() is StudyState.COMMITTED)
    assert stored.arrived.count(SEG_UID) == 2
    assert [asked for _, asked in pacs.asked][1] == (SEG_UID,)


def test_an_unknown_transaction_is_answered_and_told_of_by_its_uid(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    pacs = Committing(answers_to=site.us, transaction_uid="1.2.3.4")
    with (
        caplog.at_level(logging.WARNING, "dicom_node"),
        committing_peer(Behaviour(), pacs) as peer,
        site.serving(peer) as (delivery, commitment),
    ):
        delivery.step()
        commitment.step()
        pacs.done()
    assert pacs.statuses == [0x0115]
    records = {record.message: record for record in caplog.records if record.name.startswith("dicom_node")}
    assert vars(records["a storage commitment that nobody asked for"])["transaction_uid"] == "1.2.3.4"
    assert "an answer to no storage commitment request" in records
    assert site.state() is StudyState.DELIVERED


@pytest.mark.parametrize("refuses", ["status", "context"])
def test_a_peer_that_gives_no_storage_commitment_is_told_of_and_nothing_is_claimed(site: Site, refuses: str) -> None:
    pacs = Committing(status=0x0122)
    peers = committing_peer(Behaviour(), pacs) if refuses == "status" else storage_peer(Behaviour())
    with peers as peer, site.serving(replace(peer, commitment=True)) as (delivery, commitment):
        delivery.step()
        commitment.step()
    (row,) = site.index.commitments.of_study(STUDY)
    assert row.state is CommitmentState.FAILED
    assert ("0x0122" if refuses == "status" else "accepted none of the proposed") in row.reason
    assert row.reason in site.index.studies.history(STUDY)[-1].cause
    assert (site.state(), set(site.states().values())) == (StudyState.DELIVERED, {DeliveryState.ACCEPTED})
    assert site.index.peers.all_away() == []


def test_a_peer_that_breaks_off_when_it_is_asked_is_not_away_for_reports(site: Site) -> None:
    pacs = Committing(aborts=True)
    with committing_peer(Behaviour(), pacs) as peer, site.serving(peer) as (delivery, commitment):
        delivery.step()
        commitment.step()
        commitment.step()
        assert len(pacs.asked) == 1
        assert site.index.peers.all_away() == []
        site.later += 400
        commitment.step()
    assert (len(pacs.asked), site.index.peers.all_away()) == (2, [])
    assert "gave no status" in site.index.studies.history(STUDY)[-1].cause
    assert set(site.states().values()) == {DeliveryState.ACCEPTED}
    # The sockets of what it broke off go here, and not in some other test.
    gc.collect()


def test_a_silent_peer_is_told_of_by_name_and_asked_seldom_until_its_first_answer(site: Site) -> None:
    pacs = Committing(is_silent=True)
    with committing_peer(Behaviour(), pacs) as peer, site.serving(peer) as (delivery, commitment):
        delivery.step()
        for wait in (0, 400, 800):
            site.later += wait
            commitment.step()
        assert site.index.conditions.rows() == []
        site.later += 1500
        commitment.step()
        (condition,) = site.index.conditions.rows()
        assert condition.reason.startswith("pacs does not answer storage commitment (3 requests); see its settings")
        pacs.is_silent = False
        commitment.step()
        assert len(pacs.asked) == 4, "a silent peer is not asked at once again"
        site.later += 5000
        commitment.step()
        pacs.done()
        until(lambda: site.state() is StudyState.COMMITTED)
    assert site.index.conditions.rows() == []


def test_a_peer_that_is_away_when_it_is_to_be_asked_is_asked_when_it_is_back(site: Site) -> None:
    port, pacs = free_port(), Committing()
    with committing_peer(Behaviour(), Committing(), port=port) as peer, site.serving(peer) as (delivery, _):
        delivery.step()
    with site.serving(peer) as (_, commitment):
        commitment.step()
        absence = site.index.peers.away("pacs")
        assert absence is not None
        assert site.index.commitments.of_study(STUDY) == []
        with committing_peer(Behaviour(), pacs, port=port):
            commitment.step()
            assert pacs.asked == []
            site.later += 5
            commitment.step()
    assert (site.state(), site.index.peers.all_away()) == (StudyState.COMMITTED, [])


def test_nobody_is_given_storage_commitment_by_us(site: Site) -> None:
    with site.serving():
        ae = Requestor(ae_title="PACS")
        ae.add_requested_context(StorageCommitmentPushModel)
        assoc = ae.associate("127.0.0.1", site.port, ae_title="TRIAGE")
        status, _ = assoc.send_n_action(None, 1, StorageCommitmentPushModel, "1.2.840.10008.1.20.1.1")
        event, _ = assoc.send_n_event_report(None, 1, StorageCommitmentPushModel, "1.2.840.10008.1.20.1.1")
        odd, _ = assoc.send_n_event_report(None, 7, StorageCommitmentPushModel, "1.2.840.10008.1.20.1.1")
        assoc.release()
    assert (status.Status, event.Status, odd.Status) == (0x0211, 0x0114, 0x0113)


@contextmanager
def orthanc(program: Path, folder: Path, node: Peer, http: int) -> Iterator[Peer]:
    """An Orthanc that knows us, until the end of the block."""
    port = free_port()
    settings: dict[str, Any] = {
        "Name": "PACS",
        "DicomAet": "ORTHANC",
        "DicomPort": port,
        "HttpPort": http,
        "RemoteAccessAllowed": False,
        "StorageDirectory": str(folder / "orthanc"),
        "IndexDirectory": str(folder / "orthanc"),
        "DicomModalities": {"triage": [node.ae_title, node.host, node.port]},
        "Plugins": [],
    }
    (folder / "orthanc.json").write_text(json.dumps(settings))
    log = (folder / "orthanc.log").open("wb")
    process = subprocess.Popen([program, folder / "orthanc.json"], stdout=log, stderr=log)
    peer = Peer(name="pacs", ae_title="ORTHANC", host="127.0.0.1", port=port, results=True, commitment=True)
    try:
        until(lambda: _answers(peer))
        yield peer
    finally:
        process.terminate()
        process.wait(60)
        log.close()


def _answers(peer: Peer) -> bool:
    try:
        return echo(peer, ae_title="TRIAGE", timeout_seconds=2) > 0
    except PeerUnreachable:
        return False


def lose(http: int, sop_instance_uid: str) -> None:
    """Delete an instance from an Orthanc behind our back."""
    address = f"http://127.0.0.1:{http}"
    with urlopen(Request(f"{address}/tools/lookup", data=sop_instance_uid.encode()), timeout=60) as found:
        (match,) = json.load(found)
    with urlopen(Request(f"{address}{match['Path']}", method="DELETE"), timeout=60) as deleted:
        assert deleted.status == 200


def test_orthanc_commits_what_it_holds(site: Site, program: Callable[[str], Path], tmp_path: Path) -> None:
    with (
        orthanc(program("Orthanc"), tmp_path, site.us, free_port()) as peer,
        site.serving(peer) as (delivery, commitment),
    ):
        delivery.step()
        assert site.state() is StudyState.DELIVERED
        commitment.step()
        until(lambda: site.state() is StudyState.COMMITTED)
    (row,) = site.index.commitments.of_study(STUDY)
    assert (row.state, row.reason) == (CommitmentState.COMMITTED, "2 of 2 object(s) kept")


def test_what_orthanc_lost_is_sent_again_until_it_keeps_it(
    site: Site, program: Callable[[str], Path], tmp_path: Path
) -> None:
    http = free_port()
    with (
        orthanc(program("Orthanc"), tmp_path, site.us, http) as peer,
        site.serving(peer) as (delivery, commitment),
    ):
        delivery.step()
        lose(http, SEG_UID)
        commitment.step()
        until(lambda: site.state() is StudyState.REPORTED)
        assert site.states() == {SEG_UID: DeliveryState.WAITING, SR_UID: DeliveryState.COMMITTED}
        site.later += 5
        delivery.step()
        commitment.step()
        until(lambda: site.state() is StudyState.COMMITTED)
    first, second = site.index.commitments.of_study(STUDY)
    assert (first.state, second.state) == (CommitmentState.FAILED, CommitmentState.COMMITTED)
    assert first.reason == "1 of 2 object(s) kept: 0x0112, no such object instance"
