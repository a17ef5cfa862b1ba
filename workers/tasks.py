"""The tasks there are: each unpacks its message and calls the triage."""

from celery import Celery

from dicom_node.job_queue import TASK, TASK_AHEAD
from workers.triage import Triage


def register(app: Celery, triage: Triage) -> None:
    """Let the worker answer to the tasks' names."""

    # The message's words are for people who look into the queue: what is read next, the index decides.
    @app.task(name=TASK, ignore_result=True)  # type: ignore[untyped-decorator]  # Celery has no types
    def read(job_uid: str = "", study_instance_uid: str = "", algorithm: str = "") -> None:
        triage.work_off()

    @app.task(name=TASK_AHEAD, ignore_result=True)  # type: ignore[untyped-decorator]  # Celery has no types
    def prepare(study_instance_uid: str, series_instance_uid: str, algorithm: str, evidence: str) -> None:
        triage.prepare(
            study_instance_uid=study_instance_uid,
            series_instance_uid=series_instance_uid,
            algorithm=algorithm,
            evidence=evidence,
        )
