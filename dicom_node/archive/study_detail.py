"""A study's detail: all that the index knows of one study, read in a few queries."""

from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa

from dicom_node.archive.index import Index
from dicom_node.archive.job_rows import JobRow
from dicom_node.archive.lines import HeldLine, JobLine, SeriesLine, StudyDetail, WithdrawalLine, result_of
from dicom_node.archive.shared_lines import JobFacts, delivery_line, read_rows, study_lines, table_of
from dicom_node.archive.withdrawals import Withdrawal
from dicom_node.core.errors import UnknownStudy


def read_study(index: Index, study_instance_uid: str, now: float) -> StudyDetail:
    """One study's whole story; UnknownStudy where there is none."""
    jobs = index.jobs.of_study(study_instance_uid)
    current = [JobFacts(row.job.algorithm, row.summary, row.dead_letter) for row in jobs if row.current]
    of_study = table_of(index, "studies").c.study_instance_uid == study_instance_uid
    lines = study_lines(index, of_study, jobs={study_instance_uid: current})
    if not lines:
        raise UnknownStudy(f"study {study_instance_uid} is not in the index; `dicom-node status` lists those that are")
    away = {peer.peer: peer for peer in index.peers.all_away()}
    return StudyDetail(
        now=now,
        study=lines[0],
        history=tuple(index.studies.history(study_instance_uid)),
        series=_series(index, study_instance_uid),
        jobs=tuple(map(_job, jobs)),
        deliveries=tuple(delivery_line(row, away) for row in index.deliveries.of_study(study_instance_uid)),
        held=tuple(
            HeldLine(sop_instance_uid=held.sop_instance_uid, sop_class_uid=held.sop_class_uid, reason=held.reason)
            for held in index.reports.held(study_instance_uid)
        ),
        withdrawals=tuple(map(_withdrawal, index.withdrawals.of_study(study_instance_uid))),
    )


def _series(index: Index, study_instance_uid: str) -> tuple[SeriesLine, ...]:
    instances = table_of(index, "instances")
    query = (
        sa.select(
            instances.c.series_instance_uid,
            sa.func.min(instances.c.sop_instance_uid).label("first"),
            sa.func.count().label("instances"),
            sa.func.sum(sa.case((instances.c.conflict, 1), else_=0)).label("conflicts"),
            sa.func.sum(instances.c.size_bytes).label("size_bytes"),
        )
        .where(instances.c.study_instance_uid == study_instance_uid)
        .group_by(instances.c.series_instance_uid)
    )
    rows = read_rows(index, query)
    first = sa.select(instances.c.sop_instance_uid, instances.c.attributes)
    headers = read_rows(index, first.where(instances.c.sop_instance_uid.in_([row["first"] for row in rows])))
    attributes = {row["sop_instance_uid"]: row["attributes"] for row in headers}
    lines = [_series_line(row, attributes[row["first"]]) for row in rows]
    return tuple(sorted(lines, key=lambda line: (line.number is None, line.number or 0, line.series_instance_uid)))


def _series_line(row: sa.RowMapping, attributes: Mapping[str, Any]) -> SeriesLine:
    number = attributes.get("SeriesNumber")
    return SeriesLine(
        series_instance_uid=row["series_instance_uid"],
        modality=str(attributes.get("Modality") or ""),
        number=number if isinstance(number, int) else None,
        description=str(attributes.get("SeriesDescription") or ""),
        instances=row["instances"],
        conflicts=int(row["conflicts"]),
        size_bytes=int(row["size_bytes"]),
    )


def _job(row: JobRow) -> JobLine:
    job = row.job
    return JobLine(
        job_uid=job.job_uid,
        algorithm=job.algorithm,
        route=job.route,
        series_instance_uid=job.series_instance_uid,
        priority=job.priority,
        state=job.state,
        reason=job.reason,
        current=row.current,
        attempts=job.attempts,
        queued_at=row.queued_at,
        started_at=row.started_at,
        ended_at=row.ended_at,
        next_try_at=row.next_try_at,
        worker=row.worker,
        result=result_of(row.summary),
        dead_letter=row.dead_letter,
        findings=tuple((row.summary or {}).get("rows") or ()),
    )


def _withdrawal(row: Withdrawal) -> WithdrawalLine:
    return WithdrawalLine(
        asked_at=row.asked_at,
        actor=row.actor,
        safety=row.safety,
        reason=row.reason,
        peers=tuple(sorted(row.objects)),
        written_at=row.written_at,
    )
