"""The way to the workers: a bell. The index says what is to be done; the message carries a job's UID."""

from collections.abc import Mapping
from typing import Protocol

from celery import Celery
from kombu.exceptions import OperationalError

from dicom_node.core.errors import QueueUnavailable
from dicom_node.core.job import Job
from dicom_node.core.priority import QUEUES, queue_of

#: The name under which workers register the one task there is.
TASK = "triage.read"

#: A message that no worker acknowledged in this time is handed out again; the index makes the second one harmless.
VISIBILITY_TIMEOUT_SECONDS = 6 * 3600


class JobQueue(Protocol):
    """What the node asks of a queue."""

    def send(self, job: Job) -> None:
        """Ring for a job; QueueUnavailable when the broker does not take it."""

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
            "socket_timeout": 10,
            "socket_connect_timeout": 3,
        },
        "broker_connection_retry_on_startup": True,
    }


class CeleryJobQueue:
    """Jobs sent by task name to the queue of their priority; knows no worker."""

    def __init__(self, url: str) -> None:
        self._app = Celery("dicom_node", set_as_current=False)
        self._app.conf.update(celery_options(url))

    def send(self, job: Job) -> None:
        """Ring for a job; QueueUnavailable when the broker does not take it."""
        kwargs = {"job_uid": job.job_uid, "study_instance_uid": job.study_instance_uid, "algorithm": job.algorithm}
        try:
            self._app.send_task(TASK, kwargs=kwargs, queue=queue_of(job.priority), retry=False)
        except (OperationalError, OSError) as error:
            raise QueueUnavailable(f"the broker took no message ({type(error).__name__}); the job waits") from error

    def lengths(self) -> Mapping[str, int]:
        """Messages waiting in each queue; QueueUnavailable when the broker does not answer."""
        try:
            with self._app.connection_for_read(heartbeat=0) as connection:
                connection.ensure_connection(max_retries=1, interval_start=0, interval_max=0)
                channel = connection.default_channel
                return {name: channel.client.llen(name) for name in QUEUES}
        except (OperationalError, OSError) as error:
            raise QueueUnavailable(f"the broker does not answer ({type(error).__name__})") from error

    def close(self) -> None:
        """Give the connections back."""
        self._app.close()
