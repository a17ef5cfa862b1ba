"""Objects that do not fit into memory, and messages that are not let in: too long, too slow."""

import logging
import struct
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from dicom_node.archive.spool import Spool
from dicom_node.scp import upper_layer
from dicom_node.scp.application_entity import ApplicationEntity
from tests.instances import ct_instance, encoded, files_below, received, sop_uid
from tests.receivers import SECONDS, Receiver, eventually, receiving
from tests.rude_peer import (
    A_ABORT,
    ECHO_CONTEXT,
    VERIFICATION,
    RudePeer,
    command,
    command_set,
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
    assert receiver.kept(sop_uid(1)) == [data, other]
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
    assert receiver.kept(sop_uid(1)) == [data]
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
    assert receiver.kept(sop_uid(2)) == []
    assert "too slowly" in str([record.__dict__ for record in caplog.records])
    assert serves(entity.port, received(ct_instance(3)))


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
    assert serves(entity.port, received(ct_instance(1)))
