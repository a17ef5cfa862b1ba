"""C-STORE: its request's command read, and its response's command written, by hand (PS3.7 Section 9.3.1).

Commands are Implicit VR Little Endian, elements in the order of their tags. Only the plainest request is read here,
which is nearly every one; whatever is odd about another is for pynetdicom to judge.
"""

import struct
from typing import NamedTuple

from dicom_node.core.uid import is_uid

_C_STORE_RQ, _C_STORE_RSP = 0x0001, 0x8001
_NO_DATA_SET = 0x0101

_ELEMENT = struct.Struct("<HHL")
_US = struct.Struct("<H")

# Elements of group 0000.
_GROUP_LENGTH = 0x0000
_AFFECTED_SOP_CLASS_UID = 0x0002
_COMMAND_FIELD = 0x0100
_MESSAGE_ID = 0x0110
_MESSAGE_ID_BEING_RESPONDED_TO = 0x0120
_PRIORITY = 0x0700
_COMMAND_DATA_SET_TYPE = 0x0800
_STATUS = 0x0900
_ERROR_COMMENT = 0x0902
_AFFECTED_SOP_INSTANCE_UID = 0x1000
_MOVE_ORIGINATOR_AE_TITLE = 0x1030
_MOVE_ORIGINATOR_MESSAGE_ID = 0x1031

#: The elements that a request has, by their length; None: any. Retired ones may be there, too, and mean nothing.
_LENGTHS = {
    _GROUP_LENGTH: 4,
    _AFFECTED_SOP_CLASS_UID: None,
    _COMMAND_FIELD: 2,
    _MESSAGE_ID: 2,
    _PRIORITY: 2,
    _COMMAND_DATA_SET_TYPE: 2,
    _AFFECTED_SOP_INSTANCE_UID: None,
    _MOVE_ORIGINATOR_AE_TITLE: None,
    _MOVE_ORIGINATOR_MESSAGE_ID: 2,
}
_REQUIRED = frozenset(_LENGTHS) - {_GROUP_LENGTH, _MOVE_ORIGINATOR_AE_TITLE, _MOVE_ORIGINATOR_MESSAGE_ID}


class StoreRequest(NamedTuple):
    """What a C-STORE request announces."""

    message_id: int
    sop_class_uid: str
    sop_instance_uid: str


def read_store_request(command: bytes) -> StoreRequest | None:
    """The request of this command; None where it is another's, or not of the plainest form."""
    elements: dict[int, bytes] = {}
    at, end = 0, len(command)
    while at < end:
        if at + _ELEMENT.size > end:
            return None
        group, number, length = _ELEMENT.unpack_from(command, at)
        start, at = at + _ELEMENT.size, at + _ELEMENT.size + length
        if group or at > end or number in elements or _LENGTHS.get(number) not in (None, length):
            return None
        elements[number] = command[start:at]
    if not elements.keys() >= _REQUIRED or _US.unpack(elements[_COMMAND_FIELD])[0] != _C_STORE_RQ:
        return None
    if _US.unpack(elements[_COMMAND_DATA_SET_TYPE])[0] == _NO_DATA_SET:
        return None
    sop_class_uid = _uid(elements[_AFFECTED_SOP_CLASS_UID])
    sop_instance_uid = _uid(elements[_AFFECTED_SOP_INSTANCE_UID])
    if not sop_class_uid or not sop_instance_uid:
        return None
    return StoreRequest(_US.unpack(elements[_MESSAGE_ID])[0], sop_class_uid, sop_instance_uid)


def _uid(value: bytes) -> str:
    """The UID, its padding removed, also by spaces as some pad it; empty where it is none."""
    text = value.rstrip(b"\x00 ").decode("ascii", errors="replace")
    return text if is_uid(text) else ""


def store_response(request: StoreRequest, status: int, comment: str = "") -> bytes:
    """The command of the answer to a request; a comment of ASCII characters, for a failure."""
    elements = [
        _element(_AFFECTED_SOP_CLASS_UID, _padded(request.sop_class_uid, b"\x00")),
        _element(_COMMAND_FIELD, _US.pack(_C_STORE_RSP)),
        _element(_MESSAGE_ID_BEING_RESPONDED_TO, _US.pack(request.message_id)),
        _element(_COMMAND_DATA_SET_TYPE, _US.pack(_NO_DATA_SET)),
        _element(_STATUS, _US.pack(status)),
        _element(_ERROR_COMMENT, _padded(comment, b" ")) if comment else b"",
        _element(_AFFECTED_SOP_INSTANCE_UID, _padded(request.sop_instance_uid, b"\x00")),
    ]
    command = b"".join(elements)
    return _element(_GROUP_LENGTH, struct.pack("<L", len(command))) + command


def _element(number: int, value: bytes) -> bytes:
    return _ELEMENT.pack(0, number, len(value)) + value


def _padded(text: str, padding: bytes) -> bytes:
    value = text.encode("ascii", errors="replace")
    return value + padding * (len(value) % 2)
