"""Keying: of each new study one header is read for the keyed hashes by which it is found and audited."""

import logging
import time
from collections.abc import Callable, Mapping
from io import BytesIO

from pydicom.errors import InvalidDicomError

from dicom_node.archive.file_meta import open_data_set
from dicom_node.archive.files import Archive
from dicom_node.archive.header import read_header
from dicom_node.archive.index import Index
from dicom_node.core.errors import CannotUnderstand
from dicom_node.telemetry import hashed

log = logging.getLogger(__name__)

#: How often it is looked for new studies, and how many are taken at a time: receiving goes first.
KEYING_SECONDS = 2.0
_MOST = 100
#: Studies may share a moment, and of two that arrive at once the earlier may be in the index later.
_LOOK_BACK_SECONDS = 60.0
#: Of a file, so much at most: both stand near its beginning.
_HEADER_BYTES = 4 << 20


def key_of(text: str, key: bytes) -> str:
    """The hash of an identifier as people write it, with or without spaces around it; empty for none."""
    plain = text.strip()
    return hashed(plain, key) if plain else ""


class Keying:
    """Reads the headers of studies that lack their keys, a few in each round."""

    def __init__(self, index: Index, archive: Archive, key: bytes, clock: Callable[[], float] = time.time) -> None:
        self._index = index
        self._archive = archive
        self._key = key
        self._clock = clock
        self._since = 0.0

    def step(self) -> None:
        """One round."""
        lately = self._clock() - _LOOK_BACK_SECONDS
        # A clock that was set back gives new studies times that were passed already.
        found = self._index.study_keys.unkeyed(min(self._since, lately), _MOST)
        if not found:
            self._since = lately
            return
        keys: Mapping[str, tuple[str, str]] = {study.study_instance_uid: self._keys(study.path) for study in found}
        self._index.study_keys.keep(keys)
        # What was keyed is not found again.
        self._since = found[-1].last_received_at - _LOOK_BACK_SECONDS

    def _keys(self, path: str) -> tuple[str, str]:
        """Both hashes; empty ones for a file that is gone or damaged, which is the archive check's business."""
        try:
            syntax, file = open_data_set(self._archive.path_of(path))
            with file:
                found = read_header(BytesIO(file.read(_HEADER_BYTES)), syntax).searchable
            accession, patient = (str(found.get(name) or "") for name in ("AccessionNumber", "PatientID"))
        except (FileNotFoundError, InvalidDicomError, CannotUnderstand) as error:
            log.warning("a header could not be read for its keys", extra={"kind": type(error).__name__})
            return "", ""
        return key_of(accession, self._key), key_of(patient, self._key)
