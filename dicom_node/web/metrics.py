"""The metrics of the whole node: what the index knows, read at each scrape, so that they hold across processes."""

from collections.abc import Callable, Iterator, Mapping

from prometheus_client.core import GaugeMetricFamily, HistogramMetricFamily, Metric

from dicom_node.archive.durations import (
    Durations,
    read_inference_durations,
    read_job_durations,
    read_time_to_result,
)
from dicom_node.archive.index import Index
from dicom_node.archive.lines import Overview
from dicom_node.archive.overview import read_overview

#: Seconds; a report should be there before the patient has left the room.
BOUNDS = (1.0, 2.5, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0)


class IndexCollector:
    """Collects the metrics of the index, the broker and the disk when it is asked to."""

    def __init__(
        self,
        index: Index,
        queue_lengths: Callable[[], Mapping[str, int] | None],
        clock: Callable[[], float],
        free_bytes: Callable[[], int] | None = None,
    ) -> None:
        self._index = index
        self._queue_lengths = queue_lengths
        self._clock = clock
        self._free_bytes = free_bytes

    def describe(self) -> Iterator[Metric]:
        """Nothing: the registry need not read the index to take the collector in."""
        return iter(())

    def collect(self) -> Iterator[Metric]:
        """Every metric, at this moment."""
        overview = read_overview(self._index, self._clock(), limit=0)
        yield _studies(overview)
        yield from _queues(overview)
        yield from _deliveries(overview)
        yield from _workers(overview)
        yield _messages(self._queue_lengths())
        if self._free_bytes is not None:
            yield GaugeMetricFamily("dicom_node_free_disk_bytes", "Room left in the archive", value=self._free_bytes())
        yield _jobs(self._index)
        says = "Objects that failed their checks and are sent to nobody"
        yield GaugeMetricFamily("dicom_node_reports_held", says, value=len(self._index.reports.held()))
        yield from _archive(self._index)
        says = "Jobs that gave up after their last attempt and wait for a person"
        yield GaugeMetricFamily("dicom_node_dead_letters", says, value=overview.dead_letters)
        name, says = "dicom_node_time_to_result_seconds", "From a study's last instance to its report at every peer"
        yield _histogram(name, says, read_time_to_result(self._index, BOUNDS))
        name, says = "dicom_node_job_seconds", "From a job's claim by a worker to its report"
        yield _histogram(name, says, read_job_durations(self._index, BOUNDS))
        name, says = "dicom_node_inference_seconds", "The inference of a job alone"
        yield _histogram(name, says, read_inference_durations(self._index, BOUNDS))


def _studies(overview: Overview) -> Metric:
    family = GaugeMetricFamily("dicom_node_studies", "Studies by state and priority", labels=["state", "priority"])
    for state, priorities in overview.studies_by_state.items():
        for priority, count in priorities.items():
            family.add_metric([state, priority], count)
    return family


def _queues(overview: Overview) -> Iterator[Metric]:
    labels = ["queue", "state"]
    jobs = GaugeMetricFamily("dicom_node_queue_jobs", "Jobs that wait or are read, by the index", labels=labels)
    oldest = GaugeMetricFamily("dicom_node_queue_oldest_seconds", "How long the oldest job waits", labels=["queue"])
    for line in overview.queues:
        jobs.add_metric([line.queue, "waiting"], line.waiting)
        jobs.add_metric([line.queue, "reading"], line.reading)
        oldest.add_metric([line.queue], line.oldest_waiting_seconds or 0.0)
    yield jobs
    yield oldest


def _messages(lengths: Mapping[str, int] | None) -> Metric:
    family = GaugeMetricFamily("dicom_node_broker_messages", "Messages at the broker; none if silent", labels=["queue"])
    for queue, count in (lengths or {}).items():
        family.add_metric([queue], count)
    return family


def _jobs(index: Index) -> Metric:
    labels = ["priority", "state"]
    family = GaugeMetricFamily("dicom_node_jobs", "Current jobs by priority and state", labels=labels)
    for (priority, state), count in sorted(index.jobs.counts().items()):
        family.add_metric([priority, state], count)
    return family


def _archive(index: Index) -> Iterator[Metric]:
    says = "Files of the archive that are missing, altered, or unknown to the index"
    faults = GaugeMetricFamily("dicom_node_archive_faults", says, labels=["kind"])
    for kind, count in index.faults.counts().items():
        faults.add_metric([kind], count)
    yield faults
    says = "Files that the look at the whole archive has compared since it began"
    yield GaugeMetricFamily("dicom_node_archive_checked_files", says, value=index.inventory.position().files)
    says = "Studies whose files have left the disk by the rules of [retention]"
    yield GaugeMetricFamily("dicom_node_evicted_studies", says, value=index.evictions.count())


def _deliveries(overview: Overview) -> Iterator[Metric]:
    labels = ["peer", "state"]
    family = GaugeMetricFamily("dicom_node_deliveries", "Objects on their way to a peer, by state", labels=labels)
    for line in overview.peers:
        for state in ("waiting", "accepted", "committed", "failed"):
            family.add_metric([line.peer, state], getattr(line, state))
    yield family
    says = "How long the longest waiting object waits for a peer"
    oldest = GaugeMetricFamily("dicom_node_delivery_oldest_waiting_seconds", says, labels=["peer"])
    says = "Storage commitments that a peer was asked for and has not answered"
    commitments = GaugeMetricFamily("dicom_node_commitments_open", says, labels=["peer"])
    says = "Whether no association with a peer could be had the last time"
    away = GaugeMetricFamily("dicom_node_peer_away", says, labels=["peer"])
    for line in overview.peers:
        oldest.add_metric([line.peer], line.oldest_waiting_seconds or 0.0)
        commitments.add_metric([line.peer], line.commitments_open)
        away.add_metric([line.peer], line.away_since is not None)
    yield from (oldest, commitments, away)


def _workers(overview: Overview) -> Iterator[Metric]:
    says = "How long ago each worker was last heard"
    age = GaugeMetricFamily("dicom_node_worker_heartbeat_age_seconds", says, labels=["worker", "device"])
    for line in overview.workers:
        age.add_metric([line.worker, line.device], line.heartbeat_age_seconds)
    yield age
    heard = sum(not line.silent for line in overview.workers)
    yield GaugeMetricFamily("dicom_node_workers", "Workers that were heard lately", value=heard)


def _histogram(name: str, says: str, durations: Durations) -> Metric:
    buckets = [(f"{bound:g}", float(count)) for bound, count in durations.buckets]
    family = HistogramMetricFamily(name, says)
    family.add_metric([], [*buckets, ("+Inf", float(durations.count))], durations.total_seconds)
    return family
