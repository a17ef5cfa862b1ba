"""The metrics of the whole node: what the index knows, read at each scrape, so that they hold across processes."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import product

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

from dicom_node.archive.index import Index
from dicom_node.archive.lines import Overview
from dicom_node.archive.overview import read_overview
from dicom_node.archive.tally import OUTCOMES, Kind, Tally
from dicom_node.core.priority import QUEUES

#: Seconds; a report should be there before the patient has left the room.
BOUNDS = (1.0, 2.5, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0)

#: The histograms, by what they time: name and meaning. Each has a label for the queue of the study's priority.
_TIMED = {
    Kind.WAITING: ("dicom_node_waiting_seconds", "From a job's queueing, or its last attempt, to its claim"),
    Kind.SERVICE: ("dicom_node_service_seconds", "From a job's claim by a worker to its report"),
    Kind.INFERENCE: ("dicom_node_inference_seconds", "The inference of a job alone"),
    Kind.RESULT: ("dicom_node_time_to_result_seconds", "From a study's last instance to its report"),
    Kind.DELIVERY: ("dicom_node_time_to_delivery_seconds", "From a study's last instance to its report at every peer"),
}


class IndexCollector:
    """Collects the metrics of the index, the broker and the disk when it is asked to."""

    def __init__(
        self,
        index: Index,
        queue_lengths: Callable[[], Mapping[str, int] | None],
        clock: Callable[[], float],
        free_bytes: Callable[[], int] | None = None,
        total_bytes: Callable[[], int] | None = None,
    ) -> None:
        self._index = index
        self._tally = Tally(index, BOUNDS)
        self._queue_lengths = queue_lengths
        self._clock = clock
        self._free_bytes, self._total_bytes = free_bytes, total_bytes

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
        if self._total_bytes is not None:
            yield GaugeMetricFamily("dicom_node_disk_bytes", "Room of the archive's disk", value=self._total_bytes())
        yield _jobs(self._index)
        says = "Objects that failed their checks and are sent to nobody"
        yield GaugeMetricFamily("dicom_node_reports_held", says, value=len(self._index.reports.held()))
        yield from _archive(self._index)
        says = "Jobs that gave up after their last attempt and wait for a person"
        yield GaugeMetricFamily("dicom_node_dead_letters", says, value=overview.dead_letters)
        yield from _conditions(overview)
        self._tally.look()
        yield from _timed(self._tally)
        yield from _outcomes(self._tally, [line.peer for line in overview.peers])


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
    says = "Memory of each worker's device: taken, by whomever, and whole"
    memory = GaugeMetricFamily("dicom_node_worker_memory_bytes", says, labels=["worker", "device", "kind"])
    for line in overview.workers:
        for kind, size in (("used", line.memory_used_bytes), ("total", line.memory_total_bytes)):
            if size is not None:
                memory.add_metric([line.worker, line.device, kind], size)
    yield memory
    heard = sum(not line.silent for line in overview.workers)
    yield GaugeMetricFamily("dicom_node_workers", "Workers that were heard lately", value=heard)


def _conditions(overview: Overview) -> Iterator[Metric]:
    says = "Whether something is wrong with the node as a whole; none where nothing is"
    family = GaugeMetricFamily("dicom_node_condition", says, labels=["condition"])
    for line in overview.conditions:
        family.add_metric([line.condition], 1)
    yield family


def _timed(tally: Tally) -> Iterator[Metric]:
    durations = tally.durations()
    for kind, (name, says) in _TIMED.items():
        family = HistogramMetricFamily(name, says, labels=["queue"])
        for queue in QUEUES:
            found = durations.get((kind, queue)) or tally.none
            buckets = [(f"{bound:g}", float(count)) for bound, count in found.buckets]
            family.add_metric([queue], [*buckets, ("+Inf", float(found.count))], found.total_seconds)
        yield family


def _outcomes(tally: Tally, peers: Sequence[str]) -> Iterator[Metric]:
    says = "Attempts to deliver an object by peer and outcome: accepted, committed, failed, postponed"
    outcomes = CounterMetricFamily("dicom_node_delivery_outcomes", says, labels=["peer", "outcome"])
    # All of them from the start: of what begins at one, no rate can be told.
    counts = dict.fromkeys(product(peers, OUTCOMES), 0) | tally.deliveries()
    for (peer, outcome), count in sorted(counts.items()):
        outcomes.add_metric([peer, outcome], count)
    yield outcomes
    says = "How often a study entered each state"
    entered = CounterMetricFamily("dicom_node_studies_entered", says, labels=["state"])
    for state, count in tally.entered().items():
        entered.add_metric([state], count)
    yield entered
