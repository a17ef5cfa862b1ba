"""What the index knows already of an instance that arrives, in one question: of most, all but the instance itself."""

from collections.abc import Mapping
from typing import NamedTuple

import sqlalchemy as sa

from dicom_node.archive.prepared import Prepared
from dicom_node.core.study import Instance


class Known(NamedTuple):
    """What is in the index, as a transaction sees it."""

    #: Something of this SOP Instance UID was received before.
    instance: bool
    #: Something was wrong with the file of this path.
    fault: bool
    #: The row that its series is searched by.
    series: bool
    #: That its association sent something of its study.
    sending: bool


class Familiar:
    """Looks an instance up."""

    def __init__(self, tables: Mapping[str, sa.Table]) -> None:
        names = ("instances", "archive_faults", "searched_series", "association_studies")
        instances, faults, series, sent = (tables[name] for name in names)
        study: sa.BindParameter[str] = sa.bindparam("study")
        there = (
            sa.select(instances.c.sop_instance_uid).where(instances.c.sop_instance_uid == sa.bindparam("instance")),
            sa.select(faults.c.path).where(faults.c.path == sa.bindparam("file")),
            sa.select(series.c.study_instance_uid).where(
                series.c.study_instance_uid == study, series.c.series_instance_uid == sa.bindparam("series")
            ),
            sa.select(sent.c.study_instance_uid).where(
                sent.c.study_instance_uid == study, sent.c.association_id == sa.bindparam("sender")
            ),
        )
        self._question = Prepared(sa.select(*(query.exists() for query in there)))

    def of(self, connection: sa.Connection, instance: Instance, association_id: str | None) -> Known:
        """What is known; after the study's row was locked, so that nobody else adds to it."""
        study, series = instance.study_instance_uid, instance.series_instance_uid
        values = {"instance": instance.sop_instance_uid, "file": instance.path, "study": study, "series": series}
        row = self._question(connection, sender=association_id or "", **values).fetchone()
        return Known(*map(bool, row))
