"""The checksum by which a content is known."""

import hashlib

from dicom_node.core.received_instance import EncodedDataSet

_READ_BYTES = 256 << 10


def sha256_of(file: EncodedDataSet) -> str:
    """The checksum of what the file holds from here on, 64 hex digits; the file is at its end afterwards."""
    digest = hashlib.sha256()
    while chunk := file.read(_READ_BYTES):
        digest.update(chunk)
    return digest.hexdigest()
