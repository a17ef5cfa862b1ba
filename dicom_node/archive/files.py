"""The archive's files: every instance as it was received, whole or not at all, never overwritten.

Layout below the root; paths are given relative to it:

    studies/<2 hex digits>/<Study UID>/<Series UID>/<SOP Instance UID>.dcm
                                                    <SOP Instance UID>.<12 hex digits>.dcm   other content, same UID
    results/...                                     the same, for what this node made
    incoming/                                       a file while it is written, and a second name of it until the index
                                                    knows it: what a start after a power cut has to look at is here
    outgoing/                                       results that are not whole yet
"""

import os
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from pydicom.errors import InvalidDicomError

from dicom_node.archive.checksum import pieces_of, sha256_of
from dicom_node.archive.directories import Directories, make_directory, sync_directory
from dicom_node.archive.file_meta import FileMeta, encode_file_meta, open_data_set
from dicom_node.archive.leftovers import leftovers, torn_place
from dicom_node.archive.places import place, places
from dicom_node.archive.second_name import second_name
from dicom_node.archive.spool import FILE_MODE, Spool, write_all
from dicom_node.archive.study_locks import StudyLocks
from dicom_node.core.errors import OutOfResources, UnreadableInstance
from dicom_node.core.received_instance import CollectedDataSet, EncodedDataSet
from dicom_node.core.study import Instance

# Workers write results while a node starts; no worker takes this long between opening a file and naming it.
_OUTGOING_LEFTOVER_SECONDS = 86400.0

_PROBE_BYTES = 1 << 20

_LOCKS = 256

#: Directories of an instance that may be new: those of its series, its study, and the study's spread.
_LEVELS = 3


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
        # Every instance has half a dozen paths; a Path takes longer to be made than the kernel to follow it.
        self._top = os.fspath(root)
        for name in ("studies", "results", "incoming", "outgoing"):
            make_directory(root / name)
        self._directories = Directories()
        self._locks = StudyLocks(root / "studies")
        # Of two threads that file the same instance, one waits until the other's file is on the disk.
        self._filing = [threading.Lock() for _ in range(_LOCKS)]

    def spool(self, meta: FileMeta) -> Spool:
        """A file for a data set that comes in, to be given to `store` or discarded; OSError as of that."""
        return Spool(self._root / "incoming" / uuid.uuid4().hex, encode_file_meta(meta))

    def store(self, data_set: EncodedDataSet, meta: FileMeta, *, study_uid: str, series_uid: str) -> KeptFile:
        """Keep a data set's bytes behind a file meta information of ours, durable at return.

        The same content under the same UIDs is found and kept as it is; other content is put beside it. A new file has
        a second name until `indexed` is called with it. OSError where the disk does not take it, CannotUnderstand where
        a UID is none, OutOfResources where each of its places holds a damaged file; none of them leaves a file.
        """
        sha256, size_bytes = _checksum_and_size(data_set)
        first = place("studies", study_uid, series_uid, meta.sop_instance_uid)
        with self._filing[hash(first) % _LOCKS]:
            for path in places(first, meta.transfer_syntax_uid, sha256):
                incoming = self._write_new(path, data_set, meta, sha256)
                if incoming or self._holds(path, sha256, meta.transfer_syntax_uid):
                    if incoming is None:
                        self.settle(str(path))
                    return KeptFile(path=str(path), sha256=sha256, size_bytes=size_bytes, incoming=incoming)
        raise OutOfResources(f"its file was damaged on disk; move {path} away and send again")

    def settle(self, relative: str) -> None:
        """Let a file that is there be on the disk at return, with its name."""
        final = self._root / relative
        descriptor = os.open(final, os.O_RDONLY)
        try:
            self._directories.sync(os.fspath(final.parent), levels=_LEVELS, with_file=descriptor)
        except OSError:
            # The next wait would succeed all the same, and memory still holds what the disk did not take (fsync(2)):
            # whoever compares the file next must see what is on the disk.
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            raise
        finally:
            os.close(descriptor)

    def indexed(self, kept: KeptFile) -> None:
        """The file's row is in the index: nothing is left to be mended of it should the power fail."""
        if kept.incoming is not None:
            _remove(kept.incoming)

    def withdraw(self, kept: KeptFile) -> None:
        """Leave nothing of a new file that the index does not take; one that was there before stays."""
        if kept.incoming is not None:
            _remove(self._root / kept.path)
            _remove(kept.incoming)

    def filing(self, *study_uids: str) -> AbstractContextManager[None]:
        """Hold while instances of these studies are filed and indexed: none of their files is removed meanwhile."""
        return self._locks.filing(*study_uids)

    def emptying(self, study_uid: str) -> AbstractContextManager[bool]:
        """Hold while the study's files are removed; False where an instance is just being filed: try again later."""
        return self._locks.emptying(study_uid)

    def store_result(self, *, study_uid: str, series_uid: str, sop_uid: str, data: bytes) -> str:
        """Keep a whole DICOM file that this node made, durable at return, in place of an earlier one of its UID."""
        path = place("results", study_uid, series_uid, sop_uid)
        final = self._root / path
        make_directory(final.parent)
        with self._temporary("outgoing", lambda file: file.write(data)) as temporary:
            temporary.replace(final)
        sync_directory(final.parent)
        return str(path)

    def result_path(self, *, study_uid: str, series_uid: str, sop_uid: str) -> str:
        """Where a result of these UIDs lies, if it is there; CannotUnderstand where one is no UID."""
        return str(place("results", study_uid, series_uid, sop_uid))

    def path_of(self, relative: str) -> Path:
        """The absolute path of a kept file."""
        return self._root / relative

    def name_of(self, relative: str) -> str:
        """The same as text: to make a path of it takes as long as to open the file."""
        return f"{self._top}/{relative}"

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

    def probe(self, size_bytes: int = _PROBE_BYTES) -> None:
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

    def leftovers(self, before: float) -> Iterator[tuple[Path, bool | None]]:
        """The names in incoming/ since before this time, and whether each is the second name of a whole file."""
        return leftovers(self._root / "incoming", before)

    def torn_place(self, incoming: Path) -> str | None:
        """The path of the file whose second name this is, by that name alone: its content tells nothing."""
        path = torn_place(incoming)
        return str(path) if path is not None and _is_same(incoming, self._root / path) else None

    def place_of(self, incoming: Path, instance: Instance) -> str | None:
        """The path of the file whose second name this is, by what it says of itself; None where there is none."""
        first = place("studies", instance.study_instance_uid, instance.series_instance_uid, instance.sop_instance_uid)
        for path in places(first, instance.transfer_syntax_uid, instance.sha256):
            if _is_same(incoming, self._root / path):
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

    def _write_new(self, path: PurePosixPath, data_set: EncodedDataSet, meta: FileMeta, sha256: str) -> Path | None:
        """Write the file unless its name is taken; returns its name in incoming/, which it keeps."""
        final = f"{self._top}/{path}"
        if os.path.exists(final):
            return None
        folder = os.path.dirname(final)
        if isinstance(data_set, Spool):
            return self._name_spool(data_set, final, folder)
        incoming, is_linked = f"{self._top}/incoming/{second_name(path, sha256)}", False
        try:
            descriptor = os.open(incoming, os.O_WRONLY | os.O_CREAT | os.O_EXCL, FILE_MODE)
            try:
                _write(descriptor, data_set, meta)
                is_linked = self._linked(incoming, final, folder)
                if is_linked:
                    # The bytes and both names at once.
                    self._directories.sync(folder, levels=_LEVELS, with_file=descriptor)
            finally:
                os.close(descriptor)
        except BaseException:  # also what ends the process: half a file must not stay
            # Nobody has it yet: who files the same instance waits for us.
            if is_linked:
                _remove(final)
            _remove(incoming)
            raise
        if not is_linked:
            _remove(incoming)
            return None
        return Path(incoming)

    def _linked(self, temporary: str, final: str, folder: str) -> bool:
        """As `_linked`, in a folder that is made where it is missing: of most instances it is there."""
        try:
            return _linked(temporary, final)
        except FileNotFoundError:
            self._directories.make(folder)
            return _linked(temporary, final)

    def _name_spool(self, spool: Spool, final: str, folder: str) -> Path | None:
        spool.sync()
        if not self._linked(os.fspath(spool.path), final, folder):
            return None
        try:
            self._directories.sync(folder, levels=_LEVELS)
        except BaseException:  # as above
            _remove(final)
            raise
        spool.keep()
        return spool.path

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
        except BaseException:  # also what ends the process: half a file must not stay
            path.unlink(missing_ok=True)
            raise


def _checksum_and_size(data_set: EncodedDataSet) -> tuple[str, int]:
    if isinstance(data_set, Spool | CollectedDataSet):
        return data_set.sha256, data_set.size_bytes
    data_set.seek(0)
    return sha256_of(data_set), data_set.tell()


def _linked(temporary: str, final: str) -> bool:
    """Give the file its name; whether that was free.

    A link fails where a rename would overwrite. The first name stays: two names say that the index may not know the
    file yet.
    """
    try:
        os.link(temporary, final)
    except FileExistsError:
        return False
    return True


def _is_same(one: Path, other: Path) -> bool:
    try:
        return one.samefile(other)
    except FileNotFoundError:
        return False


def _written_before(path: Path, moment: float) -> bool:
    try:
        return path.stat().st_mtime < moment
    except FileNotFoundError:
        return False


def _write(descriptor: int, data_set: EncodedDataSet, meta: FileMeta) -> None:
    data_set.seek(0)
    file_meta, pieces = encode_file_meta(meta), pieces_of(data_set)
    first = next(pieces, b"")
    # At once what is in memory; the kernel may take less of it than it is given.
    written = os.writev(descriptor, [file_meta, first])
    write_all(descriptor, memoryview(file_meta)[written:])
    write_all(descriptor, memoryview(first)[max(0, written - len(file_meta)) :])
    for piece in pieces:
        write_all(descriptor, piece)


def _remove(path: str | Path) -> None:
    with suppress(FileNotFoundError):
        os.unlink(path)
