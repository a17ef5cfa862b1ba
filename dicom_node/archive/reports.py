"""The index's reports: the objects that were written, and which of them a later one replaces."""

from dataclasses import dataclass

import sqlalchemy as sa

from dicom_node.archive.delivery_rows import counts
from dicom_node.archive.prepared import Prepared
from dicom_node.archive.prepared_query import PreparedQuery
from dicom_node.archive.settlement import stands
from dicom_node.archive.transactions import Transactions
from dicom_node.core.form import Earlier, form_of
from dicom_node.core.job import Job

#: Comprehensive 3D SR Storage, the form of every report (PS3.6 Table A-1).
STRUCTURED_REPORT = "1.2.840.10008.5.1.4.1.1.88.34"


#: More than the forms of a report, and some that came before.
_MOST = 50


#: The name among the index's conditions of objects that the gate let not pass, and what is said of one.
HELD = "reports held"
#: Of an object that is sound, and rests on one that is not.
PART_HELD = "a part of its report failed its checks"
MEND = "failed its checks and is sent to nobody; its study's page has the rule, tell those who maintain this software"


@dataclass(frozen=True, kw_only=True)
class Held:
    """An object that must not be sent."""

    study_instance_uid: str
    sop_instance_uid: str
    sop_class_uid: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class KeptReport:
    """A structured report that the archive keeps, and what became of it."""

    sop_instance_uid: str
    #: Relative to the archive's root.
    path: str
    withdrawn_at: float | None
    #: When a later report of its job took its place.
    replaced_at: float | None
    #: Whether its job still counts.
    current: bool

    @property
    def stands(self) -> bool:
        """Whether it is what the node says today."""
        return self.withdrawn_at is None and self.replaced_at is None and self.current


class Reports:
    """The reports of the index."""

    def __init__(self, transactions: Transactions) -> None:
        self._transactions = transactions
        reports, jobs, deliveries = (transactions.tables[name] for name in ("reports", "jobs", "deliveries"))
        # An index of an earlier version does not know what was offered.
        accepted = sa.select(deliveries.c.sop_instance_uid).where(
            deliveries.c.sop_instance_uid == reports.c.sop_instance_uid, deliveries.c.accepted_at.is_not(None)
        )
        columns = (reports.c.study_instance_uid, reports.c.sop_instance_uid, reports.c.sop_class_uid, reports.c.held)
        held = sa.select(*columns).join(jobs, jobs.c.job_uid == reports.c.job_uid).order_by(reports.c.written_at)
        self._held = held.where(reports.c.held != sa.literal_column("''"), counts(transactions.tables))
        self._held_of_study = self._held.where(reports.c.study_instance_uid == sa.bindparam("uid"))
        standing = sa.and_(reports.c.sop_instance_uid == sa.bindparam("uid"), stands(reports))
        columns = (reports.c.sop_instance_uid, reports.c.path, reports.c.withdrawn_at, reports.c.replaced_at)
        self._kept = (
            sa.select(*columns, jobs.c.current)
            .join(jobs, jobs.c.job_uid == reports.c.job_uid)
            .where(reports.c.study_instance_uid == sa.bindparam("uid"), reports.c.sop_class_uid == STRUCTURED_REPORT)
            .where(reports.c.held == "")
            .order_by(reports.c.written_at, reports.c.sop_instance_uid)
        )
        self._stands = PreparedQuery(sa.select(reports.c.sop_instance_uid).where(standing))
        first = sa.update(reports).where(standing, reports.c.offered_at.is_(None))
        self._offer = Prepared(first.values(offered_at=sa.bindparam("at")))
        offered = sa.or_(reports.c.offered_at.is_not(None), accepted.exists())
        own = jobs.c.job_uid == sa.bindparam("job")
        earlier = (
            sa.select(
                reports.c.path, reports.c.form, reports.c.job_uid, offered.label("offered"), reports.c.withdrawn_at
            )
            .join(jobs, jobs.c.job_uid == reports.c.job_uid)
            .where(
                reports.c.study_instance_uid == sa.bindparam("uid"),
                reports.c.sop_class_uid == STRUCTURED_REPORT,
                reports.c.held == "",
                jobs.c.algorithm == sa.bindparam("name"),
                # What stands beside this job's report is not replaced by it.
                sa.or_(own, sa.and_(jobs.c.current.is_(False), offered)),
            )
            .order_by(
                sa.case((own, 0), (jobs.c.series_instance_uid == sa.bindparam("of"), 1), else_=2),
                reports.c.written_at.desc(),
                reports.c.form,
            )
            .limit(_MOST)
        )
        self._earlier = PreparedQuery(earlier)

    def offered(self, sop_instance_uid: str, at: float) -> bool:
        """A peer is about to be sent the object: it may have it, also where its answer is lost.

        False where it was withdrawn or replaced, and must not be sent any more.
        """
        with self._transactions.write() as connection:
            self._offer(connection, uid=sop_instance_uid, at=at)
            return bool(self._stands.scalars(connection, uid=sop_instance_uid))

    def held(self, study_instance_uid: str = "") -> list[Held]:
        """Objects of current jobs, of one study or of all, that the gate let not pass."""
        query = self._held if not study_instance_uid else self._held_of_study
        with self._transactions.read() as connection:
            rows = connection.execute(query, {"uid": study_instance_uid}).all()
        names = ("study_instance_uid", "sop_instance_uid", "sop_class_uid", "reason")
        return [Held(**dict(zip(names, row, strict=True))) for row in rows]

    def kept(self, study_instance_uid: str) -> list[KeptReport]:
        """The structured reports of a study that the gate let pass, those that stand no more too; earliest first."""
        with self._transactions.read() as connection:
            rows = connection.execute(self._kept, {"uid": study_instance_uid}).mappings()
            return [KeptReport(**row) for row in rows]

    def earlier(self, job: Job) -> tuple[Earlier, ...]:
        """The structured reports that this job's may replace: its own ones first, then by what is most likely.

        Others are of the same algorithm, of evidence of the study that does not count any more, first of the same
        series, and a peer may have them: what nobody was ever offered is not to be referred to.
        """
        of = {"uid": job.study_instance_uid, "name": job.algorithm, "of": job.series_instance_uid, "job": job.job_uid}
        with self._transactions.read() as connection:
            rows = self._earlier.rows(connection, **of)
        return tuple(
            Earlier(
                path=row["path"],
                form=form_of(row["form"], STRUCTURED_REPORT),
                offered=bool(row["offered"]),
                own=row["job_uid"] == job.job_uid,
                withdrawn=row["withdrawn_at"] is not None,
            )
            for row in rows
        )
