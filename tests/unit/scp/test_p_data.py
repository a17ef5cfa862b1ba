"""Fragments are the same however the bytes come in, and the same as pynetdicom's."""

import struct
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pynetdicom import pdu as stock_pdu

from dicom_node.scp.p_data import BrokenPDU, Cutter, p_data
from tests.rude_peer import p_data_tf, pdv

PDVS = st.builds(
    pdv,
    st.binary(max_size=40),
    is_command=st.booleans(),
    is_last=st.booleans(),
    context=st.sampled_from([1, 3, 255]),
)
PDUS = st.lists(st.lists(PDVS, max_size=4), max_size=5)


def cut(chunks: list[bytes]) -> list[tuple[int, bool, bool, bytes]]:
    """Fragments of P-DATA-TF PDUs that come in these chunks, their pieces joined; no more of one is left than begun."""
    cutter, waiting, found = Cutter(), b"", []
    parts = b""
    for chunk in chunks:
        waiting += chunk
        while True:
            used, piece = cutter.cut(memoryview(waiting))
            waiting = waiting[used:]
            if piece is not None:
                parts += bytes(piece.data)
                if piece.is_end:
                    found.append((piece.context_id, piece.is_command, True, parts))
                    parts = b""
            elif not used:
                break
    assert not cutter.in_pdu
    return found


def stock(pdus: bytes) -> list[tuple[int, bool, bool, bytes]]:
    """The same by pynetdicom, the fragments up to each last one joined."""
    found, parts, at = [], b"", 0
    while at < len(pdus):
        size = 6 + struct.unpack_from(">L", pdus, at + 2)[0]
        pdu = stock_pdu.P_DATA_TF()
        pdu.decode(pdus[at : at + size])
        at += size
        for context_id, value in pdu.to_primitive().presentation_data_value_list:
            parts += value[1:]
            if value[0] & 2:
                found.append((context_id, bool(value[0] & 1), True, parts))
                parts = b""
    return found


@given(pdus=PDUS, ends=st.lists(st.integers(0, 400), max_size=12))
def test_fragments_are_the_same_whatever_chunks_the_bytes_come_in(pdus: list[list[bytes]], ends: list[int]) -> None:
    data = b"".join(p_data_tf(*values) for values in pdus)
    places = sorted({0, len(data), *(end for end in ends if end < len(data))})
    chunks = [data[begin:end] for begin, end in pairwise(places)]
    assert cut(chunks) == cut([bytes([byte]) for byte in data]) == stock(data)


@given(command=st.binary(min_size=1, max_size=300), maximum=st.one_of(st.just(0), st.integers(7, 400)))
def test_a_command_goes_out_in_pdus_that_the_receiver_allows(command: bytes, maximum: int) -> None:
    data = p_data(3, command, maximum)
    assert cut([data]) == [(3, True, True, command)]
    at = 0
    while at < len(data):
        length = struct.unpack_from(">L", data, at + 2)[0]
        assert not maximum or length <= maximum
        at += 6 + length


@pytest.mark.parametrize(
    "pdu",
    [
        p_data_tf(struct.pack(">LB", 1, 1)),
        p_data_tf(struct.pack(">LB", 1, 1) + b"more"),
        p_data_tf(struct.pack(">LBB", 0, 1, 3)),
        p_data_tf(struct.pack(">LBB", 100, 1, 3) + b"short"),
        p_data_tf(struct.pack(">LBB", 0xFFFFFFFF, 1, 3) + b"short"),
        p_data_tf(pdv(b"whole"), b"\x00"),
    ],
    ids=["no control header", "one byte", "nothing", "longer than its PDU", "as long as can be", "a byte behind"],
)
def test_lengths_that_contradict_each_other_are_refused(pdu: bytes) -> None:
    with pytest.raises(BrokenPDU):
        cut([pdu])


@given(data=st.binary(max_size=200))
def test_no_bytes_raise_anything_else(data: bytes) -> None:
    cutter, waiting = Cutter(), b"\x04\x00" + data
    try:
        while (answer := cutter.cut(memoryview(waiting)))[0]:
            waiting = waiting[answer[0] :]
    except BrokenPDU:
        pass


def test_the_rest_of_a_pdu_can_be_left_out() -> None:
    cutter, data = Cutter(), p_data_tf(pdv(b"first"), pdv(b"second"))
    used, piece = cutter.cut(memoryview(data))
    assert piece is not None
    assert bytes(piece.data) == b"first"
    assert cutter.left == len(data) - used
    assert cutter.skip(3) == 3
    assert cutter.in_pdu
    assert cutter.skip(1000) == len(data) - used - 3
    assert not cutter.in_pdu
