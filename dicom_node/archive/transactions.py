"""Transactions on the index, and the one place where the state of a study or a job changes."""

import sqlite3
from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from types import MappingProxyType
from typing import Any, TypeVar

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError, ProgrammingError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from dicom_node.archive.group_commit import GroupCommit
from dicom_node.archive.prepared import Prepared
from dicom_node.core.errors import IndexConflict, IndexUnavailable, UnknownStudy
from dicom_node.core.lifecycle import JOB_TRANSITIONS, STUDY_TRANSITIONS, JobState, StudyState, check_transition

Answer = TypeVar("Answer")

#: Connections that stay open for those that look: a few threads do so at once.
_LOOKING = 4

#: No transaction is under way for longer, where several may be: what is missing by then never comes.
UNDERWAY_SECONDS = 10.0

#: SQLSTATE of serialisation failures and deadlocks (PostgreSQL's manual, Appendix A): to be done again.
_TAKEN_BACK = ("40001", "40P01")


def lies_in_file(engine: sa.Engine) -> bool:
    """Whether the database is a file of this machine, and no server that may end a connection, or memory."""
    return engine.dialect.name == "sqlite" and engine.url.database not in (None, "", ":memory:")


@contextmanager
def _answering() -> Iterator[None]:
    """Call whatever keeps the database from its work by one name; what our own statements did wrong stays a defect."""
    try:
        yield
    except (IntegrityError, ProgrammingError, DataError):
        raise
    except (DBAPIError, PoolTimeout) as error:
        cause = getattr(error, "orig", None) or error
        kind = type(cause).__name__
        if getattr(cause, "sqlstate", None) in _TAKEN_BACK:
            raise IndexConflict(f"another change of the index was in the way ({kind})") from error
        raise IndexUnavailable(f"the index does not answer ({kind}); see its disk, its locks and its server") from error


def _say(connection: sa.Connection, statement: str) -> None:
    """To the driver, past SQLAlchemy's own account of transactions."""
    try:
        connection.connection.cursor().execute(statement)
    except sqlite3.Error as error:
        raise DBAPIError.instance(statement, None, error, sqlite3.Error, hide_parameters=True) from error


class Transactions:
    """Reading and writing transactions over the index's tables."""

    def __init__(
        self,
        engine: sa.Engine,
        tables: Mapping[str, sa.Table],
        turn: Callable[[], AbstractContextManager[object]] = nullcontext,
    ) -> None:
        """`turn` is held by whoever writes, where the database itself lets nobody wait in order."""
        self.tables = tables
        self.is_sqlite = engine.dialect.name == "sqlite"
        self._turn = turn
        self._writer = engine
        self._brisk = engine.execution_options(sqlite_synchronous="NORMAL")
        self._reader = engine.execution_options(sqlite_begin="DEFERRED")
        self._group = GroupCommit(self._write_again if lies_in_file(engine) else self.write)
        #: A connection that the last group left open for the next, and some for those that look.
        self._standing: sa.Connection | None = None
        self._looking: deque[sa.Connection] | None = deque() if lies_in_file(engine) else None
        # To build a statement takes longer than to execute it: what is executed often is built once, here as in others.
        studies, jobs = tables["studies"], tables["jobs"]
        uid: sa.BindParameter[str] = sa.bindparam("uid")
        of_study = studies.c.study_instance_uid == uid
        self._state_of_study = Prepared(sa.select(studies.c.state).where(of_study).with_for_update())
        self._update_of_study = sa.update(studies).where(of_study)
        self._changes_of_study: dict[frozenset[str], Prepared] = {}
        self._change_of_job = sa.update(jobs).where(jobs.c.job_uid == uid)
        self._changes_of_job: dict[frozenset[str], Prepared] = {}
        line = ("study_instance_uid", "at", "before", "after", "cause", "actor", "subject")
        self._line_of_history = Prepared(sa.insert(tables["history"]), *line)

    @contextmanager
    def write(self, *, durable: bool = True) -> Iterator[sa.Connection]:
        """A transaction that commits at its end, or leaves nothing behind.

        One that is not `durable` outlives the end of every process, and is on the disk with the next that is. A power
        cut before that takes it back, with all that came after: right for what is simply done again, wrong before
        anybody outside is told that it is so.
        """
        with _answering(), self._turn(), (self._writer if durable else self._brisk).begin() as connection:
            yield connection

    @contextmanager
    def _write_again(self) -> Iterator[sa.Connection]:
        """As `write`, for one thread at a time: to take a connection from the pool takes longer than the commit."""
        with _answering(), self._turn():
            connection, self._standing = self._standing or self._writer.connect(), None
            try:
                with connection.begin():
                    yield connection
            except BaseException:  # whatever it is, the connection may be at fault
                connection.close()
                raise
            self._standing = connection

    def close(self) -> None:
        """Give back what stays open between groups; nobody writes any more."""
        standing, self._standing = self._standing, None
        if standing is not None:
            standing.close()
        while self._looking:
            self._looking.pop().close()

    def together(self, deed: Callable[[sa.Connection], Answer]) -> Answer:
        """Do something short in a transaction that other threads' deeds may share; its answer, durable at return.

        It may be done twice, the first time without effect; what it raises is its caller's alone.
        """
        return self._group.run(deed)

    @contextmanager
    def read(self) -> Iterator[sa.Connection]:
        """A transaction that sees one moment of the index."""
        with _answering(), self._reader.begin() as connection:
            yield connection

    @contextmanager
    def look(self, *, once: bool = False) -> Iterator[sa.Connection]:
        """As `read`, for prepared statements alone: to take a connection from the pool takes longer than they do.

        `once`: for one statement alone, which sees one moment by itself, so that nothing need begin and end around it.
        """
        if self._looking is None:
            with self.read() as connection:
                yield connection
            return
        with _answering():
            connection = self._idle_connection() or self._reader.connect()
            try:
                if once:
                    yield connection
                else:
                    _say(connection, "BEGIN DEFERRED")
                    yield connection
                    _say(connection, "COMMIT")
            except BaseException:  # whatever it is, nobody else may find the transaction open
                connection.close()
                raise
            if len(self._looking) < _LOOKING:
                self._looking.append(connection)
            else:
                connection.close()

    def _idle_connection(self) -> sa.Connection | None:
        try:
            return self._looking.pop() if self._looking else None
        except IndexError:  # another thread was quicker
            return None

    def find_study_state(self, connection: sa.Connection, study_instance_uid: str) -> StudyState | None:
        """The study's state, its row locked where the database can; None where there is none."""
        row = self._state_of_study(connection, uid=study_instance_uid).fetchone()
        return None if row is None else StudyState(row[0])

    def study_state(self, connection: sa.Connection, study_instance_uid: str) -> StudyState:
        """As `find_study_state`; UnknownStudy where there is none."""
        state = self.find_study_state(connection, study_instance_uid)
        if state is None:
            raise UnknownStudy(
                f"study {study_instance_uid} is not in the index; `dicom-node status` lists those that are"
            )
        return state

    def change_study(self, connection: sa.Connection, study_instance_uid: str, **values: Any) -> None:
        """Change columns of the study's row, whose lock the transaction holds."""
        change = self._changes_of_study.get(frozenset(values))
        if change is None:
            change = self._changes_of_study[frozenset(values)] = Prepared(self._update_of_study, "uid", *values)
        change(connection, uid=study_instance_uid, **values)

    def move_study(
        self,
        connection: sa.Connection,
        study_instance_uid: str,
        after: StudyState,
        *,
        cause: str,
        actor: str,
        at: float,
    ) -> None:
        """Let the study enter a state and write its history; IllegalTransition when the table forbids it."""
        before = self.study_state(connection, study_instance_uid)
        check_transition(STUDY_TRANSITIONS, before, after)
        self.change_study(connection, study_instance_uid, state=after.value, reason=cause, state_since=at)
        self.remark(connection, study_instance_uid, before=before, after=after, cause=cause, actor=actor, at=at)

    def move_job(
        self,
        connection: sa.Connection,
        job: Mapping[Any, Any],
        after: JobState,
        *,
        cause: str,
        actor: str,
        at: float,
        values: Mapping[str, Any] = MappingProxyType({}),
    ) -> None:
        """Let a job, given as its locked row, enter a state, and write it into the history of its study.

        `values` are further columns that change with it; IllegalTransition when the table forbids the state.
        """
        check_transition(JOB_TRANSITIONS, JobState(job["state"]), after)
        values = {"state": after.value, **values}
        known = self._changes_of_job.get(frozenset(values))
        if known is None:
            known = self._changes_of_job[frozenset(values)] = Prepared(self._change_of_job, *values)
        known(connection, uid=job["job_uid"], **values)
        change = {"before": job["state"], "after": after, "subject": f"job {job['algorithm']}"}
        self.remark(connection, job["study_instance_uid"], **change, cause=cause, actor=actor, at=at)

    def supersede_jobs(
        self,
        connection: sa.Connection,
        study_instance_uid: str,
        states: Collection[JobState],
        *,
        cause: str,
        actor: str,
        at: float,
        values: Mapping[str, Any] = MappingProxyType({}),
    ) -> None:
        """Let the study's jobs in these states count no more, and whoever holds one of them lose it."""
        jobs = self.tables["jobs"]
        query = sa.select(jobs).where(
            jobs.c.study_instance_uid == study_instance_uid, jobs.c.state.in_([state.value for state in states])
        )
        dropped = {"lease_token": None, "lease_expires_at": None, "next_try_at": None, **values}
        for job in connection.execute(query.with_for_update()).mappings().all():
            self.move_job(connection, job, JobState.SUPERSEDED, cause=cause, actor=actor, at=at, values=dropped)

    @staticmethod
    def upsert(connection: sa.Connection, table: sa.Table, row: Mapping[str, Any], changes: Mapping[str, Any]) -> None:
        """Insert the row, or let a row of the same primary key take the changes: two at once both succeed."""
        insert = postgresql.insert if connection.dialect.name == "postgresql" else sqlite.insert
        keys = list(table.primary_key.columns)
        connection.execute(insert(table).values(**row).on_conflict_do_update(index_elements=keys, set_=dict(changes)))

    def remark(
        self,
        connection: sa.Connection,
        study_instance_uid: str,
        *,
        before: str,
        after: str,
        cause: str,
        actor: str,
        at: float,
        subject: str = "",
    ) -> None:
        """Write one line of the study's history; before equals after where only something was noticed.

        The states are the study's, or those of the `subject`: "job ALGORITHM" or "delivery PEER".
        """
        row = {"before": str(before), "after": str(after), "cause": cause, "actor": actor, "at": at, "subject": subject}
        self._line_of_history(connection, study_instance_uid=study_instance_uid, **row)
