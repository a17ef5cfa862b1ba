"""A series as the index holds it, and a report's object as the archive keeps it."""

import hashlib
from collections.abc import Sequence

from dicom_node.archive.files import Archive
from dicom_node.archive.index import Index
from dicom_node.archive.job_rows import ReportRow
from dicom_node.core.errors import UnreadableInstance
from dicom_node.core.study import Instance
from workers.pipe import ReportObject, SeriesToRead, SourceFile


def instances_of(index: Index, study_instance_uid: str, series_instance_uid: str) -> tuple[Instance, ...]:
    """The instances of a series; UnreadableInstance where there is none."""
    for series in index.studies.study(study_instance_uid).series:
        if series.series_instance_uid == series_instance_uid:
            return series.instances
    raise UnreadableInstance(f"series {series_instance_uid} is not in the index; send the study again")


def series_to_read(instances: Sequence[Instance], algorithm: str, evidence: str) -> SeriesToRead:
    """What another process must know of a series."""
    return SeriesToRead(
        study_instance_uid=instances[0].study_instance_uid,
        series_instance_uid=instances[0].series_instance_uid,
        algorithm=algorithm,
        evidence=evidence,
        completed_at=max(instance.received_at for instance in instances),
        files=tuple(SourceFile(path=instance.path, sha256=instance.sha256) for instance in instances),
    )


def keep(archive: Archive, written: ReportObject) -> ReportRow:
    """Put an object's file into the archive, durable at return; OSError where the disk does not take it."""
    path = archive.store_result(
        study_uid=written.study_instance_uid,
        series_uid=written.series_instance_uid,
        sop_uid=written.sop_instance_uid,
        data=written.data,
    )
    return ReportRow(
        sop_instance_uid=written.sop_instance_uid,
        series_instance_uid=written.series_instance_uid,
        sop_class_uid=written.sop_class_uid,
        path=path,
        sha256=hashlib.sha256(written.data).hexdigest(),
        form=written.form.value,
        held=written.held,
    )
