"""The archive's files: every instance as it was received, whole or not at all, never overwritten.

Layout below the root; paths are given relative to it:

    studies/<2 hex digits>/<Study UID>/<Series UID>/<SOP Instance UID>.dcm
                                                    <SOP Instance UID>.<12 hex digits>.dcm   other content, same UID
    results/...                                     the same, for what this node made
    incoming/, outgoing/                            files that are not whole yet
"""

import hashlib
import os
import shutil
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from pydicom.errors import InvalidDicomError

from dicom_node.archive.file_meta import FileMeta, encode_file_meta, open_data_set
from dicom_node.core.errors import CannotUnderstand, UnreadableInstance
from dicom_node.core.uid import is_uid

# Readable by the node's own user and group: the files hold patient data.
_FILE_MODE = 0o640
_DIRECTORY_MODE = 0o750

# Workers write results while a node starts; no worker takes this long between opening a file and naming it.
_OUTGOING_LEFTOVER_SECONDS = 86400.0

_COPY_BYTES = 1 << 20


@dataclass(frozen=True, kw_only=True)
class KeptFile:
    """Where an instance lies, and what its content is."""

    #: Relative to the archive's root.
    path: str
    #: Of the data set's bytes, without the file meta information.
    sha256: str
    #: Of the data set.
    size_bytes: int
    #: False where the same content lay there already.
    written: bool


class Archive:
    """The files below one directory; safe to share between threads and processes."""

    def __init__(self, root: Path) -> None:
        """Make the directories that are missing; OSError where that is not possible."""
        self._root = root
        for name in ("studies", "results", "incoming", "outgoing"):
            _make_directory(root / name)

    def store(self, data_set: BinaryIO, meta: FileMeta, *, study_uid: str, series_uid: str) -> KeptFile:
        """Keep a data set's bytes behind a file meta information of ours, durable at return.

        The same content under the same UIDs is found and kept as it is; other content is put beside it. OSError where
        the disk does not take it, CannotUnderstand where a UID is none; neither leaves a file.
        """
        data_set.seek(0)
        sha256 = _sha256(data_set)
        size_bytes = data_set.tell()
        for path in self._places(meta, study_uid, series_uid, sha256):
            written = self._write_new(path, data_set, meta)
            if written or self._holds(path, sha256, meta.transfer_syntax_uid):
                _sync_directory(self._root / path.parent)
                return KeptFile(path=str(path), sha256=sha256, size_bytes=size_bytes, written=written)
        raise FileExistsError(f"{path} was damaged on disk; move it away and send the instance again")

    def store_result(self, *, study_uid: str, series_uid: str, sop_uid: str, data: bytes) -> str:
        """Keep a whole DICOM file that this node made, durable at return, in place of an earlier one of its UID."""
        path = _place("results", study_uid, series_uid, sop_uid)
        final = self._root / path
        _make_directory(final.parent)
        with self._temporary("outgoing", lambda file: file.write(data)) as temporary:
            temporary.replace(final)
        _sync_directory(final.parent)
        return str(path)

    def path_of(self, relative: str) -> Path:
        """The absolute path of a kept file."""
        return self._root / relative

    def verify(self, relative: str, sha256: str) -> None:
        """Raise UnreadableInstance unless the kept data set is what was received; OSError where the disk fails."""
        try:
            _, file = open_data_set(self._root / relative)
            with file:
                found = _sha256(file)
        except (OSError, InvalidDicomError, AttributeError) as error:
            # A disk that fails says nothing of the file, and may be back; what a parser raises bears no number.
            if isinstance(error, OSError) and error.errno and not isinstance(error, FileNotFoundError):
                raise
            raise UnreadableInstance(f"{relative} cannot be read: {error}; send the study again") from error
        if found != sha256:
            raise UnreadableInstance(f"{relative} was altered on disk since it was received; send the study again")

    def free_bytes(self) -> int:
        """Room that is left for this user on the archive's disk."""
        disk = os.statvfs(self._root)
        return disk.f_bavail * disk.f_frsize

    def sweep(self) -> int:
        """Remove what an earlier process left unfinished, and return how many; for the one receiver, at its start."""
        before = time.time() - _OUTGOING_LEFTOVER_SECONDS
        old = (path for path in (self._root / "outgoing").iterdir() if _written_before(path, before))
        leftovers = [*(self._root / "incoming").iterdir(), *old]
        for path in leftovers:
            path.unlink(missing_ok=True)
        return len(leftovers)

    def _places(self, meta: FileMeta, study_uid: str, series_uid: str, sha256: str) -> Iterator[PurePosixPath]:
        first = _place("studies", study_uid, series_uid, meta.sop_instance_uid)
        yield first
        # The transfer syntax is part of the content: the same bytes mean something else in another one.
        content = hashlib.sha256(f"{meta.transfer_syntax_uid} {sha256}".encode()).hexdigest()
        yield first.with_name(f"{meta.sop_instance_uid}.{content[:12]}.dcm")

    def _holds(self, path: PurePosixPath, sha256: str, transfer_syntax_uid: str) -> bool:
        try:
            syntax, file = open_data_set(self._root / path)
        except (FileNotFoundError, InvalidDicomError, AttributeError):
            return False
        with file:
            return syntax == transfer_syntax_uid and _sha256(file) == sha256

    def _write_new(self, path: PurePosixPath, data_set: BinaryIO, meta: FileMeta) -> bool:
        """Write the file unless its name is taken; of two that try at once, one is told that it is."""
        final = self._root / path
        if final.exists():
            return False
        _make_directory(final.parent)
        with self._temporary("incoming", lambda file: _write(file, data_set, meta)) as temporary:
            try:
                # A link fails where a rename would overwrite.
                os.link(temporary, final)
            except FileExistsError:
                return False
        return True

    @contextmanager
    def _temporary(self, area: str, write: Callable[[BinaryIO], object]) -> Iterator[Path]:
        """A file that is written and on the disk, to be given its name; gone afterwards under its own."""
        path = self._root / area / uuid.uuid4().hex
        try:
            with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, _FILE_MODE), "wb") as file:
                write(file)
                file.flush()
                os.fsync(file.fileno())
            yield path
        finally:
            path.unlink(missing_ok=True)


def _place(area: str, study_uid: str, series_uid: str, sop_uid: str) -> PurePosixPath:
    for name, uid in (("Study", study_uid), ("Series", series_uid), ("SOP", sop_uid)):
        if not is_uid(uid):
            raise CannotUnderstand(f"{name} Instance UID is no UID; mend it at the sender")
    # Two digits of a hash keep any one directory from growing huge.
    spread = hashlib.sha256(study_uid.encode()).hexdigest()[:2]
    return PurePosixPath(area, spread, study_uid, series_uid, f"{sop_uid}.dcm")


def _sha256(file: BinaryIO) -> str:
    digest = hashlib.sha256()
    while chunk := file.read(_COPY_BYTES):
        digest.update(chunk)
    return digest.hexdigest()


def _written_before(path: Path, moment: float) -> bool:
    try:
        return path.stat().st_mtime < moment
    except FileNotFoundError:
        return False


def _write(file: BinaryIO, data_set: BinaryIO, meta: FileMeta) -> None:
    file.write(encode_file_meta(meta))
    data_set.seek(0)
    shutil.copyfileobj(data_set, file, _COPY_BYTES)


def _make_directory(path: Path) -> None:
    """Make a directory and its parents, each one's name on the disk before anything is put into it."""
    if path.is_dir():
        return
    if not path.parent.is_dir():
        _make_directory(path.parent)
    path.mkdir(mode=_DIRECTORY_MODE, exist_ok=True)
    _sync_directory(path.parent)


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
