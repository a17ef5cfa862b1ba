"""The index's reports: the objects that were written, and which of them a later one replaces."""

import sqlalchemy as sa

from dicom_node.archive.transactions import Transactions
from dicom_node.core.job import Job

#: Comprehensive 3D SR Storage, the form of every report (PS3.6 Table A-1).
STRUCTURED_REPORT = "1.2.840.10008.5.1.4.1.1.88.34"


class Reports:
    """The reports of the index."""

    def __init__(self, transactions: Transactions) -> None:
        self._transactions = transactions
        reports, jobs, deliveries = (transactions.tables[name] for name in ("reports", "jobs", "deliveries"))
        # An index of an earlier version does not know what was offered.
        accepted = sa.select(deliveries.c.sop_instance_uid).where(
            deliveries.c.sop_instance_uid == reports.c.sop_instance_uid, deliveries.c.accepted_at.is_not(None)
        )
        first = sa.and_(reports.c.sop_instance_uid == sa.bindparam("uid"), reports.c.offered_at.is_(None))
        self._offer = sa.update(reports).where(first).values(offered_at=sa.bindparam("at"))
        self._predecessor = (
            sa.select(reports.c.path)
            .join(jobs, jobs.c.job_uid == reports.c.job_uid)
            .where(
                reports.c.study_instance_uid == sa.bindparam("uid"),
                reports.c.sop_class_uid == STRUCTURED_REPORT,
                jobs.c.algorithm == sa.bindparam("name"),
                jobs.c.job_uid != sa.bindparam("job"),
                # What stands beside this job's report is not replaced by it.
                jobs.c.current.is_(False),
                sa.or_(reports.c.offered_at.is_not(None), accepted.exists()),
            )
            .order_by(
                sa.case((jobs.c.series_instance_uid == sa.bindparam("of"), 0), else_=1), reports.c.written_at.desc()
            )
            .limit(1)
        )

    def offered(self, sop_instance_uid: str, at: float) -> None:
        """A peer is about to be sent the object: it may have it, also where its answer is lost."""
        with self._transactions.write(durable=False) as connection:
            connection.execute(self._offer, {"uid": sop_instance_uid, "at": at})

    def predecessor(self, job: Job) -> str | None:
        """The path of the structured report that this job's will replace, relative to the archive's root, or None.

        It is the last one that the same algorithm wrote of evidence of the study that does not count any more, of the
        same series if there is one, and that a peer may have: what nobody was ever offered is not to be referred to.
        """
        of = {"uid": job.study_instance_uid, "name": job.algorithm, "of": job.series_instance_uid, "job": job.job_uid}
        with self._transactions.read() as connection:
            return connection.execute(self._predecessor, of).scalar_one_or_none()
