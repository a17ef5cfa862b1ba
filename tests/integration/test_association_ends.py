"""Associations that end in the middle, or not at all, over real sockets."""

import socket
import threading
import time
from pathlib import Path

import pytest
from pynetdicom.dimse_messages import C_STORE_RQ

from tests.instances import ct_instance, files_below, received, sop_uid
from tests.receivers import SECONDS, Receiver, associated, c_store, eventually, primitive, receiving, send

# pydicom says what is odd about a data set; some odd ones are sent here.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:pydicom")


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
