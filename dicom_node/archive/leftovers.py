"""What a stop at any moment leaves in incoming/: names of files that may be whole or not."""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path, PurePosixPath

from pydicom.errors import InvalidDicomError

from dicom_node.archive.checksum import sha256_of
from dicom_node.archive.file_meta import open_data_set
from dicom_node.archive.places import spread_of
from dicom_node.archive.second_name import told_by


def leftovers(incoming: Path, before: float) -> Iterator[tuple[Path, bool | None]]:
    """The names since before this time, and whether each is the second name of a whole file; None: the disk fails."""
    for path in sorted(incoming.iterdir()):
        with suppress(FileNotFoundError):
            found = path.stat()
            if found.st_mtime < before:
                yield path, found.st_nlink > 1 and _is_whole(path)


def torn_place(path: Path) -> PurePosixPath | None:
    """The place that a second name tells; None where it tells none."""
    told = told_by(path.name)
    if told is None:
        return None
    return PurePosixPath("studies", spread_of(told.study_uid), told.study_uid, told.series_uid, f"{told.file_name}.dcm")


def _is_whole(incoming: Path) -> bool | None:
    """Whether a file is what its second name says it must be; None where the disk does not give it."""
    told = told_by(incoming.name)
    if told is None:
        # Such a name has a second one only when its file is whole.
        return True
    try:
        _, file = open_data_set(incoming)
        with file:
            return told.fits(sha256_of(file))
    except InvalidDicomError:
        return False
    except FileNotFoundError:
        raise
    except OSError:
        return None
