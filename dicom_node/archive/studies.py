"""The index's instances, studies and associations: what was received, and when."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import sqlalchemy as sa

from dicom_node.archive.transactions import Transactions
from dicom_node.core.lifecycle import JobState, StudyState
from dicom_node.core.study import Instance, Study

ACTOR = "intake"


class Added(StrEnum):
    """What the index made of an instance."""

    #: It is new, and now part of its study.
    NEW = "NEW"
    #: The same bytes were already there; nothing changed.
    IDENTICAL = "IDENTICAL"
    #: Other bytes hold this UID already; these are kept beside them, flagged, and are no evidence.
    CONFLICT = "CONFLICT"


@dataclass(frozen=True, kw_only=True)
class Reception:
    """What is known of a study's arrival; open associations are those that sent of this study and have not ended."""

    study_instance_uid: str
    first_received_at: float
    last_received_at: float
    open_associations: int
    last_association_ended_at: float | None
    aborted_associations: int


@dataclass(frozen=True, kw_only=True)
class StudyRow:
    """A study's line in the index."""

    study_instance_uid: str
    state: StudyState
    reason: str
    state_since: float
    first_received_at: float
    last_received_at: float
    priority: str
    instances: int
    conflicts: int


@dataclass(frozen=True, kw_only=True)
class HistoryRow:
    """One line of a study's history."""

    at: float
    before: StudyState
    after: StudyState
    cause: str
    actor: str


class Studies:
    """What was received, in the index."""

    def __init__(self, transactions: Transactions) -> None:
        self._transactions = transactions
        self._tables = transactions.tables

    def find(self, sop_instance_uid: str) -> list[Instance]:
        """Every kept content of this SOP Instance UID, the evidence first."""
        instances = self._tables["instances"]
        query = sa.select(instances).where(instances.c.sop_instance_uid == sop_instance_uid)
        with self._transactions.read() as connection:
            rows = connection.execute(query.order_by(instances.c.conflict)).mappings().all()
        return [_instance(row) for row in rows]

    def add_instance(self, instance: Instance, association_id: str | None = None) -> Added:
        """Make a stored file part of its study, durable at return; a late one opens the study again.

        Same SOP Instance UID, SHA-256 and transfer syntax as a kept one: IDENTICAL; same UID, else: CONFLICT. NEW also
        where a study failed by the kept one, in whose place this one is read from now on.
        """
        with self._transactions.write() as connection:
            return self._add(connection, instance, association_id)

    def _add(self, connection: sa.Connection, instance: Instance, association_id: str | None) -> Added:
        added = self._compare(connection, instance)
        if added is not Added.NEW and self._replace(connection, instance):
            added = Added.NEW
        elif added is Added.IDENTICAL:
            # A file that was damaged on the disk has been written again beside it.
            connection.execute(self._row_of(instance).values(path=instance.path))
        else:
            self._open_study(connection, instance, added)
            self._insert(connection, instance, conflict=added is Added.CONFLICT)
        if association_id is not None:
            self._note_association(connection, instance, association_id)
        return added

    def association_opened(self, association_id: str, calling_ae_title: str, at: float) -> None:
        """A sender's association was accepted."""
        row = {"association_id": association_id, "calling_ae_title": calling_ae_title, "opened_at": at}
        with self._transactions.write() as connection:
            connection.execute(sa.insert(self._tables["associations"]).values(**row))

    def association_ended(self, association_id: str, ending: str, at: float) -> None:
        """The association is over; `ending` is released, aborted or lost."""
        associations = self._tables["associations"]
        change = sa.update(associations).values(ended_at=at, ending=ending)
        with self._transactions.write() as connection:
            connection.execute(change.where(associations.c.association_id == association_id))

    def end_open_associations(self, at: float) -> None:
        """At the receiver's start: no association of an earlier process is still open."""
        associations = self._tables["associations"]
        change = sa.update(associations).values(ended_at=at, ending="lost").where(associations.c.ended_at.is_(None))
        with self._transactions.write() as connection:
            connection.execute(change)

    def receptions(self) -> list[Reception]:
        """How each study that is RECEIVING came in so far."""
        studies, associations, sent = (self._tables[n] for n in ("studies", "associations", "association_studies"))
        is_open = sa.case((associations.c.ended_at.is_(None), 1), else_=0)
        was_aborted = sa.case((associations.c.ending.in_(("aborted", "lost")), 1), else_=0)
        joined = studies.outerjoin(sent, sent.c.study_instance_uid == studies.c.study_instance_uid).outerjoin(
            associations,
            sa.and_(associations.c.association_id == sent.c.association_id, associations.c.opened_at.is_not(None)),
        )
        query = (
            sa.select(
                studies.c.study_instance_uid,
                studies.c.first_received_at,
                studies.c.last_received_at,
                sa.func.sum(sa.case((associations.c.association_id.is_(None), 0), else_=is_open)),
                sa.func.max(associations.c.ended_at),
                sa.func.sum(was_aborted),
            )
            .select_from(joined)
            .where(studies.c.state == StudyState.RECEIVING.value)
            .group_by(studies.c.study_instance_uid, studies.c.first_received_at, studies.c.last_received_at)
        )
        with self._transactions.read() as connection:
            rows = connection.execute(query).all()
        names = ("study_instance_uid", "first_received_at", "last_received_at")
        counts = ("open_associations", "last_association_ended_at", "aborted_associations")
        return [Reception(**dict(zip(names + counts, row, strict=True))) for row in rows]

    def study(self, study_instance_uid: str) -> Study:
        """The study with its evidence instances, without conflicting copies."""
        instances = self._tables["instances"]
        query = sa.select(instances).where(
            instances.c.study_instance_uid == study_instance_uid, instances.c.conflict.is_(False)
        )
        with self._transactions.read() as connection:
            rows = connection.execute(query).mappings().all()
        return Study.from_instances(study_instance_uid, [_instance(row) for row in rows])

    def move(self, study_instance_uid: str, after: StudyState, *, cause: str, actor: str, at: float) -> None:
        """Let the study enter a state; IllegalTransition when the table forbids it."""
        with self._transactions.write() as connection:
            self._transactions.move_study(connection, study_instance_uid, after, cause=cause, actor=actor, at=at)

    def complete(self, study_instance_uid: str, *, last_received_at: float, cause: str, actor: str, at: float) -> bool:
        """Let a RECEIVING study be COMPLETE unless it grew since it was judged; whether it did not."""
        studies = self._tables["studies"]
        query = sa.select(studies.c.last_received_at).where(studies.c.study_instance_uid == study_instance_uid)
        with self._transactions.write() as connection:
            if connection.execute(query.with_for_update()).scalar_one() != last_received_at:
                return False
            self._transactions.move_study(
                connection, study_instance_uid, StudyState.COMPLETE, cause=cause, actor=actor, at=at
            )
        return True

    def in_state(self, state: StudyState) -> list[str]:
        """UIDs of the studies in this state, the longest waiting first."""
        studies = self._tables["studies"]
        query = sa.select(studies.c.study_instance_uid).where(studies.c.state == state.value)
        with self._transactions.read() as connection:
            return list(connection.execute(query.order_by(studies.c.state_since)).scalars())

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
        return [StudyRow(**{**row, "state": StudyState(row["state"])}) for row in rows]

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
        fields = [{name: row[name] for name in HistoryRow.__dataclass_fields__} for row in rows]
        return [
            HistoryRow(**{**values, "before": StudyState(values["before"]), "after": StudyState(values["after"])})
            for values in fields
        ]

    def _compare(self, connection: sa.Connection, instance: Instance) -> Added:
        instances = self._tables["instances"]
        query = sa.select(instances.c.sha256, instances.c.transfer_syntax_uid)
        kept = connection.execute(query.where(instances.c.sop_instance_uid == instance.sop_instance_uid)).all()
        if (instance.sha256, instance.transfer_syntax_uid) in [tuple(row) for row in kept]:
            return Added.IDENTICAL
        return Added.CONFLICT if kept else Added.NEW

    def _replace(self, connection: sa.Connection, instance: Instance) -> bool:
        """Read this content in place of the one that its study failed by; whether that is so. Nothing is deleted.

        The same content in another file is one, too: the first file is damaged.
        """
        studies, instances, jobs = (self._tables[name] for name in ("studies", "instances", "jobs"))
        uid, at = instance.study_instance_uid, instance.received_at
        of_study = studies.c.study_instance_uid == uid
        study = connection.execute(sa.select(studies.c.state, studies.c.reason).where(of_study)).first()
        if study is None or study.state != StudyState.FAILED or not _names(study.reason, instance.sop_instance_uid):
            return False
        same = sa.and_(instances.c.sop_instance_uid == instance.sop_instance_uid, instances.c.study_instance_uid == uid)
        content = (instances.c.sha256, instances.c.transfer_syntax_uid, instances.c.path)
        before = connection.execute(sa.select(*content).where(same, instances.c.conflict.is_(False))).first()
        if before is None or tuple(before) == (instance.sha256, instance.transfer_syntax_uid, instance.path):
            return False
        connection.execute(sa.update(instances).where(same).values(conflict=True))
        if connection.execute(self._row_of(instance).values(conflict=False, path=instance.path)).rowcount == 0:
            self._insert(connection, instance, conflict=False)
        connection.execute(sa.update(studies).where(of_study).values(last_received_at=at))
        cause = (
            f"instance {instance.sop_instance_uid} came again: {instance.path} with SHA-256 {instance.sha256} is read "
            f"from now on, {before.path} with SHA-256 {before.sha256} no more"
        )
        self._reopen(connection, uid, at, cause)
        # What failed by the old copy is tried with the new one also where the evidence is the same by its checksums.
        failed = sa.update(jobs).where(jobs.c.study_instance_uid == uid, jobs.c.state == JobState.FAILED.value)
        connection.execute(failed.values(state=JobState.SUPERSEDED.value))
        return True

    def _row_of(self, instance: Instance) -> sa.Update:
        instances = self._tables["instances"]
        key = ("sop_instance_uid", "sha256", "transfer_syntax_uid")
        return sa.update(instances).where(*(instances.c[name] == getattr(instance, name) for name in key))

    def _open_study(self, connection: sa.Connection, instance: Instance, added: Added) -> None:
        studies = self._tables["studies"]
        uid, at = instance.study_instance_uid, instance.received_at
        state = connection.execute(
            sa.select(studies.c.state).where(studies.c.study_instance_uid == uid).with_for_update()
        ).scalar_one_or_none()
        if state is None:
            self._begin_study(connection, uid, at)
            return
        before = StudyState(state)
        if added is Added.CONFLICT:
            cause = (
                f"instance {instance.sop_instance_uid} came again with other content; kept beside the first, not read"
            )
            self._transactions.remark(connection, uid, before=before, after=before, cause=cause, actor=ACTOR, at=at)
            return
        connection.execute(sa.update(studies).where(studies.c.study_instance_uid == uid).values(last_received_at=at))
        if before is not StudyState.RECEIVING:
            self._reopen(connection, uid, at, "a late instance arrived")

    def _begin_study(self, connection: sa.Connection, uid: str, at: float) -> None:
        state = StudyState.RECEIVING
        cause = "the first instance arrived"
        row = {"state": state.value, "reason": cause, "priority": "ROUTINE"}
        times = {"state_since": at, "first_received_at": at, "last_received_at": at}
        connection.execute(sa.insert(self._tables["studies"]).values(study_instance_uid=uid, **row, **times))
        self._transactions.remark(connection, uid, before=state, after=state, cause=cause, actor=ACTOR, at=at)

    def _reopen(self, connection: sa.Connection, uid: str, at: float, cause: str) -> None:
        jobs = self._tables["jobs"]
        of_study = jobs.c.study_instance_uid == uid
        unfinished = jobs.c.state.in_((JobState.QUEUED.value, JobState.READING.value))
        superseded = {"state": JobState.SUPERSEDED.value, "reason": "a late instance arrived", "lease_token": None}
        connection.execute(sa.update(jobs).where(of_study, unfinished).values(ended_at=at, **superseded))
        connection.execute(sa.update(jobs).where(of_study).values(current=False))
        self._transactions.move_study(connection, uid, StudyState.RECEIVING, cause=cause, actor=ACTOR, at=at)

    def _insert(self, connection: sa.Connection, instance: Instance, *, conflict: bool) -> None:
        row = {name: getattr(instance, name) for name in instance.__dataclass_fields__}
        row["attributes"] = dict(instance.attributes)
        connection.execute(sa.insert(self._tables["instances"]).values(conflict=conflict, **row))

    def _note_association(self, connection: sa.Connection, instance: Instance, association_id: str) -> None:
        sent = self._tables["association_studies"]
        row = {"study_instance_uid": instance.study_instance_uid, "association_id": association_id}
        known = sa.select(sent).where(*(sent.c[name] == value for name, value in row.items()))
        if connection.execute(known).first() is None:
            connection.execute(sa.insert(sent).values(**row))


def _names(reason: str, uid: str) -> bool:
    """Whether the text names this UID, and not merely a longer one."""
    # Also as the name of its file, which may go on with twelve digits of its content's hash.
    return re.search(rf"(?<![0-9.]){re.escape(uid)}(\.[0-9a-f]{{12}}\.dcm|\.?(?![0-9.]))", reason) is not None


def _instance(row: Mapping[Any, Any]) -> Instance:
    fields = {name: row[name] for name in Instance.__dataclass_fields__}
    fields["attributes"] = {
        keyword: tuple(value) if isinstance(value, list) else value for keyword, value in row["attributes"].items()
    }
    return Instance(**fields)
