"""Our own data path beside pynetdicom's: whatever a peer sends in whatever pieces, both keep and answer alike."""

import logging
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import AE
from pynetdicom.presentation import build_context

from dicom_node.archive.files import Archive
from dicom_node.archive.index import Index
from dicom_node.archive.spool import Spool
from dicom_node.core.errors import DatasetMismatch
from dicom_node.core.received_instance import ReceivedInstance
from dicom_node.intake import Intake
from dicom_node.scp import upper_layer
from dicom_node.scp.admission import DiskWatermark
from dicom_node.scp.application_entity import ApplicationEntity, Timeouts
from dicom_node.scp.handlers import Handlers
from dicom_node.settings import NodeSettings, Settings
from tests.instances import ct_instance, data_set_of, encoded, files_below, received, sop_uid
from tests.rude_peer import (
    A_ABORT,
    ABORT,
    CT_CONTEXT,
    ECHO_CONTEXT,
    REFUSED_CONTEXT,
    RELEASE,
    RELEASE_RP,
    VERIFICATION,
    RudePeer,
    associate_rq,
    cancel_command,
    command,
    command_set,
    echo_command,
    fragments,
    p_data_tf,
    pdv,
    rude_peer,
    whole,
)

SECONDS = 10.0


class Collecting:
    """A reception that keeps what came, and refuses the instances of one UID."""

    REFUSED = "1.2.3.666"

    def __init__(self) -> None:
        self.came: list[tuple[object, ...]] = []
        self.endings: list[str] = []

    def store(self, received: ReceivedInstance) -> object:
        received.data_set.seek(0)
        facts = (received.sop_class_uid, received.sop_instance_uid, received.transfer_syntax_uid)
        titles = (received.calling_ae_title, received.called_ae_title)
        self.came.append((*facts, *titles, received.data_set.read()))
        if received.sop_instance_uid == self.REFUSED:
            raise DatasetMismatch("SOP Instance UID of data set and command differ; mend the sender")
        return "NEW"

    def association_opened(self, association_id: str, calling_ae_title: str) -> None:
        pass

    def association_ended(self, association_id: str, ending: str) -> None:
        self.endings.append(ending)

    def free_bytes(self) -> int:
        return 1 << 40


@contextmanager
def ours(reception: object, **timeouts: float) -> Iterator[ApplicationEntity]:
    settings = Settings(node=NodeSettings(host="127.0.0.1", port=0, minimum_free_megabytes=0))
    entity = ApplicationEntity(settings, reception, timeouts=Timeouts(grace=0.5, **timeouts))  # type: ignore[arg-type]  # a stand-in
    entity.start()
    try:
        yield entity
    finally:
        entity.stop()


@contextmanager
def stock(reception: Collecting) -> Iterator[int]:
    """pynetdicom as it comes, with the same handlers; its port."""
    ae = AE(ae_title="TRIAGE")
    ae.maximum_pdu_size = NodeSettings().maximum_pdu_bytes
    contexts = [
        build_context(CTImageStorage, ExplicitVRLittleEndian),
        build_context(VERIFICATION, ImplicitVRLittleEndian),
    ]
    handlers = Handlers(reception, DiskWatermark(0)).bindings()  # type: ignore[arg-type]  # a stand-in
    server = ae.start_server(("127.0.0.1", 0), block=False, evt_handlers=handlers, contexts=contexts)
    assert server is not None
    try:
        yield int(server.server_address[1])
    finally:
        server.shutdown()


SIZES = st.lists(st.integers(0, 400), max_size=5)


@st.composite
def messages(draw: st.DrawFn) -> list[bytes]:
    """A few C-STORE and C-ECHO requests, each in the PDUs that a peer might make of it."""
    found = []
    for number in range(draw(st.integers(1, 3))):
        if draw(st.integers(0, 4)) == 0:
            asked = echo_command(number)
            values = fragments(asked, draw(SIZES), is_command=True, context=ECHO_CONTEXT)
        else:
            uid = draw(st.sampled_from([sop_uid(number), "1.2.33", Collecting.REFUSED, "not.a.uid"]))
            data = draw(st.binary(min_size=1, max_size=600))
            asked = command(received(ct_instance(), sop_instance_uid=uid), message_id=number)
            values = fragments(asked, draw(SIZES), is_command=True) + fragments(data, draw(SIZES), is_command=False)
        # Values go into PDUs as they come, some together.
        pdus, together = [], []
        for value in values:
            together.append(value)
            if draw(st.booleans()):
                pdus.append(p_data_tf(*together))
                together = []
        found.append(b"".join(pdus) + (p_data_tf(*together) if together else b""))
    return found


def test_any_fragmentation_is_kept_and_answered_as_pynetdicom_would() -> None:
    mine, theirs = Collecting(), Collecting()
    with ours(mine) as entity, stock(theirs) as port, rude_peer(entity.port) as one, rude_peer(port) as other:

        @settings(max_examples=120, deadline=None)
        @given(requests=messages(), cuts=st.lists(st.integers(1, 1500), max_size=4))
        def law(requests: list[bytes], cuts: list[int]) -> None:
            for request in requests:
                at = 0
                for end in sorted({*(cut for cut in cuts if cut < len(request)), len(request)}):
                    one.send(request[at:end])
                    at = end
                other.send(request)
                assert one.pdu() == other.pdu()
            assert mine.came == theirs.came

        law()
        assert len(mine.came) > 50
        for peer in (one, other):
            peer.send(RELEASE)
            assert peer.pdu()[0] == RELEASE_RP
    assert eventually(lambda: mine.endings == theirs.endings == ["released"])


class Receiver:
    """The receive path over a real archive and index."""

    def __init__(self, root: Path) -> None:
        self.root = root / "archive"
        self.index = Index.open(f"sqlite:///{root / 'index.sqlite'}")
        self.archive = Archive(self.root)
        self.intake = Intake(archive=self.archive, studies=self.index.studies)

    def kept(self, number: int) -> list[bytes]:
        return [data_set_of(self.archive.path_of(row.path)) for row in self.index.studies.find(sop_uid(number))]

    def endings(self) -> list[tuple[int, int]]:
        found = self.index.studies.receptions()
        return [(reception.open_associations, reception.aborted_associations) for reception in found]


@pytest.fixture
def receiver(tmp_path: Path) -> Iterator[Receiver]:
    receiver = Receiver(tmp_path)
    yield receiver
    receiver.index.close()


@pytest.fixture
def entity(receiver: Receiver) -> Iterator[ApplicationEntity]:
    with ours(receiver.intake, dimse=1.0) as entity:
        yield entity


def eventually(condition: Callable[[], bool]) -> bool:
    until = time.monotonic() + SECONDS
    # Asked once more, what held a moment ago may not: whoever was let in may not have left yet.
    while not (holds := condition()) and time.monotonic() < until:
        time.sleep(0.02)
    return holds


def status_of(pdu: tuple[int, bytes]) -> int:
    """The status of a response that is whole in its PDU."""
    kind, data = pdu
    assert kind == 4, f"PDU of type {kind}"
    at = data.index(struct.pack("<HHL", 0, 0x0900, 2)) + 8
    return int(struct.unpack_from("<H", data, at)[0])


def serves(entity: ApplicationEntity, number: int) -> bool:
    """Whether the next association is served."""
    with rude_peer(entity.port) as peer:
        peer.send(whole(received(ct_instance(number))))
        answer = status_of(peer.pdu())
        peer.send(RELEASE)
        return answer == 0x0000 and peer.pdu()[0] == RELEASE_RP


COMMAND = command(received(ct_instance(2)))
DATA = encoded(ct_instance(2))
SENT = p_data_tf(pdv(COMMAND, is_command=True))


@pytest.mark.parametrize(
    "rude",
    [
        p_data_tf(pdv(DATA)),
        p_data_tf(pdv(DATA, is_last=False)) + SENT,
        p_data_tf(pdv(COMMAND[:20], is_command=True, is_last=False)) + p_data_tf(pdv(DATA)),
        SENT + p_data_tf(pdv(DATA[:50], is_last=False)) + SENT,
        SENT + p_data_tf(pdv(DATA[:50], is_last=False)) + p_data_tf(pdv(cancel_command(), is_command=True)),
        SENT + p_data_tf(pdv(DATA, context=ECHO_CONTEXT)),
        p_data_tf(pdv(COMMAND, is_command=True, context=REFUSED_CONTEXT)) + p_data_tf(pdv(DATA)),
        p_data_tf(pdv(COMMAND, is_command=True, context=77)) + p_data_tf(pdv(DATA)),
        p_data_tf(struct.pack(">LB", 1, CT_CONTEXT)),
        SENT + p_data_tf(struct.pack(">LB", 1, CT_CONTEXT)),
        SENT + struct.pack(">BBL", 4, 0, 20) + struct.pack(">LBB", 1000, CT_CONTEXT, 2) + bytes(14),
        p_data_tf(pdv(b"", is_command=True)),
        p_data_tf(pdv(b"\xff" * 50, is_command=True)),
        p_data_tf(*[pdv(bytes(60000), is_command=True, is_last=False)] * 2),
        SENT + struct.pack(">BBL", 9, 0, 0),
        SENT + struct.pack(">BBL", 1, 0, 0xFFFFFFFF) + bytes(50),
        SENT + associate_rq(),
        struct.pack(">BBL", 2, 0, 4) + bytes(4),
    ],
    ids=[
        *("data without a command", "data before its command", "data before the command's end"),
        *("a command within data", "a cancel within data", "data in another context", "a refused context"),
        *("an unknown context", "no control header", "no control header of data", "a value longer than its PDU"),
        *("an empty command", "a command of nonsense", "an endless command", "an unknown PDU", "a PDU without end"),
        *("a second association request", "an answer to no request"),
    ],
)
def test_what_breaks_the_rules_aborts_its_association_alone(
    entity: ApplicationEntity, receiver: Receiver, rude: bytes
) -> None:
    with rude_peer(entity.port) as peer:
        peer.send(whole(received(ct_instance(1))))
        assert status_of(peer.pdu()) == 0x0000
        peer.send(rude)
        assert peer.pdu()[0] == ABORT
        assert serves(entity, 3)
    assert eventually(lambda: receiver.endings() == [(0, 1)])
    assert receiver.kept(2) == []
    assert len(files_below(receiver.root)) == 2


@pytest.mark.parametrize("ending", [A_ABORT, RELEASE, b""], ids=["abort", "release", "gone"])
@pytest.mark.parametrize("begun", [b"", SENT[:3], SENT[:30], SENT, SENT + p_data_tf(pdv(DATA[:50], is_last=False))])
def test_an_end_in_the_middle_leaves_nothing_half(
    entity: ApplicationEntity, receiver: Receiver, begun: bytes, ending: bytes
) -> None:
    with rude_peer(entity.port) as peer:
        peer.send(whole(received(ct_instance(1))))
        assert status_of(peer.pdu()) == 0x0000
        peer.send(begun, ending)
        if ending == RELEASE and not 0 < len(begun) < len(SENT):
            assert peer.pdu()[0] == RELEASE_RP
    assert eventually(lambda: [opened for opened, _ in receiver.endings()] == [0])
    assert receiver.kept(2) == []
    assert len(files_below(receiver.root)) == 1
    assert serves(entity, 2)


def test_a_cancel_and_an_echo_between_two_instances_disturb_neither(
    entity: ApplicationEntity, receiver: Receiver
) -> None:
    with rude_peer(entity.port) as peer:
        peer.send(whole(received(ct_instance(1))))
        assert status_of(peer.pdu()) == 0x0000
        peer.send(p_data_tf(pdv(cancel_command(), is_command=True)))
        peer.send(p_data_tf(pdv(echo_command(), is_command=True, context=ECHO_CONTEXT)))
        assert status_of(peer.pdu()) == 0x0000
        peer.send(whole(received(ct_instance(2))))
        assert status_of(peer.pdu()) == 0x0000
    assert [receiver.kept(number) for number in (1, 2)] == [[encoded(ct_instance(number))] for number in (1, 2)]


def test_a_peer_that_does_not_wait_for_answers_gets_one_for_each_request(
    entity: ApplicationEntity, receiver: Receiver
) -> None:
    first, second = (received(ct_instance(number)) for number in (1, 2))
    together = p_data_tf(
        pdv(command(first), is_command=True),
        pdv(encoded(ct_instance(1))),
        pdv(command(second, message_id=2), is_command=True),
        pdv(encoded(ct_instance(2))),
    )
    with rude_peer(entity.port) as peer:
        peer.send(together + whole(received(ct_instance(3))) + RELEASE)
        assert [status_of(peer.pdu()) for _ in range(3)] == [0x0000] * 3
        assert peer.pdu()[0] == RELEASE_RP
    assert all(receiver.kept(number) == [encoded(ct_instance(number))] for number in (1, 2, 3))
    assert eventually(lambda: receiver.endings() == [(0, 0)])


def test_a_peer_that_releases_at_once_gets_its_answers_first(entity: ApplicationEntity) -> None:
    echoes = [p_data_tf(pdv(echo_command(n), is_command=True, context=ECHO_CONTEXT)) for n in (1, 2, 3)]
    for _ in range(20):
        with rude_peer(entity.port) as peer:
            peer.send(b"".join(echoes) + RELEASE)
            assert [status_of(peer.pdu()) for _ in echoes] == [0x0000] * 3
            assert peer.pdu()[0] == RELEASE_RP


def test_an_odd_request_in_the_middle_of_a_pdu_is_still_answered(entity: ApplicationEntity, receiver: Receiver) -> None:
    odd = command(received(ct_instance(), sop_instance_uid="not.a.uid"))
    with rude_peer(entity.port) as peer:
        values = (pdv(COMMAND, is_command=True), pdv(DATA), pdv(odd, is_command=True), pdv(DATA))
        peer.send(p_data_tf(*values))
        assert [status_of(peer.pdu()) for _ in range(2)] == [0x0000, 0xC000]
        peer.send(whole(received(ct_instance(3))))
        assert status_of(peer.pdu()) == 0x0000
    assert receiver.kept(2) == [DATA]


def test_the_answer_comes_in_pdus_that_the_peer_allows(entity: ApplicationEntity) -> None:
    peer = RudePeer(entity.port)
    try:
        peer.associate(maximum_length=64)
        peer.send(whole(received(ct_instance(1))))
        answer = b""
        while True:
            kind, pdu = peer.pdu()
            assert kind == 4
            assert len(pdu) <= 6 + 64
            answer += pdu[12:]
            if pdu[11] & 2:
                break
        assert struct.pack("<HHLH", 0, 0x0900, 2, 0) in answer
    finally:
        peer.close()


def big(number: int, megabytes: int) -> bytes:
    return encoded(ct_instance(number, PixelData=bytes(range(256)) * (megabytes << 12)))


def send_in_pdus(peer: RudePeer, number: int, data: bytes, *, upto: int | None = None) -> None:
    """A C-STORE request whose data set goes out in PDUs of 64 KB, up to this byte."""
    peer.send(p_data_tf(pdv(command(received(ct_instance(number))), is_command=True)))
    step = 65536 - 6
    for at in range(0, len(data) if upto is None else upto, step):
        peer.send(p_data_tf(pdv(data[at : at + step], is_last=at + step >= len(data))))


def test_a_large_object_goes_to_the_disk_as_it_comes(entity: ApplicationEntity, receiver: Receiver) -> None:
    data = big(1, 24)
    incoming = receiver.root / "incoming"
    with rude_peer(entity.port) as peer:
        send_in_pdus(peer, 1, data, upto=12 << 20)
        assert eventually(lambda: sum(path.stat().st_size for path in incoming.iterdir()) > 11 << 20)
        peer.send(A_ABORT)
        assert eventually(lambda: list(incoming.iterdir()) == [])
    with rude_peer(entity.port) as peer:
        for _ in range(2):
            send_in_pdus(peer, 1, data)
            assert status_of(peer.pdu()) == 0x0000
        send_in_pdus(peer, 1, other := big(1, 5) + struct.pack("<HH2sHL", 0x7FE1, 0x10, b"OB", 0, 0))
        assert status_of(peer.pdu()) == 0x0000
    assert receiver.kept(1) == [data, other]
    assert list(incoming.iterdir()) == []
    (row, _) = receiver.index.studies.find(sop_uid(1))
    receiver.archive.verify(row.path, row.sha256)
    assert row.attributes["Modality"] == "CT"


def test_a_disk_that_fills_up_in_the_middle_leaves_nothing_and_takes_the_next_one(
    entity: ApplicationEntity, receiver: Receiver, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    left = [6 << 20]

    write = Spool.write

    def full(self: Spool, data: bytes | memoryview, /) -> int:
        left[0] -= len(data)
        if left[0] < 0:
            raise OSError(28, "No space left on device")
        return write(self, data)

    monkeypatch.setattr(Spool, "write", full)
    with rude_peer(entity.port) as peer, caplog.at_level(logging.WARNING):
        send_in_pdus(peer, 1, big(1, 16))
        assert status_of(peer.pdu()) == 0xA700
        assert files_below(receiver.root) == []
        left[0] = 1 << 30
        send_in_pdus(peer, 1, data := big(1, 16))
        assert status_of(peer.pdu()) == 0x0000
    assert receiver.kept(1) == [data]
    assert [record.message for record in caplog.records] == ["instance refused"]


def test_a_message_that_trickles_in_is_given_up(
    entity: ApplicationEntity, receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING), rude_peer(entity.port) as peer:
        peer.send(whole(received(ct_instance(1))))
        assert status_of(peer.pdu()) == 0x0000
        time.sleep(1.5)
        until = time.monotonic() + SECONDS
        for byte in whole(received(ct_instance(2))):
            try:
                peer.send(bytes([byte]))
            except ConnectionError:
                break
            time.sleep(0.05)
            if not receiver.endings() or receiver.endings()[0][0] == 0 or time.monotonic() > until:
                break
    assert eventually(lambda: receiver.endings() == [(0, 1)])
    assert receiver.kept(2) == []
    assert "too slowly" in str([record.__dict__ for record in caplog.records])
    assert serves(entity, 3)


def test_a_message_for_pynetdicom_is_held_in_memory_only_up_to_a_limit(
    entity: ApplicationEntity, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upper_layer, "_LONGEST_MESSAGE", 8 << 20)
    endless = command_set(
        (0x0002, VERIFICATION.encode() + b"\x00"),
        (0x0100, struct.pack("<H", 0x0030)),
        (0x0110, struct.pack("<H", 1)),
        (0x0800, struct.pack("<H", 1)),
    )
    with rude_peer(entity.port) as peer:
        peer.send(p_data_tf(pdv(endless, is_command=True, context=ECHO_CONTEXT)))
        part = p_data_tf(pdv(bytes(131000), is_last=False, context=ECHO_CONTEXT))
        sent = 0
        try:
            while sent < 60 << 20:
                peer.send(part)
                sent += len(part)
        except OSError:
            # It was ended, or is not read from any more.
            pass
        # Beside the message, what lies in the buffers of both sockets.
        assert 7 << 20 < sent < 40 << 20
    assert serves(entity, 1)


def test_no_bytes_keep_the_next_association_from_being_served(entity: ApplicationEntity) -> None:
    seed = whole(received(ct_instance(2)))

    @settings(max_examples=60, deadline=None)
    @given(
        places=st.lists(st.tuples(st.integers(0, 200), st.integers(0, 255)), min_size=1, max_size=6),
        end=st.integers(1, len(seed)),
    )
    def law(places: list[tuple[int, int]], end: int) -> None:
        data = bytearray(seed)
        for place, value in places:
            data[place] = value
        with rude_peer(entity.port) as peer:
            peer.send(bytes(data[:end]))

    law()
    assert serves(entity, 3)
    assert eventually(lambda: entity._ae.active_associations == [])


def test_a_data_set_of_any_bytes_is_answered(entity: ApplicationEntity) -> None:
    request = received(ct_instance(1), data_set=BytesIO(b"\xff" * 1000))
    with rude_peer(entity.port) as peer:
        peer.send(whole(request))
        assert status_of(peer.pdu()) == 0xC000
