"""Places: where a content lies in the archive, by its UIDs; paths are relative to the archive's root."""

import hashlib
from collections.abc import Iterator
from pathlib import PurePosixPath

from dicom_node.core.errors import CannotUnderstand
from dicom_node.core.uid import is_uid


def place(area: str, study_uid: str, series_uid: str, sop_uid: str) -> PurePosixPath:
    """Under its UIDs; CannotUnderstand where one is none, for it would be part of a path."""
    for name, uid in (("Study", study_uid), ("Series", series_uid), ("SOP", sop_uid)):
        if not is_uid(uid):
            raise CannotUnderstand(f"{name} Instance UID is no UID; mend it at the sender")
    return PurePosixPath(area, spread_of(study_uid), study_uid, series_uid, f"{sop_uid}.dcm")


def places(first: PurePosixPath, transfer_syntax_uid: str, sha256: str) -> Iterator[PurePosixPath]:
    """Where a content may lie: under its UIDs, and beside other content of the same."""
    yield first
    # The transfer syntax is part of the content: the same bytes mean something else in another one.
    content = hashlib.sha256(f"{transfer_syntax_uid} {sha256}".encode()).hexdigest()
    yield first.with_name(f"{first.stem}.{content[:12]}.dcm")


def spread_of(study_uid: str) -> str:
    """The directory of an area that a study lies in: two digits of a hash keep any one from growing huge."""
    return hashlib.sha256(study_uid.encode()).hexdigest()[:2]
