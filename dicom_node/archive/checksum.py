"""The checksum by which a content is known."""

import hashlib
from collections.abc import Iterator
from io import SEEK_END, BytesIO

from dicom_node.core.received_instance import CollectedDataSet, EncodedDataSet

_READ_BYTES = 256 << 10


def sha256_of(file: EncodedDataSet) -> str:
    """The checksum of what the file holds from here on, 64 hex digits; the file is at its end afterwards."""
    digest = hashlib.sha256()
    for piece in pieces_of(file):
        digest.update(piece)
    return digest.hexdigest()


def pieces_of(file: EncodedDataSet) -> Iterator[bytes | memoryview]:
    """What the file holds from here on, uncopied where it is in memory; the file is at its end afterwards."""
    whole = whole_of(file)
    if whole is not None:
        start = file.tell()
        file.seek(0, SEEK_END)
        yield whole[start:]
    while chunk := file.read(_READ_BYTES):
        yield chunk


def whole_of(file: EncodedDataSet) -> memoryview | None:
    """All that the file holds, uncopied; None where it is not in memory."""
    if isinstance(file, CollectedDataSet):
        return file.held()
    return file.getbuffer() if isinstance(file, BytesIO) else None
