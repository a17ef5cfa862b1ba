import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from dicom_node.archive.index import Index
from dicom_node.archive.tables import build_metadata
from dicom_node.archive.transactions import Transactions
from dicom_node.core.errors import IllegalTransition, IndexUnavailable, UnknownStudy
from dicom_node.core.lifecycle import StudyState
from tests.populated_index import NOW, complete, instance, receive, study_uid


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'index.sqlite'}"


@pytest.fixture
def index(url: str) -> Iterator[Index]:
    index = Index.open(url)
    yield index
    index.close()


def test_what_was_written_is_there_when_the_index_is_opened_again(url: str) -> None:
    first = Index.open(url)
    receive(first, "kept", at=NOW, instances=1)
    before = first.studies.rows(), first.studies.history(study_uid("kept")), first.studies.study(study_uid("kept"))
    first.close()
    again = Index.open(url)
    assert (
        again.studies.rows(),
        again.studies.history(study_uid("kept")),
        again.studies.study(study_uid("kept")),
    ) == before
    again.close()


def test_a_commit_is_on_the_disk_and_readers_do_not_wait_for_writers(index: Index) -> None:
    with index.studies._transactions.read() as connection:
        pragmas = {
            name: connection.exec_driver_sql(f"PRAGMA {name}").scalar()
            for name in ("journal_mode", "synchronous", "foreign_keys")
        }
    assert pragmas == {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1}


def test_a_reader_sees_one_moment_while_another_thread_writes(index: Index) -> None:
    studies = build_metadata().tables["studies"]
    count = sa.select(sa.func.count()).select_from(studies)
    with index.studies._transactions.read() as connection:
        before = connection.execute(count).scalar()
        writer = threading.Thread(target=index.studies.add_instance, args=(instance("other", 1, at=NOW),))
        writer.start()
        writer.join(20)
        assert not writer.is_alive(), "the writer waited for the reader"
        assert connection.execute(count).scalar() == before == 0
    with index.studies._transactions.read() as connection:
        assert connection.execute(count).scalar() == 1


def move(index: Index, *states: StudyState) -> None:
    """Several steps of a study in one transaction."""
    transactions = index.studies._transactions
    with transactions.write() as connection:
        for after in states:
            transactions.move_study(connection, study_uid("whole"), after, cause="", actor="test", at=NOW)


def test_a_change_that_breaks_off_leaves_nothing_behind(index: Index) -> None:
    complete(index, "whole", at=NOW)
    before = index.studies.rows(), index.studies.history(study_uid("whole"))
    with pytest.raises(IllegalTransition):
        move(index, StudyState.QUEUED, StudyState.DELIVERED)
    assert (index.studies.rows(), index.studies.history(study_uid("whole"))) == before


def test_a_study_that_is_not_there_is_named_with_the_mend(index: Index) -> None:
    with pytest.raises(UnknownStudy, match=r"study 1\.2\.3 is not in the index; `dicom-node status` lists"):
        index.studies.move("1.2.3", StudyState.FAILED, cause="", actor="test", at=NOW)


def test_every_place_for_a_uid_holds_the_longest_one() -> None:
    named = [
        column for table in build_metadata().tables.values() for column in table.columns if column.name.endswith("_uid")
    ]
    assert named
    assert all(column.type.length == 64 for column in named)  # type: ignore[attr-defined]  # every such column is a String


@pytest.mark.parametrize("error", [sa.exc.InterfaceError, sa.exc.InternalError, sa.exc.OperationalError])
def test_whatever_keeps_the_database_from_its_work_is_one_error(index: Index, error: type[sa.exc.DBAPIError]) -> None:
    with pytest.raises(IndexUnavailable, match="does not answer \\(OSError\\)"), index.transactions.read():
        raise error("SELECT", {}, OSError("the server closed the connection"))


def test_no_free_connection_is_an_index_that_does_not_answer(index: Index) -> None:
    with pytest.raises(IndexUnavailable, match="TimeoutError"), index.transactions.write():
        raise sa.exc.TimeoutError("QueuePool limit")


def test_a_statement_of_ours_that_is_wrong_is_a_defect_and_shows_no_row(index: Index) -> None:
    receive(index, "whole", at=NOW, instances=1)
    studies = build_metadata().tables["studies"]
    with pytest.raises(sa.exc.IntegrityError) as caught, index.transactions.write() as connection:
        connection.execute(
            sa.insert(studies).values(
                study_instance_uid=study_uid("whole"),
                state="RECEIVING",
                reason="Secret^Patient",
                state_since=NOW,
                first_received_at=NOW,
                last_received_at=NOW,
            )
        )
    assert "Secret" not in str(caught.value)


def test_what_two_write_at_once_for_the_first_time_is_one_row_with_the_earlier_time(index: Index) -> None:
    for number in range(2):
        index.peers.missed("pacs", reason=f"reason {number}", next_try_at=NOW + 10 * number, at=NOW + number)
        index.conditions.began("disk", reason=f"reason {number}", at=NOW + number)
    (away,), (condition,) = index.peers.all_away(), index.conditions.rows()
    assert (away.since, away.attempts, away.next_try_at, away.reason) == (NOW, 2, NOW + 10, "reason 1")
    assert (condition.since, condition.reason) == (NOW, "reason 1")


def test_a_row_that_is_inserted_or_changed_is_one_statement_in_postgresql_too() -> None:
    table = build_metadata().tables["peers_away"]
    said: list[str] = []
    engine = sa.create_mock_engine(
        "postgresql://", lambda query, *_: said.append(str(query.compile(dialect=engine.dialect)))
    )
    changes = {"attempts": table.c.attempts + 1}
    Transactions.upsert(engine, table, {"peer": "pacs", "since": NOW, "attempts": 1}, changes)  # type: ignore[arg-type]  # it has what is used of a connection
    assert "ON CONFLICT (peer) DO UPDATE SET attempts = (peers_away.attempts + " in said[0]


def test_the_connection_of_a_group_stays_for_the_next_one_unless_something_went_wrong_with_it(index: Index) -> None:
    def connection_of(connection: sa.Connection) -> int:
        return id(connection.connection.dbapi_connection)

    def broken(_connection: sa.Connection) -> None:
        raise IllegalTransition("it is not so")

    together = index.transactions.together
    assert together(connection_of) == together(connection_of)
    assert index.transactions._standing is not None
    with pytest.raises(IllegalTransition):
        together(broken)
    assert index.transactions._standing is None
    receive(index, "after", at=NOW, instances=2)
    assert len(index.studies.study(study_uid("after")).series[0].instances) == 2


def test_a_closed_index_leaves_no_connection_open(url: str) -> None:
    index = Index.open(url)
    receive(index, "kept", at=NOW, instances=1)
    index.close()
    assert index.transactions._standing is None
    assert index.transactions._writer.pool.checkedout() == 0  # type: ignore[attr-defined]  # a pool that counts
