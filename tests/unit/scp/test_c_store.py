"""Commands are read and written as pynetdicom reads and writes them, byte for byte."""

import struct
from io import BytesIO

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pynetdicom.dimse_messages import C_STORE_RQ, C_STORE_RSP
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.dsutils import encode

from dicom_node.core.uid import is_uid
from dicom_node.scp.c_store import StoreRequest, read_store_request, store_response
from tests.instances import ct_instance, received
from tests.rude_peer import cancel_command, command, command_set, echo_command

UIDS = st.lists(st.integers(0, 10**12), min_size=2, max_size=4).map(lambda parts: ".".join(map(str, parts)))
NUMBERS = st.integers(0, 0xFFFF)


def by_pynetdicom(message: C_STORE_RQ | C_STORE_RSP, primitive: C_STORE) -> bytes:
    message.primitive_to_message(primitive)
    encoded = encode(message.command_set, True, True)
    assert encoded is not None
    return encoded


def primitive(request: StoreRequest) -> C_STORE:
    found = C_STORE()
    found.MessageID = request.message_id
    found.AffectedSOPClassUID, found.AffectedSOPInstanceUID = request.sop_class_uid, request.sop_instance_uid
    return found


@given(message_id=NUMBERS, sop_class=UIDS, sop_instance=UIDS, priority=st.integers(0, 2), originator=st.booleans())
def test_what_pynetdicom_asks_for_is_understood(
    message_id: int, sop_class: str, sop_instance: str, priority: int, originator: bool
) -> None:
    request = StoreRequest(message_id, sop_class, sop_instance)
    asked = primitive(request)
    asked.Priority, asked.DataSet = priority, BytesIO(b"data")
    if originator:
        asked.MoveOriginatorApplicationEntityTitle, asked.MoveOriginatorMessageID = "MOVER", 7
    assert read_store_request(by_pynetdicom(C_STORE_RQ(), asked)) == request


@given(
    request=st.builds(StoreRequest, NUMBERS, UIDS, UIDS),
    status=st.sampled_from([0x0000, 0x0122, 0xA700, 0xA900, 0xC000, 0xC0FF]),
    comment=st.text(st.characters(codec="ascii", exclude_categories=["C"], exclude_characters="\\"), max_size=64),
)
def test_the_answer_is_pynetdicoms_byte_for_byte(request: StoreRequest, status: int, comment: str) -> None:
    comment = comment.strip()
    answer = primitive(request)
    answer.MessageIDBeingRespondedTo, answer.Status = request.message_id, status
    if comment:
        answer.ErrorComment = comment
    assert store_response(request, status, comment) == by_pynetdicom(C_STORE_RSP(), answer)


PLAIN = command(received(ct_instance()))


@pytest.mark.parametrize(
    "odd",
    [
        b"",
        PLAIN[:-1],
        PLAIN + b"\x00",
        PLAIN + PLAIN[12:],
        echo_command(),
        cancel_command(),
        command(received(ct_instance()), data_set_type=0x0101),
        command(received(ct_instance(), sop_instance_uid="../../Secret")),
        command(received(ct_instance(), sop_class_uid="")),
        PLAIN.replace(struct.pack("<HHL", 0, 0x0700, 2), struct.pack("<HHL", 0, 0x0701, 2)),
        PLAIN.replace(struct.pack("<HHL", 0, 0x0110, 2), struct.pack("<HHL", 8, 0x0110, 2)),
        command_set((0x0100, b"\x01\x00")),
    ],
    ids=[
        *("nothing", "cut", "a byte more", "twice", "an echo", "a cancel", "no data set", "no UID", "no class"),
        *("no priority", "another group", "nearly nothing"),
    ],
)
def test_an_odd_command_is_left_to_pynetdicom(odd: bytes) -> None:
    assert read_store_request(odd) is None


@given(places=st.lists(st.tuples(st.integers(0, len(PLAIN) - 1), st.integers(0, 255)), max_size=6))
def test_no_damage_raises_and_what_is_understood_has_uids(places: list[tuple[int, int]]) -> None:
    data = bytearray(PLAIN)
    for place, value in places:
        data[place] = value
    request = read_store_request(bytes(data))
    assert request is None or (is_uid(request.sop_class_uid) and is_uid(request.sop_instance_uid))
