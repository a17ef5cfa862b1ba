"""The index's evictions: studies whose instances leave the disk; their rows, history and results stay.

Results are small beside the images, a later report refers to the one before it, and both are told by their rows.
"""

from collections.abc import Collection
from datetime import UTC, datetime

import sqlalchemy as sa

from dicom_node.archive.delivery_rows import counts
from dicom_node.archive.files import Archive
from dicom_node.archive.prepared import Prepared
from dicom_node.archive.stock import Stock
from dicom_node.archive.transactions import Transactions
from dicom_node.core.errors import EvictedStudy
from dicom_node.core.lifecycle import DeliveryState, JobState, StudyState
from dicom_node.core.retention import HeldStudy, RetentionPolicy, may_leave

ACTOR = "retention"


class Evictions:
    """Which studies left the disk, and which may."""

    def __init__(self, transactions: Transactions) -> None:
        self._transactions = transactions
        self._tables = transactions.tables
        self._studies = transactions.tables["studies"]
        self._standing = Prepared(
            sa.select(self._studies.c.state, self._studies.c.evicted_at)
            .where(self._studies.c.study_instance_uid == sa.bindparam("uid"))
            .with_for_update()
        )

    def candidates(self, states: Collection[StudyState], before: float, limit: int) -> list[HeldStudy]:
        """Studies on the disk in one of these states, without a change since this time or open work; oldest first."""
        studies = self._studies
        condition = sa.and_(
            studies.c.state.in_([state.value for state in states]),
            studies.c.evicted_at.is_(None),
            studies.c.last_received_at < before,
            studies.c.state_since < before,
            ~sa.or_(*self._open_work(studies.c.study_instance_uid)),
        )
        with self._transactions.read() as connection:
            return self._held(connection, condition, limit)

    def evict(self, study_instance_uid: str, policy: RetentionPolicy, *, cause: str, at: float) -> list[str] | None:
        """Mark a study as gone from the disk, and return the files to remove; None where it may not leave any more.

        From here on the index says that they are not there, and nothing is wrong with them any more; `removed` must
        follow, if only by `finish`.
        """
        studies = self._studies
        of_study = studies.c.study_instance_uid == study_instance_uid
        with self._transactions.write() as connection:
            state = self._transactions.study_state(connection, study_instance_uid)
            held = self._held(connection, sa.and_(of_study, studies.c.evicted_at.is_(None)), 1)
            if not held or not may_leave(held[0], policy, at):
                return None
            connection.execute(sa.update(studies).where(of_study).values(evicted_at=at, files_left=True))
            self._transactions.remark(
                connection, study_instance_uid, before=state, after=state, cause=cause, actor=ACTOR, at=at
            )
            faults, paths = self._tables["archive_faults"], self._paths_of(study_instance_uid)
            connection.execute(sa.delete(faults).where(faults.c.path.in_(paths)))
            return list(connection.execute(paths).scalars())

    def removed(self, study_instance_uid: str) -> None:
        """No file of the evicted study is left."""
        of_study = self._studies.c.study_instance_uid == study_instance_uid
        with self._transactions.write() as connection:
            connection.execute(sa.update(self._studies).where(of_study).values(files_left=False))

    def unfinished(self) -> list[str]:
        """Evicted studies whose files were not all removed."""
        query = sa.select(self._studies.c.study_instance_uid).where(self._half_gone())
        with self._transactions.read() as connection:
            return list(connection.execute(query).scalars())

    def finish(self, archive: Archive, *, actor: str, at: float) -> int:
        """Remove the files that evicted studies left; of how many studies. OSError where the disk refuses."""
        return sum(self._finish(archive, uid, actor, at) for uid in self.unfinished())

    def _finish(self, archive: Archive, uid: str, actor: str, at: float) -> bool:
        with archive.emptying(uid) as may_be_emptied:
            paths = self._left(uid) if may_be_emptied else None
            # It just comes again, or did so since: its files are wanted.
            if paths is None:
                return False
            Stock(archive).remove(paths)
            self.removed(uid)
        cause = "the removal of its files from the disk was finished"
        with self._transactions.write() as connection:
            state = self._transactions.study_state(connection, uid)
            self._transactions.remark(connection, uid, before=state, after=state, cause=cause, actor=actor, at=at)
        return True

    def _left(self, study_instance_uid: str) -> list[str] | None:
        """The files of a study whose removal broke off; None where it is not so any more."""
        half_gone = sa.and_(self._studies.c.study_instance_uid == study_instance_uid, self._half_gone())
        with self._transactions.read() as connection:
            if connection.execute(sa.select(self._studies.c.state).where(half_gone)).first() is None:
                return None
            return list(connection.execute(self._paths_of(study_instance_uid)).scalars())

    def _half_gone(self) -> sa.ColumnElement[bool]:
        return sa.and_(self._studies.c.evicted_at.is_not(None), self._studies.c.files_left.is_(True))

    def end(self, connection: sa.Connection, study_instance_uid: str, at: float) -> StudyState | None:
        """An instance of the study arrives: what left the disk is no part of it any more, and it is received anew.

        The study's state, where the index knows it; its row is locked from here on.
        """
        row = self._standing(connection, uid=study_instance_uid).fetchone()
        if row is None:
            return None
        state, evicted_at = StudyState(row[0]), row[1]
        if evicted_at is None:
            return state
        instances = self._tables["instances"]
        connection.execute(sa.delete(instances).where(instances.c.study_instance_uid == study_instance_uid))
        self._transactions.change_study(connection, study_instance_uid, evicted_at=None, files_left=False)
        cause = "it had left the disk and comes again; its instances are received as new ones"
        self._transactions.remark(
            connection, study_instance_uid, before=state, after=state, cause=cause, actor=ACTOR, at=at
        )
        return state

    def check_on_disk(self, connection: sa.Connection, study_instance_uid: str) -> None:
        """Raise EvictedStudy where the study's files have left the disk."""
        query = sa.select(self._studies.c.evicted_at).where(self._studies.c.study_instance_uid == study_instance_uid)
        at = connection.execute(query).scalar_one_or_none()
        if at is not None:
            day = datetime.fromtimestamp(at, UTC).date().isoformat()
            raise EvictedStudy(f"the study left the disk on {day}; send it again from the PACS, it is then read")

    def count(self) -> int:
        """How many studies have left the disk and did not come again."""
        query = sa.select(sa.func.count()).select_from(self._studies).where(self._studies.c.evicted_at.is_not(None))
        with self._transactions.read() as connection:
            return connection.execute(query).scalar_one()

    def _paths_of(self, study_instance_uid: str) -> sa.Select[str]:
        instances = self._tables["instances"]
        return sa.select(instances.c.path).where(instances.c.study_instance_uid == study_instance_uid)

    def _held(self, connection: sa.Connection, condition: sa.ColumnElement[bool], limit: int) -> list[HeldStudy]:
        studies, instances = self._studies, self._tables["instances"]
        uid = studies.c.study_instance_uid
        size = sa.select(sa.func.sum(instances.c.size_bytes)).where(instances.c.study_instance_uid == uid)
        query = (
            sa.select(
                *(studies.c[name] for name in ("study_instance_uid", "state", "last_received_at", "state_since")),
                sa.func.coalesce(size.scalar_subquery(), 0).label("size_bytes"),
                sa.or_(*self._open_work(uid)).label("has_open_work"),
            )
            .where(condition)
            .order_by(studies.c.last_received_at)
            .limit(limit)
        )
        rows = connection.execute(query).mappings().all()
        return [
            HeldStudy(**{**row, "state": StudyState(row["state"]), "has_open_work": bool(row["has_open_work"])})
            for row in rows
        ]

    def _open_work(self, uid: sa.ColumnElement[str]) -> list[sa.ColumnElement[bool]]:
        """Conditions that each say that something is still done with the study or its results."""
        jobs, deliveries, reports = (self._tables[name] for name in ("jobs", "deliveries", "reports"))
        unread = (JobState.QUEUED.value, JobState.READING.value)
        # Not at its end is what waits to be sent, and what was accepted and is to be committed yet.
        unfinished = sa.or_(
            deliveries.c.state == DeliveryState.WAITING.value,
            sa.and_(deliveries.c.state == DeliveryState.ACCEPTED.value, deliveries.c.commitment.is_(True)),
        )
        # What a study that was opened again had waiting goes out only if its job counts again.
        waiting = sa.and_(
            reports.c.sop_instance_uid == deliveries.c.sop_instance_uid,
            jobs.c.job_uid == reports.c.job_uid,
            counts(self._tables),
            unfinished,
            deliveries.c.study_instance_uid == uid,
        )
        promised = self._tables["promised_studies"]
        return [
            # A sender that has our promise may have deleted its own.
            sa.exists().where(promised.c.study_instance_uid == uid),
            sa.exists().where(jobs.c.study_instance_uid == uid, jobs.c.state.in_(unread)),
            sa.exists().where(waiting),
        ]
