"""Our own data path: what breaks the rules ends its own association alone, and what keeps to them is answered."""

import struct
import time
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dicom_node.scp.application_entity import ApplicationEntity
from dicom_node.scp.transport import LOOK_SECONDS
from tests.instances import ct_instance, encoded, files_below, received, sop_uid
from tests.receivers import Receiver, eventually, receiving
from tests.rude_peer import (
    A_ABORT,
    ABORT,
    CT_CONTEXT,
    ECHO_CONTEXT,
    REFUSED_CONTEXT,
    RELEASE,
    RELEASE_RP,
    RudePeer,
    associate_rq,
    cancel_command,
    command,
    echo_command,
    p_data_tf,
    pdv,
    rude_peer,
    serves,
    status_of,
    whole,
)


@pytest.fixture
def receiver(tmp_path: Path) -> Iterator[Receiver]:
    """One that gives up soon whoever sends a message slowly."""
    with receiving(tmp_path, dimse=1.0) as receiver:
        yield receiver


@pytest.fixture
def entity(receiver: Receiver) -> ApplicationEntity:
    return receiver.entity


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
        assert serves(entity.port, received(ct_instance(3)))
    assert eventually(lambda: receiver.endings() == [(0, 1)])
    assert receiver.kept(sop_uid(2)) == []
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
    assert receiver.kept(sop_uid(2)) == []
    assert len(files_below(receiver.root)) == 1
    assert serves(entity.port, received(ct_instance(2)))


def test_a_long_fragment_whose_rest_comes_late_is_kept(entity: ApplicationEntity, receiver: Receiver) -> None:
    long = ct_instance(3)
    long.PixelData = bytes(200_000)
    request = whole(received(long))
    with rude_peer(entity.port) as peer:
        for at in range(0, len(request), 70_000):
            peer.send(request[at : at + 70_000])
            # Longer than the kernel waits for the rest by itself.
            time.sleep(2 * LOOK_SECONDS)
        assert status_of(peer.pdu()) == 0x0000
    assert len(files_below(receiver.root)) == 1


def test_a_long_fragment_whose_rest_never_comes_ends_its_association(
    entity: ApplicationEntity, receiver: Receiver
) -> None:
    with rude_peer(entity.port) as peer:
        peer.send(SENT, p_data_tf(pdv(bytes(100_000)))[:50_000])
        assert peer.pdu()[0] == A_ABORT[0]
    assert files_below(receiver.root) == []
    assert serves(entity.port, received(ct_instance(9)))


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
    assert [receiver.kept(sop_uid(number)) for number in (1, 2)] == [
        [encoded(ct_instance(number))] for number in (1, 2)
    ]


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
    assert all(receiver.kept(sop_uid(number)) == [encoded(ct_instance(number))] for number in (1, 2, 3))
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
    assert receiver.kept(sop_uid(2)) == [DATA]


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
    assert serves(entity.port, received(ct_instance(3)))
    assert eventually(lambda: entity._ae.active_associations == [])


def test_a_data_set_of_any_bytes_is_answered(entity: ApplicationEntity) -> None:
    request = received(ct_instance(1), data_set=BytesIO(b"\xff" * 1000))
    with rude_peer(entity.port) as peer:
        peer.send(whole(request))
        assert status_of(peer.pdu()) == 0xC000
