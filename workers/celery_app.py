"""A worker process: a Celery worker that takes one job at a time from the queues, the most urgent first."""

import logging
import os
import socket
import time
from collections.abc import Mapping, Sequence
from functools import partial

from celery import Celery
from celery.signals import setup_logging
from celery.worker import state as worker_state

from dicom_node.archive.files import Archive
from dicom_node.archive.index import Index
from dicom_node.job_queue import celery_options
from dicom_node.settings import Settings
from workers.algorithms.lung_nodule import LungNodule
from workers.bundles import find_bundles, identification, load_bundle
from workers.heartbeat import FAULTY, Heartbeat
from workers.inference import Inference, chosen_device
from workers.tasks import register
from workers.triage import Reader, Triage

log = logging.getLogger(__name__)

#: Which algorithm makes sense of which bundle's output.
ALGORITHMS = {LungNodule.name: LungNodule}


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


def readers(settings: Settings) -> dict[str, Reader]:
    """Every algorithm whose bundle is installed, its network loaded and warm."""
    found = {}
    for folder in find_bundles(settings.worker.bundle_dirs):
        algorithm = ALGORITHMS.get(folder.name)
        if algorithm is None:
            log.warning("a bundle fits no algorithm and is left alone", extra={"bundle": folder.name})
            continue
        bundle = load_bundle(folder)
        inference = Inference(bundle, settings.worker.device, threads=settings.worker.threads)
        inference.warm_up()
        found[folder.name] = Reader(
            algorithm=algorithm(bundle, inference),
            identification=identification(bundle),
            network_seconds=partial(getattr, inference, "seconds"),
        )
    return found


def leave() -> None:
    """Let this worker end once the message in hand is acknowledged, as Celery's own handlers of signals do."""
    log.error("this worker ends; a new one takes its place", extra={"exit_status": FAULTY})
    worker_state.should_stop = FAULTY


def work(settings: Settings, index: Index, archive: Archive, *, broker_url: str, queues: Sequence[str]) -> None:
    """Read jobs until asked to end; the job in hand is finished first. SystemExit after a fault nobody thought of."""
    worker = worker_name()
    ready = readers(settings)
    heartbeat = Heartbeat(
        index,
        worker,
        lease_seconds=settings.queue.lease_seconds,
        maximum_reading_seconds=settings.queue.maximum_reading_seconds,
        clock=time.time,
    )
    triage = Triage(
        index=index,
        archive=archive,
        readers=ready,
        queue=settings.queue,
        heartbeat=heartbeat,
        worker=worker,
        leave=leave,
    )
    app = build(broker_url)
    register(app, triage)
    # A receiver keeps Celery from setting up logging of its own.
    setup_logging.connect(_logging_is_set_up, weak=False)
    index.workers.began(
        worker, device=str(chosen_device(settings.worker.device)), bundles=titles(ready), queues=queues, at=time.time()
    )
    heartbeat.start()
    log.info("worker ready", extra={"worker": worker, "queues": list(queues), "bundles": titles(ready)})
    try:
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
        celery_worker.start()
    finally:
        heartbeat.stop()
        index.workers.ended(worker)
    if celery_worker.exitcode:
        raise SystemExit(celery_worker.exitcode)


def titles(found: Mapping[str, Reader]) -> list[str]:
    """Name and version of each algorithm."""
    return [f"{name} {reader.identification.version}" for name, reader in found.items()]


def _logging_is_set_up(**_options: object) -> None:
    """Leave logging as it is."""
