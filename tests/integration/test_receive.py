"""The receive path over real sockets: our application entity, DCMTK's and pynetdicom's senders, and rude peers."""

import errno
import logging
import os
import socket
import sqlite3
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import pydicom
import pytest
from pydicom import Dataset, dcmread
from pydicom.errors import InvalidDicomError
from pydicom.uid import (
    UID,
    CTImageStorage,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLSLossless,
)
from pynetdicom import AE
from pynetdicom.association import Association
from pynetdicom.dimse_messages import C_STORE_RQ
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.dsutils import split_dataset
from pynetdicom.presentation import PresentationContext, build_context

from dicom_node.archive.files import Archive
from dicom_node.archive.index import Index
from dicom_node.core.errors import SettingsError
from dicom_node.core.implementation import IMPLEMENTATION_CLASS_UID
from dicom_node.core.received_instance import ReceivedInstance
from dicom_node.intake import Intake
from dicom_node.scp.application_entity import ApplicationEntity, Timeouts
from dicom_node.scp.presentation_contexts import storage_sop_classes
from dicom_node.scp.storage import Reception
from dicom_node.settings import AdmissionSettings, NodeSettings, Settings
from tests.instances import ct_instance, data_set_of, encoded, files_below, received, sop_uid, write_instance
from tests.wire_tap import tapped

SECONDS = 10.0

MR_IMAGE = "1.2.840.10008.5.1.4.1.1.4"
UNCOMPRESSED = (ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian)

# pydicom says what is odd about a data set; some odd ones are sent here.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:pydicom")


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


def entity_of(reception: Reception, **settings: object) -> ApplicationEntity:
    grace = settings.pop("grace", 2.0)
    network, acse = settings.pop("network", 30.0), settings.pop("acse", 2.0)
    node = NodeSettings(host="127.0.0.1", port=0, minimum_free_megabytes=settings.pop("minimum_free_megabytes", 0))  # type: ignore[arg-type]  # a test's own keyword
    whole = Settings(node=node, admission=AdmissionSettings(**settings))  # type: ignore[arg-type]  # as above
    return ApplicationEntity(whole, reception, timeouts=Timeouts(grace=grace, network=network, acse=acse))  # type: ignore[arg-type]  # as above


@contextmanager
def receiving(root: Path, **settings: object) -> Iterator[Receiver]:
    receiver = Receiver(root, **settings)
    receiver.entity.start()
    try:
        yield receiver
    finally:
        receiver.entity.stop()
        receiver.index.close()


@pytest.fixture
def receiver(tmp_path: Path) -> Iterator[Receiver]:
    with receiving(tmp_path) as receiver:
        yield receiver


@contextmanager
def associated(
    entity: ApplicationEntity, *contexts: PresentationContext, calling: str = "SCANNER", called: str = "TRIAGE"
) -> Iterator[Association]:
    """An association that proposes these contexts, or CT in Explicit VR; released at the end when it still lives."""
    ae = AE(ae_title=calling)
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


@pytest.fixture
def dcmtk(program: Callable[[str], Path]) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs one of DCMTK's programs."""

    def run(tool: str, *arguments: object) -> subprocess.CompletedProcess[str]:
        command = [str(program(tool)), *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)

    return run


Dcmtk = Callable[..., subprocess.CompletedProcess[str]]


def eventually(condition: Callable[[], bool]) -> bool:
    until = time.monotonic() + SECONDS
    # Asked once more, what held a moment ago may not: whoever was let in may not have left yet.
    while not (holds := condition()) and time.monotonic() < until:
        time.sleep(0.02)
    return holds


def test_an_echo_is_answered_and_leaves_no_trace(receiver: Receiver, dcmtk: Dcmtk) -> None:
    answer = dcmtk("echoscu", "-aec", "TRIAGE", "127.0.0.1", receiver.entity.port)
    assert answer.returncode == 0, answer.stderr
    assert receiver.index.studies.rows() == []


def test_our_answer_names_this_software(receiver: Receiver) -> None:
    with associated(receiver.entity) as association:
        assert association.acceptor.implementation_class_uid == IMPLEMENTATION_CLASS_UID
        assert association.acceptor.maximum_length == NodeSettings().maximum_pdu_bytes


@pytest.mark.skipif(not hasattr(socket, "TCP_QUICKACK"), reason="only Linux can be told to acknowledge at once")
def test_a_sender_that_writes_in_two_pieces_does_not_wait_for_an_acknowledgement(receiver: Receiver) -> None:
    # Such as DCMTK's: 40 ms an instance, however fast the disk.
    with associated(receiver.entity) as association:
        c_store(association, received(ct_instance()))
        (ours,) = receiver.entity._ae.active_associations
        assert ours.dul.socket is not None
        connection = ours.dul.socket.socket
        assert connection is not None
        assert connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1
        assert connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK) == 1


@pytest.mark.parametrize("tool", ["storescu", "dcmsend"])
def test_dcmtk_stores_a_study(receiver: Receiver, tmp_path: Path, dcmtk: Dcmtk, tool: str) -> None:
    paths = [write_instance(tmp_path / f"{n}.dcm", ct_instance(n)) for n in range(1, 6)]
    answer = dcmtk(tool, "-aec", "TRIAGE", "127.0.0.1", receiver.entity.port, *paths)
    assert answer.returncode == 0, answer.stderr
    assert [len(receiver.kept(sop_uid(n))) for n in range(1, 6)] == [1] * 5
    (reception,) = receiver.index.studies.receptions()
    assert (reception.open_associations, reception.aborted_associations) == (0, 0)


@pytest.mark.parametrize("syntax", UNCOMPRESSED, ids=lambda uid: uid.name)
def test_a_kept_file_opens_as_what_was_sent(receiver: Receiver, syntax: UID) -> None:
    (answer,) = answers(receiver.entity, received(ct_instance(), syntax))
    assert answer.Status == 0x0000
    (row,) = receiver.index.studies.find(sop_uid(1))
    kept = dcmread(receiver.archive.path_of(row.path))
    assert kept == ct_instance()
    assert kept.file_meta.TransferSyntaxUID == row.transfer_syntax_uid == syntax
    assert kept.file_meta.SourceApplicationEntityTitle == row.calling_ae_title == "SCANNER"
    assert kept.file_meta.ReceivingApplicationEntityTitle == "TRIAGE"


def sent_from(path: Path) -> bytes:
    """A file's data set, by pynetdicom's reckoning, since not every file was written by us."""
    _, offset = split_dataset(path)
    return path.read_bytes()[offset:]


def request_of(path: Path) -> ReceivedInstance | None:
    """The C-STORE request that a file asks for; None where it does not say which, or is of no storage class."""
    try:
        meta = dcmread(path, stop_before_pixels=True, force=False).file_meta
    except (InvalidDicomError, EOFError):
        return None
    facts = [
        str(meta.get(f"{name}UID", ""))
        for name in ("MediaStorageSOPClass", "MediaStorageSOPInstance", "TransferSyntax")
    ]
    if facts[0] not in storage_sop_classes() or not all(facts):
        return None
    names = ("sop_class_uid", "sop_instance_uid", "transfer_syntax_uid")
    changes = {"data_set": BytesIO(sent_from(path)), **dict(zip(names, facts, strict=True))}
    return received(ct_instance(), **changes)


def send_files(receiver: Receiver, paths: list[Path]) -> dict[str, int]:
    """Send files over one association and compare what is kept with what was sent; the statuses by file name."""
    requests = {path: request for path in paths if (request := request_of(path)) is not None}
    statuses = {}
    with associated(receiver.entity, *propose(*requests.values())) as association:
        assert association.rejected_contexts == []
        for path, request in requests.items():
            status = int(c_store(association, request).Status or 0)
            assert status != 0x0000 or sent_from(path) in receiver.kept(request.sop_instance_uid), path.name
            statuses[path.name] = status
        assert association.is_established
    return statuses


def test_every_transfer_syntax_is_kept_byte_for_byte(receiver: Receiver, shared: Path) -> None:
    statuses = send_files(receiver, sorted((shared / "data" / "transfer-syntaxes").glob("C*")))
    assert len(statuses) >= 19
    assert set(statuses.values()) == {0x0000}, statuses


def pydicoms_files() -> list[Path]:
    """The files that pydicom is tested with."""
    return sorted(path for path in (Path(pydicom.__file__).parent / "data").rglob("*") if path.is_file())


def test_odd_files_are_kept_byte_for_byte_or_refused(receiver: Receiver) -> None:
    statuses = send_files(receiver, pydicoms_files())
    assert len(statuses) > 60
    refused = {name: status for name, status in statuses.items() if status != 0x0000}
    assert set(refused.values()) <= {0xA900, 0xC000}, refused
    assert len(refused) < len(statuses) / 3, refused
    assert send(receiver.entity, ct_instance()) == [0x0000]


#: DCMTK's option for each transfer syntax that its storescu can propose.
STORESCU_OPTIONS = {
    "1.2.840.10008.1.2": "-xi",
    "1.2.840.10008.1.2.1": "-xe",
    "1.2.840.10008.1.2.2": "-xb",
    "1.2.840.10008.1.2.1.99": "-xd",
    "1.2.840.10008.1.2.4.50": "-xy",
    "1.2.840.10008.1.2.4.51": "-xx",
    "1.2.840.10008.1.2.4.70": "-xs",
    "1.2.840.10008.1.2.4.80": "-xt",
    "1.2.840.10008.1.2.4.81": "-xu",
    "1.2.840.10008.1.2.4.90": "-xv",
    "1.2.840.10008.1.2.4.91": "-xw",
    "1.2.840.10008.1.2.5": "-xr",
}


def test_what_storescu_sends_of_every_file_is_kept_byte_for_byte(
    receiver: Receiver, dcmtk: Dcmtk, shared: Path
) -> None:
    """Beside what was on the wire, since storescu writes some data sets anew before it sends them."""
    groups: dict[str, list[Path]] = {}
    for path in (*sorted((shared / "data" / "transfer-syntaxes").glob("C*")), *pydicoms_files()):
        request = request_of(path)
        if request is not None and (option := STORESCU_OPTIONS.get(request.transfer_syntax_uid)):
            groups.setdefault(option, []).append(path)
    with tapped(receiver.entity.port) as tap:
        for option, paths in groups.items():
            dcmtk("storescu", "-nh", "-R", option, "-aec", "TRIAGE", "127.0.0.1", tap.port, *paths)
        sent = list(tap.data_sets())
    kept = [(uid, data) for uid, data in sent if receiver.index.studies.find(uid)]
    assert all(data in receiver.kept(uid) for uid, data in kept)
    assert len(kept) > 60
    assert len(kept) > 2 / 3 * len(sent)
    assert len(groups) > 8, "transfer syntaxes"


def test_parametric_maps_label_maps_and_retired_classes_are_stored(receiver: Receiver) -> None:
    classes = [f"1.2.840.10008.5.1.4.1.1.{end}" for end in ("30", "66.7", "6", "8")]
    assert send(receiver.entity, *(ct_instance(n, SOPClassUID=uid) for n, uid in enumerate(classes))) == [0x0000] * 4


def test_of_several_transfer_syntaxes_one_that_loses_nothing_is_taken(receiver: Receiver) -> None:
    lossy_first = [JPEGBaseline8Bit, JPEG2000Lossless, JPEGLSLossless]
    contexts = [
        build_context(CTImageStorage, syntaxes) for syntaxes in (lossy_first, [*lossy_first, ImplicitVRLittleEndian])
    ]
    with associated(receiver.entity, *contexts) as association:
        chosen = [context.transfer_syntax for context in association.accepted_contexts]
    assert chosen == [[JPEGLSLossless], [ImplicitVRLittleEndian]]


def test_a_second_identical_instance_is_a_success_that_changes_nothing(receiver: Receiver) -> None:
    assert send(receiver.entity, ct_instance(), ct_instance()) == [0x0000, 0x0000]
    assert send(receiver.entity, ct_instance()) == [0x0000]
    assert receiver.kept(sop_uid(1)) == [encoded(ct_instance())]
    assert len(files_below(receiver.root)) == 1


def test_other_content_under_the_same_uid_is_kept_beside_the_first(receiver: Receiver) -> None:
    other = ct_instance(SeriesDescription="OTHER")
    assert send(receiver.entity, ct_instance(), other) == [0x0000, 0x0000]
    assert receiver.kept(sop_uid(1)) == [encoded(ct_instance()), encoded(other)]
    assert receiver.index.studies.rows()[0].conflicts == 1


@pytest.mark.parametrize(
    ("attributes", "announced", "status", "comment"),
    [
        ({}, {"sop_instance_uid": sop_uid(9)}, 0xA900, "SOP Instance UID of data set and command differ"),
        ({"SOPClassUID": MR_IMAGE}, {"sop_class_uid": CTImageStorage}, 0xA900, "SOP Class UID of data set"),
        ({"StudyInstanceUID": "../../../tmp/evil"}, {}, 0xC000, "Study Instance UID is no UID"),
        ({"SeriesInstanceUID": "Secret^Patient"}, {}, 0xC000, "Series Instance UID is no UID"),
        ({"StudyInstanceUID": None}, {}, 0xC000, "Study Instance UID is missing"),
        ({"SOPInstanceUID": "../../Secret"}, {}, 0xC000, "Affected SOP Instance UID is no UID"),
        ({}, {"data_set": BytesIO(b"this is no data set")}, 0xC000, "Study Instance UID is missing"),
    ],
)
@pytest.mark.filterwarnings("ignore:Invalid value for VR UI:UserWarning")  # that is what is tested
def test_what_cannot_be_kept_is_refused_by_name_and_the_next_one_still_works(
    receiver: Receiver,
    caplog: pytest.LogCaptureFixture,
    attributes: dict[str, str | None],
    announced: dict[str, Any],
    status: int,
    comment: str,
) -> None:
    bad = received(ct_instance(**attributes), **announced)
    with caplog.at_level(logging.INFO, logger="dicom_node"):
        refused, taken = answers(receiver.entity, bad, received(ct_instance(2)))
    assert (refused.Status, taken.Status) == (status, 0x0000)
    assert str(refused.ErrorComment).startswith(comment)
    assert "Secret" not in str(refused.ErrorComment) + repr([record.__dict__ for record in caplog.records])
    assert len(files_below(receiver.root)) == 1


def test_a_sop_class_that_is_not_its_contexts_is_refused(receiver: Receiver) -> None:
    with associated(receiver.entity, build_context(MR_IMAGE, ExplicitVRLittleEndian)) as association:
        assert c_store(association, received(ct_instance()), context_class=MR_IMAGE).Status == 0x0122
    assert files_below(receiver.root) == []


def test_without_room_on_the_disk_the_sender_is_told_so(tmp_path: Path, dcmtk: Dcmtk) -> None:
    with receiving(tmp_path, minimum_free_megabytes=10**9) as receiver:
        source = write_instance(tmp_path / "1.dcm", ct_instance())
        (answer,) = answers(receiver.entity, received(ct_instance()))
        assert answer.Status == 0xA700
        assert str(answer.ErrorComment).startswith("disk nearly full")
        assert files_below(receiver.root) == []
        said = dcmtk("storescu", "-v", "-aec", "TRIAGE", "127.0.0.1", receiver.entity.port, source)
        assert "OutOfResources" in said.stderr.replace(" ", "")


def test_a_disk_that_became_read_only_is_named_once_and_reception_goes_on_when_it_is_mended(
    receiver: Receiver, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_ = os.open

    def read_only(path: str | Path, flags: int, *arguments: int, **named: int) -> int:
        if flags & os.O_CREAT and str(receiver.root) in str(path):
            raise OSError(errno.EROFS, "Read-only file system", str(path))
        return open_(path, flags, *arguments, **named)

    large = ct_instance(9, PixelData=bytes(5 << 20))
    with caplog.at_level(logging.WARNING, "dicom_node"), monkeypatch.context() as patched:
        patched.setattr(os, "open", read_only)
        assert set(send(receiver.entity, *(ct_instance(n) for n in range(1, 9)), large)) == {0xA700}
        assert eventually(lambda: len(caplog.records) == 2)
    assert files_below(receiver.root) == []
    first, last = caplog.records
    assert "Read-only file system" in first.__dict__["reason"]
    assert last.__dict__["instances"] == 9
    assert send(receiver.entity, ct_instance(1), large) == [0x0000, 0x0000]


def test_a_database_that_another_holds_is_named_once_and_reception_goes_on_when_it_is_free(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another program, such as a backup, has locked it; the wait for it is made short here."""
    monkeypatch.setattr("dicom_node.archive.index.PATIENCE_SECONDS", 0.2)
    with receiving(tmp_path) as receiver, associated(receiver.entity) as association:
        assert c_store(association, received(ct_instance(1))).Status == 0x0000
        requests = [received(ct_instance(number)) for number in range(2, 6)]
        with closing(sqlite3.connect(tmp_path / "index.sqlite", isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            with caplog.at_level(logging.WARNING, "dicom_node"):
                assert {c_store(association, request).Status for request in requests} == {0xA700}
            other.execute("ROLLBACK")
        refused = [record for record in caplog.records if record.message == "instance refused"]
        assert len(refused) == 1
        assert "the index does not answer" in refused[0].__dict__["reason"]
        assert receiver.kept(sop_uid(2)) == []
        requests = [received(ct_instance(number)) for number in range(2, 6)]
        assert {c_store(association, request).Status for request in requests} == {0x0000}
        assert all(receiver.kept(sop_uid(n)) == [encoded(ct_instance(n))] for n in range(1, 6))


def test_a_caller_that_is_not_on_the_list_is_rejected(tmp_path: Path, dcmtk: Dcmtk) -> None:
    with receiving(tmp_path, calling_ae_titles=("CT1", "PACS")) as receiver:
        with associated(receiver.entity, calling="STRANGER") as association:
            assert association.is_rejected
            answer = association.acceptor.primitive
            assert (answer.result, answer.result_source, answer.diagnostic) == (1, 1, 3)
        with associated(receiver.entity, calling="CT1") as association:
            assert association.is_established
        source = write_instance(tmp_path / "1.dcm", ct_instance())
        said = dcmtk("storescu", "-aec", "TRIAGE", "-aet", "STRANGER", "127.0.0.1", receiver.entity.port, source)
        assert said.returncode != 0
        assert "Calling AE Title Not Recognized" in said.stderr


def test_a_call_for_another_title_is_rejected_unless_the_settings_allow_it(tmp_path: Path) -> None:
    with receiving(tmp_path) as receiver, associated(receiver.entity, called="OTHER") as association:
        assert association.is_rejected
        answer = association.acceptor.primitive
        assert (answer.result, answer.result_source, answer.diagnostic) == (1, 1, 7)
    (tmp_path / "open").mkdir()
    anyone = receiving(tmp_path / "open", called_ae_title_must_match=False)
    with anyone as receiver, associated(receiver.entity, called="OTHER") as association:
        assert association.is_established


def test_one_association_too_many_is_rejected_for_now(tmp_path: Path) -> None:
    with receiving(tmp_path, maximum_associations=1) as receiver, associated(receiver.entity) as first:
        with associated(receiver.entity) as second:
            assert second.is_rejected
            answer = second.acceptor.primitive
            assert (answer.result, answer.result_source, answer.diagnostic) == (2, 3, 2)
        assert c_store(first, received(ct_instance())).Status == 0x0000


def test_silent_connections_keep_no_peer_out_and_are_ended_when_there_are_too_many(tmp_path: Path) -> None:
    with receiving(tmp_path, maximum_associations=2) as receiver, ExitStack() as stack:
        place = ("127.0.0.1", receiver.entity.port)
        silent = [stack.enter_context(socket.create_connection(place, timeout=SECONDS)) for _ in range(16)]
        time.sleep(0.3)
        assert send(receiver.entity, ct_instance()) == [0x0000]
        for number in range(17, 20):
            stack.enter_context(socket.create_connection(place, timeout=SECONDS))
            assert silent[number - 17].recv(1) == b"", "the oldest has made room"
        assert send(receiver.entity, ct_instance(2)) == [0x0000]


def test_a_connection_that_only_opens_and_closes_is_forgotten_at_once(tmp_path: Path) -> None:
    with receiving(tmp_path, acse=30.0) as receiver:
        for _ in range(5):
            socket.create_connection(("127.0.0.1", receiver.entity.port), timeout=SECONDS).close()
        assert eventually(lambda: receiver.entity._ae.active_associations == [])


def test_one_peer_alone_takes_no_more_than_its_share(tmp_path: Path) -> None:
    with receiving(tmp_path, maximum_associations_per_peer=1) as receiver, associated(receiver.entity) as first:
        with associated(receiver.entity) as second:
            assert second.is_rejected
            answer = second.acceptor.primitive
            assert (answer.result, answer.result_source, answer.diagnostic) == (2, 3, 2)
        with associated(receiver.entity, calling="OTHER") as third:
            assert third.is_established
        assert c_store(first, received(ct_instance())).Status == 0x0000
        first.release()
        assert eventually(lambda: is_let_in(receiver.entity))


def is_let_in(entity: ApplicationEntity) -> bool:
    with associated(entity) as association:
        return bool(association.is_established)


def test_ten_senders_at_once_lose_nothing(receiver: Receiver) -> None:
    statuses: list[int] = []

    def sender(number: int) -> None:
        instances = [ct_instance(100 * number + n, SeriesInstanceUID=f"1.2.{number}") for n in range(5)]
        statuses.extend(send(receiver.entity, *instances))

    threads = [threading.Thread(target=sender, args=(number,)) for number in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert statuses == [0x0000] * 50
    assert receiver.index.studies.rows()[0].instances == 50
    assert len(files_below(receiver.root)) == 50


@pytest.mark.parametrize("ending", ["aborted", "lost"])
def test_an_object_that_breaks_off_leaves_nothing_of_itself(receiver: Receiver, ending: str) -> None:
    with associated(receiver.entity) as association:
        assert c_store(association, received(ct_instance(1))).Status == 0x0000
        message = C_STORE_RQ()
        message.primitive_to_message(primitive(received(ct_instance(2, PixelData=bytes(300_000)))))
        fragments = list(message.encode_msg(association.accepted_contexts[0].context_id, 16384))
        assert len(fragments) > 10
        for fragment in fragments[:-3]:
            association.dul.send_pdu(fragment)
        time.sleep(0.3)
        if ending == "aborted":
            association.abort()
        else:
            association.dul.socket.socket.shutdown(socket.SHUT_RDWR)
    assert eventually(lambda: receiver.index.studies.receptions()[0].open_associations == 0)
    (reception,) = receiver.index.studies.receptions()
    assert reception.aborted_associations == 1
    assert receiver.kept(sop_uid(2)) == []
    assert len(files_below(receiver.root)) == 1
    assert send(receiver.entity, ct_instance(2)) == [0x0000]


def test_a_sender_that_falls_silent_is_given_up(tmp_path: Path) -> None:
    with receiving(tmp_path, network=0.5) as receiver, associated(receiver.entity) as association:
        assert c_store(association, received(ct_instance())).Status == 0x0000
        assert receiver.index.studies.receptions()[0].open_associations == 1
        assert eventually(lambda: receiver.index.studies.receptions()[0].open_associations == 0)
        assert receiver.index.studies.receptions()[0].aborted_associations == 1


@pytest.mark.parametrize(
    "rudeness",
    [
        b"",
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"\x01\x00\xff\xff\xff\xff" + b"\x00" * 100,
        b"\x04\x00\x00\x00\x00\x0a" + b"\x00" * 10,
        b"\x01\x00\x00\x00\x00\x44" + b"\xff" * 68,
        bytes(range(256)) * 8,
    ],
    ids=["silence", "a web browser", "a huge length", "data before anything", "a request of nonsense", "noise"],
)
def test_a_rude_peer_does_not_disturb_the_next_one(receiver: Receiver, rudeness: bytes) -> None:
    with socket.create_connection(("127.0.0.1", receiver.entity.port), timeout=SECONDS) as rude:
        rude.sendall(rudeness)
        assert send(receiver.entity, ct_instance()) == [0x0000]
    assert send(receiver.entity, ct_instance(2)) == [0x0000]
    assert receiver.entity.alive


class BrokenReception:
    """A reception in which everything goes wrong."""

    def store(self, received: ReceivedInstance) -> object:
        raise RuntimeError("Secret^Patient broke it")

    def association_opened(self, association_id: str, calling_ae_title: str) -> None:
        pass

    def association_ended(self, association_id: str, ending: str) -> None:
        pass

    def free_bytes(self) -> int:
        return 1 << 40


def test_a_fault_of_ours_is_answered_and_ends_no_association() -> None:
    entity = entity_of(BrokenReception())
    entity.start()
    try:
        first, second = answers(entity, received(ct_instance(1)), received(ct_instance(2)))
    finally:
        entity.stop()
    assert (first.Status, second.Status) == (0xC0FF, 0xC0FF)
    assert first.ErrorComment == "the node failed; see its log"


def test_a_taken_port_is_named_before_anything_is_received(receiver: Receiver) -> None:
    port = receiver.entity.port
    settings = Settings(node=NodeSettings(host="127.0.0.1", port=port))
    with pytest.raises(SettingsError, match=f"cannot listen on 127.0.0.1:{port}"):
        ApplicationEntity(settings, receiver.intake).start()


def test_a_stop_lets_a_running_association_end(tmp_path: Path) -> None:
    with receiving(tmp_path, grace=SECONDS) as receiver, associated(receiver.entity) as association:
        assert c_store(association, received(ct_instance(1))).Status == 0x0000
        stopping = threading.Thread(target=receiver.entity.stop)
        stopping.start()
        assert eventually(lambda: not receiver.entity.alive)
        assert c_store(association, received(ct_instance(2))).Status == 0x0000
        association.release()
        stopping.join(SECONDS)
        assert not stopping.is_alive()
        assert receiver.index.studies.receptions()[0].aborted_associations == 0


def test_a_stop_aborts_an_association_that_does_not_end(tmp_path: Path) -> None:
    with receiving(tmp_path, grace=0.2) as receiver, associated(receiver.entity) as association:
        assert c_store(association, received(ct_instance())).Status == 0x0000
        receiver.entity.stop()
        assert eventually(lambda: association.is_aborted)
        assert receiver.index.studies.receptions()[0].open_associations == 0
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", receiver.entity.port or 1), timeout=1)
