"""The way to the workers: a bell. The index says what is to be done; the message carries a job's UID."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, Protocol

from celery import Celery
from kombu.connection import Connection
from kombu.exceptions import OperationalError
from redis.exceptions import RedisError

from dicom_node.core.errors import QueueUnavailable
from dicom_node.core.job import Job
from dicom_node.core.priority import QUEUES, queue_of

#: The name under which workers register the one task there is.
TASK = "triage.read"
#: And of the one that only announces a job; a message of it carries `study_instance_uid`, `series_instance_uid`,
#: `algorithm` and `evidence`, and expires soon.
TASK_AHEAD = "triage.prepare"

#: A message that no worker acknowledged in this time is handed out again; the index makes the second one harmless.
VISIBILITY_TIMEOUT_SECONDS = 6 * 3600


#: An announcement that no worker took in this time has been overtaken by its job.
ANNOUNCED_SECONDS = 10.0

#: A broker that takes longer to answer is away. Longer than a worker's question for messages lasts.
ANSWER_SECONDS = 10.0

#: What a broker that is away, hangs, starts, or has no memory left makes of a call.
_SILENCES = (OperationalError, RedisError, OSError)


class JobQueue(Protocol):
    """What the node asks of a queue."""

    def send(self, job: Job) -> None:
        """Ring for a job; QueueUnavailable when the broker does not take it."""

    def announce(self, job: Job) -> None:
        """Tell whoever is idle that this job may soon come; QueueUnavailable when the broker does not take it."""

    def lengths(self) -> Mapping[str, int]:
        """Messages waiting in each queue; QueueUnavailable when the broker does not answer."""


def celery_options(url: str) -> dict[str, object]:
    """The Celery settings that the sending and the working side share."""
    return {
        "broker_url": url,
        "task_ignore_result": True,
        "task_serializer": "json",
        "accept_content": ["json"],
        "task_default_queue": QUEUES[-1],
        "task_create_missing_queues": True,
        "broker_transport_options": {
            "visibility_timeout": VISIBILITY_TIMEOUT_SECONDS,
            # Always look into the most urgent queue first.
            "queue_order_strategy": "priority",
            "socket_timeout": ANSWER_SECONDS,
            "socket_connect_timeout": 3,
        },
        # For ever: the index is read all the same.
        "broker_connection_retry_on_startup": True,
        "broker_connection_max_retries": None,
    }


class CeleryJobQueue:
    """Jobs sent by task name to the queue of their priority; knows no worker. For one thread."""

    def __init__(self, url: str) -> None:
        self._app = Celery("dicom_node", set_as_current=False)
        self._app.conf.update(celery_options(url))
        #: Kept from one question for the lengths to the next: to make it takes ten times as long as to ask.
        self._asking: Connection | None = None

    def send(self, job: Job) -> None:
        """Ring for a job; QueueUnavailable when the broker does not take it."""
        self._send(TASK, job, ("job_uid", "study_instance_uid", "algorithm"))

    def announce(self, job: Job) -> None:
        """Tell whoever is idle that this job may soon come; QueueUnavailable when the broker does not take it."""
        facts = ("study_instance_uid", "series_instance_uid", "algorithm", "evidence")
        self._send(TASK_AHEAD, job, facts, expires=ANNOUNCED_SECONDS)

    def _send(self, task: str, job: Job, facts: Sequence[str], **options: Any) -> None:
        kwargs = {name: getattr(job, name) for name in facts}
        try:
            self._app.send_task(task, kwargs=kwargs, queue=queue_of(job.priority), retry=False, **options)
        except _SILENCES as error:
            raise QueueUnavailable(f"the broker took no message ({type(error).__name__}); the job waits") from error

    def lengths(self) -> Mapping[str, int]:
        """Messages waiting in each queue; QueueUnavailable when the broker does not answer."""
        try:
            if self._asking is not None:
                # It may have died with a broker that is there again.
                with suppress(*_SILENCES):
                    return self._asked(self._asking)
                self._hang_up()
            self._asking = self._app.connection_for_read(heartbeat=0)
            self._asking.ensure_connection(max_retries=1, interval_start=0, interval_max=0)
            return self._asked(self._asking)
        except _SILENCES as error:
            self._hang_up()
            raise QueueUnavailable(f"the broker does not answer ({type(error).__name__})") from error

    @staticmethod
    def _asked(connection: Connection) -> Mapping[str, int]:
        client = connection.default_channel.client  # type: ignore[attr-defined]  # what Redis' channels have
        with client.pipeline(transaction=False) as questions:
            for name in QUEUES:
                questions.llen(name)
            return dict(zip(QUEUES, questions.execute(), strict=True))

    def _hang_up(self) -> None:
        asking, self._asking = self._asking, None
        if asking is not None:
            with suppress(*_SILENCES):
                asking.release()  # type: ignore[no-untyped-call]  # kombu has few types

    def close(self) -> None:
        """Give the connections back."""
        self._hang_up()
        self._app.close()
