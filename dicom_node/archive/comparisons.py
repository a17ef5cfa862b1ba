"""Comparisons: which reports rest on an earlier one of their patient, so that none rests on what was taken back.

Studies are locked in the order of their dates, the earlier one first: of a report and the withdrawal of what it was
compared with, one waits for the other and knows of it.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import sqlalchemy as sa

from dicom_node.archive.prepared_query import PreparedQuery
from dicom_node.archive.settlement import stands
from dicom_node.archive.transactions import Transactions
from dicom_node.core.errors import Interrupted
from dicom_node.core.lifecycle import JobState
from dicom_node.core.prior import PRIOR_REPORT, PRIOR_STUDY


class Comparisons:
    """What the summaries of readings say of earlier studies."""

    def __init__(self, transactions: Transactions) -> None:
        self._transactions = transactions
        reports, jobs, searched = (transactions.tables[name] for name in ("reports", "jobs", "searched_studies"))
        counts = (jobs.c.current.is_(True), jobs.c.state == JobState.REPORTED.value, stands(reports))
        standing = sa.select(reports.c.sop_instance_uid).join(jobs, jobs.c.job_uid == reports.c.job_uid)
        self._standing = PreparedQuery(standing.where(reports.c.sop_instance_uid == sa.bindparam("uid"), *counts))
        patient = sa.select(searched.c.PatientID).where(searched.c.study_instance_uid == sa.bindparam("study"))
        self._later = (
            sa.select(jobs.c.study_instance_uid)
            .join(searched, searched.c.study_instance_uid == jobs.c.study_instance_uid)
            .where(searched.c.PatientID == patient.scalar_subquery(), jobs.c.current.is_(True))
            .where(jobs.c.summary[PRIOR_STUDY].as_string() == sa.bindparam("study"))
            .order_by(searched.c.StudyDate, searched.c.StudyTime, jobs.c.study_instance_uid)
        )

    def check(self, connection: sa.Connection, summary: Mapping[str, Any], *, to_report: bool = False) -> None:
        """Interrupted where the report that a reading's findings were compared with was taken back or replaced.

        `to_report`: nothing of that comes between this and the end of the transaction.
        """
        if PRIOR_REPORT not in summary:
            return
        if to_report:
            self._transactions.find_study_state(connection, summary[PRIOR_STUDY])
        if not self._standing.scalars(connection, uid=summary[PRIOR_REPORT]):
            raise Interrupted("the earlier study that it was compared with does not stand any more")

    def later(self, connection: sa.Connection, study_instance_uid: str) -> Iterator[str]:
        """The studies whose findings were compared with this one's, as their reports are now."""
        found = connection.execute(self._later, {"study": study_instance_uid}).scalars()
        yield from dict.fromkeys(map(str, found))
