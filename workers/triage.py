"""Triage: one job from its study to its report, read top to bottom."""

import errno
import hashlib
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from pydicom import Dataset

from dicom_node.archive.files import Archive
from dicom_node.archive.index import Index
from dicom_node.archive.jobs import LeaseLost, ReportRow
from dicom_node.core.algorithm import AlgorithmIdentification
from dicom_node.core.codes import ACTIONABLE_CATEGORY_3
from dicom_node.core.errors import IndexUnavailable, NotApplicable, TriageError, UnreadableInstance
from dicom_node.core.finding import Finding
from dicom_node.core.job import Job, Lease, evidence_digest
from dicom_node.core.lifecycle import JobState
from dicom_node.core.study import Instance
from dicom_node.settings import QueueSettings
from dicom_node.telemetry import log_context
from workers.algorithms import Algorithm, Reading
from workers.heartbeat import Heartbeat
from workers.reporting.evidence import Evidence
from workers.reporting.gate import check_report
from workers.reporting.report import build_report
from workers.volume import Volume, load_volume

log = logging.getLogger(__name__)

#: Seconds to wait for a disk or an index that may come back, before one try after the other.
_WAITS = (1.0, 5.0, 15.0)


@dataclass(frozen=True, kw_only=True)
class Reader:
    """An algorithm ready to read, and how reports name it."""

    algorithm: Algorithm
    identification: AlgorithmIdentification
    #: What the network itself took in the last reading.
    network_seconds: Callable[[], float]


class Interrupted(TriageError):
    """A reading that broke off for a reason that need not be there the next time."""

    retryable = True


class Stopwatch:
    """Seconds that each step took, by name, in order."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._since = time.monotonic()

    def lap(self, name: str) -> None:
        """The step of this name ends here, and the next begins."""
        now = time.monotonic()
        self.seconds[name] = round(now - self._since, 3)
        self._since = now


class Triage:
    """Claims a job, reads its evidence, writes its report, and tells the index how it ended."""

    def __init__(
        self,
        *,
        index: Index,
        archive: Archive,
        readers: Mapping[str, Reader],
        queue: QueueSettings,
        heartbeat: Heartbeat,
        worker: str,
        leave: Callable[[], None],
        clock: Callable[[], float] = time.time,
        rest: Callable[[float], None] = time.sleep,
    ) -> None:
        """`leave` lets this process end once the job in hand is laid down: after a fault nobody thought of."""
        self._index = index
        self._archive = archive
        self._readers = readers
        self._settings = queue
        self._heartbeat = heartbeat
        self._worker = worker
        self._leave = leave
        self._clock = clock
        self._rest = rest

    def read(self, job_uid: str) -> None:
        """Do a job that still waits; a message about any other is an old bell and changes nothing."""
        try:
            claimed = self._index.jobs.claim(
                job_uid, worker=self._worker, lease_seconds=self._settings.lease_seconds, at=self._clock()
            )
        except IndexUnavailable as error:
            log.warning("a job was not taken; its message is sent again", extra={"reason": str(error)})
            return
        if claimed is None:
            log.info("a job is not to be had; another message took it", extra={"job_uid": job_uid})
            return
        job, lease = claimed
        with log_context(job_uid=job_uid, study_instance_uid=job.study_instance_uid), self._heartbeat.holding(lease):
            log.info("reading began", extra={"algorithm": job.algorithm, "attempt": job.attempts})
            self._read_to_an_end(job, lease)

    def _read_to_an_end(self, job: Job, lease: Lease) -> None:
        """Read a job, and tell the index the end it came to."""
        try:
            self._read(job, lease)
        except LeaseLost as lost:
            log.warning("the result is dropped", extra={"reason": str(lost)})
        except TriageError as error:
            self._end(job, lease, error)
        except (IndexUnavailable, OSError) as error:
            log.error("reading was interrupted", exc_info=True)
            # Another attempt at once would only meet the same full disk.
            self._rest(_WAITS[min(job.attempts, len(_WAITS)) - 1])
            self._end(job, lease, Interrupted(_interruption(error)))
        # The rim of this process: whatever it is, the job must not stay in READING. What else it left behind, on the
        # device or in memory, nobody knows: the next job gets a new process.
        except Exception as error:
            log.error("reading broke off", exc_info=True)
            try:
                kind = type(error).__name__
                self._end(job, lease, Interrupted(f"an unexpected {kind}; the worker's log has its place"))
            finally:
                self._leave()

    def _read(self, job: Job, lease: Lease) -> None:
        watch = Stopwatch()
        reader = self._reader(job)
        instances = self._instances(job)
        volume = self._volume(instances)
        watch.lap("load")
        reading = reader.algorithm.read(volume)
        watch.lap("reading")
        evidence = Evidence(
            volume=volume,
            algorithm=replace(reader.identification, parameters=reading.parameters),
            evidence=job.evidence,
            completed_at=datetime.fromtimestamp(max(instance.received_at for instance in instances), UTC),
        )
        report = build_report(evidence, reading.findings, reading.labels, reading.remarks)
        files = check_report(report, evidence)
        watch.lap("report")
        self._renew(lease)
        rows = [self._write(ds, file) for ds, file in zip(report.datasets, files, strict=True)]
        watch.lap("write")
        seconds = {**watch.seconds, "network": round(reader.network_seconds(), 3)}
        summary = summarise(reading, reader.identification, volume, seconds)
        self._tell(lambda: self._index.jobs.report(lease, rows, summary=summary, at=self._clock()))
        log.info("reading ended", extra={"result": summary["result"], "inference_seconds": seconds["network"]})

    def _reader(self, job: Job) -> Reader:
        reader = self._readers.get(job.algorithm)
        if reader is None:
            known = ", ".join(sorted(self._readers)) or "none"
            raise TriageError(
                f"this worker has no algorithm {job.algorithm} (it has {known}); correct the route or add its bundle"
            )
        return reader

    def _volume(self, instances: tuple[Instance, ...]) -> Volume:
        """The series as a volume, every byte as it was received."""
        for instance in instances:
            self._archive.verify(instance.path, instance.sha256)
        return load_volume([self._archive.path_of(instance.path) for instance in instances])

    def _instances(self, job: Job) -> tuple[Instance, ...]:
        """The series as it was when the job was queued."""
        study = self._index.studies.study(job.study_instance_uid)
        for series in study.series:
            if series.series_instance_uid == job.series_instance_uid:
                if evidence_digest(series.instances) != job.evidence:
                    raise LeaseLost("the series changed since the job was queued")
                return series.instances
        raise UnreadableInstance(f"series {job.series_instance_uid} is not in the index; send the study again")

    def _renew(self, lease: Lease) -> None:
        """Raise LeaseLost where another may have this job: its files must not be written over."""
        if not self._index.jobs.renew(lease, self._clock() + self._settings.lease_seconds):
            raise LeaseLost(f"job {lease.job_uid} is no longer held by {lease.worker}; its result is dropped")

    def _write(self, ds: Dataset, data: bytes) -> ReportRow:
        series_uid, sop_uid = str(ds.SeriesInstanceUID), str(ds.SOPInstanceUID)
        kept = self._archive.store_result(
            study_uid=str(ds.StudyInstanceUID), series_uid=series_uid, sop_uid=sop_uid, data=data
        )
        return ReportRow(
            sop_instance_uid=sop_uid,
            series_instance_uid=series_uid,
            sop_class_uid=str(ds.SOPClassUID),
            path=kept,
            sha256=hashlib.sha256(data).hexdigest(),
        )

    def _end(self, job: Job, lease: Lease, error: TriageError) -> None:
        again = error.retryable and job.attempts < self._settings.maximum_attempts
        answered = JobState.NOT_APPLICABLE if isinstance(error, NotApplicable) else JobState.FAILED
        state = JobState.QUEUED if again else answered
        try:
            self._tell(lambda: self._index.jobs.end(lease, state, reason=str(error), at=self._clock()))
        except (LeaseLost, IndexUnavailable) as untold:
            # Where the index is away, the lease runs out, and the job is queued again.
            log.warning("the end of a job is not recorded", extra={"reason": str(untold)})
            return
        log.warning("reading ended without a report", extra={"state": state.value, "reason": str(error)})

    def _tell(self, change: Callable[[], None]) -> None:
        """Make a change in the index; raises IndexUnavailable only where it stays away for a while."""
        for seconds in _WAITS:
            try:
                change()
                return
            except IndexUnavailable:
                log.warning("the end of a job waits for the index", extra={"wait_seconds": seconds})
                self._rest(seconds)
        change()


def _interruption(error: IndexUnavailable | OSError) -> str:
    """What was in the way and what to do, without a path."""
    if isinstance(error, IndexUnavailable):
        return str(error)
    name = errno.errorcode.get(error.errno or 0, "without a number")
    return f"the archive's disk was not usable ({type(error).__name__}, {name}); see its room and its mount"


def summarise(
    reading: Reading, algorithm: AlgorithmIdentification, volume: Volume, seconds: Mapping[str, float]
) -> dict[str, Any]:
    """What people see of a reading before they open its report: no patient data."""
    return {
        "result": in_words(reading),
        "findings": len(reading.findings),
        "priority": ACTIONABLE_CATEGORY_3.meaning if reading.findings else "",
        "algorithm": f"{algorithm.name} {algorithm.version}",
        "slices": len(volume.headers),
        "inference_seconds": seconds["network"],
        "steps": dict(seconds),
        "rows": [_row(finding) for finding in reading.findings],
    }


def in_words(reading: Reading) -> str:
    """The reading in one line."""
    further = f"; {reading.not_reported} not outlined" if reading.not_reported else ""
    findings = reading.findings
    if not findings:
        return f"no nodules found{further}"
    largest = max(finding.long_axis.length_mm for finding in findings)
    count = f"{len(findings)} nodule{'s' if len(findings) > 1 else ''}"
    return f"{count} found, the largest {largest:.1f} mm{further}"


def _row(finding: Finding) -> dict[str, Any]:
    return {
        "number": finding.number,
        "finding": finding.concept.meaning,
        "site": finding.site.meaning,
        "laterality": finding.laterality.meaning if finding.laterality else "",
        "centre_mm": [round(value, 1) for value in finding.centre],
        "long_axis_mm": round(finding.long_axis.length_mm, 1),
        "short_axis_mm": round(finding.short_axis.length_mm, 1),
        "volume_mm3": round(finding.volume_mm3),
        "mean_hu": round(finding.mean_hu),
        "score": round(finding.score, 3),
    }
