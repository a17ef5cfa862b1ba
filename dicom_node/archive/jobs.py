"""The index's jobs: queued, claimed under a lease, and ended, each change together with its study's state."""

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import sqlalchemy as sa

from dicom_node.archive.transactions import Transactions
from dicom_node.core.errors import IllegalTransition, NodeError
from dicom_node.core.job import Job, Lease
from dicom_node.core.lifecycle import JOB_TRANSITIONS, JobState, StudyState, check_transition, study_state_after_jobs
from dicom_node.core.priority import Priority

JOB_FIELDS = tuple(Job.__dataclass_fields__)

#: Why a study enters a state when all its jobs have their answer already.
_ANSWERED_BEFORE = {
    StudyState.REPORTED: "the evidence is what was already read",
    StudyState.NOT_ROUTED: "the evidence is what was already answered",
    StudyState.FAILED: "the evidence is what could not be read before; requeue the study to try it once more",
}


class LeaseLost(NodeError):
    """The job is no longer this worker's: its lease ran out, or the study was opened again."""


@dataclass(frozen=True, kw_only=True)
class ReportRow:
    """One object of a report, written to the archive."""

    sop_instance_uid: str
    series_instance_uid: str
    sop_class_uid: str
    #: Relative to the archive's root.
    path: str
    sha256: str


@dataclass(frozen=True, kw_only=True)
class JobRow:
    """A job with the times and the outcome that people ask for."""

    job: Job
    queued_at: float
    sent_at: float | None
    started_at: float | None
    ended_at: float | None
    worker: str | None
    summary: Mapping[str, Any] | None


class Jobs:
    """The jobs of the index."""

    def __init__(self, transactions: Transactions) -> None:
        self._transactions = transactions
        self._jobs = transactions.tables["jobs"]
        self._reports = transactions.tables["reports"]

    def queue(self, study_instance_uid: str, jobs: Sequence[Job], *, cause: str, actor: str, at: float) -> list[Job]:
        """Queue a COMPLETE study's jobs and return those that want a worker; work already done is not done again."""
        with self._transactions.write() as connection:
            wanting = [job for job in jobs if self._enter(connection, job, at)]
            states = [self._state(connection, job.job_uid) for job in jobs]
            after = study_state_after_jobs([state for state in states if state]) or StudyState.QUEUED
            why = cause if wanting else _ANSWERED_BEFORE[after]
            self._transactions.move_study(connection, study_instance_uid, after, cause=why, actor=actor, at=at)
            self._raise_priority(connection, study_instance_uid, jobs)
        return wanting

    def unsent(self, sent_before: float) -> list[Job]:
        """QUEUED jobs whose message was never sent, or was last sent before this time; the most urgent first."""
        jobs = self._jobs
        late = sa.or_(jobs.c.sent_at.is_(None), jobs.c.sent_at < sent_before)
        query = sa.select(jobs).where(jobs.c.state == JobState.QUEUED.value, late).order_by(jobs.c.queued_at)
        with self._transactions.read() as connection:
            found = [_job(row) for row in connection.execute(query).mappings()]
        return sorted(found, key=lambda job: list(Priority).index(job.priority))

    def sent(self, job_uid: str, at: float) -> None:
        """The broker took the job's message."""
        with self._transactions.write() as connection:
            connection.execute(sa.update(self._jobs).where(self._jobs.c.job_uid == job_uid).values(sent_at=at))

    def claim(self, job_uid: str, *, worker: str, lease_seconds: float, at: float) -> tuple[Job, Lease] | None:
        """Take a QUEUED job for a worker and count the attempt before it begins; None when it is not to be had."""
        lease = Lease(job_uid=job_uid, token=str(uuid.uuid4()), worker=worker, expires_at=at + lease_seconds)
        jobs = self._jobs
        change = sa.update(jobs).where(jobs.c.job_uid == job_uid, jobs.c.state == JobState.QUEUED.value)
        with self._transactions.write() as connection:
            taken = connection.execute(
                change.values(
                    state=JobState.READING.value,
                    attempts=jobs.c.attempts + 1,
                    lease_token=lease.token,
                    lease_expires_at=lease.expires_at,
                    worker=worker,
                    started_at=at,
                )
            )
            if taken.rowcount != 1:
                return None
            job = _job(connection.execute(sa.select(jobs).where(jobs.c.job_uid == job_uid)).mappings().one())
            if self._transactions.study_state(connection, job.study_instance_uid) is StudyState.QUEUED:
                cause = f"{job.algorithm} began, attempt {job.attempts}"
                self._move(connection, job, StudyState.READING, cause, worker, at)
        return job, lease

    def renew(self, lease: Lease, until: float) -> bool:
        """Hold the job longer; False when it is no longer this lease's."""
        change = sa.update(self._jobs).where(*self._held(lease)).values(lease_expires_at=until)
        with self._transactions.write() as connection:
            return connection.execute(change).rowcount == 1

    def report(self, lease: Lease, objects: Sequence[ReportRow], *, summary: Mapping[str, Any], at: float) -> None:
        """The job ended in a report: its objects and its end are one change; LeaseLost when it is not ours to end."""
        with self._transactions.write() as connection:
            job = self._end(connection, lease, JobState.REPORTED, str(summary.get("result", "")), at, dict(summary))
            deliveries = self._transactions.tables["deliveries"]
            # An earlier report of this job gives way, also objects of it that the new one has no counterpart for.
            uids = [row.sop_instance_uid for row in objects]
            replaced = sa.or_(self._reports.c.sop_instance_uid.in_(uids), self._reports.c.job_uid == job.job_uid)
            earlier = sa.select(self._reports.c.sop_instance_uid).where(replaced)
            connection.execute(sa.delete(deliveries).where(deliveries.c.sop_instance_uid.in_(earlier)))
            connection.execute(sa.delete(self._reports).where(replaced))
            for row in objects:
                values = {name: getattr(row, name) for name in row.__dataclass_fields__}
                values |= {"job_uid": job.job_uid, "study_instance_uid": job.study_instance_uid, "written_at": at}
                connection.execute(sa.insert(self._reports).values(**values))
            self._follow(connection, job, lease.worker, at)

    def end(self, lease: Lease, state: JobState, *, reason: str, at: float) -> None:
        """The job ended without a report, or goes back to the queue; LeaseLost when it is not ours to end."""
        with self._transactions.write() as connection:
            job = self._end(connection, lease, state, reason, at, None)
            self._follow(connection, job, lease.worker, at)

    def expire(self, *, now: float, maximum_attempts: int, actor: str) -> list[Job]:
        """Queue the jobs whose worker went silent again, or let them fail after too many attempts.

        Returns them all as they now stand: QUEUED or FAILED.
        """
        jobs = self._jobs
        silent = sa.select(jobs).where(jobs.c.state == JobState.READING.value, jobs.c.lease_expires_at < now)
        found = []
        with self._transactions.write() as connection:
            for row in connection.execute(silent).mappings().all():
                job = _job(row)
                state = JobState.FAILED if job.attempts >= maximum_attempts else JobState.QUEUED
                reason = f"the worker went silent during attempt {job.attempts} of {maximum_attempts}"
                self._set(connection, job.job_uid, JobState.READING, state, reason, now, None)
                self._follow(connection, job, actor, now)
                found.append(replace(job, state=state, reason=reason))
        return found

    def abandon(self, worker: str, at: float) -> None:
        """The worker is known to be dead: its leases end now instead of in their time."""
        jobs = self._jobs
        held = sa.update(jobs).where(jobs.c.worker == worker, jobs.c.state == JobState.READING.value)
        with self._transactions.write() as connection:
            connection.execute(held.values(lease_expires_at=at - 1))

    def ask_again(self, study_instance_uid: str, *, actor: str, at: float) -> None:
        """A person wants the study read again: COMPLETE, and none of its earlier jobs counts as done.

        IllegalTransition while it still arrives or waits: it will be read anyway.
        """
        jobs = self._jobs
        change = sa.update(jobs).where(jobs.c.study_instance_uid == study_instance_uid)
        with self._transactions.write() as connection:
            if self._transactions.study_state(connection, study_instance_uid) is StudyState.RECEIVING:
                raise IllegalTransition("the study is still arriving; it is read by itself once nothing more comes")
            self._transactions.move_study(
                connection, study_instance_uid, StudyState.COMPLETE, cause="asked for again", actor=actor, at=at
            )
            values = {"state": JobState.SUPERSEDED.value, "current": False, "attempts": 0, "lease_token": None}
            connection.execute(change.values(**values))

    def of_study(self, study_instance_uid: str) -> list[JobRow]:
        """The study's jobs with their times, the first queued first."""
        jobs = self._jobs
        query = sa.select(jobs).where(jobs.c.study_instance_uid == study_instance_uid).order_by(jobs.c.queued_at)
        with self._transactions.read() as connection:
            return [_job_row(row) for row in connection.execute(query).mappings()]

    def counts(self) -> dict[tuple[str, JobState], int]:
        """How many jobs there are of each priority and state, current ones only."""
        jobs = self._jobs
        query = sa.select(jobs.c.priority, jobs.c.state, sa.func.count()).where(jobs.c.current.is_(True))
        with self._transactions.read() as connection:
            rows = connection.execute(query.group_by(jobs.c.priority, jobs.c.state)).all()
        return {(priority, JobState(state)): count for priority, state, count in rows}

    def report_rows(self, job_uid: str) -> list[ReportRow]:
        """The objects that the job's report consists of."""
        query = (
            sa.select(self._reports).where(self._reports.c.job_uid == job_uid).order_by(self._reports.c.sop_class_uid)
        )
        with self._transactions.read() as connection:
            rows = connection.execute(query).mappings().all()
        return [ReportRow(**{name: row[name] for name in ReportRow.__dataclass_fields__}) for row in rows]

    def _enter(self, connection: sa.Connection, job: Job, at: float) -> bool:
        state = self._state(connection, job.job_uid)
        if state is not None and state is not JobState.SUPERSEDED:
            self._update(connection, job.job_uid, current=True)
            return False
        values: dict[str, Any] = {name: getattr(job, name) for name in JOB_FIELDS}
        values |= {"priority": job.priority.value, "state": JobState.QUEUED.value, "send_to": list(job.send_to)}
        values |= {
            "attempts": 0,
            "queued_at": at,
            "current": True,
            "sent_at": None,
            "started_at": None,
            "ended_at": None,
        }
        if state is None:
            connection.execute(sa.insert(self._jobs).values(**values))
        else:
            del values["job_uid"]
            self._update(connection, job.job_uid, **values)
        return True

    def _state(self, connection: sa.Connection, job_uid: str) -> JobState | None:
        query = sa.select(self._jobs.c.state).where(self._jobs.c.job_uid == job_uid)
        state = connection.execute(query).scalar_one_or_none()
        return None if state is None else JobState(state)

    def _raise_priority(self, connection: sa.Connection, study_instance_uid: str, jobs: Sequence[Job]) -> None:
        studies = self._transactions.tables["studies"]
        priority = min((job.priority for job in jobs), key=list(Priority).index)
        of_study = studies.c.study_instance_uid == study_instance_uid
        connection.execute(sa.update(studies).where(of_study).values(priority=priority.value))

    def _held(self, lease: Lease) -> tuple[sa.ColumnElement[bool], ...]:
        jobs = self._jobs
        reading = jobs.c.state == JobState.READING.value
        return jobs.c.job_uid == lease.job_uid, jobs.c.lease_token == lease.token, reading

    def _end(
        self,
        connection: sa.Connection,
        lease: Lease,
        state: JobState,
        reason: str,
        at: float,
        summary: dict[str, Any] | None,
    ) -> Job:
        row = connection.execute(sa.select(self._jobs).where(*self._held(lease)).with_for_update()).mappings().first()
        if row is None:
            raise LeaseLost(f"job {lease.job_uid} is no longer held by {lease.worker}; its result is dropped")
        self._set(connection, lease.job_uid, JobState.READING, state, reason, at, summary)
        return _job(row)

    def _set(
        self,
        connection: sa.Connection,
        job_uid: str,
        before: JobState,
        after: JobState,
        reason: str,
        at: float,
        summary: dict[str, Any] | None,
    ) -> None:
        check_transition(JOB_TRANSITIONS, before, after)
        ended = None if after is JobState.QUEUED else at
        values: dict[str, Any] = {"state": after.value, "reason": reason, "ended_at": ended, "summary": summary}
        self._update(connection, job_uid, lease_token=None, lease_expires_at=None, sent_at=None, **values)

    def _update(self, connection: sa.Connection, job_uid: str, **values: Any) -> None:
        connection.execute(sa.update(self._jobs).where(self._jobs.c.job_uid == job_uid).values(**values))

    def _follow(self, connection: sa.Connection, job: Job, actor: str, at: float) -> None:
        """Let the study enter the state that its current jobs now mean."""
        jobs = self._jobs
        current = sa.select(jobs.c.state, jobs.c.reason).where(
            jobs.c.study_instance_uid == job.study_instance_uid, jobs.c.current.is_(True)
        )
        rows = connection.execute(current.order_by(jobs.c.ended_at)).all()
        states = [JobState(state) for state, _ in rows]
        after = study_state_after_jobs(states)
        reasons = "; ".join(dict.fromkeys(reason for _, reason in rows if reason))
        if after is not None:
            self._move(connection, job, after, reasons, actor, at)
        elif JobState.READING not in states:
            self._move(connection, job, StudyState.QUEUED, reasons, actor, at)

    def _move(self, connection: sa.Connection, job: Job, after: StudyState, cause: str, actor: str, at: float) -> None:
        uid = job.study_instance_uid
        if self._transactions.study_state(connection, uid) is not after:
            self._transactions.move_study(connection, uid, after, cause=cause, actor=actor, at=at)


def _job(row: Mapping[Any, Any]) -> Job:
    fields = {name: row[name] for name in JOB_FIELDS}
    fields |= {
        "priority": Priority(row["priority"]),
        "state": JobState(row["state"]),
        "send_to": tuple(row["send_to"]),
    }
    return Job(**fields)


def _job_row(row: Mapping[Any, Any]) -> JobRow:
    times = ("queued_at", "sent_at", "started_at", "ended_at", "worker", "summary")
    return JobRow(job=_job(row), **{name: row[name] for name in times})
