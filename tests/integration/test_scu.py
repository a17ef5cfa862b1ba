"""What we ask of peers, against real ones: pynetdicom's SCP, DCMTK's storescp and our own application entity."""

import subprocess
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.uid import UID, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from dicom_node.archive.files import Archive
from dicom_node.archive.index import Index
from dicom_node.core.errors import AssociationRejected, DeliveryError, PeerUnreachable, StoreFailed, UnreadableInstance
from dicom_node.intake import Intake
from dicom_node.scp.application_entity import ApplicationEntity, Timeouts
from dicom_node.scu.association import ProposedContext, association
from dicom_node.scu.storage import FileToSend, Sent, store
from dicom_node.scu.verification import echo
from dicom_node.settings import NodeSettings, Peer, Settings
from tests.instances import ct_instance, sop_uid, write_instance
from tests.peers import CT, Behaviour, free_port, storage_peer
from tests.populated_index import SEG, SR
from tests.rude_peer import reluctant_reader

VERIFICATION = "1.2.840.10008.1.1"

pytestmark = [
    # pynetdicom leaves the socket of a refused connection to the garbage collector.
    pytest.mark.filterwarnings(r"ignore:unclosed <socket\.socket:ResourceWarning"),
    # Where both sides end an association at once, pynetdicom's reactor may end by an InvalidEventError: Evt15 in Sta13.
    pytest.mark.filterwarnings(
        r"ignore:Exception in thread Thread-\d+ \(run_reactor\):pytest.PytestUnhandledThreadExceptionWarning"
    ),
]

SECONDS = 30.0


def files(folder: Path, *sop_classes: str, syntax: str = ExplicitVRLittleEndian) -> list[FileToSend]:
    """One instance of each SOP class."""
    paths = [
        write_instance(folder / f"{number}.dcm", ct_instance(number, SOPClassUID=UID(sop_class)), syntax)
        for number, sop_class in enumerate(sop_classes, start=1)
    ]
    return [FileToSend.read(path) for path in paths]


def sent(peer: Peer, some: list[FileToSend], seconds: float = SECONDS) -> list[Sent]:
    return list(store(peer, some, ae_title="TRIAGE", timeout_seconds=seconds))


def asked(peer: Peer, seconds: float = SECONDS) -> float:
    return echo(peer, ae_title="TRIAGE", timeout_seconds=seconds)


def test_an_echo_is_answered_and_timed() -> None:
    with storage_peer(Behaviour()) as peer:
        assert 0 < asked(peer) < SECONDS


def stored(peer: Peer) -> list[Sent]:
    """Send a file that is never opened."""
    syntax = str(ExplicitVRLittleEndian)
    return sent(peer, [FileToSend(path=Path("x"), sop_class_uid=CT, sop_instance_uid="1", transfer_syntax_uid=syntax)])


@pytest.mark.parametrize("ask", [asked, stored])
def test_why_a_peer_is_not_reached_is_told_with_the_mend(ask: Callable[[Peer], object]) -> None:
    words = r"peer pacs .* does not know our AE title; enter TRIAGE there"
    with storage_peer(Behaviour(), calling=["FRIEND"]) as peer, pytest.raises(AssociationRejected, match=words):
        ask(peer)
    with (
        storage_peer(Behaviour()) as peer,
        pytest.raises(AssociationRejected, match="not called OTHER; correct the peer's ae_title"),
    ):
        ask(replace(peer, ae_title="OTHER"))
    with pytest.raises(PeerUnreachable, match="does not answer; is it running"):
        ask(peer)


def test_a_peer_that_takes_none_of_our_sop_classes_rejects() -> None:
    words = "accepted none of the proposed presentation contexts"
    with storage_peer(Behaviour(), sop_classes=(CT,)) as peer, pytest.raises(AssociationRejected, match=words):
        asked(peer)


def test_a_name_that_nobody_has_is_told_with_the_mend() -> None:
    peer = Peer(name="pacs", ae_title="PACS", host="no-such-host.invalid", port=104)
    with pytest.raises(PeerUnreachable, match=r"no-such-host\.invalid:104\) is not found .*correct the peer's host"):
        asked(peer, 3)


def test_files_go_in_their_order_over_one_association(tmp_path: Path) -> None:
    pacs = Behaviour()
    with storage_peer(pacs) as peer:
        outcomes = sent(peer, files(tmp_path, SEG, SR, CT, CT))
    assert pacs.arrived == [sop_uid(number) for number in (1, 2, 3, 4)]
    assert pacs.associations == 1
    assert [(outcome.answer, outcome.error) for outcome in outcomes] == [("accepted (0x0000)", None)] * 4


def test_an_association_whose_own_thread_has_ended_lets_nobody_wait_for_ever() -> None:
    """The thread of a peer's abort ends just as somebody releases: here it is ended by hand."""

    def stay() -> None:
        contexts = [ProposedContext(VERIFICATION, ("1.2.840.10008.1.2",))]
        with association(peer, contexts, ae_title="TRIAGE", timeout_seconds=1.0) as assoc:
            assoc._kill = True
            assoc.join(10)
            assert assoc.is_established

    with storage_peer(Behaviour()) as peer:
        staying = threading.Thread(target=stay, daemon=True)
        staying.start()
        staying.join(60)
        assert not staying.is_alive()


@pytest.mark.parametrize("bytes_a_second", [0, 10_000])
def test_a_peer_that_stops_reading_or_trickles_is_given_up_in_time(tmp_path: Path, bytes_a_second: int) -> None:
    """More than the kernels of both sides take in its stead, and than it reads in an hour."""
    large = ct_instance(1, PixelData=bytes(48 << 20))
    some = [FileToSend.read(write_instance(tmp_path / f"{number}.dcm", large)) for number in (1, 2)]
    outcomes: list[Sent] = []
    with reluctant_reader(bytes_a_second) as port:
        peer = Peer(name="pacs", ae_title="RUDE", host="127.0.0.1", port=port)
        sending = threading.Thread(target=lambda: outcomes.extend(sent(peer, some, 1.0)), daemon=True)
        sending.start()
        sending.join(SECONDS)
        assert not sending.is_alive()
    assert [type(outcome.error) for outcome in outcomes] == [PeerUnreachable] * 2


@pytest.mark.parametrize(("status", "words"), [(0xB000, "coerced"), (0xB006, "discarded"), (0xB007, "does not match")])
def test_a_warning_is_an_acceptance_that_tells_what_was_odd(tmp_path: Path, status: int, words: str) -> None:
    with storage_peer(Behaviour(statuses={CT: status})) as peer:
        (outcome,) = sent(peer, files(tmp_path, CT))
    assert outcome.error is None
    assert words in outcome.answer


@pytest.mark.parametrize(
    ("status", "words"),
    [(0xA700, "out of resources"), (0xC000, "cannot understand"), (0x0110, "failure")],
)
def test_a_failure_is_told_with_its_status_and_the_next_file_still_goes(
    tmp_path: Path, status: int, words: str
) -> None:
    with storage_peer(Behaviour(statuses={SEG: status})) as peer:
        refused, accepted = sent(peer, files(tmp_path, SEG, SR))
    assert isinstance(refused.error, StoreFailed)
    assert refused.error.status == status
    assert f"0x{status:04X}" in str(refused.error)
    assert words in str(refused.error)
    assert accepted.error is None


def test_a_sop_class_that_the_peer_does_not_take_is_told_and_the_others_go(tmp_path: Path) -> None:
    pacs = Behaviour()
    with storage_peer(pacs, sop_classes=(SR,)) as peer:
        refused, accepted = sent(peer, files(tmp_path, SEG, SR))
    assert isinstance(refused.error, StoreFailed)
    assert SEG in str(refused.error)
    assert (accepted.error, pacs.arrived) == (None, [sop_uid(2)])


def test_an_association_that_breaks_leaves_the_rest_to_be_tried_again(tmp_path: Path) -> None:
    with storage_peer(Behaviour(aborts_after=2)) as peer:
        outcomes = sent(peer, files(tmp_path, CT, CT, CT), 2.0)
    assert outcomes[0].error is None
    kinds: list[type[DeliveryError] | None] = [type(outcome.error) if outcome.error else None for outcome in outcomes]
    assert kinds == [None, PeerUnreachable, PeerUnreachable]


def test_a_peer_of_the_other_uncompressed_syntax_gets_the_same_values(tmp_path: Path) -> None:
    received = Behaviour()
    with storage_peer(received, syntaxes=(ImplicitVRLittleEndian,)) as peer:
        (outcome,) = sent(peer, files(tmp_path, CT, syntax=ExplicitVRLittleEndian))
    assert outcome.error is None


def test_a_file_that_is_damaged_behind_its_meta_information_harms_no_other(tmp_path: Path) -> None:
    broken, whole = files(tmp_path, CT, CT)
    data = broken.path.read_bytes()
    start = data.index(b"ORIGINAL")
    broken.path.write_bytes(data[:start])
    with storage_peer(Behaviour()) as peer:
        first, second = sent(peer, [broken, whole])
    assert first.error is not None
    assert second.error is None


@pytest.mark.parametrize("content", [b"", b"hello", b"\0" * 128 + b"DICM", b"\0" * 128 + b"DICM\x02\x00"])
def test_what_is_no_dicom_file_is_told_by_name(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "notes.txt"
    path.write_bytes(content)
    with pytest.raises(UnreadableInstance, match=r"notes\.txt is no DICOM file"):
        FileToSend.read(path)
    with pytest.raises(UnreadableInstance):
        FileToSend.read(tmp_path / "none.dcm")


def test_nothing_to_send_asks_for_no_association() -> None:
    assert sent(Peer(name="pacs", ae_title="PACS", host="127.0.0.1", port=free_port()), []) == []


def test_our_own_application_entity_takes_what_we_send(tmp_path: Path) -> None:
    index, archive = Index.open(f"sqlite:///{tmp_path / 'index.sqlite'}"), Archive(tmp_path / "archive")
    settings = Settings(node=NodeSettings(host="127.0.0.1", port=0, minimum_free_megabytes=0))
    entity = ApplicationEntity(settings, Intake(archive=archive, studies=index.studies), timeouts=Timeouts(grace=2.0))
    entity.start()
    try:
        peer = Peer(name="node", ae_title="TRIAGE", host="127.0.0.1", port=entity.port)
        asked(peer)
        outcomes = sent(peer, files(tmp_path, CT, CT))
    finally:
        entity.stop()
    assert [outcome.error for outcome in outcomes] == [None, None]
    assert index.studies.rows()[0].instances == 2
    index.close()


def test_dcmtks_storescp_takes_what_we_send(tmp_path: Path, program: Callable[[str], Path]) -> None:
    port, folder = free_port(), tmp_path / "received"
    folder.mkdir()
    scp = subprocess.Popen([program("storescp"), "-aet", "PACS", "-od", folder, str(port)])
    try:
        peer = Peer(name="dcmtk", ae_title="PACS", host="127.0.0.1", port=port)
        until = time.monotonic() + 60
        while True:
            try:
                asked(peer)
                break
            except PeerUnreachable:
                assert time.monotonic() < until
                time.sleep(0.05)
        outcomes = sent(peer, files(tmp_path, SEG, SR))
    finally:
        scp.terminate()
        scp.wait(60)
    assert [outcome.error for outcome in outcomes] == [None, None]
    assert {str(dcmread(path).SOPInstanceUID) for path in folder.iterdir()} == {sop_uid(1), sop_uid(2)}
