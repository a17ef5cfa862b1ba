"""The second name of a file, in incoming/: it says what place the file has, and what its data set must be.

A file gets its place before its bytes are on the disk, so that the disk is waited for once. Should the power fail in
between, its second name tells at the next start whether it is whole, and where it lies.
"""

import os
import re
from dataclasses import dataclass
from pathlib import PurePosixPath

#: Of the checksum there is room for so many digits: a name has 255 bytes, and three UIDs may have 64 each.
_DIGITS = 32

_NAME = re.compile(r"[0-9a-f]{8}_([0-9.]+)_([0-9.]+)_([0-9a-f.]+)_([0-9a-f]{32})")


@dataclass(frozen=True, kw_only=True)
class SecondName:
    """What it says."""

    study_uid: str
    series_uid: str
    #: Without its ending.
    file_name: str
    #: The first digits of the data set's checksum.
    digest: str

    def fits(self, sha256: str) -> bool:
        """Whether the data set is what it must be."""
        return sha256.startswith(self.digest)


def second_name(place: PurePosixPath, sha256: str) -> str:
    """A new name for the file of this place, unlike any other."""
    study_uid, series_uid, file_name = place.parts[-3:]
    return "_".join((os.urandom(4).hex(), study_uid, series_uid, file_name.removesuffix(".dcm"), sha256[:_DIGITS]))


def told_by(name: str) -> SecondName | None:
    """What a name says; None where it is another's: a spool's, an earlier version's, a stranger's."""
    found = _NAME.fullmatch(name)
    if found is None:
        return None
    study_uid, series_uid, file_name, digest = found.groups()
    return SecondName(study_uid=study_uid, series_uid=series_uid, file_name=file_name, digest=digest)
