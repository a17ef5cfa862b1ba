"""Triage: one job after the other, from its study to its report; the reading itself is done by another process."""

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import TypeVar

from dicom_node.archive.files import Archive
from dicom_node.archive.index import Index
from dicom_node.archive.job_rows import ReportRow
from dicom_node.archive.leases import LeaseLost
from dicom_node.archive.lines import SILENT_AFTER_SECONDS
from dicom_node.archive.reports import HELD, MEND, PART_HELD
from dicom_node.core.errors import (
    ArchiveUnusable,
    EvidenceInvalid,
    IndexUnavailable,
    Interrupted,
    NotApplicable,
    TriageError,
)
from dicom_node.core.form import BY_DEFAULT, Form
from dicom_node.core.job import Job, Lease, evidence_digest
from dicom_node.core.lifecycle import JobState
from dicom_node.core.routing import TOGETHER
from dicom_node.core.screening import Screening
from dicom_node.core.urgency import DEFAULT_RULES, TriageRule
from dicom_node.settings import QueueSettings
from dicom_node.telemetry import log_context
from workers.heartbeat import Heartbeat
from workers.outlet import Outlet
from workers.owed import Owed
from workers.pipe import Prepare, Read
from workers.readings import Readings, Stopped
from workers.series import instances_of, keep, series_to_read
from workers.unread import Unread

T = TypeVar("T")

log = logging.getLogger(__name__)

#: Seconds to wait for a disk or an index that may come back, before one try after the other.
_WAITS = (1.0, 5.0, 15.0)


class Triage:
    """Claims jobs, has them read, keeps their reports, and tells the index how each ended."""

    def __init__(
        self,
        *,
        index: Index,
        archive: Archive,
        readings: Readings,
        queue: QueueSettings,
        queues: Sequence[str],
        heartbeat: Heartbeat,
        worker: str,
        forms: frozenset[Form] = BY_DEFAULT,
        rules: tuple[TriageRule, ...] = DEFAULT_RULES,
        screenings: Mapping[str, Screening] = MappingProxyType({}),
        prior_years: float = 0.0,
        clock: Callable[[], float] = time.time,
        rest: Callable[[float], None] = time.sleep,
    ) -> None:
        """`forms` are those that reports are written in; `rules` say how urgent findings are.

        `screenings` is what each route says of its examinations, by its name; findings are followed from the patient's
        studies of the last `prior_years`.
        """
        self._index = index
        self._archive = archive
        self._readings = readings
        self._settings = queue
        self._queues = tuple(queues)
        self._heartbeat = heartbeat
        self._worker = worker
        self._forms = forms
        self._rules = rules
        self._screenings = screenings
        self._prior_years = prior_years
        self._clock = clock
        self._owed = Owed(index, archive, readings, worker=worker, clock=clock, stopped=self._out_of_time, forms=forms)
        self._rest = rest
        self._working = threading.Lock()
        #: When a stop that was asked for waits no longer, of time.monotonic.
        self._stop_at: float | None = None
        self._outlet = Outlet(archive)
        self._unread = Unread(index)

    @property
    def stopping(self) -> bool:
        """Whether no further job is begun."""
        return self._stop_at is not None

    @property
    def working(self) -> bool:
        """Whether a job is in hand, or looked for."""
        return self._working.locked()

    def stop(self, within_seconds: float) -> None:
        """Begin no further job, and give the one in hand so long; a second call may shorten that. For signals too."""
        until = time.monotonic() + within_seconds
        self._stop_at = until if self._stop_at is None else min(self._stop_at, until)

    def work_off(self) -> None:
        """Read job after job, the most urgent first, until none can be claimed or the worker stops.

        Called by every message and every few seconds; whoever finds another at work waits for him.
        """
        with self._working:
            while self._readings.ready(lambda: self.stopping) and self._outlet.is_back() and self._next():
                pass
            if not self.stopping:
                self._unread.look(self._readings.algorithms, self._clock())

    def prepare(self, *, study_instance_uid: str, series_instance_uid: str, algorithm: str, evidence: str) -> None:
        """A job for this series may soon come: what can be done before is begun, unless there is work."""
        if self.stopping or not self._working.acquire(blocking=False):
            return
        try:
            instances = instances_of(self._index, study_instance_uid, series_instance_uid)
            if evidence_digest(instances) == evidence:
                self._readings.prepare(Prepare(series=series_to_read(instances, algorithm, evidence)))
        except (IndexUnavailable, TriageError) as error:
            log.info("a series could not be prepared", extra={"reason": str(error)})
        finally:
            self._working.release()

    def _next(self) -> bool:
        """Read the next job, or write what is owed beside reports; whether there was anything to do.

        What peers must not use any more goes first. Why studies were not read is told in turns with the readings, so
        that neither holds up the other.
        """
        withdrawn = self._write_owed(self._owed.withdraw_next)
        if withdrawn or self._outlet.away:
            return withdrawn
        read = self._read_next()
        if self._outlet.away or self.stopping:
            return read
        return self._write_owed(self._owed.explain_next) or read

    def _write_owed(self, write: Callable[[], bool]) -> bool:
        """Whether something was written, or given up."""
        try:
            return write()
        except ArchiveUnusable as error:
            self._outlet.failed()
            log.error("the archive was not usable", extra={"reason": str(error)})
            return False

    def _read_next(self) -> bool:
        """Read the next job to an end; whether there was one."""
        settings = self._settings
        try:
            claimed = self._index.jobs.claim_next(
                worker=self._worker,
                queues=self._queues,
                algorithms=self._algorithms(),
                lease_seconds=settings.lease_seconds,
                at=self._clock(),
                maximum_waiting_seconds=settings.maximum_waiting_seconds,
            )
        except IndexUnavailable as error:
            log.warning("no job was taken; the index is asked again", extra={"reason": str(error)})
            return False
        if claimed is None:
            return False
        job, lease = claimed
        uids = {"job_uid": job.job_uid, "study_instance_uid": job.study_instance_uid}
        with log_context(**uids), self._heartbeat.holding(lease):
            log.info("reading began", extra={"algorithm": job.algorithm, "attempt": job.attempts})
            self._read_to_an_end(job, lease)
        return True

    def _algorithms(self) -> tuple[str, ...]:
        """What this worker reads, and what fails here by name since nobody has a bundle that can be used."""
        broken = self._readings.broken
        unread = self._index.workers.unread(self._clock() - SILENT_AFTER_SECONDS) if broken else []
        return (*self._readings.algorithms, *(name for name in broken if name in unread))

    def _read_to_an_end(self, job: Job, lease: Lease) -> None:
        """Read a job, and tell the index the end it came to."""
        try:
            self._read(job, lease)
        except LeaseLost as lost:
            log.warning("the result is dropped", extra={"reason": str(lost)})
        except ArchiveUnusable as error:
            self._end_by_archive(job, lease, error)
        except TriageError as error:
            self._end(job, lease, error)
        except IndexUnavailable as error:
            self._end(job, lease, Interrupted(str(error)))
        except OSError as error:
            log.error("a report could not be kept", exc_info=True)
            self._end_by_archive(job, lease, ArchiveUnusable.by_disk(error))
        # The rim of this process: whatever it is, the job must not stay in READING.
        except Exception as error:
            log.error("reading broke off", exc_info=True)
            self._end(job, lease, Interrupted(f"an unexpected {type(error).__name__}; the worker's log has its place"))

    def _read(self, job: Job, lease: Lease) -> None:
        instances = instances_of(self._index, job.study_instance_uid, job.series_instance_uid)
        if evidence_digest(instances) != job.evidence:
            raise LeaseLost("the series changed since the job was queued")
        request = Read(
            job_uid=job.job_uid,
            series=series_to_read(instances, job.algorithm, job.evidence),
            earlier=self._index.reports.earlier(job),
            forms=self._forms,
            triage=self._rules,
            screening=self._screening(job),
            earlier_studies=self._index.priors.known(job, self._prior_years),
        )
        reported = self._readings.read(request, stopped=self._out_of_time, unwanted=lambda: self._heartbeat.lost)
        self._renew(lease)
        # Also when they are reported; here so that hardly ever a file is kept that is no report's.
        self._index.jobs.check_compared(reported.summary)
        size_bytes = sum(len(kept.data) for kept in reported.objects)
        self._outlet.taken(size_bytes)
        if not self._archive.holds_studies():
            raise ArchiveUnusable("the archive that this worker writes to is empty; see its mount")
        began = time.monotonic()
        rows = [keep(self._archive, kept) for kept in reported.objects]
        if reported.is_held:
            self._hold(job, lease, rows, reported.why_held)
            return
        if reported.why_held:
            log.error("an object failed its checks and is held", extra={"reason": reported.why_held})
            self._tell(lambda: self._index.conditions.began(HELD, reason=f"an object {MEND}", at=self._clock()))
        seconds = {**reported.summary["steps"], "write": round(time.monotonic() - began, 3)}
        summary = {**reported.summary, "steps": seconds}
        self._tell(lambda: self._index.jobs.report(lease, rows, summary=summary, at=self._clock()))
        facts = {"result": summary["result"], "inference_seconds": summary["inference_seconds"]}
        log.info("reading ended", extra=facts)

    def _screening(self, job: Job) -> Screening:
        """What the job's route says of its examination, or any of those whose choice it is."""
        said = (self._screenings.get(name, "no") for name in (job.route, *job.route.split(TOGETHER)))
        return next((screening for screening in said if screening != "no"), "no")

    def _hold(self, job: Job, lease: Lease, rows: Sequence[ReportRow], why: str) -> None:
        """A report that failed its own checks is kept for those who mend that, and sent to nobody."""
        reason = f"the report failed its checks and is held: {why}"
        log.error("a report failed its checks and is held", extra={"reason": reason})
        error = EvidenceInvalid.__name__
        self._index.conditions.began(HELD, reason=f"an object {MEND}", at=self._clock())
        held = [replace(row, held=row.held or PART_HELD) for row in rows]
        self._tell(lambda: self._index.jobs.hold(lease, held, reason=reason, error=error, at=self._clock()))

    def _out_of_time(self) -> bool:
        return self._stop_at is not None and time.monotonic() >= self._stop_at

    def _renew(self, lease: Lease) -> None:
        """Raise LeaseLost where another may have this job: its files must not be written over."""
        if not self._index.jobs.renew(lease, self._clock() + self._settings.lease_seconds):
            raise LeaseLost(f"job {lease.job_uid} is no longer held by {lease.worker}; its result is dropped")

    def _end(self, job: Job, lease: Lease, error: TriageError) -> None:
        """Record an attempt that ended without a report."""
        try:
            state = self._tell(lambda: self._ended(job, lease, error))
        except (LeaseLost, IndexUnavailable) as untold:
            # Where the index is away, the lease runs out, and the job is queued again.
            log.warning("the end of a job is not recorded", extra={"reason": str(untold)})
            return
        facts = {"state": state.value, "reason": str(error), "attempt": job.attempts}
        log.warning("reading ended without a report", extra=facts)

    def _end_by_archive(self, job: Job, lease: Lease, error: ArchiveUnusable) -> None:
        """The attempt counts only where the archive is there: otherwise one job would end this worker's reading."""
        self._outlet.failed()
        self._end(job, lease, error)
        if self._outlet.away:
            log.error("the archive is not usable; no job is taken until it is", extra={"reason": str(error)})
        else:
            # It may be full but for a little: the next job would only meet the same.
            self._rest(_WAITS[min(job.attempts, len(_WAITS)) - 1])

    def _ended(self, job: Job, lease: Lease, error: TriageError) -> JobState:
        reason, now = str(error), self._clock()
        # A worker that is asked to end, or has no archive, says nothing about the job: another reads it at once.
        if isinstance(error, Stopped) or (isinstance(error, ArchiveUnusable) and self._outlet.away):
            self._index.jobs.give_back(lease, reason=reason, at=now)
            return JobState.QUEUED
        if error.retryable:
            attempts, kind = self._settings.attempts, type(error).__name__
            return self._index.jobs.retry(lease, reason=reason, attempts=attempts, error=kind, at=now)
        state = JobState.NOT_APPLICABLE if isinstance(error, NotApplicable) else JobState.FAILED
        self._index.jobs.end(lease, state, reason=reason, error=type(error).__name__, at=now)
        return state

    def _tell(self, change: Callable[[], T]) -> T:
        """Make a change in the index; raises IndexUnavailable only where it stays away for a while."""
        for seconds in _WAITS:
            try:
                return change()
            except IndexUnavailable:
                log.warning("the end of a job waits for the index", extra={"wait_seconds": seconds})
                self._rest(seconds)
        return change()
