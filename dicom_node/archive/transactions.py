"""Transactions on the index, and the one place where a study's state changes."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import sqlalchemy as sa
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError, ProgrammingError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from dicom_node.core.errors import IndexUnavailable, UnknownStudy
from dicom_node.core.lifecycle import STUDY_TRANSITIONS, StudyState, check_transition


@contextmanager
def _answering() -> Iterator[None]:
    """Call whatever keeps the database from its work by one name; what our own statements did wrong stays a defect."""
    try:
        yield
    except (IntegrityError, ProgrammingError, DataError):
        raise
    except (DBAPIError, PoolTimeout) as error:
        kind = type(getattr(error, "orig", None) or error).__name__
        raise IndexUnavailable(f"the index does not answer ({kind}); see its disk, its locks and its server") from error


class Transactions:
    """Reading and writing transactions over the index's tables."""

    def __init__(self, engine: sa.Engine, tables: Mapping[str, sa.Table]) -> None:
        self.tables = tables
        self._writer = engine
        self._reader = engine.execution_options(sqlite_begin="DEFERRED")

    @contextmanager
    def write(self) -> Iterator[sa.Connection]:
        """A transaction that commits at its end, or leaves nothing behind."""
        with _answering(), self._writer.begin() as connection:
            yield connection

    @contextmanager
    def read(self) -> Iterator[sa.Connection]:
        """A transaction that sees one moment of the index."""
        with _answering(), self._reader.begin() as connection:
            yield connection

    def study_state(self, connection: sa.Connection, study_instance_uid: str) -> StudyState:
        """The study's state, its row locked where the database can; UnknownStudy where there is none."""
        studies = self.tables["studies"]
        query = sa.select(studies.c.state).where(studies.c.study_instance_uid == study_instance_uid).with_for_update()
        state = connection.execute(query).scalar_one_or_none()
        if state is None:
            raise UnknownStudy(
                f"study {study_instance_uid} is not in the index; `dicom-node status` lists those that are"
            )
        return StudyState(state)

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
        studies = self.tables["studies"]
        connection.execute(
            sa.update(studies)
            .where(studies.c.study_instance_uid == study_instance_uid)
            .values(state=after.value, reason=cause, state_since=at)
        )
        self.remark(connection, study_instance_uid, before=before, after=after, cause=cause, actor=actor, at=at)

    def remark(
        self,
        connection: sa.Connection,
        study_instance_uid: str,
        *,
        before: StudyState,
        after: StudyState,
        cause: str,
        actor: str,
        at: float,
    ) -> None:
        """Write one line of the study's history; before equals after where only something was noticed."""
        row = {"before": before.value, "after": after.value, "cause": cause, "actor": actor, "at": at}
        connection.execute(sa.insert(self.tables["history"]).values(study_instance_uid=study_instance_uid, **row))
