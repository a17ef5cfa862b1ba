"""The desk of a reading process: where one request after the other is read, and what is ready for the next lies."""

import gc
import importlib
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

from dicom_node.archive.files import Archive
from dicom_node.core.errors import ArchiveUnusable, Interrupted, OutOfDeviceMemory, TriageError
from dicom_node.telemetry import log_context
from workers.bundles import listed_bundles
from workers.explanation import explain, unknown_algorithm
from workers.inference import check_device, chosen_device, device_memory
from workers.pipe import WAITING, Begin, Explain, Failed, Prepare, Read, Ready, Reject, Reported, SeriesToRead
from workers.readers import Algorithms, Readers
from workers.reading import Loaded, load, read
from workers.rehearsal import rehearse
from workers.rejection import reject
from workers.requests import Abandoned, Requests

log = logging.getLogger(__name__)

#: With nothing to do, the process says so this often, and looks for bundles that changed.
_REST_SECONDS = 2.0
#: What was prepared and not asked for is given up: it may take gigabytes.
_KEPT_SECONDS = 60.0
#: sysexits.h EX_SOFTWARE: the process found a fault in itself.
_FAULTY = 70


@dataclass(frozen=True, kw_only=True)
class _Ahead:
    """A series prepared before its job came."""

    #: Algorithm, evidence, and checksum of the bundle.
    key: tuple[str, str, str]
    loaded: Loaded
    #: Of time.monotonic.
    at: float


class Desk:
    """Serves a worker's requests, one at a time."""

    def __init__(
        self, requests: Requests, archive: Archive, readers: Readers, explanation_seconds: float = 0.0
    ) -> None:
        """`explanation_seconds` may be taken, reading by reading, to tell on what findings' scores depended."""
        self._explanation_seconds = explanation_seconds
        self._requests = requests
        self._archive = archive
        self._readers = readers
        self._ahead: _Ahead | None = None
        self._told: Ready | None = None

    def serve(self, device: str) -> int:
        """Serve until something unforeseen; the exit status. The worker's end ends the process itself."""
        self._requests.beat("checking the device")
        found = chosen_device(device)
        check_device(found)
        self._requests.memory_bytes = lambda: device_memory(found)
        self._readers.refresh()
        self._requests.beat("rehearsing")
        rehearse()
        # The libraries stay for good: no collection need look through their hundred thousands of objects again.
        gc.collect()
        gc.freeze()
        self._requests.beat(WAITING)
        while True:
            self._tell_ready(str(found))
            request = self._requests.next(_REST_SECONDS)
            if isinstance(request, Read | Explain | Reject):
                answer = self.answer(request)
                self._requests.beat(WAITING)
                self._requests.answer(answer)
                if isinstance(answer, Failed) and answer.last:
                    return _FAULTY
            elif isinstance(request, Prepare):
                self.prepare(request)
                self._requests.beat(WAITING)
            else:
                self.rest()

    def answer(self, request: Read | Explain | Reject) -> Reported | Failed:
        """Read a series, or write what else is owed."""
        if isinstance(request, Read):
            return self.read(request)
        return self.explain(request) if isinstance(request, Explain) else self.reject(request)

    def read(self, request: Read) -> Reported | Failed:
        """Read a series; whatever goes wrong is part of the answer."""
        uids = {"job_uid": request.job_uid, "study_instance_uid": request.series.study_instance_uid}
        with log_context(**uids), self._requests.in_hand(request):
            return self._answered(request.job_uid, lambda: self._read(request))

    def explain(self, request: Explain) -> Reported | Failed:
        """Write why a series was not read; whatever goes wrong is part of the answer."""
        uids = {"job_uid": request.job_uid, "study_instance_uid": request.series.study_instance_uid}
        with log_context(**uids), self._requests.in_hand(request):
            return self._answered(request.job_uid, lambda: self._explain(request))

    def reject(self, request: Reject) -> Reported | Failed:
        """Write a rejection note; whatever goes wrong is part of the answer."""
        with log_context(study_instance_uid=request.study_instance_uid), self._requests.in_hand(request):
            return self._answered(request.job_uid, lambda: self._reject(request))

    def prepare(self, request: Prepare) -> None:
        """Do what can be done before the job comes. What goes wrong here is said by the reading itself."""
        self._ahead = None
        try:
            with self._requests.in_hand(request):
                self._ahead = self._made_ahead(request.series)
        except Abandoned:
            log.info("preparing was abandoned for a reading")
        # The rim: what ends the process here would be met again by the reading, which says it.
        except Exception as error:
            log.info("a series could not be prepared", extra={"error": type(error).__name__})

    def rest(self) -> None:
        """With nothing to do: give up what nobody asked for, and look for new bundles."""
        self._requests.beat(WAITING)
        if self._ahead is not None and time.monotonic() - self._ahead.at > _KEPT_SECONDS:
            self._ahead = None
        self._readers.refresh()

    def _read(self, request: Read) -> Reported:
        series = request.series
        reader = self._readers.reader(series.algorithm)
        ahead = self._taken((series.algorithm, series.evidence, reader.identification.checksum))
        seconds = self._explanation_seconds
        objects, summary = read(request, reader, self._archive, self._requests.beat, ahead, seconds)
        return Reported(job_uid=request.job_uid, objects=objects, summary=summary)

    def _explain(self, request: Explain) -> Reported:
        try:
            identification = self._readers.reader(request.series.algorithm).identification
        except TriageError:
            identification = unknown_algorithm(request.series.algorithm)
        objects = explain(request, identification, self._archive, self._requests.beat)
        return Reported(job_uid=request.job_uid, objects=objects, summary={})

    def _reject(self, request: Reject) -> Reported:
        objects = reject(request, self._archive, self._requests.beat)
        return Reported(job_uid=request.job_uid, objects=objects, summary={})

    def _answered(self, job_uid: str, do: Callable[[], Reported]) -> Reported | Failed:
        try:
            return do()
        except Abandoned:
            return _failed(job_uid, Interrupted("nobody wants the report any more"))
        except TriageError as error:
            # What a lack of memory leaves behind is best given back by the end of the process.
            return _failed(job_uid, error, last=isinstance(error, OutOfDeviceMemory))
        except OSError as error:
            log.error("reading was interrupted", exc_info=True)
            return _failed(job_uid, ArchiveUnusable.by_disk(error))
        # The rim of this process: whatever it is, the worker must hear of it. What else it left behind, on the device
        # or in memory, nobody knows: the next job gets a new process.
        except Exception as error:
            log.error("reading broke off", exc_info=True)
            kind = type(error).__name__
            return _failed(job_uid, Interrupted(f"an unexpected {kind}; the worker's log has its place"), last=True)

    def _made_ahead(self, series: SeriesToRead) -> _Ahead:
        began = time.monotonic()
        reader = self._readers.reader(series.algorithm)
        volume = load(series, self._archive, self._requests.beat, reader.load)
        loading_seconds = round(time.monotonic() - began, 2)
        self._requests.beat("preparing")
        loaded = Loaded(volume=volume, prepared=reader.algorithm.prepare(volume))
        seconds = {"loading_seconds": loading_seconds, "preparing_seconds": round(time.monotonic() - began, 2)}
        log.info("a series was prepared ahead", extra={"series_instance_uid": series.series_instance_uid, **seconds})
        key = (series.algorithm, series.evidence, reader.identification.checksum)
        return _Ahead(key=key, loaded=loaded, at=time.monotonic())

    def _taken(self, key: tuple[str, str, str]) -> Loaded | None:
        """What was prepared under this key; whatever was, it is not kept any longer."""
        ahead, self._ahead = self._ahead, None
        return ahead.loaded if ahead is not None and ahead.key == key else None

    def _tell_ready(self, device: str) -> None:
        """Tell what can be read, at first and when that changed."""
        readers = self._readers
        ready = Ready(device=device, bundles=readers.titles, algorithms=readers.algorithms, broken=readers.broken)
        if ready != self._told:
            self._told = ready
            self._requests.answer(ready)


def desk_of(begin: Begin, requests: Requests) -> Desk:
    """The desk that a worker asks for."""
    readers = Readers(
        _table(begin.algorithms),
        bundle_dirs=begin.bundle_dirs,
        device=begin.device,
        threads=begin.threads,
        beat=requests.beat,
        bundles=listed_bundles(begin.bundles),
    )
    return Desk(requests, Archive(begin.archive), readers, begin.explanation_seconds)


def _failed(job_uid: str, error: TriageError, *, last: bool = False) -> Failed:
    return Failed(job_uid=job_uid, kind=type(error).__name__, message=str(error), last=last)


def _table(name: str) -> Algorithms:
    """The table of algorithms that "module:name" names."""
    module, _, attribute = name.partition(":")
    return cast(Algorithms, getattr(importlib.import_module(module), attribute))
