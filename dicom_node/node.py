"""The composition root: settings in, running node out; everything is built here, and stopped in reverse order."""

import fcntl
import gc
import logging
import os
import resource
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from dicom_node.archive.holdings import Holdings, index_url
from dicom_node.assembly import Assembly
from dicom_node.audit import AuditFile, AuditTrail, Sink, hash_key
from dicom_node.broker import OwnRedis, broker_url, socket_path
from dicom_node.commitment import Commitment
from dicom_node.core.errors import IntakeError, SettingsError
from dicom_node.delivery import Delivery
from dicom_node.dispatch import Dispatch
from dicom_node.inquiry import Inquiry
from dicom_node.intake import Intake, IntakeRules
from dicom_node.job_queue import CeleryJobQueue
from dicom_node.keying import KEYING_SECONDS, Keying
from dicom_node.notice import Notices
from dicom_node.parts import ChildProcess, Part, Periodic, Served, Supervisor
from dicom_node.promise import Promising
from dicom_node.reception.storage import Storage
from dicom_node.reception.watermark import DiskWatermark
from dicom_node.recovery import Recovery
from dicom_node.retention import Retention
from dicom_node.scp.application_entity import ApplicationEntity
from dicom_node.scp.commitment_events import CommitmentEvents
from dicom_node.scp.notifications import Notifications
from dicom_node.scp.presentation_contexts import TRANSFER_SYNTAXES, storage_sop_classes
from dicom_node.scp.promise_requests import PromiseRequests
from dicom_node.scu.verification import echo
from dicom_node.settings import Settings
from dicom_node.stocktaking import STEP_SECONDS, Stocktaking
from dicom_node.syslog import Syslog, SyslogAddress
from dicom_node.telemetry import Metrics
from dicom_node.tracing import TRACING_SECONDS, Tracing
from dicom_node.web.application import build_application
from dicom_node.web.server import WebServer

log = logging.getLogger(__name__)

#: How often what is due is looked for, and how often what a waiting patient's result depends on.
ROUND_SECONDS = 0.25
SHORT_ROUND_SECONDS = 0.1
WATCH_SECONDS = 0.5
SWITCH_SECONDS = 0.001

#: What a worker that is asked to end gets beside the time for its job: to lay that down, in an index that may be away.
LAYING_DOWN_SECONDS = 30.0

#: What `/healthz` calls the broker, ours or another.
BROKER = "broker"
#: Without a broker workers look into the index by themselves.
_DISPENSABLE = frozenset({OwnRedis.name, BROKER})
#: How often the room on the disk is looked at.
RETENTION_SECONDS = 60.0


@dataclass(frozen=True, kw_only=True)
class Node:
    """Parts in the order in which they start, and what to close after they stopped."""

    supervisor: Supervisor
    application_entity: ApplicationEntity
    web_port: Callable[[], int | None]
    close: Callable[[], None]
    #: Mends what an earlier run left, before the first part starts.
    recover: Callable[[], object]

    def run(self, announce: Callable[["Node"], None]) -> None:
        """Run until SIGINT or SIGTERM; the caller's thread watches the parts."""
        # Many threads that each compute for a moment: one that holds the index's write lock must not wait five
        # milliseconds for another that computes.
        sys.setswitchinterval(SWITCH_SECONDS)
        _raise_descriptors()
        ending = threading.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: ending.set())
        try:
            self.recover()
            self.supervisor.start()
            # What stands now stands to the end: to look through it for garbage again and again is in vain.
            gc.freeze()
            announce(self)
            while not ending.wait(WATCH_SECONDS):
                self.supervisor.watch()
        finally:
            self.supervisor.stop()
            self.close()


def build_receiver(settings: Settings) -> Node:
    """Storage SCP, archive and index only."""
    holdings = Holdings.open(settings)
    intake = Intake(archive=holdings.archive, studies=holdings.index.studies, rules=IntakeRules.from_settings(settings))
    metrics = Metrics()
    entity, receiving = _receiving(settings, intake, metrics)
    return Node(
        supervisor=Supervisor([receiving]),
        application_entity=entity,
        web_port=lambda: None,
        close=holdings.index.close,
        recover=Recovery(holdings.archive, holdings.index, time.time, settings.character_sets).run,
    )


def build_node(settings: Settings, config: Path | None) -> Node:
    """The whole node; `config` is the settings file that its worker reads too."""
    holdings = Holdings.open(settings)
    parts: list[Part] = []
    url = settings.broker.url
    if not url:
        path = socket_path(settings.node.data_dir)
        parts.append(OwnRedis(path))
        url = broker_url(path)
    queue = CeleryJobQueue(url)
    dispatch = Dispatch(settings, holdings.index, queue, time.time)
    parts.append(_worker(settings, config, url, holdings))
    ringing = Periodic("dispatch", dispatch.ring, ROUND_SECONDS)
    assembly = Assembly(
        settings,
        holdings.index,
        time.time,
        dispatch.announce,
        announcing=lambda: dispatch.workers_may_be_idle,
        on_jobs=ringing.wake,
    )
    commitment = Commitment(settings, holdings.index, time.time)
    parts.extend(_delivering(settings, holdings))
    parts.extend(_committing(commitment))
    parts.append(Periodic("assembly", assembly.step, SHORT_ROUND_SECONDS))
    inquiry = Inquiry(settings, holdings.index, time.time)
    if settings.askable_peers:
        parts.append(Periodic("inquiry", inquiry.step, ROUND_SECONDS))
    parts.append(Periodic("leases", dispatch.expire, ROUND_SECONDS))
    parts.append(ringing)
    recovery = Recovery(holdings.archive, holdings.index, time.time, settings.character_sets)
    parts += _keeping(settings, holdings, recovery)
    supervisor_health: list[Callable[[], Mapping[str, bool]]] = []
    metrics = Metrics()

    def health() -> Mapping[str, bool]:
        return {**supervisor_health[0](), BROKER: dispatch.broker_answers}

    key = hash_key(settings.node.data_dir)
    audit, sending = _audit(settings, holdings)
    parts += sending
    parts.append(Periodic("keying", Keying(holdings.index, holdings.archive, key).step, KEYING_SECONDS))
    intake = Intake(archive=holdings.archive, studies=holdings.index.studies, rules=IntakeRules.from_settings(settings))
    watermark = DiskWatermark(settings.node.minimum_free_megabytes)
    storage = Storage(metrics.counted(intake), watermark, metrics.refused, sop_classes=storage_sop_classes())
    web = _web(settings, holdings, storage, dispatch.lengths, metrics, health, audit, key)
    parts.append(Served("web", web.start, lambda: web.alive, web.stop))
    tracing = _tracing(settings, holdings)
    if tracing is not None:
        parts.append(Periodic("traces", tracing.step, TRACING_SECONDS))
    promising = Promising(settings, holdings.index, holdings.archive, time.time)
    telling = Periodic("promises", promising.step, ROUND_SECONDS)
    requests = PromiseRequests(promising.ask, telling.wake, patience_seconds=settings.delivery.timeout_seconds)
    promising.tell_here = requests.tell_here
    notifications = Notifications(Notices(holdings.index, time.time))
    commitments = CommitmentEvents(commitment.take, requests)
    entity, receiving = _receiving(settings, intake, metrics, watermark, commitments, notifications)
    parts += [telling, receiving]
    supervisor = Supervisor(parts, dispensable=_DISPENSABLE)
    supervisor_health.append(supervisor.health)

    def close() -> None:
        inquiry.close()
        promising.close()
        if tracing is not None:
            tracing.close()
        queue.close()
        holdings.index.close()

    return Node(
        supervisor=supervisor,
        application_entity=entity,
        web_port=lambda: web.port,
        close=close,
        recover=recovery.run,
    )


def _tracing(settings: Settings, holdings: Holdings) -> Tracing | None:
    """What sends traces; None where the settings name nobody who takes them."""
    address = settings.watching.traces
    return Tracing(address, holdings.index, name=settings.node.ae_title) if address else None


def _raise_descriptors() -> None:
    """Let this process have as many file descriptors as it may: associations, pages and files share them."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    # Some systems refuse what they name as their bound.
    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


@contextmanager
def sole_owner(data_dir: Path) -> Iterator[None]:
    """Hold the data folder; SettingsError where another node holds it."""
    data_dir.mkdir(parents=True, exist_ok=True, mode=0o750)
    with (data_dir / "node.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            mend = "stop it, or give this one another data_dir of [node] (--data-dir)"
            raise SettingsError(f"another node uses {data_dir}: {mend}") from error
        yield


def _delivering(settings: Settings, holdings: Holdings) -> Iterator[Part]:
    """A thread for what goes where, and for each peer one that sends, woken when something new is to go."""
    lanes: list[Periodic] = []

    def wake() -> None:
        for lane in lanes:
            lane.wake()

    delivery = Delivery(settings, holdings.index, holdings.archive, time.time, wake)
    lanes += [Periodic(f"delivery to {lane.peer.name}", lane.step, ROUND_SECONDS) for lane in delivery.lanes]
    yield Periodic("delivery", delivery.oversee, SHORT_ROUND_SECONDS)
    yield from lanes


def _committing(commitment: Commitment) -> Iterator[Part]:
    """For each peer a thread that asks for storage commitment."""
    yield Served("commitment", commitment.start, lambda: True, lambda: None)
    for asking in commitment.lanes:
        yield Periodic(f"commitment by {asking.peer.name}", asking.step, ROUND_SECONDS)


def _keeping(settings: Settings, holdings: Holdings, recovery: Recovery) -> list[Part]:
    """What keeps the archive whole and the disk from filling, where the settings ask for it."""
    archive, index = holdings.archive, holdings.index
    minimum_free_bytes = settings.node.minimum_free_megabytes * 2**20
    retention = Retention(settings.retention, archive, index, time.time, minimum_free_bytes=minimum_free_bytes)
    parts: list[Part] = [Periodic("retention", retention.step, RETENTION_SECONDS)]
    if settings.archive.check_files_per_second:
        stocktaking = Stocktaking(settings.archive, archive, index, time.time, adopt=recovery.adopt)
        parts.append(Periodic("stocktaking", stocktaking.step, STEP_SECONDS))
    return parts


def _receiving(
    settings: Settings,
    intake: Intake,
    metrics: Metrics,
    watermark: DiskWatermark | None = None,
    commitments: CommitmentEvents | None = None,
    notifications: Notifications | None = None,
) -> tuple[ApplicationEntity, Part]:
    metrics.may_refuse("instance", [*(kind.__name__ for kind in IntakeError.__subclasses__()), "unexpected"])
    entity = ApplicationEntity(
        settings,
        metrics.counted(intake),
        commitments=commitments,
        notifications=notifications,
        count_refusal=metrics.refused,
        watermark=watermark,
    )

    def start() -> None:
        intake.start()
        entity.start()

    return entity, Served("receiver", start, lambda: entity.alive, entity.stop)


def _worker(settings: Settings, config: Path | None, url: str, holdings: Holdings) -> ChildProcess:
    """A worker of our own; when it dies its jobs go back to the queue at once instead of when their lease ends."""
    command = [sys.executable, "-m", "workers", "work", "--node", str(os.getpid())]
    if config is not None:
        command += ["--config", str(config)]
    environment = {
        "DICOM_NODE_NODE__DATA_DIR": str(settings.node.data_dir),
        "DICOM_NODE_INDEX__URL": index_url(settings),
        "DICOM_NODE_BROKER__URL": url,
    }

    def on_exit(pid: int) -> None:
        for row in holdings.index.workers.rows():
            # A worker on another machine may have the same process number.
            if row.worker == f"{socket.gethostname()[:50]}:{pid}":
                holdings.index.jobs.abandon(row.worker, time.time())
                holdings.index.workers.ended(row.worker)

    stop_seconds = settings.worker.stop_seconds + LAYING_DOWN_SECONDS
    return ChildProcess("worker", command, environment=environment, stop_seconds=stop_seconds, on_exit=on_exit)


def _web(
    settings: Settings,
    holdings: Holdings,
    storage: Storage,
    lengths: Callable[[], Mapping[str, int] | None],
    metrics: Metrics,
    health: Callable[[], Mapping[str, bool]],
    audit: AuditTrail,
    key: bytes,
) -> WebServer:
    peers = {peer.name: peer for peer in settings.peers}
    timeout_seconds = settings.delivery.timeout_seconds

    def ask(name: str) -> float:
        return echo(peers[name], ae_title=settings.node.ae_title, timeout_seconds=timeout_seconds)

    application = build_application(
        index=holdings.index,
        queue_lengths=lengths,
        health=health,
        clock=time.time,
        settings=settings,
        archive=holdings.archive,
        storage=storage,
        transfer_syntaxes=TRANSFER_SYNTAXES,
        audit=audit,
        key=key,
        echo=ask,
        metrics=metrics,
        free_bytes=holdings.archive.free_bytes,
        dispensable=_DISPENSABLE,
        title=f"DICOM node {settings.node.ae_title}",
    )
    web, proxies = settings.web, settings.access.trusted_proxies
    return WebServer(application, web.host, web.port, trusted_proxies=proxies)


def _audit(settings: Settings, holdings: Holdings) -> tuple[AuditTrail, list[Part]]:
    """The audit trail: a file in the data folder, and a syslog receiver where one is named."""
    data_dir, access = settings.node.data_dir, settings.access
    sinks: list[Sink] = [AuditFile(data_dir / "audit")]
    parts: list[Part] = []
    if access.audit_syslog:
        authority = Path(access.audit_authority) if access.audit_authority else None
        syslog = Syslog(SyslogAddress.of(access.audit_syslog), authority=authority)
        sinks.append(syslog)
        parts.append(Served("syslog", syslog.start, lambda: syslog.alive, syslog.stop))
    return AuditTrail(sinks, source=settings.node.ae_title, patient=holdings.index.study_keys.patient), parts
