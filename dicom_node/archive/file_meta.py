"""File Meta Information: what stands before a data set in a DICOM file (PS3.10 Section 7.1)."""

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO

from pydicom.errors import InvalidDicomError
from pydicom.filereader import read_file_meta_info

from dicom_node.archive.header import BROKEN_BYTES
from dicom_node.core.implementation import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME

_PREAMBLE = b"\x00" * 128 + b"DICM"

# The group length element itself: tag, VR, length and four bytes of value.
_GROUP_LENGTH_END = len(_PREAMBLE) + 12


@dataclass(frozen=True, kw_only=True)
class FileMeta:
    """The facts of the transfer that a file must carry, since its data set does not."""

    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str
    sending_ae_title: str
    receiving_ae_title: str


def encode_file_meta(meta: FileMeta) -> bytes:
    """Preamble, prefix and group 0002 in Explicit VR Little Endian; the data set's bytes follow it unchanged."""
    ends = _ends(meta.sop_class_uid, meta.transfer_syntax_uid, meta.sending_ae_title, meta.receiving_ae_title)
    elements = _element(0x0003, b"UI", meta.sop_instance_uid).join(ends)
    return _PREAMBLE + struct.pack("<HH2sHL", 0x0002, 0x0000, b"UL", 4, len(elements)) + elements


@lru_cache(maxsize=64)
def _ends(sop_class_uid: str, transfer_syntax_uid: str, sender: str, receiver: str) -> tuple[bytes, bytes]:
    """What stands before the SOP instance's UID, and behind it: the same for all that an association sends."""
    # OB has two reserved bytes and a length of four (PS3.5 Section 7.1.2).
    version = struct.pack("<HH2sHL", 0x0002, 0x0001, b"OB", 0, 2) + b"\x00\x01"
    behind = (
        _element(0x0010, b"UI", transfer_syntax_uid),
        _element(0x0012, b"UI", IMPLEMENTATION_CLASS_UID),
        _element(0x0013, b"SH", IMPLEMENTATION_VERSION_NAME),
        _element(0x0016, b"AE", sender),
        _element(0x0017, b"AE", sender),
        _element(0x0018, b"AE", receiver),
    )
    return version + _element(0x0002, b"UI", sop_class_uid), b"".join(behind)


def open_data_set(path: Path) -> tuple[str, BinaryIO]:
    """The transfer syntax of a file that this node wrote, and the file opened at its data set.

    InvalidDicomError where the file is no DICOM file or its meta information is damaged, OSError where the disk fails.
    """
    with _naming_damage():
        meta = read_file_meta_info(path)
        syntax, start = str(meta.TransferSyntaxUID), _GROUP_LENGTH_END + int(meta.FileMetaInformationGroupLength)
    file = path.open("rb")
    file.seek(start)
    return syntax, file


def read_file_meta(path: Path) -> FileMeta:
    """The file meta information of a file that this node wrote; errors as of `open_data_set`."""
    with _naming_damage():
        meta = read_file_meta_info(path)
        return FileMeta(
            sop_class_uid=str(meta.MediaStorageSOPClassUID),
            sop_instance_uid=str(meta.MediaStorageSOPInstanceUID),
            transfer_syntax_uid=str(meta.TransferSyntaxUID),
            sending_ae_title=str(meta.get("SendingApplicationEntityTitle", "")),
            receiving_ae_title=str(meta.get("ReceivingApplicationEntityTitle", "")),
        )


@contextmanager
def _naming_damage() -> Iterator[None]:
    """Whatever broken bytes make pydicom raise is InvalidDicomError; what the disk says, with its number, stays."""
    try:
        yield
    except InvalidDicomError:
        raise
    except BROKEN_BYTES as error:
        if isinstance(error, OSError) and error.errno:
            raise
        raise InvalidDicomError(f"its file meta information is damaged ({type(error).__name__})") from error


def _element(element: int, vr: bytes, value: str) -> bytes:
    padding = b"\x00" if vr == b"UI" else b" "
    encoded = value.encode("ascii", errors="replace")
    encoded += padding * (len(encoded) % 2)
    return struct.pack("<HH2sH", 0x0002, element, vr, len(encoded)) + encoded
