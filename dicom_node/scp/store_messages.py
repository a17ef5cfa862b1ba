"""Plain C-STORE requests of one association: collected from their fragments, kept, and answered.

A message's command comes first and says whether it is for us (see [c_store]); the bytes of any other are given back.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple, cast

from dicom_node.core.received_instance import CollectedDataSet
from dicom_node.reception.storage import Arrival, Sender, Storage
from dicom_node.scp.announcement import announced, sender_of
from dicom_node.scp.c_store import StoreRequest, read_store_request, store_response
from dicom_node.scp.p_data import P_DATA_TF, PDU_HEADER, BrokenPDU, Cutter, Piece, p_data

if TYPE_CHECKING:
    from pynetdicom.association import Association

#: Real commands have some hundred bytes.
_LONGEST_COMMAND = 64 << 10

#: What is left of a fragment is read to where it stays; less is cheaper to copy than to ask the kernel for.
_LONG_REST = 32 << 10

_TWO_CONTEXTS = "fragments of one message came in two presentation contexts"


class Taken(NamedTuple):
    """What became of bytes that came in."""

    #: How many of them are used up.
    used: int
    #: Whether the message was answered, or is another's; where not, more bytes are needed, or no data come next.
    is_over: bool
    #: What is to be put back of another's message: a PDU, and the beginning of a second one.
    given_back: list[bytes]


class StoreMessages:
    """Takes what comes in P-DATA-TF PDUs; for the thread of one association's upper layer."""

    def __init__(self, association: "Association", storage: Storage, answer: Callable[[bytes], None]) -> None:
        """`answer` sends a whole message, given as its PDUs."""
        self._association, self._storage, self._answer = association, storage, answer
        self._cutter = Cutter()
        self._collected = CollectedDataSet()
        self._command = bytearray()
        self._context_id = 0
        self._request: StoreRequest | None = None
        self._arrival: Arrival | None = None
        self._sender: Sender | None = None
        #: Whether an instance is whole, and its sender waits for the answer.
        self.is_keeping = False

    @property
    def in_pdu(self) -> bool:
        """Whether a PDU was begun and is not at its end."""
        return self._cutter.in_pdu

    @property
    def in_message(self) -> bool:
        """Whether a message was begun and is not at its end."""
        return self._cutter.in_pdu or bool(self._command) or self._arrival is not None

    def take(self, view: memoryview) -> Taken:
        """Take what is there of fragments, to the end of their message or of the PDUs with data.

        BrokenPDU where the fragments make no message.
        """
        cutter, at, size = self._cutter, 0, len(view)
        while cutter.in_pdu or (size - at >= PDU_HEADER.size and view[at] == P_DATA_TF):
            used, piece = cutter.cut(view, at)
            at += used
            if piece is None:
                if not used:
                    break
            elif piece.is_command:
                if self._take_command(piece) and not self._begin():
                    return Taken(at, True, self._given_back())
            elif self._take_data(piece):
                return Taken(at, True, [])
        return Taken(at, False, [])

    def room(self) -> memoryview | None:
        """Where the rest of the current fragment, or some of it, can be read to; None where `take` must have it."""
        cutter, arrival = self._cutter, self._arrival
        left = cutter.data_left
        if left < _LONG_REST or arrival is None or cutter.context_id != self._context_id:
            return None
        return arrival.room(left)

    def more_follows(self, room: memoryview) -> bool:
        """Whether the headers of another fragment must come behind what this room is for."""
        return len(room) == self._cutter.data_left and self._cutter.more_follows

    def filled(self, size: int) -> None:
        """So many bytes were read there; where the message is over, it is answered."""
        cast(Arrival, self._arrival).filled(size)
        if self._cutter.came(size):
            self._finish()

    def skip(self, size: int) -> int:
        """Leave out so much of the current PDU, or what is left of it; how much that is."""
        return self._cutter.skip(size)

    def drop(self) -> None:
        """Nothing stays of an instance that did not come in whole."""
        self._command.clear()
        if self._arrival is not None:
            self._arrival.discard()
            self._arrival = None

    def begin_anew(self) -> None:
        """As `drop`, and what comes next begins a PDU."""
        self.drop()
        self._cutter = Cutter()

    def _take_command(self, piece: Piece) -> bool:
        """Whether the command is whole."""
        if self._arrival is not None:
            raise BrokenPDU("a command came within a data set")
        if self._command and piece.context_id != self._context_id:
            raise BrokenPDU(_TWO_CONTEXTS)
        self._context_id = piece.context_id
        self._command += piece.data
        if len(self._command) > _LONGEST_COMMAND:
            raise BrokenPDU("a command is longer than it may be")
        return piece.is_end

    def _take_data(self, piece: Piece) -> bool:
        """Whether the message is over, and answered."""
        if piece.context_id != self._context_id and (self._command or self._arrival is not None):
            raise BrokenPDU(_TWO_CONTEXTS)
        if self._arrival is None:
            raise BrokenPDU("a data set came before its command was whole")
        self._arrival.write(piece.data)
        if piece.is_end:
            self._finish()
        return piece.is_end

    def _begin(self) -> bool:
        """Whether the command is a plain C-STORE request of an accepted context."""
        request = read_store_request(bytes(self._command))
        context = self._association._accepted_cx.get(self._context_id)
        if request is None or context is None or not self._storage.stores(str(context.abstract_syntax)):
            return False
        self._command.clear()
        self._sender = self._sender or sender_of(self._association)
        self._request = request
        self._arrival = self._storage.begin(self._sender, announced(request, context.as_tuple), self._collected)
        return True

    def _given_back(self) -> list[bytes]:
        """The command as a PDU, and the header of another with what is left of this one."""
        pdus = [p_data(self._context_id, bytes(self._command))]
        if self._cutter.in_pdu:
            pdus.append(PDU_HEADER.pack(P_DATA_TF, self._cutter.left))
        self.begin_anew()
        return pdus

    def _finish(self) -> None:
        """Keep the instance, and answer."""
        arrival, request = cast(Arrival, self._arrival), cast(StoreRequest, self._request)
        self._arrival, self.is_keeping = None, True
        try:
            status, comment = arrival.finish()
            answer = store_response(request, status, comment)
            self._answer(p_data(self._context_id, answer, self._association.dimse.maximum_pdu_size))
        finally:
            self.is_keeping = False
