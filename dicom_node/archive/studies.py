"""The index's instances, studies and associations: what was received, and when."""

from collections.abc import Sequence

import sqlalchemy as sa

from dicom_node.archive.familiar import Familiar
from dicom_node.archive.faults import Faults
from dicom_node.archive.instance_rows import ROW, failed_by, instance_of
from dicom_node.archive.prepared import Prepared, unless_there
from dicom_node.archive.prepared_query import PreparedQuery
from dicom_node.archive.retention import Evictions
from dicom_node.archive.searched import Searched
from dicom_node.archive.study_rows import Added, HistoryRow, Reception, StudyRow, receptions
from dicom_node.archive.transactions import Transactions
from dicom_node.core.errors import DuplicateInstance
from dicom_node.core.lifecycle import JobState, StudyState
from dicom_node.core.study import Instance, Study

__all__ = ["Added", "HistoryRow", "Reception", "Studies", "StudyRow"]

ACTOR = "intake"

_REFUSAL = "another content of this UID is here; send it under a new UID"

_NEW_STUDY = (
    *("study_instance_uid", "state", "reason", "state_since", "first_received_at", "last_received_at"),
    *("priority", "files_left"),
)


class Studies:
    """What was received, in the index."""

    def __init__(self, transactions: Transactions) -> None:
        self._transactions = transactions
        self._tables = transactions.tables
        self._faults = Faults(transactions)
        self._evictions = Evictions(transactions)
        names = ("studies", "instances", "associations", "association_studies")
        studies, instances, associations, sent = (self._tables[name] for name in names)
        uid: sa.BindParameter[str] = sa.bindparam("uid")
        self._new_instance = Prepared(sa.insert(instances), *ROW, "conflict")
        self._searched = Searched(self._tables)
        self._familiar = Familiar(self._tables)
        # Of associations that begin a study at once, one does so, and the others find it.
        self._new_study = unless_there(studies, *_NEW_STUDY)
        self._evidence = PreparedQuery(
            sa.select(instances).where(instances.c.study_instance_uid == uid, instances.c.conflict.is_(False))
        )
        self._contents = Prepared(
            sa.select(instances.c.sha256, instances.c.transfer_syntax_uid).where(instances.c.sop_instance_uid == uid)
        )
        reports = self._tables["reports"]
        self._is_ours = Prepared(sa.select(reports.c.job_uid).where(reports.c.sop_instance_uid == uid))
        self._last_received = PreparedQuery(
            sa.select(studies.c.last_received_at).where(studies.c.study_instance_uid == uid).with_for_update()
        )
        in_state = sa.select(studies.c.study_instance_uid).where(studies.c.state == sa.bindparam("wanted"))
        self._in_state = PreparedQuery(in_state.order_by(studies.c.state_since))
        self._new_association = Prepared(sa.insert(associations), "association_id", "calling_ae_title", "opened_at")
        self._sent = unless_there(sent, "study_instance_uid", "association_id")
        ended = sa.update(associations).where(associations.c.association_id == uid)
        self._ended = Prepared(ended, "ended_at", "ending")
        self._receptions = receptions(self._tables)
        some = studies.c.study_instance_uid.in_(sa.bindparam("uids", expanding=True))
        self._receptions_of_some = self._receptions.where(some)

    def find(self, sop_instance_uid: str) -> list[Instance]:
        """Every kept content of this SOP Instance UID, the evidence first."""
        instances = self._tables["instances"]
        query = sa.select(instances).where(instances.c.sop_instance_uid == sop_instance_uid)
        with self._transactions.read() as connection:
            rows = connection.execute(query.order_by(instances.c.conflict)).mappings().all()
        return [instance_of(row) for row in rows]

    def add_instance(
        self,
        instance: Instance,
        association_id: str | None = None,
        *,
        written: bool = False,
        refuses_conflicts: bool = False,
    ) -> Added:
        """Make a stored file part of its study, durable at return; a late one opens the study again.

        Same SOP Instance UID, SHA-256 and transfer syntax as a kept one: IDENTICAL; same UID, else: CONFLICT. NEW also
        where a study failed by the kept one, in whose place this one is read from now on, and where the study had left
        the disk. `written`: the file was not there before, so that the one of an identical row was missing.
        DuplicateInstance in place of CONFLICT where that is refused: then nothing changes.
        """

        def add(connection: sa.Connection) -> Added | None:
            # Told before anything is written: what raises takes the transaction with it, which others' deeds may share.
            if refuses_conflicts and self._is_refused(connection, instance):
                return None
            return self._add(connection, instance, association_id, written=written, refuses_conflicts=refuses_conflicts)

        added = self._transactions.together(add)
        if added is None:
            raise DuplicateInstance(_REFUSAL)
        return added

    def _add(
        self,
        connection: sa.Connection,
        instance: Instance,
        association_id: str | None,
        *,
        written: bool,
        refuses_conflicts: bool,
    ) -> Added:
        before = self._begin_study(connection, instance)
        known = self._familiar.of(connection, instance, association_id)
        came_back = (known.fault and self._faults.end(connection, instance.path)) or written
        added = self._compare(connection, instance) if known.instance else Added.NEW
        if added is not Added.NEW and self._replace(connection, instance, came_back=came_back):
            added = Added.NEW
        elif added is Added.IDENTICAL:
            # A file that was damaged on the disk has been written again beside it.
            connection.execute(self._row_of(instance).values(path=instance.path))
        elif added is Added.CONFLICT and refuses_conflicts:
            # It came in this moment by another transaction.
            raise DuplicateInstance(_REFUSAL)
        else:
            if before is not None:
                self._open_study(connection, instance, added, before)
            self._insert(connection, instance, conflict=added is Added.CONFLICT)
            if before is None or not known.series:
                self._searched.add(connection, instance, begins_study=before is None)
        if association_id is not None and not known.sending:
            self._note_association(connection, instance, association_id)
        return added

    def association_opened(self, association_id: str, calling_ae_title: str, at: float) -> None:
        """A sender's association was accepted."""
        row = {"association_id": association_id, "calling_ae_title": calling_ae_title, "opened_at": at}
        self._transactions.together(lambda connection: self._new_association(connection, **row))

    def association_ended(self, association_id: str, ending: str, at: float) -> None:
        """The association is over; `ending` is released, aborted or lost."""
        row = {"uid": association_id, "ended_at": at, "ending": ending}
        self._transactions.together(lambda connection: self._ended(connection, **row))

    def end_open_associations(self, at: float) -> int:
        """At the start: no association of an earlier process is still open; how many were, by the index."""
        associations = self._tables["associations"]
        change = sa.update(associations).values(ended_at=at, ending="lost").where(associations.c.ended_at.is_(None))
        with self._transactions.write(durable=False) as connection:
            return connection.execute(change).rowcount

    def receptions(self, study_instance_uids: Sequence[str] | None = None) -> list[Reception]:
        """How each study that is RECEIVING, or each such of some hundred, came in so far."""
        query = self._receptions if study_instance_uids is None else self._receptions_of_some
        with self._transactions.read() as connection:
            rows = connection.execute(query, {"uids": study_instance_uids}).all()
        names = ("study_instance_uid", "first_received_at", "last_received_at")
        counts = ("open_associations", "last_association_ended_at", "aborted_associations")
        return [Reception(**dict(zip(names + counts, row, strict=True))) for row in rows]

    def study(self, study_instance_uid: str) -> Study:
        """The study with its evidence instances, without conflicting copies."""
        with self._transactions.read() as connection:
            rows = self._evidence.rows(connection, uid=study_instance_uid)
        return Study.from_instances(study_instance_uid, [instance_of(row) for row in rows])

    def move(self, study_instance_uid: str, after: StudyState, *, cause: str, actor: str, at: float) -> None:
        """Let the study enter a state; IllegalTransition when the table forbids it."""
        with self._transactions.write(durable=False) as connection:
            self._transactions.move_study(connection, study_instance_uid, after, cause=cause, actor=actor, at=at)

    def arrived(
        self,
        study_instance_uid: str,
        after: StudyState,
        *,
        last_received_at: float,
        cause: str,
        actor: str,
        at: float,
    ) -> bool:
        """Let a RECEIVING study be COMPLETE or FAILED unless it grew since it was judged; whether it did not."""
        with self._transactions.write(durable=False) as connection:
            if self._last_received.scalars(connection, uid=study_instance_uid) != [last_received_at]:
                return False
            self._transactions.move_study(connection, study_instance_uid, after, cause=cause, actor=actor, at=at)
        return True

    def in_state(self, state: StudyState) -> list[str]:
        """UIDs of the studies in this state, the longest waiting first."""
        with self._transactions.read() as connection:
            return self._in_state.scalars(connection, wanted=state.value)

    def rows(self, study_instance_uid: str | None = None, limit: int = 500) -> list[StudyRow]:
        """Studies as `status` shows them, the newest arrival first."""
        studies, instances = self._tables["studies"], self._tables["instances"]
        conflicts = sa.func.sum(sa.case((instances.c.conflict, 1), else_=0))
        query = (
            sa.select(studies, sa.func.count().label("instances"), conflicts.label("conflicts"))
            .join(instances, instances.c.study_instance_uid == studies.c.study_instance_uid)
            .group_by(*studies.c)
            .order_by(studies.c.last_received_at.desc())
            .limit(limit)
        )
        if study_instance_uid is not None:
            query = query.where(studies.c.study_instance_uid == study_instance_uid)
        with self._transactions.read() as connection:
            rows = connection.execute(query).mappings().all()
        fields = [{name: row[name] for name in StudyRow.__dataclass_fields__} for row in rows]
        return [StudyRow(**{**values, "state": StudyState(values["state"])}) for values in fields]

    def counts(self) -> dict[StudyState, int]:
        """How many studies are in each state."""
        studies = self._tables["studies"]
        query = sa.select(studies.c.state, sa.func.count()).group_by(studies.c.state)
        with self._transactions.read() as connection:
            found = {StudyState(state): count for state, count in connection.execute(query).all()}
        return {state: found.get(state, 0) for state in StudyState}

    def history(self, study_instance_uid: str) -> list[HistoryRow]:
        """Everything that happened to the study, the first first."""
        history = self._tables["history"]
        query = sa.select(history).where(history.c.study_instance_uid == study_instance_uid)
        with self._transactions.read() as connection:
            rows = connection.execute(query.order_by(history.c.number)).mappings().all()
        return [HistoryRow(**{name: row[name] for name in HistoryRow.__dataclass_fields__}) for row in rows]

    def _compare(self, connection: sa.Connection, instance: Instance) -> Added:
        kept = self._contents(connection, uid=instance.sop_instance_uid).fetchall()
        if (instance.sha256, instance.transfer_syntax_uid) in [tuple(row) for row in kept]:
            return Added.IDENTICAL
        return Added.CONFLICT if kept else Added.NEW

    def _is_refused(self, connection: sa.Connection, instance: Instance) -> bool:
        """Whether another content is here, for which this one is not read, in a study that has not left the disk."""
        if self._compare(connection, instance) is not Added.CONFLICT:
            return False
        studies = self._tables["studies"]
        query = sa.select(studies.c.state, studies.c.reason, studies.c.evicted_at)
        study = connection.execute(query.where(studies.c.study_instance_uid == instance.study_instance_uid)).first()
        return study is None or (study.evicted_at is None and not failed_by(study.state, study.reason, instance))

    def _replace(self, connection: sa.Connection, instance: Instance, *, came_back: bool) -> bool:
        """Read this content in place of the one that its study failed by; whether that is so. Nothing is deleted.

        The same content in another file is one, too: the first file is damaged. And so it is in the same file, when
        that one was missing and came back.
        """
        studies, instances = self._tables["studies"], self._tables["instances"]
        uid, at = instance.study_instance_uid, instance.received_at
        of_study = studies.c.study_instance_uid == uid
        locked = sa.select(studies.c.state, studies.c.reason).where(of_study).with_for_update()
        study = connection.execute(locked).first()
        if study is None or not failed_by(study.state, study.reason, instance):
            return False
        same = sa.and_(instances.c.sop_instance_uid == instance.sop_instance_uid, instances.c.study_instance_uid == uid)
        content = (instances.c.sha256, instances.c.transfer_syntax_uid, instances.c.path)
        before = connection.execute(sa.select(*content).where(same, instances.c.conflict.is_(False))).first()
        unchanged = before is not None and tuple(before) == (
            instance.sha256,
            instance.transfer_syntax_uid,
            instance.path,
        )
        if before is None or (unchanged and not came_back):
            return False
        connection.execute(sa.update(instances).where(same).values(conflict=True))
        if connection.execute(self._row_of(instance).values(conflict=False, path=instance.path)).rowcount == 0:
            self._insert(connection, instance, conflict=False)
        self._transactions.change_study(connection, uid, last_received_at=at)
        cause = (
            f"instance {instance.sop_instance_uid} came again: {instance.path} was missing and is there again"
            if unchanged
            else f"instance {instance.sop_instance_uid} came again: {instance.path} with SHA-256 {instance.sha256} is "
            f"read from now on, {before.path} with SHA-256 {before.sha256} no more"
        )
        # What failed by the old copy is tried with the new one also where the evidence is the same by its checksums.
        came_again = f"instance {instance.sop_instance_uid} came again"
        self._transactions.supersede_jobs(
            connection, uid, (JobState.FAILED,), cause=came_again, actor=ACTOR, at=at, values={"dead_letter": False}
        )
        self._reopen(connection, uid, at, cause)
        return True

    def _row_of(self, instance: Instance) -> sa.Update:
        instances = self._tables["instances"]
        key = ("sop_instance_uid", "sha256", "transfer_syntax_uid")
        return sa.update(instances).where(*(instances.c[name] == getattr(instance, name) for name in key))

    def _open_study(self, connection: sa.Connection, instance: Instance, added: Added, before: StudyState) -> None:
        uid, at = instance.study_instance_uid, instance.received_at
        if added is Added.CONFLICT:
            cause = (
                f"instance {instance.sop_instance_uid} came again with other content; kept beside the first, not read"
            )
            self._transactions.remark(connection, uid, before=before, after=before, cause=cause, actor=ACTOR, at=at)
            return
        if before is not StudyState.RECEIVING and self._is_ours(connection, uid=instance.sop_instance_uid).fetchone():
            cause = f"instance {instance.sop_instance_uid} came back, which was made here; nothing is read for it"
            self._transactions.remark(connection, uid, before=before, after=before, cause=cause, actor=ACTOR, at=at)
            return
        self._transactions.change_study(connection, uid, last_received_at=at)
        if before is not StudyState.RECEIVING:
            self._reopen(connection, uid, at, "a late instance arrived")

    def _begin_study(self, connection: sa.Connection, instance: Instance) -> StudyState | None:
        """The state of the instance's study, None where this is its first; its row is locked from here on."""
        uid, at, state = instance.study_instance_uid, instance.received_at, StudyState.RECEIVING
        if before := self._evictions.end(connection, uid, at):
            return before
        cause = "the first instance arrived"
        row = {"state": state.value, "reason": cause, "priority": "ROUTINE", "files_left": False}
        times = {"state_since": at, "first_received_at": at, "last_received_at": at}
        new = self._new_study[connection.dialect.name]
        if new(connection, study_instance_uid=uid, **row, **times).rowcount == 0:
            # Another association began it just now: wait for that transaction's end, and go on from there.
            return self._evictions.end(connection, uid, at)
        self._transactions.remark(connection, uid, before=state, after=state, cause=cause, actor=ACTOR, at=at)
        return None

    def _reopen(self, connection: sa.Connection, uid: str, at: float, cause: str) -> None:
        jobs = self._tables["jobs"]
        unfinished = (JobState.QUEUED, JobState.READING)
        reason = "a late instance arrived"
        values = {"reason": reason, "ended_at": at}
        self._transactions.supersede_jobs(connection, uid, unfinished, cause=reason, actor=ACTOR, at=at, values=values)
        connection.execute(sa.update(jobs).where(jobs.c.study_instance_uid == uid).values(current=False))
        self._transactions.move_study(connection, uid, StudyState.RECEIVING, cause=cause, actor=ACTOR, at=at)

    def _insert(self, connection: sa.Connection, instance: Instance, *, conflict: bool) -> None:
        row = {name: getattr(instance, name) for name in ROW}
        row["attributes"] = dict(instance.attributes)
        self._new_instance(connection, conflict=conflict, **row)

    def _note_association(self, connection: sa.Connection, instance: Instance, association_id: str) -> None:
        new = self._sent[connection.dialect.name]
        new(connection, study_instance_uid=instance.study_instance_uid, association_id=association_id)
