"""Who works on a job: claimed under a lease, in the order that the index decides; renewed, ended or lost."""

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import sqlalchemy as sa

from dicom_node.archive.job_rows import job_of
from dicom_node.archive.prepared import Prepared
from dicom_node.archive.prepared_query import PreparedQuery
from dicom_node.archive.transactions import Transactions
from dicom_node.core.attempts import Attempts
from dicom_node.core.errors import NodeError
from dicom_node.core.job import Job, Lease
from dicom_node.core.lifecycle import JobState, StudyState, study_state_after_jobs
from dicom_node.core.priority import Priority
from dicom_node.core.queue_order import place, priorities_of


class LeaseLost(NodeError):
    """The job is no longer this worker's: its lease ran out, or the study was opened again."""


class _Waiting:
    """Statements about the jobs that can be claimed at a time `at`, of all algorithms or of some."""

    def __init__(self, tables: Mapping[str, sa.Table], algorithms: Sequence[str] | None = None) -> None:
        jobs, studies = tables["jobs"], tables["studies"]
        known = sa.true() if algorithms is None else jobs.c.algorithm.in_(algorithms)
        rested = sa.or_(jobs.c.next_try_at.is_(None), jobs.c.next_try_at <= sa.bindparam("at"))
        self.condition = sa.and_(jobs.c.state == JobState.QUEUED.value, rested, known)
        times = sa.select(jobs.c.queued_at)
        #: Of each priority the time when its longest waiting job was queued: the next job is one of these few.
        heads = sa.select(*(self._first(jobs, times, term.value).scalar_subquery() for term in Priority))
        self.heads = PreparedQuery(heads)
        # Both rows or none, and waiting for neither: what another worker is just taking is passed over.
        first = self._first(jobs, sa.select(jobs).join(studies), sa.bindparam("wanted"))
        #: The longest waiting job of the priority that is `wanted`.
        self.first = PreparedQuery(first.with_for_update(of=(jobs, studies), skip_locked=True))

    def _first(self, jobs: sa.Table, query: sa.Select[Any], priority: str | sa.BindParameter[str]) -> sa.Select[Any]:
        ofs = query.where(self.condition, jobs.c.priority == priority)
        return ofs.order_by(jobs.c.queued_at, jobs.c.job_uid).limit(1)


class Leases:
    """The claims on the index's jobs."""

    def __init__(self, transactions: Transactions) -> None:
        self._transactions = transactions
        jobs = self._jobs = transactions.tables["jobs"]
        self._waiting = _Waiting(transactions.tables)
        #: As the workers of this process last asked: to build these statements takes longer than to execute them.
        self._waiting_for: tuple[tuple[str, ...], _Waiting] | None = None
        of_job, of_study = jobs.c.job_uid == sa.bindparam("uid"), jobs.c.study_instance_uid == sa.bindparam("uid")
        self._study_of_job = PreparedQuery(sa.select(jobs.c.study_instance_uid).where(of_job))
        self._row_of_job = PreparedQuery(sa.select(jobs).where(of_job).with_for_update())
        self._current_states = PreparedQuery(
            sa.select(jobs.c.state, jobs.c.reason).where(of_study, jobs.c.current.is_(True)).order_by(jobs.c.ended_at)
        )
        reading = jobs.c.state == JobState.READING.value
        held = (jobs.c.lease_token == sa.bindparam("token"), jobs.c.fence == sa.bindparam("number"))
        self._renewal = Prepared(sa.update(jobs).where(of_job, *held, reading), "lease_expires_at")
        self._silent = PreparedQuery(
            sa.select(jobs.c.job_uid).where(reading, jobs.c.lease_expires_at < sa.bindparam("now"))
        )

    def claim_next(
        self,
        *,
        worker: str,
        queues: Sequence[str],
        lease_seconds: float,
        at: float,
        algorithms: Sequence[str] | None = None,
        maximum_waiting_seconds: float = 1800.0,
    ) -> tuple[Job, Lease] | None:
        """Take the job of these queues that is to be read next and count the attempt; None when there is none.

        `algorithms` are those that the worker knows, None for all. No two workers get the same job.
        """
        waiting = self._waiting if algorithms is None else self._statements(tuple(algorithms))
        with self._transactions.read() as connection:
            heads = self._heads(connection, waiting, queues, at)
        if not heads:
            return None
        with self._transactions.write(durable=False) as connection:
            # Again, since another worker may have been faster.
            heads = self._heads(connection, waiting, queues, at)
            heads.sort(key=lambda head: place(head[0], head[1], at, maximum_waiting_seconds))
            for priority, _ in heads:
                row = waiting.first.first(connection, at=at, wanted=priority.value)
                if row is not None:
                    return self._take(connection, row, worker, lease_seconds, at)
        return None

    def claim(self, job_uid: str, *, worker: str, lease_seconds: float, at: float) -> tuple[Job, Lease] | None:
        """Take this one job, whatever others wait, and count the attempt; None when it is not to be had."""
        with self._transactions.write(durable=False) as connection:
            row = self._lock(connection, job_uid)
            if row is None or row["state"] != JobState.QUEUED.value:
                return None
            return self._take(connection, row, worker, lease_seconds, at)

    def renew(self, lease: Lease, until: float) -> bool:
        """Hold the job longer; False when it is no longer this lease's."""
        held = {"uid": lease.job_uid, "token": lease.token, "number": lease.fence}
        with self._transactions.write(durable=False) as connection:
            return bool(self._renewal(connection, **held, lease_expires_at=until).rowcount == 1)

    def expire(self, *, now: float, attempts: Attempts, actor: str) -> list[Job]:
        """Queue the jobs whose worker went silent again, or make dead letters of them after their last attempt.

        Returns them all as they now stand: QUEUED or FAILED.
        """
        with self._transactions.read() as connection:
            uids = self._silent.scalars(connection, now=now)
        expired = (self._expire(job_uid, now, attempts, actor) for job_uid in uids)
        return [job for job in expired if job is not None]

    def abandon(self, worker: str, at: float) -> None:
        """The worker is known to be dead: its leases end now instead of in their time."""
        jobs = self._jobs
        held = sa.update(jobs).where(jobs.c.worker == worker, jobs.c.state == JobState.READING.value)
        with self._transactions.write(durable=False) as connection:
            connection.execute(held.values(lease_expires_at=at - 1))

    def _statements(self, algorithms: tuple[str, ...]) -> _Waiting:
        known = self._waiting_for
        if known is None or known[0] != algorithms:
            known = self._waiting_for = (algorithms, _Waiting(self._transactions.tables, algorithms))
        return known[1]

    def _heads(
        self, connection: sa.Connection, waiting: _Waiting, queues: Sequence[str], at: float
    ) -> list[tuple[Priority, float]]:
        """The priorities of these queues in which a job waits, and since when the longest waiting one does."""
        found = zip(Priority, waiting.heads.tuples(connection, at=at)[0], strict=True)
        wanted = priorities_of(queues)
        return [(priority, since) for priority, since in found if since is not None and priority in wanted]

    def _take(
        self, connection: sa.Connection, row: Mapping[str, Any], worker: str, lease_seconds: float, at: float
    ) -> tuple[Job, Lease]:
        attempt = row["attempts"] + 1
        lease = Lease(
            job_uid=row["job_uid"],
            token=str(uuid.uuid4()),
            worker=worker,
            expires_at=at + lease_seconds,
            fence=row["fence"] + 1,
        )
        values = {
            "attempts": attempt,
            "lease_token": lease.token,
            "lease_expires_at": lease.expires_at,
            "fence": lease.fence,
            "worker": worker,
            "started_at": at,
            "next_try_at": None,
        }
        cause = f"attempt {attempt} began"
        self._transactions.move_job(connection, row, JobState.READING, cause=cause, actor=worker, at=at, values=values)
        job = replace(job_of(row), state=JobState.READING, attempts=attempt)
        if self._transactions.study_state(connection, job.study_instance_uid) is StudyState.QUEUED:
            cause = f"{job.algorithm} began, attempt {attempt}"
            self._move_study(connection, job, StudyState.READING, cause, worker, at)
        return job, lease

    def _expire(self, job_uid: str, now: float, attempts: Attempts, actor: str) -> Job | None:
        """Take one job from its silent worker; None when it is not silent any more."""
        with self._transactions.write(durable=False) as connection:
            row = self._lock(connection, job_uid)
            if row is None or row["state"] != JobState.READING.value or row["lease_expires_at"] >= now:
                return None
            reason = f"the worker went silent during attempt {row['attempts']} of {attempts.maximum}"
            return self._try_again(connection, row, attempts, reason, actor, now)

    def _try_again(
        self,
        connection: sa.Connection,
        row: Mapping[str, Any],
        attempts: Attempts,
        reason: str,
        actor: str,
        at: float,
        error: str = "Interrupted",
    ) -> Job:
        """Let a READING job wait for its next attempt, or become a dead letter when it had its last one."""
        job = job_of(row)
        wait = attempts.wait_after(job.attempts)
        if wait is None:
            job = replace(job, state=JobState.FAILED, reason=reason)
            self._leave(connection, row, job.state, reason, actor, at, {"dead_letter": True, "error": error})
        else:
            job = replace(job, state=JobState.QUEUED, reason=reason)
            self._leave(connection, row, job.state, reason, actor, at, {"next_try_at": at + wait})
        return job

    def _leave(
        self,
        connection: sa.Connection,
        row: Mapping[str, Any],
        after: JobState,
        reason: str,
        actor: str,
        at: float,
        values: dict[str, Any],
    ) -> None:
        """Let a READING job enter the state that its attempt ended in, and its study follow."""
        ended = None if after is JobState.QUEUED else at
        cleared = {"lease_token": None, "lease_expires_at": None, "sent_at": None, "ended_at": ended}
        # Silence is no answer: whoever waits for a result is told that there is none, and why.
        owed = after in (JobState.NOT_APPLICABLE, JobState.FAILED)
        changed = {**cleared, "reason": reason, "answer_owed": owed, **values}
        self._transactions.move_job(connection, row, after, cause=reason, actor=actor, at=at, values=changed)
        self._follow(connection, job_of(row), actor, at)

    def _lock(self, connection: sa.Connection, job_uid: str) -> Mapping[str, Any] | None:
        """The job's row, its study's row locked first as everywhere: two locks in two orders would wait for ever."""
        for uid in self._study_of_job.scalars(connection, uid=job_uid):
            self._transactions.study_state(connection, uid)
        return self._row_of_job.first(connection, uid=job_uid)

    def _lock_held(self, connection: sa.Connection, lease: Lease) -> Mapping[str, Any]:
        """The row of a job that this lease still holds; LeaseLost where it does not."""
        row = self._lock(connection, lease.job_uid)
        held = row is not None and (row["state"], row["lease_token"], row["fence"]) == (
            JobState.READING.value,
            lease.token,
            lease.fence,
        )
        if row is None or not held:
            raise LeaseLost(f"job {lease.job_uid} is no longer held by {lease.worker}; its result is dropped")
        return row

    def _follow(self, connection: sa.Connection, job: Job, actor: str, at: float) -> None:
        """Let the study enter the state that its current jobs now mean."""
        rows = self._current_states.tuples(connection, uid=job.study_instance_uid)
        states = [JobState(state) for state, _ in rows]
        after = study_state_after_jobs(states)
        reasons = "; ".join(dict.fromkeys(reason for _, reason in rows if reason))
        if after is not None:
            self._move_study(connection, job, after, reasons, actor, at)
        elif JobState.READING not in states:
            self._move_study(connection, job, StudyState.QUEUED, reasons, actor, at)

    def _move_study(
        self, connection: sa.Connection, job: Job, after: StudyState, cause: str, actor: str, at: float
    ) -> None:
        uid = job.study_instance_uid
        # A study that failed stays so until something new comes; its jobs' ends must not stop each other for that.
        if self._transactions.study_state(connection, uid) not in (after, StudyState.FAILED):
            self._transactions.move_study(connection, uid, after, cause=cause, actor=actor, at=at)
