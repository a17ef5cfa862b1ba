"""The one task there is: it unpacks the message and calls the triage."""

from celery import Celery

from dicom_node.job_queue import TASK
from workers.triage import Triage


def register(app: Celery, triage: Triage) -> None:
    """Let the worker answer to the task's name; the message's other words are for people who look into the queue."""

    @app.task(name=TASK, ignore_result=True)  # type: ignore[untyped-decorator]  # Celery has no types
    def read(job_uid: str, study_instance_uid: str = "", algorithm: str = "") -> None:
        triage.read(job_uid)
