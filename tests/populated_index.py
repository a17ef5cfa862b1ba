"""An index with a study in every state, made through the index's own methods alone; times count back from NOW."""

import sqlite3
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

from dicom_node.archive.index import Index
from dicom_node.archive.jobs import ReportRow
from dicom_node.core.job import Job, Lease
from dicom_node.core.lifecycle import JobState, StudyState
from dicom_node.core.priority import Priority
from dicom_node.core.study import Instance
from dicom_node.core.uid import derived_uid

#: 2024-02-29T10:15:00Z
NOW = 1709201700.0

SEG = "1.2.840.10008.5.1.4.1.1.66.4"
SR = "1.2.840.10008.5.1.4.1.1.88.34"
WORKERS = ("gpu1:4711", "gpu1:4712", "gpu2:99")


def uid(*parts: object) -> str:
    """The UID that always follows from the same parts."""
    return derived_uid(*map(str, parts))


def study_uid(name: str) -> str:
    """Of the study that `populate` makes under this name."""
    return uid("study", name)


def instance(study: str, number: int, *, at: float, series: int = 2, **changes: Any) -> Instance:
    """One CT image of a study by name."""
    fields: dict[str, Any] = {
        "study_instance_uid": study_uid(study),
        "series_instance_uid": uid("series", study, series),
        "sop_instance_uid": uid("image", study, series, number),
        "sop_class_uid": "1.2.840.10008.5.1.4.1.1.2",
        "transfer_syntax_uid": "1.2.840.10008.1.2.1",
        "path": f"studies/{study}/{series}/{number}.dcm",
        "size_bytes": 525_312,
        "sha256": f"{series:032d}{number:032d}",
        "received_at": at,
        "calling_ae_title": "CT1",
        "attributes": {"Modality": "CT", "SeriesNumber": series, "SeriesDescription": "CHEST 1.0 LUNG"},
    }
    return Instance(**{**fields, **changes})


def receive(index: Index, study: str, *, at: float, instances: int = 3) -> None:
    """Let a study's localizer and slices arrive, the last one at this time."""
    association = uid("association", study)[:36]
    index.studies.association_opened(association, "CT1", at - instances)
    localizer = {"Modality": "CT", "SeriesNumber": 1, "SeriesDescription": "TOPOGRAM"}
    index.studies.add_instance(instance(study, 1, at=at - instances, series=1, attributes=localizer), association)
    for number in range(1, instances + 1):
        index.studies.add_instance(instance(study, number, at=at - instances + number), association)
    index.studies.association_ended(association, "released", at)


def complete(index: Index, study: str, *, at: float, instances: int = 3) -> None:
    """A study that arrived whole and was found complete two seconds later."""
    receive(index, study, at=at - 2, instances=instances)
    cause = "released, quiet for 2 s, every series whole"
    index.studies.move(study_uid(study), StudyState.COMPLETE, cause=cause, actor="assembly", at=at)


def queue(index: Index, study: str, *, at: float, priority: Priority = Priority.ROUTINE, instances: int = 3) -> Job:
    """A complete study whose one job waits."""
    complete(index, study, at=at, instances=instances)
    job = Job(
        job_uid=uid("job", study),
        study_instance_uid=study_uid(study),
        series_instance_uid=uid("series", study, 2),
        algorithm="lung_nodule",
        route="lung nodules on chest CT",
        priority=priority,
        send_to=(),
        evidence="e" * 64,
        state=JobState.QUEUED,
        reason="",
        attempts=0,
    )
    index.jobs.queue(job.study_instance_uid, [job], cause="1 job for lung_nodule", actor="assembly", at=at)
    return job


def claim(index: Index, job: Job, *, at: float, worker: str = WORKERS[0]) -> Lease:
    """A worker begins with the job."""
    claimed = index.jobs.claim(job.job_uid, worker=worker, lease_seconds=30, at=at)
    assert claimed is not None
    return claimed[1]


def report(index: Index, study: str, *, at: float, priority: Priority = Priority.ROUTINE, findings: int = 2) -> None:
    """A study that was read within eight seconds and waits for its deliveries."""
    job = queue(index, study, at=at - 9, priority=priority, instances=5)
    lease = claim(index, job, at=at - 8)
    index.jobs.report(lease, objects(study, with_segmentation=findings > 0), summary=summary(findings), at=at)


def summary(findings: int) -> Mapping[str, Any]:
    """What a worker writes of its job."""
    nodules = "1 nodule" if findings == 1 else f"{findings} nodules"
    text = f"{nodules}, the largest 11.4 mm" if findings else "no nodule found"
    steps = {"load": 0.8, "infer": 6.25, "report": 0.7}
    category = "ACR Category 3 Actionable Finding" if findings else ""
    return {"result": text, "findings": findings, "priority": category, "inference_seconds": 6.25, "steps": steps}


def objects(study: str, *, with_segmentation: bool = True) -> list[ReportRow]:
    """The objects of a study's report."""
    classes = {"seg": SEG, "sr": SR} if with_segmentation else {"sr": SR}
    return [
        ReportRow(
            sop_instance_uid=uid(kind, study),
            series_instance_uid=uid(kind, "series", study),
            sop_class_uid=sop_class,
            path=f"results/{study}/{kind}.dcm",
            sha256="f" * 64,
        )
        for kind, sop_class in classes.items()
    ]


def deliver(index: Index, study: str, *, at: float, peer: str = "pacs") -> None:
    """The peer accepts every object of a reported study."""
    for sop_instance_uid, *_ in index.deliveries.unplanned():
        index.deliveries.plan(sop_instance_uid, [peer], at)
    for row in index.deliveries.of_study(study_uid(study)):
        index.deliveries.accepted(row, reason="0x0000 Success", at=at)


def populate(index: Index) -> None:
    """A node on a busy morning: studies in every state, two workers at work and one silent, a peer that is away."""
    for number, findings in enumerate((0, 3, 0, 1)):
        report(index, f"delivered {number}", at=NOW - 4000 + 600 * number, findings=findings)
        deliver(index, f"delivered {number}", at=NOW - 3998 + 600 * number)
    report(index, "committed", at=NOW - 90_000, priority=Priority.HIGH)
    deliver(index, "committed", at=NOW - 89_998)
    cause = "storage commitment answered for every object"
    index.studies.move(study_uid("committed"), StudyState.COMMITTED, cause=cause, actor="delivery", at=NOW - 89_990)
    report(index, "reported", at=NOW - 300, priority=Priority.STAT)
    _postpone_deliveries(index, "reported")
    _add_queued(index)
    complete(index, "not routed", at=NOW - 1000)
    reason = 'no route wants it: series 2: Modality is "MR", not "CT"'
    index.studies.move(study_uid("not routed"), StudyState.NOT_ROUTED, cause=reason, actor="assembly", at=NOW - 1000)
    complete(index, "complete", at=NOW - 0.4)
    receive(index, "receiving", at=NOW - 1.5, instances=12)
    index.studies.add_instance(instance("receiving", 3, at=NOW - 1, sha256="c" * 64))
    _add_failed(index)


def _add_queued(index: Index) -> None:
    stat = queue(index, "reading stat", at=NOW - 20, priority=Priority.STAT, instances=9)
    claim(index, stat, at=NOW - 6)
    queue(index, "queued high", at=NOW - 75, priority=Priority.HIGH)
    for number in range(3):
        queue(index, f"queued {number}", at=NOW - 4000 + number)
    bundles, queues = ["lung_nodule 0.1.0"], ["stat", "urgent", "routine"]
    devices = ("NVIDIA H200", "NVIDIA H200", "cpu")
    for worker, device, age in zip(WORKERS, devices, (3, 8, 7000), strict=True):
        index.workers.began(worker, device=device, bundles=bundles, queues=queues, at=NOW - 8000)
        index.workers.beat(worker, job_uid=stat.job_uid if worker == WORKERS[0] else None, at=NOW - age)


def _postpone_deliveries(index: Index, study: str) -> None:
    for sop_instance_uid, *_ in index.deliveries.unplanned():
        index.deliveries.plan(sop_instance_uid, ["pacs"], NOW - 300)
    for attempt in range(3):
        for row in index.deliveries.of_study(study_uid(study)):
            reason = "PACS at 10.0.0.5 port 4242 does not answer (connection refused); is it running?"
            next_try_at = NOW - 290 + attempt * 160
            index.deliveries.postponed(row, reason=reason, refused=False, next_try_at=next_try_at, at=NOW - 295)


def _add_failed(index: Index) -> None:
    job = queue(index, "failed", at=NOW - 600, priority=Priority.HIGH)
    reason = "slices are missing between 33.0 mm and 38.0 mm along the normal; send the series again whole"
    index.jobs.end(claim(index, job, at=NOW - 590), JobState.FAILED, reason=reason, at=NOW - 585)


def open_populated(folder: Path) -> Index:
    """Such an index in a file of this folder."""
    url = f"sqlite:///{folder / 'index.sqlite'}"
    # Made in memory and copied: a hundred durable commits are what makes this slow.
    with closing(sqlite3.connect(folder / "index.sqlite")) as file:
        index = Index.open("sqlite://")
        populate(index)
        memory = index._engine.raw_connection()
        assert memory.driver_connection is not None
        memory.driver_connection.backup(file)
        memory.close()
        index.close()
    return Index.open(url)
