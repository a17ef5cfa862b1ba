"""The stock: which files lie in the archive, found by listing directories and never by looking at each file."""

import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from dicom_node.archive.directories import sync_directory
from dicom_node.archive.files import Archive
from dicom_node.archive.places import spread_of

AREAS = ("studies", "results")

#: How many directories the studies of an area are spread over.
SPREADS = 256


class Stock:
    """The files of an archive by study, and their removal; paths are relative to the archive's root."""

    def __init__(self, archive: Archive) -> None:
        self._path_of = archive.path_of

    def is_empty(self) -> bool:
        """Whether no study lies there at all."""
        return not any(self.study_uids("studies", spread) for spread in range(SPREADS))

    def study_uids(self, area: str, spread: int) -> list[str]:
        """The studies below one of the 256 directories of an area."""
        return sorted(_names_in(self._path_of(f"{area}/{spread:02x}")))

    def files_of(self, study_uid: str, areas: Iterable[str] = AREAS) -> list[str]:
        """Every file of a study, received or made."""
        found = []
        for area in areas:
            study = f"{area}/{spread_of(study_uid)}/{study_uid}"
            for series in _names_in(self._path_of(study)):
                folder = f"{study}/{series}"
                found += [f"{folder}/{name}" for name in _names_in(self._path_of(folder))]
        return sorted(found)

    def missing(self, paths: Iterable[str]) -> list[str]:
        """Those of the paths where no file lies; each directory is listed once."""
        directories: dict[str, list[str]] = {}
        for path in paths:
            directories.setdefault(os.path.dirname(path), []).append(path)
        gone = []
        for directory, wanted in directories.items():
            names = _names_in(self._path_of(directory))
            gone += [path for path in wanted if os.path.basename(path) not in names]
        return gone

    def size_bytes(self, path: str) -> int:
        """How long a file is; 0 where there is none."""
        try:
            return self._path_of(path).stat().st_size
        except FileNotFoundError:
            return 0

    def lain_since(self, paths: Iterable[str], moment: float) -> list[str]:
        """Those of the files that were last written before this time."""
        found = []
        for path in paths:
            with suppress(FileNotFoundError):
                if self._path_of(path).stat().st_mtime < moment:
                    found.append(path)
        return found

    def remove(self, paths: Iterable[str]) -> None:
        """Remove files, and the directories that this leaves empty; what is gone already is no error."""
        directories = set()
        for relative in paths:
            path = self._path_of(relative)
            path.unlink(missing_ok=True)
            directories.add(path.parent)
        for series in sorted(directories):
            for directory in (series, series.parent):
                with suppress(OSError):
                    directory.rmdir()
            for directory in (series, series.parent, series.parent.parent):
                with suppress(FileNotFoundError):
                    sync_directory(directory)


def _names_in(directory: Path) -> frozenset[str]:
    """The names in a directory; none where there is no such."""
    try:
        return frozenset(os.listdir(directory))
    except (FileNotFoundError, NotADirectoryError):
        return frozenset()
