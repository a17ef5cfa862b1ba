"""The index's inventory: which files the archive should hold, and how far the look at them is."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import sqlalchemy as sa

from dicom_node.archive.faults import ArchiveFault, FaultKind, Faults
from dicom_node.archive.transactions import Transactions
from dicom_node.core.errors import UnreadableInstance
from dicom_node.core.lifecycle import JobState, StudyState

#: What is still to be read, and so must be whole.
IN_HAND = (StudyState.RECEIVING, StudyState.COMPLETE, StudyState.QUEUED, StudyState.READING)

#: Who took a study in from its files; what it wrote before, the index does not know.
REINDEXING = "reindexing"

#: Among the index's marks.
_POSITION = "stocktaking"


@dataclass(frozen=True, kw_only=True)
class HeldFile:
    """A file that the index knows."""

    #: Relative to the archive's root.
    path: str
    study_instance_uid: str
    sop_instance_uid: str
    sha256: str


@dataclass(frozen=True, kw_only=True)
class Position:
    """How far the look at all files is."""

    #: Seconds since 1970 UTC; 0: there was none yet.
    began_at: float = 0.0
    #: None while it goes on.
    ended_at: float | None = None
    #: The last study that was looked at.
    study_instance_uid: str = ""
    files: int = 0


class Inventory:
    """What the archive should hold."""

    def __init__(self, transactions: Transactions) -> None:
        self._transactions = transactions
        self._tables = transactions.tables
        self._faults = Faults(transactions)

    def knows(self, path: str) -> bool:
        """Whether a row of the index names this file of the area studies; asked for few files."""
        instances = self._tables["instances"]
        study = path.split("/")[2]
        query = sa.select(instances.c.path).where(instances.c.study_instance_uid == study, instances.c.path == path)
        with self._transactions.read() as connection:
            return connection.execute(query).first() is not None

    def is_empty(self) -> bool:
        """Whether no instance should be on the disk."""
        studies, instances = self._tables["studies"], self._tables["instances"]
        query = sa.select(studies.c.study_instance_uid).where(
            studies.c.evicted_at.is_(None),
            sa.exists().where(instances.c.study_instance_uid == studies.c.study_instance_uid),
        )
        with self._transactions.read() as connection:
            return connection.execute(query.limit(1)).first() is None

    def in_hand(self) -> dict[str, int]:
        """How many files each study has that is still to be read; no row is looked at for it."""
        studies, instances = self._tables["studies"], self._tables["instances"]
        query = (
            sa.select(instances.c.study_instance_uid, sa.func.count())
            .join(studies, studies.c.study_instance_uid == instances.c.study_instance_uid)
            .where(studies.c.state.in_([state.value for state in IN_HAND]))
            .group_by(instances.c.study_instance_uid)
        )
        with self._transactions.read() as connection:
            return {uid: count for uid, count in connection.execute(query).all()}  # noqa: C416 - rows, which dict() refuses

    def evidence_of(self, study_instance_uid: str) -> list[HeldFile]:
        """The files that a study is read from."""
        instances = self._tables["instances"]
        query = sa.select(*(instances.c[name] for name in HeldFile.__dataclass_fields__)).where(
            instances.c.study_instance_uid == study_instance_uid, instances.c.conflict.is_(False)
        )
        with self._transactions.read() as connection:
            return [HeldFile(**row) for row in connection.execute(query.order_by(instances.c.path)).mappings()]

    def lose(self, study_instance_uid: str, missing: Sequence[HeldFile], *, of: int, actor: str, at: float) -> None:
        """Let a study that is still to be read have FAILED, with its jobs, since these of its files are missing."""
        # The reason names an instance: when that one comes again, the study is opened again.
        cause = (
            f"{len(missing)} of {of} instance file(s) missing from the archive, the first {missing[0].path}; "
            "send the study again"
        )
        with self._transactions.write() as connection:
            state = self._transactions.study_state(connection, study_instance_uid)
            if state not in IN_HAND:
                return
            for file in missing:
                fault = ArchiveFault(
                    path=file.path,
                    kind=FaultKind.MISSING,
                    study_instance_uid=study_instance_uid,
                    sop_instance_uid=file.sop_instance_uid,
                )
                self._faults.enter(connection, fault, at)
            self._fail_jobs(connection, study_instance_uid, cause, actor, at)
            self._transactions.move_study(
                connection, study_instance_uid, StudyState.FAILED, cause=cause, actor=actor, at=at
            )

    def files_of(self, study_instance_uid: str) -> Mapping[str, HeldFile]:
        """The files that a study should have, received and made, by path; of one that left the disk those made."""
        studies, instances = self._tables["studies"], self._tables["instances"]
        found: dict[str, HeldFile] = {}
        with self._transactions.read() as connection:
            for table, there in ((instances, studies.c.evicted_at.is_(None)), (self._tables["reports"], sa.true())):
                query = (
                    sa.select(*(table.c[name] for name in HeldFile.__dataclass_fields__))
                    .join(studies, studies.c.study_instance_uid == table.c.study_instance_uid)
                    .where(table.c.study_instance_uid == study_instance_uid, there)
                )
                found |= {row["path"]: HeldFile(**row) for row in connection.execute(query).mappings()}
        return found

    def studies_after(self, study_instance_uid: str, limit: int) -> list[str]:
        """The next studies by UID."""
        studies = self._tables["studies"]
        query = sa.select(studies.c.study_instance_uid).where(studies.c.study_instance_uid > study_instance_uid)
        with self._transactions.read() as connection:
            return list(connection.execute(query.order_by(studies.c.study_instance_uid).limit(limit)).scalars())

    def unknown_studies(self, uids: Sequence[str]) -> list[str]:
        """Those of the studies that the index does not know."""
        studies = self._tables["studies"]
        query = sa.select(studies.c.study_instance_uid).where(studies.c.study_instance_uid.in_(uids))
        with self._transactions.read() as connection:
            known = set(connection.execute(query).scalars())
        return [uid for uid in uids if uid not in known]

    def knows_results(self, study_instance_uid: str) -> bool:
        """Whether the index tells of everything that was ever made of the study.

        It does not of one that was taken in from its files, nor of one that has no job.
        """
        jobs, history = self._tables["jobs"], self._tables["history"]
        read_here = sa.exists().where(jobs.c.study_instance_uid == study_instance_uid)
        taken_in = sa.exists().where(history.c.study_instance_uid == study_instance_uid, history.c.actor == REINDEXING)
        with self._transactions.read() as connection:
            return bool(connection.execute(sa.select(sa.and_(read_here, ~taken_in))).scalar_one())

    def position(self) -> Position:
        """How far the look at all files is."""
        marks = self._tables["marks"]
        query = sa.select(marks.c.value).where(marks.c.name == _POSITION)
        with self._transactions.read() as connection:
            held = connection.execute(query).scalar_one_or_none()
        return Position(**json.loads(held)) if held else Position()

    def note(self, position: Position) -> None:
        """Keep how far the look at all files is."""
        marks, value = self._tables["marks"], json.dumps(asdict(position))
        same = marks.c.name == _POSITION
        with self._transactions.write() as connection:
            if connection.execute(sa.update(marks).where(same).values(value=value)).rowcount == 0:
                connection.execute(sa.insert(marks).values(name=_POSITION, value=value))

    def remark(self, study_instance_uid: str, cause: str, *, actor: str, at: float) -> None:
        """Write into the study's history what was noticed."""
        with self._transactions.write() as connection:
            state = self._transactions.study_state(connection, study_instance_uid)
            self._transactions.remark(
                connection, study_instance_uid, before=state, after=state, cause=cause, actor=actor, at=at
            )

    def _fail_jobs(self, connection: sa.Connection, study: str, cause: str, actor: str, at: float) -> None:
        jobs = self._tables["jobs"]
        open_ones = (JobState.QUEUED.value, JobState.READING.value)
        query = sa.select(jobs).where(jobs.c.study_instance_uid == study, jobs.c.state.in_(open_ones))
        values: dict[str, Any] = {"reason": cause, "ended_at": at, "lease_token": None, "lease_expires_at": None}
        # Who waits for a result is told that there is none, as of any job that failed.
        values |= {"answer_owed": True, "error": UnreadableInstance.__name__}
        for job in connection.execute(query.with_for_update()).mappings().all():
            self._transactions.move_job(
                connection, job, JobState.FAILED, cause=cause, actor=actor, at=at, values=values
            )
