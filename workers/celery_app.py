"""A worker process: it claims jobs from the index, woken by Celery's messages, and has a reading process read them.

It imports nothing that computes, so that it starts in a second, and that no fault of a device or a library can end it.
"""

import logging
import os
import select
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence

from celery import Celery
from celery.signals import setup_logging
from celery.worker import state

from dicom_node.archive.files import Archive
from dicom_node.archive.index import Index
from dicom_node.core.errors import IndexUnavailable
from dicom_node.job_queue import celery_options
from dicom_node.settings import Settings
from workers.heartbeat import FAULTY, Heartbeat
from workers.pipe import Begin, Ready
from workers.readings import Limits, Readings
from workers.tasks import register
from workers.triage import Triage

log = logging.getLogger(__name__)

#: Where the table of algorithms is that make sense of bundles; only the reading process imports it.
ALGORITHMS = "workers.algorithms.shipped:ALGORITHMS"

#: The signals that ask a worker to end, and the exit status of one that ended so.
SIGNALS: Mapping[int, int] = {signal.SIGTERM: 0, signal.SIGHUP: 0, signal.SIGINT: 1, signal.SIGQUIT: 1}
#: Signals that come within so long of the first are one request. The kernel tells of a killed node by as many signals
#: as it had threads whose deaths came one after the other.
ONE_REQUEST_SECONDS = 1.0


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


class Presence:
    """The worker's row in the index: there once it can read, or once it is known that it cannot."""

    def __init__(self, index: Index, worker: str, queues: Sequence[str], device: str) -> None:
        self._index = index
        self._worker, self._queues, self._device = worker, tuple(queues), device
        self._there = False
        #: Device and bundles as they were last to be told; of two threads.
        self._last: tuple[str, tuple[str, ...]] | None = None
        self._telling = threading.Lock()

    def ready(self, ready: Ready) -> None:
        """Tell what this worker can read."""
        if self._told(ready.device, ready.bundles):
            log.info("worker ready", extra={"worker": self._worker, "bundles": list(ready.bundles)})

    def trouble(self, reason: str) -> None:
        """Tell that it can read nothing for now."""
        log.error("this worker cannot read; it tries again", extra={"worker": self._worker, "reason": reason})
        self._told(self._device, ())

    def missed(self) -> None:
        """The index does not know this worker: tell it again, if there is anything to tell yet."""
        with self._telling:
            if self._last is not None:
                self._there = False
                self._tell(*self._last)

    def ended(self) -> None:
        """The worker goes home."""
        with self._telling:
            self._last = None
        try:
            self._index.workers.ended(self._worker)
        except IndexUnavailable:
            log.warning("the index does not know that this worker ended", extra={"worker": self._worker})

    def _told(self, device: str, bundles: Sequence[str]) -> bool:
        with self._telling:
            self._last = (device, tuple(bundles))
            return self._tell(*self._last)

    def _tell(self, device: str, bundles: Sequence[str]) -> bool:
        workers = self._index.workers
        try:
            if not self._there or not workers.can(self._worker, device=device, bundles=bundles):
                workers.began(self._worker, device=device, bundles=bundles, queues=self._queues, at=time.time())
        except IndexUnavailable:
            log.warning("the index does not know yet what this worker can", extra={"worker": self._worker})
            return False
        self._there = True
        return True


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


class Ending:
    """A worker's end: asked for by signals or by the death of its node, and enforced where the worker hangs.

    It is a thread's work, which no signal interrupts, and which goes on where the main thread hangs.
    """

    #: How often it is looked whether the node lives.
    LOOK_SECONDS = 0.5
    #: After `stop_seconds` a job has so long to be laid down, also in an index that is away for a while.
    LAYING_DOWN_SECONDS = 30.0
    #: A worker with no job in hand that does not end within so long hangs.
    LAST_SECONDS = 10.0

    def __init__(
        self,
        triage: Triage,
        stop_seconds: float,
        *,
        leave: Callable[[int], None],
        node: int | None = None,
        end_process: Callable[[int], None] = os._exit,
        parent: Callable[[], int] = os.getppid,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`leave` ends the loop that waits for messages; `node` is the process number that the parent should have."""
        self._triage, self._stop_seconds = triage, stop_seconds
        self._leave, self._end_process = leave, end_process
        self._node, self._parent = node, parent
        self._clock = clock
        self._asked_at: float | None = None
        self._worked_at = 0.0

    def heed_signals(self) -> None:
        """Take this process's signals over; only from the main thread."""
        told, tell = os.pipe()
        os.set_blocking(tell, False)
        # The bytes come also while the main thread is in foreign code, or waits for a lock.
        signal.set_wakeup_fd(tell, warn_on_full_buffer=False)
        for number in SIGNALS:
            # `nohup` lets a program go on when its terminal is closed.
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, lambda _number, _frame: None)
        threading.Thread(target=self.wait, args=(told,), name="ending", daemon=True).start()

    def wait(self, signals: int) -> None:
        """Look until the worker's end, and bring it about where the worker hangs; `signals` is a pipe of them."""
        while not self.hangs():
            self.look(signals, self.LOOK_SECONDS)
        log.error("this worker hangs and ends", extra={"exit_status": FAULTY})
        self._end_process(FAULTY)

    def look(self, signals: int, seconds: float) -> None:
        """Ask the worker to end if there is reason to, or if a signal comes within so many seconds."""
        if self._node is not None and self._parent() != self._node:
            self._orphaned(self._node)
        if select.select([signals], [], [], seconds)[0]:
            for number in SIGNALS.keys() & os.read(signals, 512):
                self._ask(SIGNALS[number])

    def hangs(self) -> bool:
        """Whether the worker was asked to end, and should have ended by now."""
        if self._asked_at is None:
            return False
        now = self._clock()
        if self._triage.working:
            self._worked_at = now
            return now - self._asked_at >= self._stop_seconds + self.LAYING_DOWN_SECONDS
        return now - self._worked_at >= self.LAST_SECONDS

    def _ask(self, status: int) -> None:
        now = self._clock()
        if self._asked_at is None:
            self._asked_at = self._worked_at = now
            self._triage.stop(self._stop_seconds)
        elif now - self._asked_at >= ONE_REQUEST_SECONDS:
            # Whoever asks twice does not want to wait.
            self._triage.stop(0.0)
        self._leave(status)

    def _orphaned(self, node: int) -> None:
        self._node = None
        # The kernel may have told already: that is no second request.
        if self._asked_at is None:
            self._ask(0)
        log.warning("the node of this worker is gone, and the worker ends", extra={"pid": node})


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
