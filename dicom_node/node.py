"""The composition root: settings in, running node out; everything is built here, and stopped in reverse order."""

import fcntl
import logging
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from dicom_node.archive.holdings import Holdings, index_url
from dicom_node.assembly import Assembly
from dicom_node.broker import broker_url, own_redis, socket_path
from dicom_node.core.errors import QueueUnavailable, SettingsError
from dicom_node.delivery import Delivery
from dicom_node.intake import Intake
from dicom_node.job_queue import CeleryJobQueue
from dicom_node.parts import ChildProcess, Part, Periodic, Served, Supervisor
from dicom_node.scp.application_entity import ApplicationEntity
from dicom_node.settings import Settings
from dicom_node.telemetry import Metrics
from dicom_node.web.application import build_application
from dicom_node.web.server import WebServer

log = logging.getLogger(__name__)

#: How often what is due is looked for.
ROUND_SECONDS = 0.25
WATCH_SECONDS = 0.5


@dataclass(frozen=True, kw_only=True)
class Node:
    """Parts in the order in which they start, and what to close after they stopped."""

    supervisor: Supervisor
    application_entity: ApplicationEntity
    web_port: Callable[[], int | None]
    close: Callable[[], None]

    def run(self, announce: Callable[["Node"], None]) -> None:
        """Run until SIGINT or SIGTERM; the caller's thread watches the parts."""
        ending = threading.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: ending.set())
        try:
            self.supervisor.start()
            announce(self)
            while not ending.wait(WATCH_SECONDS):
                self.supervisor.watch()
        finally:
            self.supervisor.stop()
            self.close()


def build_receiver(settings: Settings) -> Node:
    """Storage SCP, archive and index only."""
    holdings = Holdings.open(settings)
    entity, receiving = _receiving(settings, holdings, Metrics())
    return Node(
        supervisor=Supervisor([receiving]),
        application_entity=entity,
        web_port=lambda: None,
        close=holdings.index.close,
    )


def build_node(settings: Settings, config: Path | None) -> Node:
    """The whole node; `config` is the settings file that its worker reads too."""
    holdings = Holdings.open(settings)
    parts: list[Part] = []
    url = settings.broker.url
    if not url:
        path = socket_path(settings.node.data_dir)
        parts.append(own_redis(path))
        url = broker_url(path)
    queue = CeleryJobQueue(url)
    parts.append(_worker(settings, config, url, holdings))
    delivery = Delivery(settings, holdings.index, holdings.archive, time.time)
    assembly = Assembly(settings, holdings.index, queue, time.time)
    parts.append(Periodic("delivery", delivery.step, ROUND_SECONDS))
    parts.append(Periodic("assembly", assembly.step, ROUND_SECONDS))
    supervisor_health: list[Callable[[], Mapping[str, bool]]] = []
    metrics = Metrics()
    web = _web(settings, holdings, queue, metrics, lambda: supervisor_health[0]())
    parts.append(Served("web", web.start, lambda: web.alive, web.stop))
    entity, receiving = _receiving(settings, holdings, metrics)
    parts.append(receiving)
    supervisor = Supervisor(parts)
    supervisor_health.append(supervisor.health)

    def close() -> None:
        queue.close()
        holdings.index.close()

    return Node(supervisor=supervisor, application_entity=entity, web_port=lambda: web.port, close=close)


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


def _receiving(settings: Settings, holdings: Holdings, metrics: Metrics) -> tuple[ApplicationEntity, Part]:
    intake = Intake(archive=holdings.archive, studies=holdings.index.studies)
    entity = ApplicationEntity(settings, metrics.counted(intake))

    def start() -> None:
        intake.start()
        entity.start()

    return entity, Served("receiver", start, lambda: entity.alive, entity.stop)


def _worker(settings: Settings, config: Path | None, url: str, holdings: Holdings) -> ChildProcess:
    """A worker of our own; when it dies its jobs go back to the queue at once instead of when their lease ends."""
    command = [sys.executable, "-m", "workers", "work"]
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

    return ChildProcess("worker", command, environment=environment, stop_seconds=30.0, on_exit=on_exit)


def _web(
    settings: Settings,
    holdings: Holdings,
    queue: CeleryJobQueue,
    metrics: Metrics,
    health: Callable[[], Mapping[str, bool]],
) -> WebServer:
    def lengths() -> Mapping[str, int] | None:
        try:
            return queue.lengths()
        except QueueUnavailable:
            return None

    application = build_application(
        index=holdings.index,
        queue_lengths=lengths,
        health=health,
        clock=time.time,
        metrics=metrics,
        free_bytes=holdings.archive.free_bytes,
        title=f"DICOM node {settings.node.ae_title}",
    )
    return WebServer(application, settings.web.host, settings.web.port)
