"""Our own data path beside pynetdicom's: whatever a peer sends in whatever pieces, both keep and answer alike."""

import random
import time
from collections.abc import Iterator
from contextlib import contextmanager

from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import AE
from pynetdicom.presentation import build_context

from dicom_node.core.errors import DatasetMismatch
from dicom_node.core.received_instance import ReceivedInstance
from dicom_node.reception.watermark import DiskWatermark
from dicom_node.scp.application_entity import ApplicationEntity, Timeouts
from dicom_node.scp.handlers import Handlers
from dicom_node.settings import NodeSettings, Settings
from tests.instances import ct_instance, received, sop_uid
from tests.receivers import eventually
from tests.rude_peer import (
    ECHO_CONTEXT,
    RELEASE,
    RELEASE_RP,
    VERIFICATION,
    command,
    echo_command,
    fragments,
    p_data_tf,
    rude_peer,
)


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


@st.composite
def long_messages(draw: st.DrawFn) -> tuple[bytes, list[int]]:
    """A C-STORE request whose fragments are read to where they stay, and where in it the peer holds its breath."""
    size = draw(st.integers(1, 400_000))
    data = random.Random(size).randbytes(size)
    asked = command(received(ct_instance(), sop_instance_uid=sop_uid(size)))
    sizes = draw(st.lists(st.sampled_from([0, 1, 32_767, 32_768, 65_536, 131_060]), max_size=5))
    together = draw(st.booleans())
    values = fragments(data, sizes, is_command=False)
    pdus = [p_data_tf(*values)] if together and size < 100_000 else [p_data_tf(value) for value in values]
    request = p_data_tf(*fragments(asked, [], is_command=True)) + b"".join(pdus)
    return request, draw(st.lists(st.integers(1, len(request)), max_size=6))


def test_long_fragments_are_kept_as_pynetdicom_would_wherever_their_bytes_are_held_up() -> None:
    mine, theirs = Collecting(), Collecting()
    with ours(mine) as entity, stock(theirs) as port, rude_peer(entity.port) as one, rude_peer(port) as other:

        @settings(max_examples=40, deadline=None)
        @given(message=long_messages())
        def law(message: tuple[bytes, list[int]]) -> None:
            request, cuts = message
            at = 0
            for end in sorted({*cuts, len(request)}):
                one.send(request[at:end])
                # Long enough that what came is read before the next.
                time.sleep(0.005)
                at = end
            other.send(request)
            assert one.pdu() == other.pdu()
            assert mine.came == theirs.came

        law()
        assert max(len(came[-1]) for came in mine.came) > 100_000  # type: ignore[arg-type]  # bytes


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
