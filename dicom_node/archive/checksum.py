"""The checksum by which a content is known."""

import hashlib
from collections.abc import Iterator
from io import SEEK_END, BytesIO

from dicom_node.core.received_instance import EncodedDataSet

_READ_BYTES = 256 << 10


def sha256_of(file: EncodedDataSet) -> str:
    """The checksum of what the file holds from here on, 64 hex digits; the file is at its end afterwards."""
    digest = hashlib.sha256()
    for piece in pieces_of(file):
        digest.update(piece)
    return digest.hexdigest()


def pieces_of(file: EncodedDataSet) -> Iterator[bytes | memoryview]:
    """What the file holds from here on, uncopied where it is in memory; the file is at its end afterwards."""
    if isinstance(file, BytesIO):
        start = file.tell()
        file.seek(0, SEEK_END)
        yield file.getbuffer()[start:]
    while chunk := file.read(_READ_BYTES):
        yield chunk
