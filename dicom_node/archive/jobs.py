"""The index's jobs: queued, claimed under a lease, and ended, each change together with its study's state."""

import math
from collections.abc import Collection, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import sqlalchemy as sa

from dicom_node.archive.comparisons import Comparisons
from dicom_node.archive.delivery_rows import may_be_there
from dicom_node.archive.job_rows import JOB_FIELDS, WITHDRAWN, JobRow, ReportRow, job_of, job_row_of
from dicom_node.archive.leases import LeaseLost, Leases
from dicom_node.archive.prepared import Prepared
from dicom_node.archive.prepared_query import PreparedQuery
from dicom_node.archive.retention import Evictions
from dicom_node.archive.transactions import Transactions
from dicom_node.core.attempts import Attempts
from dicom_node.core.errors import IllegalTransition
from dicom_node.core.form import Form
from dicom_node.core.job import Job, Lease
from dicom_node.core.lifecycle import DeliveryState, JobState, StudyState, study_state_after_jobs
from dicom_node.core.priority import Priority

__all__ = ["JobRow", "Jobs", "LeaseLost", "ReportRow"]

#: Why a study enters a state when all its jobs have their answer already.
_ANSWERED_BEFORE = {
    StudyState.REPORTED: "the evidence is what was already read",
    StudyState.NOT_ROUTED: "the evidence is what was already answered",
    StudyState.FAILED: "the evidence is what could not be read before; requeue the study to try it once more",
}

_WITHDRAWN_BEFORE = "the evidence is what a result was withdrawn of; requeue the study to have it read again"

#: Why an object is not sent any more that a peer was offered.
_REPLACED = "a later report of its job took its place"

#: What a job's row says anew when the job is queued, for the first time or once more.
_FRESH: Mapping[str, Any] = MappingProxyType(
    {
        "attempts": 0,
        "current": True,
        "reason": "",
        "dead_letter": False,
        "error": "",
        "flag": "",
        "answer_owed": False,
        **dict.fromkeys(("sent_at", "started_at", "ended_at", "next_try_at", "worker", "summary")),
    }
)


#: What a report's row says beside its object.
_WRITTEN = ("job_uid", "study_instance_uid", "written_at", "offered_at", "unwanted", "known_to")


class Jobs(Leases):
    """The jobs of the index; how they are claimed and lost is in `Leases`."""

    def __init__(self, transactions: Transactions) -> None:
        super().__init__(transactions)
        self._reports = transactions.tables["reports"]
        self._evictions, self._comparisons = Evictions(transactions), Comparisons(transactions)
        jobs, reports, deliveries = self._jobs, self._reports, transactions.tables["deliveries"]
        self._new_job = Prepared(sa.insert(jobs), *JOB_FIELDS, *_FRESH, "queued_at", "fence")
        self._new_report = Prepared(sa.insert(reports), *ReportRow.__dataclass_fields__, *_WRITTEN)
        of_this = sa.or_(reports.c.sop_instance_uid == sa.bindparam("uid"), reports.c.job_uid == sa.bindparam("job"))
        self._written = PreparedQuery(sa.select(reports.c.sop_instance_uid).where(of_this).limit(1))
        # Sent in the future: before the clock was set back.
        sent_at = jobs.c.sent_at
        late = sa.or_(sent_at.is_(None), sent_at < sa.bindparam("sent_before"), sent_at > sa.bindparam("at"))
        urgency = sa.case({term.value: number for number, term in enumerate(Priority)}, value=jobs.c.priority)
        unsent = sa.select(jobs).where(self._waiting.condition, late).order_by(urgency, jobs.c.queued_at)
        self._unsent = PreparedQuery(unsent.limit(sa.bindparam("most")))
        self._state_of_job = PreparedQuery(sa.select(jobs.c.state).where(jobs.c.job_uid == sa.bindparam("uid")))
        self._ring = Prepared(sa.update(jobs).where(jobs.c.job_uid == sa.bindparam("uid")), "sent_at")
        ended = (JobState.NOT_APPLICABLE.value, JobState.FAILED.value)
        owed = sa.select(jobs).where(jobs.c.answer_owed.is_(True), jobs.c.current.is_(True), jobs.c.state.in_(ended))
        self._owed = PreparedQuery(owed.order_by(jobs.c.ended_at).limit(sa.bindparam("most")))
        # What withdraws something stands beside whatever the job reports.
        of_job = sa.and_(reports.c.job_uid == sa.bindparam("uid"), reports.c.form != Form.REJECTION.value)
        of_job = sa.and_(of_job, sa.or_(sa.bindparam("all_of_it"), reports.c.held == ""))
        replaced = sa.or_(reports.c.sop_instance_uid.in_(sa.bindparam("uids", expanding=True)), of_job)
        to_peers = sa.alias(deliveries)
        accepted = sa.select(to_peers.c.peer).correlate(reports)
        accepted = accepted.where(
            to_peers.c.sop_instance_uid == reports.c.sop_instance_uid, to_peers.c.accepted_at.is_not(None)
        )
        # A peer may have it, and a person took it back.
        rejected = sa.and_(
            reports.c.withdrawn_at.is_not(None), sa.or_(reports.c.offered_at.is_not(None), accepted.exists())
        )
        taken_at = sa.select(sa.func.max(to_peers.c.accepted_at)).correlate(reports)
        taken_at = taken_at.where(to_peers.c.sop_instance_uid == reports.c.sop_instance_uid)
        offered_at = sa.func.coalesce(reports.c.offered_at, taken_at.scalar_subquery()).label("offered_at")
        columns = (reports.c.sop_instance_uid, offered_at, reports.c.known_to, rejected.label("rejected"))
        self._offered = sa.select(*columns).where(replaced)
        holders = sa.select(deliveries.c.sop_instance_uid, deliveries.c.peer)
        holders = holders.join(reports, reports.c.sop_instance_uid == deliveries.c.sop_instance_uid)
        self._holders = holders.where(replaced, may_be_there(transactions.tables))
        another = reports.c.sop_instance_uid.not_in(sa.bindparam("uids", expanding=True))
        # What a peer may have can be taken back only as long as it is known.
        kept = sa.and_(replaced, another, sa.or_(reports.c.offered_at.is_not(None), accepted.exists()))
        newly = sa.update(reports).where(kept, reports.c.replaced_at.is_(None))
        self._keep_reports = newly.values(replaced_at=sa.bindparam("now"))
        of_kept = deliveries.c.sop_instance_uid.in_(sa.select(reports.c.sop_instance_uid).where(kept))
        # Whether it arrived may be unknown; it is not tried any more.
        self._end_deliveries = (
            sa.update(deliveries)
            .where(of_kept, deliveries.c.state == DeliveryState.WAITING.value)
            .values(state=DeliveryState.FAILED.value, reason=_REPLACED, fence=deliveries.c.fence + 1)
        )
        dropped = sa.and_(replaced, sa.or_(~another, reports.c.replaced_at.is_(None)))
        of_dropped = deliveries.c.sop_instance_uid.in_(sa.select(reports.c.sop_instance_uid).where(dropped))
        self._drop_deliveries = sa.delete(deliveries).where(of_dropped)
        self._drop_reports = sa.delete(reports).where(dropped)

    def queue(self, study_instance_uid: str, jobs: Sequence[Job], *, cause: str, actor: str, at: float) -> list[Job]:
        """Queue a COMPLETE study's jobs and return those that want a worker; work already done is not done again."""
        with self._transactions.write(durable=False) as connection:
            wanting = [
                job for job in jobs if self._enter(connection, job, f"{job.priority} by route {job.route}", actor, at)
            ]
            states = [self._state(connection, job.job_uid) for job in jobs]
            # Of those that want no worker, what was withdrawn is superseded.
            otherwise = StudyState.QUEUED if wanting else StudyState.NOT_ROUTED
            after = study_state_after_jobs([state for state in states if state])
            why = cause if wanting else _WITHDRAWN_BEFORE if after is None else _ANSWERED_BEFORE[after]
            after = after or otherwise
            self._transactions.move_study(connection, study_instance_uid, after, cause=why, actor=actor, at=at)
            self._raise_priority(connection, study_instance_uid, jobs)
        return wanting

    def unsent(self, sent_before: float, *, at: float = math.inf, limit: int = 1000) -> list[Job]:
        """Jobs to be claimed at a time, whose message was never sent or was last sent before another time.

        The most urgent first, then the longest waiting; at most `limit`.
        """
        when = {"sent_before": sent_before, "at": at, "most": limit}
        with self._transactions.read() as connection:
            return [job_of(row) for row in self._unsent.rows(connection, **when)]

    def sent(self, job_uids: Collection[str], at: float) -> None:
        """The broker took a message for each of these jobs."""
        if job_uids:
            with self._transactions.write(durable=False) as connection:
                for uid in job_uids:
                    self._ring(connection, uid=uid, sent_at=at)

    def report(self, lease: Lease, objects: Sequence[ReportRow], *, summary: Mapping[str, Any], at: float) -> None:
        """The job ended in a report: its objects and its end are one change; LeaseLost when it is not ours to end.

        Interrupted where what its findings were compared with does not stand any more.
        """
        with self._transactions.write(durable=False) as connection:
            self._comparisons.check(connection, summary, to_report=True)
            row = self._lock_held(connection, lease)
            self._replace_reports(connection, job_of(row), objects, at)
            reason, flag = (str(summary.get(name, "")) for name in ("result", "priority"))
            values = {"summary": dict(summary), "flag": flag}
            self._leave(connection, row, JobState.REPORTED, reason, lease.worker, at, values)

    def check_compared(self, summary: Mapping[str, Any]) -> None:
        """Interrupted where the report that a reading's findings were compared with was taken back or replaced."""
        with self._transactions.read() as connection:
            self._comparisons.check(connection, summary)

    def end(self, lease: Lease, state: JobState, *, reason: str, at: float, error: str = "") -> None:
        """The job ended without a report, or goes back to the queue at once; LeaseLost when it is not ours to end.

        `error` names the class of the error tree that it ended by.
        """
        with self._transactions.write(durable=False) as connection:
            row = self._lock_held(connection, lease)
            self._leave(connection, row, state, reason, lease.worker, at, {"summary": None, "flag": "", "error": error})

    def hold(self, lease: Lease, objects: Sequence[ReportRow], *, reason: str, at: float, error: str = "") -> None:
        """The job ended in a report that must not be sent: it is kept, and the job has FAILED."""
        with self._transactions.write(durable=False) as connection:
            row = self._lock_held(connection, lease)
            self._replace_reports(connection, job_of(row), objects, at)
            values = {"summary": None, "flag": "", "error": error}
            self._leave(connection, row, JobState.FAILED, reason, lease.worker, at, values)

    def owed(self, limit: int) -> list[tuple[Job, str]]:
        """Current jobs that ended without a report, and no report that says so was written yet; the oldest first.

        Each with the name of the error that it ended by.
        """
        with self._transactions.read() as connection:
            rows = self._owed.rows(connection, most=limit)
        return [(job_of(row), str(row["error"])) for row in rows]

    def answered(self, job: Job, objects: Sequence[ReportRow], *, cause: str, actor: str, at: float) -> bool:
        """What is to be said of a job without a report was written, or cannot be; whether it was still owed.

        The job and its study stay as they are.
        """
        with self._transactions.write(durable=False) as connection:
            row = self._lock(connection, job.job_uid)
            if row is None or not row["answer_owed"] or not row["current"] or row["state"] != job.state.value:
                return False
            if objects:
                try:
                    self._replace_reports(connection, job, objects, at, keep_held=True)
                except LeaseLost:
                    return False
            same = self._jobs.c.job_uid == job.job_uid
            connection.execute(sa.update(self._jobs).where(same).values(answer_owed=False))
            change = {"before": job.state, "after": job.state, "subject": f"job {job.algorithm}"}
            self._transactions.remark(connection, job.study_instance_uid, **change, cause=cause, actor=actor, at=at)
        return True

    def give_back(self, lease: Lease, *, reason: str, at: float) -> None:
        """The attempt was none of the job's: QUEUED at once, and it is not counted; LeaseLost when it is not ours."""
        with self._transactions.write(durable=False) as connection:
            row = self._lock_held(connection, lease)
            values = {"summary": None, "flag": "", "attempts": max(0, row["attempts"] - 1)}
            self._leave(connection, row, JobState.QUEUED, reason, lease.worker, at, values)

    def retry(self, lease: Lease, *, reason: str, attempts: Attempts, at: float, error: str = "") -> JobState:
        """The attempt failed by what need not be there the next time: QUEUED after a wait, or FAILED as a dead letter.

        LeaseLost when it is not ours to end.
        """
        with self._transactions.write(durable=False) as connection:
            row = self._lock_held(connection, lease)
            return self._try_again(connection, row, attempts, reason, lease.worker, at, error).state

    def ask_again(self, study_instance_uid: str, *, actor: str, at: float) -> None:
        """A person wants the study read again: COMPLETE, and none of its earlier jobs counts as done.

        IllegalTransition while it still arrives or waits: it will be read anyway. EvictedStudy where its files have
        left the disk.
        """
        jobs, cause = self._jobs, "asked for again"
        with self._transactions.write() as connection:
            if self._transactions.study_state(connection, study_instance_uid) is StudyState.RECEIVING:
                raise IllegalTransition("the study is still arriving; it is read by itself once nothing more comes")
            self._evictions.check_on_disk(connection, study_instance_uid)
            counted = frozenset(JobState) - {JobState.SUPERSEDED}
            self._transactions.supersede_jobs(connection, study_instance_uid, counted, cause=cause, actor=actor, at=at)
            forgotten = {"current": False, "attempts": 0, "dead_letter": False, "error": ""}
            of_study = jobs.c.study_instance_uid == study_instance_uid
            connection.execute(sa.update(jobs).where(of_study).values(**forgotten))
            self._transactions.move_study(
                connection, study_instance_uid, StudyState.COMPLETE, cause=cause, actor=actor, at=at
            )

    def of_study(self, study_instance_uid: str) -> list[JobRow]:
        """The study's jobs with their times, the first queued first."""
        jobs = self._jobs
        query = sa.select(jobs).where(jobs.c.study_instance_uid == study_instance_uid).order_by(jobs.c.queued_at)
        with self._transactions.read() as connection:
            return [job_row_of(row) for row in connection.execute(query).mappings()]

    def counts(self) -> dict[tuple[str, JobState], int]:
        """How many jobs there are of each priority and state, current ones only."""
        jobs = self._jobs
        query = sa.select(jobs.c.priority, jobs.c.state, sa.func.count()).where(jobs.c.current.is_(True))
        with self._transactions.read() as connection:
            rows = connection.execute(query.group_by(jobs.c.priority, jobs.c.state)).all()
        return {(priority, JobState(state)): count for priority, state, count in rows}

    def dead_letters(self) -> int:
        """How many current jobs gave up after their last attempt and wait for a person."""
        jobs = self._jobs
        failed = sa.and_(jobs.c.state == JobState.FAILED.value, jobs.c.dead_letter.is_(True), jobs.c.current.is_(True))
        with self._transactions.read() as connection:
            return connection.execute(sa.select(sa.func.count()).where(failed)).scalar_one()

    def report_rows(self, job_uid: str) -> list[ReportRow]:
        """The objects that the job's report consists of, and what withdraws some; without those that were replaced."""
        reports = self._reports
        of_job = sa.and_(reports.c.job_uid == job_uid, reports.c.replaced_at.is_(None))
        query = sa.select(reports).where(of_job).order_by(reports.c.sop_class_uid)
        with self._transactions.read() as connection:
            rows = connection.execute(query).mappings().all()
        return [ReportRow(**{name: row[name] for name in ReportRow.__dataclass_fields__}) for row in rows]

    def _was_taken_back(self, connection: sa.Connection, job: Job) -> bool:
        """Whether what this job would read was withdrawn, by whatever route it was read then."""
        jobs = self._jobs
        same = (jobs.c.algorithm == job.algorithm, jobs.c.evidence == job.evidence, jobs.c.error == WITHDRAWN)
        query = sa.select(jobs.c.job_uid).where(jobs.c.study_instance_uid == job.study_instance_uid, *same)
        return connection.execute(query.limit(1)).first() is not None

    def _enter(self, connection: sa.Connection, job: Job, cause: str, actor: str, at: float) -> bool:
        """Queue a job unless it has its answer already; whether it was queued."""
        row = self._lock(connection, job.job_uid)
        if row is not None and row["state"] != JobState.SUPERSEDED.value:
            same = self._jobs.c.job_uid == job.job_uid
            connection.execute(sa.update(self._jobs).where(same).values(current=True))
            return False
        if self._was_taken_back(connection, job):
            # Nothing but a person's word reads again what a person took back: a peer may pass on its own note to us.
            return False
        values: dict[str, Any] = {name: getattr(job, name) for name in JOB_FIELDS if name != "state"}
        values |= {**_FRESH, "priority": job.priority.value, "send_to": list(job.send_to), "queued_at": at}
        if row is not None:
            del values["job_uid"]
            self._transactions.move_job(
                connection, row, JobState.QUEUED, cause=cause, actor=actor, at=at, values=values
            )
            return True
        self._new_job(connection, **values, state=JobState.QUEUED.value, fence=0)
        self._transactions.remark(
            connection,
            job.study_instance_uid,
            before=JobState.QUEUED,
            after=JobState.QUEUED,
            cause=cause,
            actor=actor,
            at=at,
            subject=f"job {job.algorithm}",
        )
        return True

    def _state(self, connection: sa.Connection, job_uid: str) -> JobState | None:
        return next((JobState(state) for state in self._state_of_job.scalars(connection, uid=job_uid)), None)

    def _replace_reports(
        self, connection: sa.Connection, job: Job, objects: Sequence[ReportRow], at: float, *, keep_held: bool = False
    ) -> None:
        """An earlier report of this job gives way, also objects of it that the new one has no counterpart for.

        What a peer may have of it stays known, and is not sent any more. LeaseLost where one of the objects has a UID
        under which a person took something back: whoever wrote it did not know that yet, and must read anew.
        """
        offered: dict[str, float | None] = {}
        holders: dict[str, set[str]] = {}
        others = (self._written.scalars(connection, uid=row.sop_instance_uid, job=job.job_uid) for row in objects)
        if not objects or any(others):
            uids = [row.sop_instance_uid for row in objects]
            replaced = {"uid": job.job_uid, "uids": uids, "all_of_it": not keep_held, "now": at}
            known = connection.execute(self._offered, replaced).all()
            for uid in (row.sop_instance_uid for row in known if row.rejected):
                if uid in uids:
                    # Peers are told to use nothing under this UID: to write it again would take that back.
                    raise LeaseLost(f"object {uid} of job {job.job_uid} was withdrawn meanwhile")
            offered = {one.sop_instance_uid: one.offered_at for one in known}
            # The peers that it goes to now may be others than those that have it.
            holders = {one.sop_instance_uid: set(one.known_to or ()) for one in known}
            for uid, peer in connection.execute(self._holders, replaced):
                holders[uid].add(peer)
            connection.execute(self._end_deliveries, replaced)
            connection.execute(self._keep_reports, replaced)
            connection.execute(self._drop_deliveries, replaced)
            connection.execute(self._drop_reports, replaced)
        for row in objects:
            values = {name: getattr(row, name) for name in row.__dataclass_fields__}
            values |= {"job_uid": job.job_uid, "study_instance_uid": job.study_instance_uid, "written_at": at}
            # Written again, it is still what a peer may have.
            values |= {"offered_at": offered.get(row.sop_instance_uid), "unwanted": False}
            values |= {"known_to": sorted(holders.get(row.sop_instance_uid, ())) or None}
            self._new_report(connection, **values)

    def _raise_priority(self, connection: sa.Connection, study_instance_uid: str, jobs: Sequence[Job]) -> None:
        priority = min((job.priority for job in jobs), key=list(Priority).index)
        self._transactions.change_study(connection, study_instance_uid, priority=priority.value)
