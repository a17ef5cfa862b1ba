"""The archive's files: every instance as it was received, whole or not at all, never overwritten.

Layout below the root; paths are given relative to it:

    studies/<2 hex digits>/<Study UID>/<Series UID>/<SOP Instance UID>.dcm
                                                    <SOP Instance UID>.<12 hex digits>.dcm   other content, same UID
    results/...                                     the same, for what this node made
    incoming/                                       a file while it is written, and a second name of it until the index
                                                    knows it: what a start after a power cut has to look at is here
    outgoing/                                       results that are not whole yet
"""

import fcntl
import hashlib
import os
import shutil
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from pydicom.errors import InvalidDicomError

from dicom_node.archive.file_meta import FileMeta, encode_file_meta, open_data_set
from dicom_node.archive.spool import FILE_MODE, Spool
from dicom_node.core.errors import CannotUnderstand, UnreadableInstance
from dicom_node.core.received_instance import EncodedDataSet
from dicom_node.core.study import Instance
from dicom_node.core.uid import is_uid

# For the node's own user and group, as its files.
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
    #: Its second name, in incoming/, for `indexed`; None where the same content lay there already.
    incoming: Path | None

    @property
    def written(self) -> bool:
        """Whether it is a new file."""
        return self.incoming is not None


class Archive:
    """The files below one directory; safe to share between threads and processes."""

    def __init__(self, root: Path) -> None:
        """Make the directories that are missing; OSError where that is not possible."""
        self._root = root
        for name in ("studies", "results", "incoming", "outgoing"):
            _make_directory(root / name)

    def spool(self, meta: FileMeta) -> Spool:
        """A file for a data set that comes in, to be given to `store` or discarded; OSError as of that."""
        return Spool(self._root / "incoming" / uuid.uuid4().hex, encode_file_meta(meta))

    def store(self, data_set: EncodedDataSet, meta: FileMeta, *, study_uid: str, series_uid: str) -> KeptFile:
        """Keep a data set's bytes behind a file meta information of ours, durable at return.

        The same content under the same UIDs is found and kept as it is; other content is put beside it. A new file has
        a second name until `indexed` is called with it. OSError where the disk does not take it, CannotUnderstand where
        a UID is none; neither leaves a file.
        """
        sha256, size_bytes = _checksum_and_size(data_set)
        first = _place("studies", study_uid, series_uid, meta.sop_instance_uid)
        for path in _places(first, meta.transfer_syntax_uid, sha256):
            incoming = self._write_new(path, data_set, meta)
            if incoming or self._holds(path, sha256, meta.transfer_syntax_uid):
                sync_directory(self._root / path.parent)
                return KeptFile(path=str(path), sha256=sha256, size_bytes=size_bytes, incoming=incoming)
        raise FileExistsError(f"{path} was damaged on disk; move it away and send the instance again")

    def indexed(self, kept: KeptFile) -> None:
        """The file's row is in the index: nothing is left to be mended of it should the power fail."""
        if kept.incoming is not None:
            kept.incoming.unlink(missing_ok=True)

    @contextmanager
    def filing(self, study_uid: str) -> Iterator[None]:
        """Hold while an instance of the study is filed and indexed: none of its files is removed meanwhile."""
        with self._locked(study_uid, fcntl.LOCK_SH):
            yield

    @contextmanager
    def emptying(self, study_uid: str) -> Iterator[bool]:
        """Hold while the study's files are removed; False where an instance is just being filed: try again later."""
        with ExitStack() as stack:
            try:
                stack.enter_context(self._locked(study_uid, fcntl.LOCK_EX | fcntl.LOCK_NB))
            except BlockingIOError:
                yield False
            else:
                yield True

    def store_result(self, *, study_uid: str, series_uid: str, sop_uid: str, data: bytes) -> str:
        """Keep a whole DICOM file that this node made, durable at return, in place of an earlier one of its UID."""
        path = _place("results", study_uid, series_uid, sop_uid)
        final = self._root / path
        _make_directory(final.parent)
        with self._temporary("outgoing", lambda file: file.write(data)) as temporary:
            temporary.replace(final)
        sync_directory(final.parent)
        return str(path)

    def result_path(self, *, study_uid: str, series_uid: str, sop_uid: str) -> str:
        """Where a result of these UIDs lies, if it is there; CannotUnderstand where one is no UID."""
        return str(_place("results", study_uid, series_uid, sop_uid))

    def path_of(self, relative: str) -> Path:
        """The absolute path of a kept file."""
        return self._root / relative

    def verify(self, relative: str, sha256: str) -> None:
        """Raise UnreadableInstance unless the kept data set is what was received; OSError where the disk fails.

        Of a result the checksum is that of the whole file.
        """
        try:
            path = self._root / relative
            with path.open("rb") if relative.startswith("results/") else open_data_set(path)[1] as file:
                found = sha256_of(file)
        except (FileNotFoundError, InvalidDicomError) as error:
            # Another OSError is the disk's: it says nothing of the file, and may be gone the next time.
            raise UnreadableInstance(f"{relative} cannot be read: {error}; send the study again") from error
        if found != sha256:
            raise UnreadableInstance(f"{relative} was altered on disk since it was received; send the study again")

    def holds_studies(self) -> bool:
        """Whether any study was ever filed here: a mount point without its mount is an empty folder."""
        try:
            with os.scandir(self._root / "studies") as found:
                return next(found, None) is not None
        except (FileNotFoundError, NotADirectoryError):
            return False

    def probe(self, size_bytes: int = _COPY_BYTES) -> None:
        """Write so much and remove it again; OSError where that is not possible."""
        with self._temporary("outgoing", lambda file: file.write(bytes(size_bytes))) as temporary:
            temporary.unlink()

    def free_bytes(self) -> int:
        """Room that is left for this user on the archive's disk."""
        disk = os.statvfs(self._root)
        return disk.f_bavail * disk.f_frsize

    def total_bytes(self) -> int:
        """The size of the archive's disk."""
        disk = os.statvfs(self._root)
        return disk.f_blocks * disk.f_frsize

    def leftovers(self, before: float) -> Iterator[tuple[Path, bool]]:
        """The names in incoming/ since before this time, and whether each is the second name of a whole file."""
        for path in sorted((self._root / "incoming").iterdir()):
            with suppress(FileNotFoundError):
                found = path.stat()
                if found.st_mtime < before:
                    yield path, found.st_nlink > 1

    def place_of(self, incoming: Path, instance: Instance) -> str | None:
        """The path of the file whose second name this is, by what it says of itself; None where there is none."""
        first = _place("studies", instance.study_instance_uid, instance.series_instance_uid, instance.sop_instance_uid)
        for path in _places(first, instance.transfer_syntax_uid, instance.sha256):
            with suppress(FileNotFoundError):
                if incoming.samefile(self._root / path):
                    return str(path)
        return None

    def sweep(self) -> int:
        """Remove the results that an earlier process left unfinished, and return how many."""
        before = time.time() - _OUTGOING_LEFTOVER_SECONDS
        old = [path for path in (self._root / "outgoing").iterdir() if _written_before(path, before)]
        for path in old:
            path.unlink(missing_ok=True)
        return len(old)

    def _holds(self, path: PurePosixPath, sha256: str, transfer_syntax_uid: str) -> bool:
        try:
            syntax, file = open_data_set(self._root / path)
        except (FileNotFoundError, InvalidDicomError):
            return False
        with file:
            return syntax == transfer_syntax_uid and sha256_of(file) == sha256

    def _write_new(self, path: PurePosixPath, data_set: EncodedDataSet, meta: FileMeta) -> Path | None:
        """Write the file unless its name is taken; of two that try at once, one is told that it is.

        Returns its name in incoming/, which it keeps.
        """
        final = self._root / path
        if final.exists():
            return None
        _make_directory(final.parent)
        if isinstance(data_set, Spool):
            data_set.sync()
            if not _linked(data_set.path, final):
                return None
            data_set.keep()
            return data_set.path
        with self._temporary("incoming", lambda file: _write(file, data_set, meta)) as temporary:
            if not _linked(temporary, final):
                temporary.unlink()
                return None
        return temporary

    @contextmanager
    def _temporary(self, area: str, write: Callable[[BinaryIO], object]) -> Iterator[Path]:
        """A file that is written and on the disk, to be given its name; gone where that or the writing fails."""
        path = self._root / area / uuid.uuid4().hex
        try:
            with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, FILE_MODE), "wb") as file:
                write(file)
                file.flush()
                os.fsync(file.fileno())
            yield path
        except BaseException:
            path.unlink(missing_ok=True)
            raise

    @contextmanager
    def _locked(self, study_uid: str, kind: int) -> Iterator[None]:
        """Lock the directory that the study lies in, against other threads and processes."""
        directory = self._root / "studies" / spread_of(study_uid)
        try:
            descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
        except FileNotFoundError:
            _make_directory(directory)
            descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.flock(descriptor, kind)
            yield
        finally:
            os.close(descriptor)


def _place(area: str, study_uid: str, series_uid: str, sop_uid: str) -> PurePosixPath:
    for name, uid in (("Study", study_uid), ("Series", series_uid), ("SOP", sop_uid)):
        if not is_uid(uid):
            raise CannotUnderstand(f"{name} Instance UID is no UID; mend it at the sender")
    return PurePosixPath(area, spread_of(study_uid), study_uid, series_uid, f"{sop_uid}.dcm")


def _places(first: PurePosixPath, transfer_syntax_uid: str, sha256: str) -> Iterator[PurePosixPath]:
    """Where a content may lie: under its UID, and beside other content of the same."""
    yield first
    # The transfer syntax is part of the content: the same bytes mean something else in another one.
    content = hashlib.sha256(f"{transfer_syntax_uid} {sha256}".encode()).hexdigest()
    yield first.with_name(f"{first.stem}.{content[:12]}.dcm")


def spread_of(study_uid: str) -> str:
    """The directory of an area that a study lies in: two digits of a hash keep any one from growing huge."""
    return hashlib.sha256(study_uid.encode()).hexdigest()[:2]


def _checksum_and_size(data_set: EncodedDataSet) -> tuple[str, int]:
    if isinstance(data_set, Spool):
        return data_set.sha256, data_set.size_bytes
    data_set.seek(0)
    return sha256_of(data_set), data_set.tell()


def _linked(temporary: Path, final: Path) -> bool:
    """Give the file its name; whether that was free.

    A link fails where a rename would overwrite. The first name stays: two names say that the file is whole, and that
    the index may not know it yet.
    """
    try:
        os.link(temporary, final)
    except FileExistsError:
        return False
    return True


def sha256_of(file: EncodedDataSet) -> str:
    """The checksum of what the file holds from here on, 64 hex digits; the file is at its end afterwards."""
    digest = hashlib.sha256()
    while chunk := file.read(_COPY_BYTES):
        digest.update(chunk)
    return digest.hexdigest()


def _written_before(path: Path, moment: float) -> bool:
    try:
        return path.stat().st_mtime < moment
    except FileNotFoundError:
        return False


def _write(file: BinaryIO, data_set: EncodedDataSet, meta: FileMeta) -> None:
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
    sync_directory(path.parent)


def sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
