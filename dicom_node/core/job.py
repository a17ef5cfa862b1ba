"""A job: one algorithm's work on the evidence of one study."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

from dicom_node.core.lifecycle import JobState
from dicom_node.core.priority import Priority
from dicom_node.core.study import Instance


@dataclass(frozen=True, kw_only=True)
class Job:
    """A row of the index's jobs, less what only the row's keeper needs."""

    #: Follows from study, algorithm and evidence, so that the same work is the same job.
    job_uid: str
    study_instance_uid: str
    series_instance_uid: str
    algorithm: str
    route: str
    priority: Priority
    #: Names of the peers that get the report; empty: every peer that takes results.
    send_to: tuple[str, ...]
    #: Digest of the instances that are read.
    evidence: str
    state: JobState
    reason: str
    attempts: int


@dataclass(frozen=True, kw_only=True)
class Lease:
    """The right to work on a job until it expires; a newer one makes an older one worthless."""

    job_uid: str
    token: str
    worker: str
    expires_at: float
    #: Of two leases on the same job the later has the higher number.
    fence: int = 0


def evidence_digest(instances: Iterable[Instance]) -> str:
    """SHA-256 over the instances' UIDs and checksums, in UID order."""
    digest = hashlib.sha256()
    for instance in sorted(instances, key=lambda i: (i.sop_instance_uid, i.sha256)):
        digest.update(f"{instance.sop_instance_uid} {instance.sha256}\n".encode())
    return digest.hexdigest()
