"""Readers: the algorithms whose bundles are installed, their networks warm, and always those that lie on disk now."""

import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from dicom_node.core.errors import BundleInvalid, OutOfDeviceMemory, TriageError
from dicom_node.settings import BundleSettings
from workers.algorithms import Algorithm
from workers.algorithms.classification import Classification
from workers.algorithms.network_output import kind_of
from workers.algorithms.shipped import BY_KIND
from workers.bundles import SUMS, Bundle, identification, load_bundle, named_bundles
from workers.inference import Inference, release_memory
from workers.input_check import input_check
from workers.reading import LastRun, Reader
from workers.volume import load_volume

log = logging.getLogger(__name__)

#: Which algorithm makes sense of which bundle's output.
Algorithms = Mapping[str, Callable[[Bundle, Inference], Algorithm]]

#: What a bundle's own classes raise where they are no network, or one of another kind than described.
_FAULTS_OF_BUNDLES = (RuntimeError, ValueError, TypeError, AttributeError, LookupError, ArithmeticError, ImportError)

#: A bundle that cannot be used is tried again, since it may just be being copied: after so many seconds, or so many
#: times as long as the last try took.
_AGAIN_SECONDS, _AGAIN_TIMES = 2.0, 10.0

#: Name, modification time, size and inode of each file by which a change of a bundle is noticed.
Stamp = tuple[tuple[str, int, int, int], ...]


@dataclass(frozen=True, kw_only=True)
class _Installed:
    """A bundle as it was last found."""

    folder: Path
    stamp: Stamp
    checksum: str
    #: The reader, or why there is none.
    reader: Reader | TriageError
    #: When it is to be tried again although nothing changed, of time.monotonic.
    again_at: float = math.inf


class Readers:
    """Readers by the name that routes call their algorithm."""

    def __init__(
        self,
        algorithms: Algorithms,
        *,
        bundle_dirs: Sequence[Path],
        device: str,
        threads: int,
        beat: Callable[[str], None],
        bundles: Sequence[BundleSettings] = (),
    ) -> None:
        """`bundles` are those that the settings list; others without an algorithm of their name are left alone."""
        self._algorithms = algorithms
        self._listed = tuple(bundles)
        self._bundle_dirs = tuple(bundle_dirs)
        self._device, self._threads = device, threads
        self._beat = beat
        self._installed: dict[str, _Installed] = {}
        self._foreign: frozenset[str] = frozenset()

    @property
    def titles(self) -> tuple[str, ...]:
        """Name and version of each algorithm that can read."""
        readers = ((name, installed.reader) for name, installed in self._installed.items())
        return tuple(f"{name} {it.identification.version}" for name, it in readers if isinstance(it, Reader))

    @property
    def algorithms(self) -> tuple[str, ...]:
        """Name of each algorithm that can read."""
        return tuple(name for name, installed in self._installed.items() if isinstance(installed.reader, Reader))

    @property
    def broken(self) -> tuple[str, ...]:
        """Name of each algorithm whose bundle is there and cannot be used now."""
        return tuple(name for name, installed in self._installed.items() if isinstance(installed.reader, TriageError))

    def reader(self, algorithm: str) -> Reader:
        """The reader of this name, of the bundle as it now lies on disk; TriageError says why there is none."""
        installed = self._installed.get(algorithm)
        if installed is not None and isinstance(installed.reader, OutOfDeviceMemory):
            # A lack of memory is not the bundle's: it may have passed.
            del self._installed[algorithm]
        self.refresh()
        installed = self._installed.get(algorithm)
        if installed is None:
            known = ", ".join(sorted(self._installed)) or "none"
            raise BundleInvalid(
                f"this worker has no algorithm {algorithm} (it has {known}); correct the route or add its bundle"
            )
        if isinstance(installed.reader, TriageError):
            # A new one each time: the same would keep every frame it ever passed.
            raise type(installed.reader)(str(installed.reader))
        return installed.reader

    def refresh(self) -> None:
        """Load what is new on disk, and forget what is gone or was replaced."""
        found = named_bundles(self._bundle_dirs, self._listed)
        used = {*self._algorithms, *(listed.name for listed in self._listed)}
        self._tell_foreign(frozenset(found) - used)
        self._installed = {name: old for name, old in self._installed.items() if name in found}
        for name, (folder, settings) in found.items():
            if name in used and self._is_new(name, folder):
                self._install(name, folder, settings)

    def _is_new(self, name: str, folder: Path) -> bool:
        old = self._installed.get(name)
        return old is None or old.folder != folder or old.stamp != stamp_of(folder) or time.monotonic() >= old.again_at

    def _install(self, name: str, folder: Path, settings: BundleSettings) -> None:
        """Load a bundle that is new or changed, or that could not be used before."""
        self._beat(f"loading bundle {name}")
        began = time.monotonic()
        stamp, checksum, old = stamp_of(folder), "", self._installed.get(name)
        known = str(old.reader) if old is not None and isinstance(old.reader, TriageError) else ""
        reader: Reader | TriageError
        try:
            bundle = load_bundle(folder, settings)
            checksum = bundle.checksum
            if old is not None and old.checksum == checksum and isinstance(old.reader, Reader):
                self._installed[name] = _Installed(folder=folder, stamp=stamp, checksum=checksum, reader=old.reader)
                return
            # The old network leaves the device before the new one comes.
            self._installed.pop(name, None)
            old = None
            release_memory()
            reader = self._built(bundle)
        except TriageError as error:
            if str(error) != known:
                log.error("a bundle cannot be used", exc_info=error.__cause__, extra=_reason(name, error))
            # Its own copy: an error keeps every frame that it and its cause passed.
            reader = type(error)(str(error))
        except OSError as error:
            reader = BundleInvalid(f"bundle {name} cannot be read ({type(error).__name__}); see its files' rights")
            if str(reader) != known:
                log.error("a bundle cannot be used", extra=_reason(name, reader))
        now, again_at = time.monotonic(), math.inf
        if isinstance(reader, TriageError):
            again_at = now + max(_AGAIN_SECONDS, _AGAIN_TIMES * (now - began))
        self._installed[name] = _Installed(
            folder=folder, stamp=stamp, checksum=checksum, reader=reader, again_at=again_at
        )

    def _built(self, bundle: Bundle) -> Reader:
        try:
            return self._by_name(bundle) if bundle.name in self._algorithms else self._by_kind(bundle)
        except torch.AcceleratorError:
            # The device's own fault, whatever the bundle: this process is of no use.
            raise
        except _FAULTS_OF_BUNDLES as error:
            reason = f"bundle {bundle.name}: its network does not run ({type(error).__name__})"
            raise BundleInvalid(f"{reason}; the worker's log has its place") from error

    def _by_name(self, bundle: Bundle) -> Reader:
        """With the algorithm of the bundle's name."""
        inference = Inference(bundle, self._device, threads=self._threads, beat=self._beat)
        algorithm = self._algorithms[bundle.name](bundle, inference)
        self._beat(f"warming up {bundle.name}")
        inference.warm_up()
        return _reader(bundle, algorithm, inference)

    def _by_kind(self, bundle: Bundle) -> Reader:
        """With what makes sense of its kind of output."""
        algorithm = BY_KIND[kind_of(bundle)](bundle, self._device, threads=self._threads, beat=self._beat)
        self._beat(f"warming up {bundle.name}")
        algorithm.warm_up()
        return _reader(bundle, algorithm, algorithm.last_run)

    def _tell_foreign(self, foreign: frozenset[str]) -> None:
        for name in foreign - self._foreign:
            log.warning("a bundle fits no algorithm and is left alone; list it in [[bundles]]", extra={"bundle": name})
        self._foreign = foreign


def _reader(bundle: Bundle, algorithm: Algorithm, last_run: LastRun) -> Reader:
    return Reader(
        algorithm=algorithm,
        identification=identification(bundle),
        last_run=last_run,
        check=input_check(bundle),
        load=algorithm.load if isinstance(algorithm, Classification) else load_volume,
    )


def _reason(name: str, error: TriageError) -> dict[str, str]:
    return {"bundle": name, "reason": str(error)}


def stamp_of(folder: Path) -> Stamp:
    """What changes when a bundle is replaced: its list of checksums, or every file where it brought none."""
    sums = folder / SUMS
    paths = [sums] if sums.is_file() else [path for path in sorted(folder.rglob("*")) if path.is_file()]
    stamps = []
    for path in paths:
        try:
            found = path.stat()
        except FileNotFoundError:
            continue
        stamps.append((path.relative_to(folder).as_posix(), found.st_mtime_ns, found.st_size, found.st_ino))
    return tuple(stamps)
