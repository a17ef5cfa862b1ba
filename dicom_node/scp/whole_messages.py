"""Whole messages: what we send on an accepted association goes out with nothing of another message within it.

An association has three senders: its own thread, the upper layer that answers C-STORE requests, and threads that have a
request of ours. pynetdicom hands on a message PDU by PDU, and between two of them another sender's might slip in.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from pynetdicom.dimse import _RQ_TO_MESSAGE, _RSP_TO_MESSAGE, DIMSEServiceProvider
from pynetdicom.pdu import P_DATA_TF

if TYPE_CHECKING:
    from pynetdicom.association import Association


class WholeMessages(DIMSEServiceProvider):
    """Encodes each message whole before any of it is sent."""

    def __init__(self, association: "Association", send: Callable[[bytes], None]) -> None:
        """`send` takes a whole message, as PDUs."""
        super().__init__(association)
        self._send = send

    def send_msg(self, primitive: Any, context_id: int) -> None:
        """Send a request of ours, or an answer; from any thread."""
        messages = _RQ_TO_MESSAGE if primitive.MessageIDBeingRespondedTo is None else _RSP_TO_MESSAGE
        message = messages[type(primitive)]()
        message.primitive_to_message(primitive)
        message.context_id = context_id
        parts = message.encode_msg(context_id, self.maximum_pdu_size)
        self._send(b"".join(P_DATA_TF(part).encode() for part in parts))
