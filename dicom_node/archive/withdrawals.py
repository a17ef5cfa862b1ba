"""The index's withdrawals: results that a person took back, and the rejection notes that tell their peers so."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import sqlalchemy as sa

from dicom_node.archive.comparisons import Comparisons
from dicom_node.archive.delivery_rows import may_be_there, waiting_row
from dicom_node.archive.job_rows import WITHDRAWN, ReportRow
from dicom_node.archive.prepared_query import PreparedQuery
from dicom_node.archive.rejections import RejectedObject, Rejection
from dicom_node.archive.transactions import Transactions
from dicom_node.core.errors import IllegalTransition
from dicom_node.core.form import Form
from dicom_node.core.lifecycle import BEING_READ, JobState, StudyState
from dicom_node.core.priority import Priority
from dicom_node.core.uid import derived_uid

log = logging.getLogger(__name__)

#: Stands for the job that wrote what was taken back, where only its objects are left.
_FORGOTTEN_JOB: Mapping[str, Any] = MappingProxyType(
    {
        "series_instance_uid": "",
        "route": "",
        "priority": Priority.ROUTINE.value,
        "send_to": (),
        "evidence": "",
        "state": JobState.SUPERSEDED.value,
        "reason": "its result was withdrawn",
        "current": False,
    }
)

#: Of a job that is to be read, by whoever claims it.
_AT_REST: Mapping[str, Any] = MappingProxyType(
    {
        "attempts": 0,
        "dead_letter": False,
        "answer_owed": False,
        **dict.fromkeys(("lease_token", "lease_expires_at", "next_try_at", "sent_at", "started_at", "ended_at")),
    }
)


@dataclass(frozen=True, kw_only=True)
class Withdrawal:
    """What a person took back."""

    number: int
    study_instance_uid: str
    asked_at: float
    #: Whether the patient's safety is the reason, or else the quality.
    safety: bool
    reason: str
    actor: str
    #: SOP Instance UIDs that each peer may have, by its name.
    objects: Mapping[str, tuple[str, ...]]
    written_at: float | None


class Withdrawals:
    """The withdrawals of the index."""

    def __init__(self, transactions: Transactions) -> None:
        self._transactions, self._comparisons = transactions, Comparisons(transactions)
        names = ("withdrawals", "reports", "deliveries", "jobs")
        self._withdrawals, self._reports, self._deliveries, self._jobs = (transactions.tables[name] for name in names)
        number, written_at = self._withdrawals.c.number, self._withdrawals.c.written_at
        self._owed = PreparedQuery(sa.select(self._withdrawals).where(written_at.is_(None)).order_by(number))
        reports, deliveries = self._reports, self._deliveries
        counted = sa.select(self._jobs.c.job_uid).where(self._jobs.c.current.is_(True))
        to_peers = sa.alias(deliveries)
        sent = sa.select(to_peers.c.peer).correlate(reports)
        sent = sent.where(
            to_peers.c.sop_instance_uid == reports.c.sop_instance_uid, to_peers.c.accepted_at.is_not(None)
        )
        #: Of a study that is being read: what is not of this reading, or peers may have.
        self._is_earlier = sa.or_(reports.c.job_uid.not_in(counted), reports.c.offered_at.is_not(None), sent.exists())
        taken = sa.and_(reports.c.form != Form.REJECTION.value, reports.c.withdrawn_at.is_(None))
        self._held_by_peers = (
            sa.select(deliveries.c.peer, deliveries.c.sop_instance_uid)
            .join(reports, reports.c.sop_instance_uid == deliveries.c.sop_instance_uid)
            .where(deliveries.c.study_instance_uid == sa.bindparam("uid"), may_be_there(transactions.tables), taken)
        )
        self._held_before = sa.select(reports.c.known_to, reports.c.sop_instance_uid).where(
            reports.c.study_instance_uid == sa.bindparam("uid"), reports.c.known_to.is_not(None), taken
        )

    def withdraw(self, study_instance_uid: str, *, safety: bool, reason: str, actor: str, at: float) -> Withdrawal:
        """Take back every result of the study: none of it is sent any more, and who may have some of it is to be told.

        A study that is being read again stays where it is, and what comes of it is another result. IllegalTransition
        where the study has no result that stands.
        """
        if not reason.strip():
            raise IllegalTransition("a reason must be given for a withdrawal")
        reports = self._reports
        cause = f"withdrawn for {'the safety of the patient' if safety else 'its quality'}: {reason.strip()}"
        of_study = reports.c.study_instance_uid == study_instance_uid
        with self._transactions.write() as connection:
            state = self._transactions.study_state(connection, study_instance_uid)
            is_read = state in BEING_READ
            if not is_read:
                self._transactions.move_study(
                    connection, study_instance_uid, StudyState.WITHDRAWN, cause=cause, actor=actor, at=at
                )
            objects = self._objects(connection, study_instance_uid)
            standing = sa.and_(of_study, reports.c.withdrawn_at.is_(None), reports.c.form != Form.REJECTION.value)
            if is_read:
                standing = sa.and_(standing, self._is_earlier)
            if connection.execute(sa.select(reports.c.sop_instance_uid).where(standing).limit(1)).first() is None:
                raise IllegalTransition("the study has no result that could be withdrawn")
            if is_read:
                self._read_anew(connection, study_instance_uid, standing, cause=cause, actor=actor, at=at)
            else:
                self._forget_jobs(connection, study_instance_uid, cause=cause, actor=actor, at=at)
            connection.execute(sa.update(reports).where(standing).values(withdrawn_at=at))
            self._tell_later_ones(connection, study_instance_uid, actor=actor, at=at)
            row = {"study_instance_uid": study_instance_uid, "asked_at": at, "safety": safety}
            row |= {"reason": reason.strip(), "actor": actor[:64], "objects": objects}
            row |= {"written_at": None if objects else at}
            number = connection.execute(sa.insert(self._withdrawals).values(**row)).inserted_primary_key
            return _withdrawal({**row, "number": int(number[0]) if number else 0})

    def _tell_later_ones(self, connection: sa.Connection, study: str, *, actor: str, at: float) -> None:
        """Remark on the patient's studies whose findings were compared with this one's: people are to judge."""
        cause = f"its findings were compared with those of study {study}, which was withdrawn: have it read again"
        for later in self._comparisons.later(connection, study):
            state = self._transactions.study_state(connection, later)
            log.warning("a report was compared with one that is withdrawn now", extra={"study_instance_uid": later})
            self._transactions.remark(connection, later, before=state, after=state, cause=cause, actor=actor, at=at)

    def _objects(self, connection: sa.Connection, study: str) -> dict[str, list[str]]:
        """The results of a study that each peer may have, by its name, those that results were sent to before too."""
        of_study = {"uid": study}
        held = {(str(peer), str(uid)) for peer, uid in connection.execute(self._held_by_peers, of_study)}
        for peers, uid in connection.execute(self._held_before, of_study):
            held |= {(str(peer), str(uid)) for peer in peers}
        objects: dict[str, list[str]] = {}
        for peer, uid in sorted(held):
            objects.setdefault(peer, []).append(uid)
        return objects

    def _forget_jobs(self, connection: sa.Connection, study: str, *, cause: str, actor: str, at: float) -> None:
        """No job of the study counts as done any more."""
        counted = frozenset(JobState) - {JobState.SUPERSEDED}
        self._transactions.supersede_jobs(connection, study, counted, cause=cause, actor=actor, at=at)
        forgotten = {"current": False, "attempts": 0, "dead_letter": False, "answer_owed": False, "error": WITHDRAWN}
        same_study = self._jobs.c.study_instance_uid == study
        connection.execute(sa.update(self._jobs).where(same_study).values(**forgotten))

    def _read_anew(
        self,
        connection: sa.Connection,
        study: str,
        taken_back: sa.ColumnElement[bool],
        *,
        cause: str,
        actor: str,
        at: float,
    ) -> None:
        """Let the study's jobs write other objects than those that are taken back.

        A reading in hand began without knowing of it, and one that has ended wrote what peers had before: both are
        done again. An earlier job does not count as done. Of a study that still receives nothing was asked for: only
        other images, or a person's word, have it read.
        """
        jobs, reports, move = self._jobs, self._reports, self._transactions.move_job
        state = self._transactions.study_state(connection, study)
        wrote = jobs.c.job_uid.in_(sa.select(reports.c.job_uid).where(taken_back))
        again = sa.and_(jobs.c.study_instance_uid == study, sa.or_(wrote, jobs.c.state == JobState.READING.value))
        told: dict[str, Any] = {"cause": cause, "actor": actor, "at": at}
        for row in connection.execute(sa.select(jobs).where(again).with_for_update()).mappings().all():
            job: Mapping[Any, Any] = row
            before = JobState(job["state"])
            if before not in (JobState.QUEUED, JobState.READING, JobState.SUPERSEDED):
                move(connection, job, JobState.SUPERSEDED, values=_AT_REST, **told)
                job = {**job, "state": JobState.SUPERSEDED.value}
            if job["current"] and before is not JobState.QUEUED:
                move(connection, job, JobState.QUEUED, values=_AT_REST, **told)
        if state is StudyState.RECEIVING:
            of_study = jobs.c.study_instance_uid == study
            connection.execute(sa.update(jobs).where(of_study, wrote).values(error=WITHDRAWN))
        if state is StudyState.READING:
            self._transactions.move_study(connection, study, StudyState.QUEUED, **told)
        else:
            self._transactions.remark(connection, study, before=state, after=state, **told)

    def owed(self) -> list[Withdrawal]:
        """Withdrawals whose rejection notes are not written yet, the oldest first."""
        with self._transactions.read() as connection:
            return [_withdrawal(row) for row in self._owed.rows(connection)]

    def of_study(self, study_instance_uid: str) -> list[Withdrawal]:
        """Every withdrawal of the study's results, the first first."""
        table = self._withdrawals
        query = sa.select(table).where(table.c.study_instance_uid == study_instance_uid).order_by(table.c.number)
        with self._transactions.read() as connection:
            return [_withdrawal(row) for row in connection.execute(query).mappings()]

    def files(self, withdrawal: Withdrawal) -> dict[str, str]:
        """Where the objects lie that were withdrawn, by SOP Instance UID; relative to the archive's root."""
        reports = self._reports
        uids = {uid for held in withdrawal.objects.values() for uid in held}
        query = sa.select(reports.c.sop_instance_uid, reports.c.path).where(reports.c.sop_instance_uid.in_(uids))
        with self._transactions.read() as connection:
            return {str(uid): str(path) for uid, path in connection.execute(query)}

    def written(
        self,
        withdrawal: Withdrawal,
        notes: Sequence[tuple[ReportRow, Sequence[str]]],
        *,
        cause: str,
        actor: str,
        at: float,
    ) -> bool:
        """The rejection notes lie in the archive, each with the peers that it goes to, or cannot be written.

        False where that was done before.
        """
        study, table = withdrawal.study_instance_uid, self._withdrawals
        with self._transactions.write() as connection:
            state = self._transactions.study_state(connection, study)
            same = sa.and_(table.c.number == withdrawal.number, table.c.written_at.is_(None))
            if connection.execute(sa.update(table).where(same).values(written_at=at)).rowcount != 1:
                return False
            job = sa.select(self._jobs.c.job_uid).where(self._jobs.c.study_instance_uid == study).limit(1)
            job_uid = connection.execute(job).scalar_one()
            for row, peers in notes:
                values = {name: getattr(row, name) for name in row.__dataclass_fields__}
                values |= {"job_uid": job_uid, "study_instance_uid": study, "written_at": at}
                connection.execute(sa.insert(self._reports).values(**values))
                if not row.held:
                    rows = [waiting_row(row.sop_instance_uid, peer, study, at) for peer in peers]
                    connection.execute(sa.insert(self._deliveries), rows)
            self._transactions.remark(connection, study, before=state, after=state, cause=cause, actor=actor, at=at)
        return True

    def found(
        self, study_instance_uid: str, rejections: Sequence[Rejection], objects: Sequence[RejectedObject], actor: str
    ) -> None:
        """Let a study that was taken in from its files know what was taken back: it is not written again.

        Who has it was told by the notes that say so.
        """
        rejected_at = {uid: note.noted_at for note in reversed(rejections) for uid in note.sop_instance_uids}
        with self._transactions.write() as connection:
            self._transactions.study_state(connection, study_instance_uid)
            for note in rejections:
                row = {"study_instance_uid": study_instance_uid, "asked_at": note.noted_at, "safety": note.safety}
                row |= {"reason": note.reason, "actor": actor, "objects": {}, "written_at": note.noted_at}
                connection.execute(sa.insert(self._withdrawals).values(**row))
            jobs = {one.algorithm: derived_uid("withdrawn", study_instance_uid, one.algorithm) for one in objects}
            for algorithm, job_uid in jobs.items():
                job: dict[str, Any] = {
                    "job_uid": job_uid,
                    "study_instance_uid": study_instance_uid,
                    "algorithm": algorithm[:64],
                }
                job |= {**_FORGOTTEN_JOB, "queued_at": rejections[0].noted_at}
                connection.execute(sa.insert(self._jobs).values(**job))
            for one in objects:
                values: dict[str, Any] = {name: getattr(one.row, name) for name in one.row.__dataclass_fields__}
                at = rejected_at[one.row.sop_instance_uid]
                values |= {"job_uid": jobs[one.algorithm], "study_instance_uid": study_instance_uid}
                values |= {"written_at": one.written_at, "offered_at": one.written_at, "withdrawn_at": at}
                connection.execute(sa.insert(self._reports).values(**values))


def _withdrawal(row: Mapping[Any, Any]) -> Withdrawal:
    values = {name: row[name] for name in Withdrawal.__dataclass_fields__}
    return Withdrawal(**{**values, "objects": {peer: tuple(uids) for peer, uids in values["objects"].items()}})
