"""The composition root: settings in, a node out; everything is built here."""

import os
import socket
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from dicom_node.archive.files import Archive
from dicom_node.archive.holdings import Holdings, index_url
from dicom_node.archive.index import Index
from dicom_node.assembly import Assembly
from dicom_node.audit import AuditFile, AuditTrail, Sink, hash_key
from dicom_node.broker import OwnRedis, broker_url, socket_path
from dicom_node.commitment import Commitment
from dicom_node.core.errors import IntakeError
from dicom_node.delivery import Delivery
from dicom_node.dispatch import Dispatch
from dicom_node.inquiry import Inquiry
from dicom_node.intake import Intake, IntakeRules
from dicom_node.job_queue import CeleryJobQueue
from dicom_node.keying import KEYING_SECONDS, Keying
from dicom_node.node import Node
from dicom_node.notice import Notices
from dicom_node.parts import ChildProcess, Part, Periodic, Served, Supervisor
from dicom_node.patience import PATIENCE_SECONDS, Patience
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

#: How often what is due is looked for, and how often what a waiting patient's result depends on.
ROUND_SECONDS = 0.25
SHORT_ROUND_SECONDS = 0.1

#: What a worker that is asked to end gets beside the time for its job: to lay that down, in an index that may be away.
LAYING_DOWN_SECONDS = 30.0

#: What `/healthz` calls the broker, ours or another.
BROKER = "broker"
#: Without a broker workers look into the index by themselves.
_DISPENSABLE = frozenset({OwnRedis.name, BROKER})
#: How often the room on the disk is looked at.
RETENTION_SECONDS = 60.0


@dataclass(frozen=True, kw_only=True)
class _Base:
    """What the parts of a node share."""

    settings: Settings
    archive: Archive
    index: Index
    metrics: Metrics
    intake: Intake
    #: The key of the hashes that stand for what names a patient.
    key: bytes
    #: What is closed after the parts stopped, the last first.
    closing: ExitStack

    @classmethod
    def opened(cls, settings: Settings) -> "_Base":
        """The archive and the index, open, and an intake to them that is counted."""
        holdings, metrics, closing = Holdings.open(settings), Metrics(), ExitStack()
        closing.callback(holdings.index.close)
        rules = IntakeRules.from_settings(settings)
        return cls(
            settings=settings,
            archive=holdings.archive,
            index=holdings.index,
            metrics=metrics,
            intake=Intake(archive=holdings.archive, studies=holdings.index.studies, rules=rules),
            key=hash_key(settings.node.data_dir),
            closing=closing,
        )

    @property
    def recovery(self) -> Recovery:
        """What mends that which an earlier run left."""
        return Recovery(self.archive, self.index, time.time, self.settings.character_sets)


def build_receiver(settings: Settings) -> Node:
    """Storage SCP, archive and index only."""
    base = _Base.opened(settings)
    entity, receiving = _receiving(base)
    return Node(
        supervisor=Supervisor([receiving]),
        application_entity=entity,
        web_port=lambda: None,
        close=base.closing.close,
        recover=base.recovery.run,
    )


def build_node(settings: Settings, config: Path | None) -> Node:
    """The whole node; `config` is the settings file that its worker reads too."""
    base = _Base.opened(settings)
    redis, url = _broker(settings)
    queue = CeleryJobQueue(url)
    base.closing.callback(queue.close)
    dispatch = Dispatch(settings, base.index, queue, time.time)
    commitment = Commitment(settings, base.index, time.time)
    audit, sending = _audit(base)
    watermark = DiskWatermark(settings.node.minimum_free_megabytes)
    supervisors: list[Supervisor] = []

    def health() -> Mapping[str, bool]:
        return {**supervisors[0].health(), BROKER: dispatch.broker_answers}

    web = _web(base, watermark, dispatch.lengths, health, audit)
    tracing = _tracing(base)
    entity, serving = _serving(base, watermark, commitment)
    parts = [
        *redis,
        _worker(base, config, url),
        *_delivering(base),
        *_committing(commitment),
        *_dispatching(base, dispatch),
        *_keeping(base),
        *sending,
        Periodic("patience", Patience(settings, base.index, time.time).step, PATIENCE_SECONDS),
        Periodic("keying", Keying(base.index, base.archive, base.key).step, KEYING_SECONDS),
        Served("web", web.start, lambda: web.alive, web.stop),
        *tracing,
        *serving,
    ]
    supervisors.append(Supervisor(parts, dispensable=_DISPENSABLE))
    return Node(
        supervisor=supervisors[0],
        application_entity=entity,
        web_port=lambda: web.port,
        close=base.closing.close,
        recover=base.recovery.run,
    )


def _broker(settings: Settings) -> tuple[list[Part], str]:
    """A Redis of our own where the settings name none, and the address of the one that is used."""
    if settings.broker.url:
        return [], settings.broker.url
    path = socket_path(settings.node.data_dir)
    return [OwnRedis(path)], broker_url(path)


def _dispatching(base: _Base, dispatch: Dispatch) -> Iterator[Part]:
    """What makes jobs of what arrived, and hands them out."""
    settings, index = base.settings, base.index
    ringing = Periodic("dispatch", dispatch.ring, ROUND_SECONDS)
    assembly = Assembly(
        settings,
        index,
        time.time,
        dispatch.announce,
        announcing=lambda: dispatch.workers_may_be_idle,
        on_jobs=ringing.wake,
    )
    yield Periodic("assembly", assembly.step, SHORT_ROUND_SECONDS)
    if settings.askable_peers:
        inquiry = Inquiry(settings, index, time.time)
        base.closing.callback(inquiry.close)
        yield Periodic("inquiry", inquiry.step, ROUND_SECONDS)
    yield Periodic("leases", dispatch.expire, ROUND_SECONDS)
    yield ringing


def _tracing(base: _Base) -> list[Part]:
    """What sends traces; nothing where the settings name nobody who takes them."""
    settings = base.settings
    if not settings.watching.traces:
        return []
    tracing = Tracing(settings.watching.traces, base.index, name=settings.node.ae_title)
    base.closing.callback(tracing.close)
    return [Periodic("traces", tracing.step, TRACING_SECONDS)]


def _delivering(base: _Base) -> Iterator[Part]:
    """A thread for what goes where, and for each peer one that sends, woken when something new is to go."""
    lanes: list[Periodic] = []

    def wake() -> None:
        for lane in lanes:
            lane.wake()

    delivery = Delivery(base.settings, base.index, base.archive, time.time, wake)
    lanes += [Periodic(f"delivery to {lane.peer.name}", lane.step, ROUND_SECONDS) for lane in delivery.lanes]
    yield Periodic("delivery", delivery.oversee, SHORT_ROUND_SECONDS)
    yield from lanes


def _committing(commitment: Commitment) -> Iterator[Part]:
    """For each peer a thread that asks for storage commitment."""
    yield Served("commitment", commitment.start, lambda: True, lambda: None)
    for asking in commitment.lanes:
        yield Periodic(f"commitment by {asking.peer.name}", asking.step, ROUND_SECONDS)


def _keeping(base: _Base) -> Iterator[Part]:
    """What keeps the archive whole and the disk from filling, where the settings ask for it."""
    settings, archive, index = base.settings, base.archive, base.index
    minimum_free_bytes = settings.node.minimum_free_megabytes * 2**20
    retention = Retention(settings.retention, archive, index, time.time, minimum_free_bytes=minimum_free_bytes)
    yield Periodic("retention", retention.step, RETENTION_SECONDS)
    if settings.archive.check_files_per_second:
        stocktaking = Stocktaking(settings.archive, archive, index, time.time, adopt=base.recovery.adopt)
        yield Periodic("stocktaking", stocktaking.step, STEP_SECONDS)


def _serving(
    base: _Base, watermark: DiskWatermark, commitment: Commitment
) -> tuple[ApplicationEntity, tuple[Part, Part]]:
    """What serves other application entities, and what tells them of storage commitment that they asked for."""
    settings, index = base.settings, base.index
    promising = Promising(settings, index, base.archive, time.time)
    base.closing.callback(promising.close)
    telling = Periodic("promises", promising.step, ROUND_SECONDS)
    requests = PromiseRequests(promising.ask, telling.wake, patience_seconds=settings.delivery.timeout_seconds)
    promising.tell_here = requests.tell_here
    notifications = Notifications(Notices(index, time.time))
    entity, receiving = _receiving(base, watermark, CommitmentEvents(commitment.take, requests), notifications)
    return entity, (telling, receiving)


def _receiving(
    base: _Base,
    watermark: DiskWatermark | None = None,
    commitments: CommitmentEvents | None = None,
    notifications: Notifications | None = None,
) -> tuple[ApplicationEntity, Part]:
    metrics, intake = base.metrics, base.intake
    metrics.may_refuse("instance", [*(kind.__name__ for kind in IntakeError.__subclasses__()), "unexpected"])
    entity = ApplicationEntity(
        base.settings,
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


def _worker(base: _Base, config: Path | None, url: str) -> ChildProcess:
    """A worker of our own; when it dies its jobs go back to the queue at once instead of when their lease ends."""
    settings, index = base.settings, base.index
    command = [sys.executable, "-m", "workers", "work", "--node", str(os.getpid())]
    if config is not None:
        command += ["--config", str(config)]
    environment = {
        "DICOM_NODE_NODE__DATA_DIR": str(settings.node.data_dir),
        "DICOM_NODE_INDEX__URL": index_url(settings),
        "DICOM_NODE_BROKER__URL": url,
    }

    def on_exit(pid: int) -> None:
        for row in index.workers.rows():
            # A worker on another machine may have the same process number.
            if row.worker == f"{socket.gethostname()[:50]}:{pid}":
                index.jobs.abandon(row.worker, time.time())
                index.workers.ended(row.worker)

    stop_seconds = settings.worker.stop_seconds + LAYING_DOWN_SECONDS
    return ChildProcess("worker", command, environment=environment, stop_seconds=stop_seconds, on_exit=on_exit)


def _web(
    base: _Base,
    watermark: DiskWatermark,
    lengths: Callable[[], Mapping[str, int] | None],
    health: Callable[[], Mapping[str, bool]],
    audit: AuditTrail,
) -> WebServer:
    settings, archive, metrics = base.settings, base.archive, base.metrics
    peers = {peer.name: peer for peer in settings.peers}

    def ask(name: str) -> float:
        timeout_seconds = settings.delivery.timeout_seconds
        return echo(peers[name], ae_title=settings.node.ae_title, timeout_seconds=timeout_seconds)

    application = build_application(
        index=base.index,
        queue_lengths=lengths,
        health=health,
        clock=time.time,
        settings=settings,
        archive=archive,
        storage=Storage(metrics.counted(base.intake), watermark, metrics.refused, sop_classes=storage_sop_classes()),
        transfer_syntaxes=TRANSFER_SYNTAXES,
        audit=audit,
        key=base.key,
        echo=ask,
        metrics=metrics,
        free_bytes=archive.free_bytes,
        dispensable=_DISPENSABLE,
        title=f"DICOM node {settings.node.ae_title}",
    )
    web, proxies = settings.web, settings.access.trusted_proxies
    return WebServer(application, web.host, web.port, trusted_proxies=proxies)


def _audit(base: _Base) -> tuple[AuditTrail, list[Part]]:
    """The audit trail: a file in the data folder, and a syslog receiver where one is named."""
    settings = base.settings
    data_dir, access = settings.node.data_dir, settings.access
    sinks: list[Sink] = [AuditFile(data_dir / "audit")]
    parts: list[Part] = []
    if access.audit_syslog:
        authority = Path(access.audit_authority) if access.audit_authority else None
        syslog = Syslog(SyslogAddress.of(access.audit_syslog), authority=authority)
        sinks.append(syslog)
        parts.append(Served("syslog", syslog.start, lambda: syslog.alive, syslog.stop))
    return AuditTrail(sinks, source=settings.node.ae_title, patient=base.index.study_keys.patient), parts
