"""A worker process: it claims jobs from the index, woken by Celery's messages, and has a reading process read them.

It imports nothing that computes, so that it starts in a second, and that no fault of a device or a library can end it.
"""

import logging
import os
import socket
import sys
import threading
import time
from collections.abc import Sequence

from celery import Celery
from celery.signals import setup_logging
from celery.worker import state

from dicom_node.archive.files import Archive
from dicom_node.archive.index import Index
from dicom_node.job_queue import celery_options
from dicom_node.settings import Settings
from workers.ending import Ending
from workers.heartbeat import Heartbeat
from workers.pipe import Begin
from workers.presence import Presence
from workers.readings import Limits, Readings
from workers.tasks import register
from workers.triage import Triage

log = logging.getLogger(__name__)

#: Where the table of algorithms is that make sense of bundles; only the reading process imports it.
ALGORITHMS = "workers.algorithms.shipped:ALGORITHMS"


def worker_name() -> str:
    """Host and process: what the index calls this worker."""
    return f"{socket.gethostname()[:50]}:{os.getpid()}"


def build(url: str) -> Celery:
    """The Celery application of a worker: late acknowledgement, one message at a time."""
    app = Celery("workers", set_as_current=False)
    app.conf.update(
        celery_options(url),
        task_acks_late=True,
        task_reject_on_worker_lost=True,
        worker_prefetch_multiplier=1,
        worker_redirect_stdouts=False,
        worker_cancel_long_running_tasks_on_connection_loss=False,
    )
    return app


class Watch:
    """A thread that looks for jobs every few seconds: a lost message or a broker that is away holds up nothing."""

    def __init__(self, triage: Triage, interval_seconds: float) -> None:
        self._triage = triage
        self._interval = interval_seconds
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def stop(self) -> None:
        """Look no more; returns when a job in hand is laid down."""
        self._ending.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._ending.is_set():
            try:
                self._triage.work_off()
            # The rim of the thread: without it jobs whose message was lost would wait for ever.
            except Exception as error:
                log.error("looking for jobs failed", exc_info=True, extra={"error": type(error).__name__})
            self._ending.wait(self._interval)


def work(
    settings: Settings,
    index: Index,
    archive: Archive,
    *,
    broker_url: str,
    queues: Sequence[str],
    algorithms: str = ALGORITHMS,
    node: int | None = None,
) -> None:
    """Read jobs until asked to end; the job in hand is finished first, if it takes no longer than `stop_seconds`.

    `algorithms` names the table of algorithms as "module:name"; `node` is the process number of a node that this worker
    is a part of, and ends with. For the main thread of a process that does nothing else: its signals are taken over.
    """
    worker = worker_name()
    limits = Limits(
        reading_seconds=settings.queue.maximum_reading_seconds, silence_seconds=settings.queue.maximum_silence_seconds
    )
    presence = Presence(index, worker, queues, settings.worker.device)
    readings = Readings(
        _begin(settings, archive, algorithms), limits, on_ready=presence.ready, on_trouble=presence.trouble
    )
    heartbeat = Heartbeat(
        index,
        worker,
        lease_seconds=settings.queue.lease_seconds,
        limits=limits,
        pulse=lambda: readings.pulse,
        clock=time.time,
        on_unknown=presence.missed,
    )
    triage = Triage(
        index=index,
        archive=archive,
        readings=readings,
        queue=settings.queue,
        queues=queues,
        heartbeat=heartbeat,
        worker=worker,
        forms=settings.wanted_forms,
        rules=settings.triage,
        screenings={route.name: route.screening for route in settings.routes},
        prior_years=settings.worker.prior_years,
    )
    watch = Watch(triage, settings.worker.look_seconds)
    Ending(triage, settings.worker.stop_seconds, leave=_leave, node=node).heed_signals()
    heartbeat.start()
    watch.start()
    try:
        status = _listen(triage, worker, broker_url, queues)
    finally:
        if not triage.stopping:
            triage.stop(settings.worker.stop_seconds)
        watch.stop()
        readings.close()
        heartbeat.stop()
        presence.ended()
    if status:
        raise SystemExit(status)


def _begin(settings: Settings, archive: Archive, algorithms: str) -> Begin:
    return Begin(
        archive=archive.path_of(""),
        bundle_dirs=settings.worker.bundle_dirs,
        device=settings.worker.device,
        threads=settings.worker.threads,
        algorithms=algorithms,
        log_as_json=not sys.stderr.isatty(),
        bundles=settings.bundles,
        explanation_seconds=settings.worker.explanation_seconds,
    )


def _listen(triage: Triage, worker: str, broker_url: str, queues: Sequence[str]) -> int:
    """Answer Celery's messages until a signal asks to end; the exit status."""
    app = build(broker_url)
    register(app, triage)
    # A receiver keeps Celery from setting up logging of its own.
    setup_logging.connect(_logging_is_set_up, weak=False)
    celery_worker = app.Worker(
        pool="solo",
        concurrency=1,
        queues=list(queues),
        hostname=f"triage@{worker}",
        without_gossip=True,
        without_mingle=True,
        without_heartbeat=True,
        loglevel="WARNING",
        quiet=True,
    )
    # Celery's own handlers wait for a lock that a signal before may hold, and would take the place of ours.
    celery_worker.install_platform_tweaks = lambda _worker: None
    celery_worker.start()
    return int(celery_worker.exitcode or 0)


def _leave(status: int) -> None:
    """Have Celery's loop end between two messages, as its own handlers of signals do."""
    state.should_stop = status


def _logging_is_set_up(**_options: object) -> None:
    """Leave logging as it is."""
