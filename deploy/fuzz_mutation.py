"""Mutations of what real senders sent: PDUs and command sets that lie, break off, or come in the wrong order.

The seeds are the bytes of whole associations, as DCMTK's and pynetdicom's senders wrote them.
"""

import random
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

SEEDS = Path(__file__).with_name("fuzz_seeds")

_HEADER = struct.Struct(">BxL")
_ELEMENT = struct.Struct("<HHL")

#: Numbers at the rims of what a field can hold.
_RIMS = (0, 1, 2, 3, 7, 127, 128, 255, 256, 0x7FFF, 0x8000, 0xFFFE, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)

_MOST_MUTATIONS = 3

Pdus = list[bytes]


def seeds() -> list[Pdus]:
    """Each recorded association, as its PDUs."""
    return [pdus_of(path.read_bytes()) for path in sorted(SEEDS.glob("*.bin"))]


def pdus_of(data: bytes) -> Pdus:
    """The PDUs of a stream, by their lengths; what is left as the last one where these lie."""
    found, at = [], 0
    while at + _HEADER.size <= len(data):
        end = at + _HEADER.size + _HEADER.unpack_from(data, at)[1]
        found.append(data[at:end])
        at = end
    return [*found, data[at:]] if at < len(data) else found


@dataclass(frozen=True, kw_only=True)
class Mutant:
    """A conversation that differs from a recorded one."""

    data: bytes
    #: How many PDUs or command sets were changed, moved or left out; one may be changed again.
    mutations: int


def mutated(rng: random.Random, known: Sequence[Pdus]) -> Mutant:
    """A conversation that was changed at one to three places."""
    pdus = list(rng.choice(known))
    mutations = 0
    for _ in range(rng.randint(1, _MOST_MUTATIONS)):
        before = list(pdus)
        # The first PDU is the request of the association: most conversations get behind it.
        number = 0 if rng.random() < 0.2 else rng.randrange(min(1, len(pdus) - 1), len(pdus))
        mutation = rng.choices(list(_MUTATIONS), list(_MUTATIONS.values()))[0]
        mutation(rng, pdus, number, known)
        mutations += pdus != before
        if not pdus:
            break
    return Mutant(data=b"".join(pdus), mutations=mutations)


def _flip(rng: random.Random, pdus: Pdus, number: int, _known: Sequence[Pdus]) -> None:
    data = bytearray(pdus[number])
    for _ in range(rng.randint(1, 4) if data else 0):
        data[rng.randrange(len(data))] = rng.randrange(256)
    pdus[number] = bytes(data)


def _rim(rng: random.Random, pdus: Pdus, number: int, _known: Sequence[Pdus]) -> None:
    """A number of two or four bytes anywhere, the lengths of items and values among them, is at a rim."""
    form = struct.Struct(rng.choice((">H", "<H", ">L", "<L")))
    data = bytearray(pdus[number])
    if len(data) >= form.size:
        form.pack_into(data, rng.randrange(len(data) - form.size + 1), rng.choice(_RIMS) % (1 << 8 * form.size))
    pdus[number] = bytes(data)


def _resize(rng: random.Random, pdus: Pdus, number: int, _known: Sequence[Pdus]) -> None:
    """Bytes are missing or too many; half of the time the PDU's length says so."""
    data = pdus[number]
    place = rng.randrange(len(data) + 1)
    inserted = rng.randbytes(rng.randint(1, 64)) if rng.random() < 0.5 else b""
    data = data[:place] + inserted + data[place + (0 if inserted else rng.randint(1, 64)) :]
    pdus[number] = _with_length(data) if rng.random() < 0.5 else data


def _reorder(rng: random.Random, pdus: Pdus, number: int, known: Sequence[Pdus]) -> None:
    """A PDU is gone, comes twice, elsewhere, or is of another association."""
    pdu = pdus.pop(number)
    deed = rng.randrange(4)
    if deed == 1:
        pdus[number:number] = [pdu, pdu]
    elif deed == 2:
        pdus.insert(rng.randrange(len(pdus) + 1), pdu)
    elif deed == 3:
        pdus.insert(number, rng.choice(rng.choice(known)))


def _command(rng: random.Random, pdus: Pdus, number: int, known: Sequence[Pdus]) -> None:
    """An element of a command set is gone, comes twice, or has another number or value; all lengths are right."""
    parts = _command_in(pdus[number])
    if parts is None:
        _flip(rng, pdus, number, known)
        return
    context, control, elements, rest = parts
    chosen = rng.randrange(len(elements))
    tag, value = elements[chosen]
    deed = rng.randrange(6)
    if deed == 0:
        del elements[chosen]
    elif deed == 1:
        elements.insert(rng.randrange(len(elements) + 1), (tag, value))
    elif deed == 2:
        elements[chosen] = (rng.choice((rng.randrange(0x10000), *(other for other, _ in elements))), value)
    elif deed == 3:
        elements[chosen] = (tag, rng.randbytes(rng.choice((0, 1, 2, 3, 16, 64, 65, 300))))
    elif deed == 4:
        elements[chosen] = (tag, struct.pack("<H", rng.choice(_RIMS) & 0xFFFF))
    else:
        elements[chosen] = (tag, rng.choice(rng.choice(elements)[1:]))
    encoded = b"".join(_ELEMENT.pack(0, number, len(value)) + value for number, value in elements)
    if rng.random() < 0.1:
        context = rng.randrange(256)
    pdv = struct.pack(">LBB", len(encoded) + 2, context, control) + encoded
    pdus[number] = _with_length(pdus[number][: _HEADER.size] + pdv + rest)


def _command_in(pdu: bytes) -> tuple[int, int, list[tuple[int, bytes]], bytes] | None:
    """Context, control header and elements of the command that begins a P-DATA-TF PDU, and what follows it."""
    if len(pdu) < 12 or pdu[0] != 4:
        return None
    length, context, control = struct.unpack_from(">LBB", pdu, 6)
    at, end = 12, 10 + length
    if not control & 1 or end > len(pdu):
        return None
    elements = []
    while at + _ELEMENT.size <= end:
        _, tag, size = _ELEMENT.unpack_from(pdu, at)
        elements.append((tag, pdu[at + _ELEMENT.size : at + _ELEMENT.size + size]))
        at += _ELEMENT.size + size
    return (context, control, elements, pdu[end:]) if elements else None


def _with_length(data: bytes) -> bytes:
    if len(data) < _HEADER.size:
        return data
    return data[:2] + struct.pack(">L", len(data) - _HEADER.size) + data[_HEADER.size :]


#: Each mutation, and how often it comes.
_MUTATIONS: Mapping[Callable[[random.Random, Pdus, int, Sequence[Pdus]], None], int] = {
    _command: 5,
    _flip: 3,
    _rim: 3,
    _resize: 2,
    _reorder: 2,
}
