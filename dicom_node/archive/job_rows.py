"""Rows of the index's jobs and of the objects that their reports consist of."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dicom_node.core.job import Job
from dicom_node.core.lifecycle import JobState
from dicom_node.core.priority import Priority

JOB_FIELDS = tuple(Job.__dataclass_fields__)

#: What stands for the error of a job whose result a person took back, until a person asks for another.
WITHDRAWN = "Withdrawn"


@dataclass(frozen=True, kw_only=True)
class ReportRow:
    """One object of a report, written to the archive."""

    sop_instance_uid: str
    series_instance_uid: str
    sop_class_uid: str
    #: Relative to the archive's root.
    path: str
    sha256: str
    form: str = ""
    #: Why the gate let it not pass; empty where it did.
    held: str = ""


@dataclass(frozen=True, kw_only=True)
class JobRow:
    """A job with the times and the outcome that people ask for."""

    job: Job
    queued_at: float
    sent_at: float | None
    started_at: float | None
    ended_at: float | None
    #: A QUEUED job waits until then before its next attempt.
    next_try_at: float | None
    worker: str | None
    summary: Mapping[str, Any] | None
    #: FAILED because every attempt it may have was used up.
    dead_letter: bool
    #: False when a late instance or a person's wish made it history.
    current: bool


def job_of(row: Mapping[Any, Any]) -> Job:
    """The job in a row of the table."""
    fields = {name: row[name] for name in JOB_FIELDS}
    fields |= {
        "priority": Priority(row["priority"]),
        "state": JobState(row["state"]),
        "send_to": tuple(row["send_to"]),
    }
    return Job(**fields)


def job_row_of(row: Mapping[Any, Any]) -> JobRow:
    """A whole row of the table."""
    others = [name for name in JobRow.__dataclass_fields__ if name != "job"]
    return JobRow(job=job_of(row), **{name: row[name] for name in others})
