"""Indexes of earlier versions: `index_0_1_0.sql` is one as version 0.1.0 made it, with studies in several states."""

import sqlite3
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from dicom_node.archive.index import Index
from dicom_node.archive.overview import read_overview, read_study
from dicom_node.archive.schema import fingerprint, prepare_schema
from dicom_node.archive.tables import build_metadata
from dicom_node.core.errors import SettingsError
from dicom_node.core.lifecycle import StudyState
from tests.populated_index import NOW, instance, study_uid

OLD = Path(__file__).with_name("index_0_1_0.sql")


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """An index of version 0.1.0."""
    path = tmp_path / "index.sqlite"
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(OLD.read_text(encoding="utf-8"))
    return path


def rows_of(path: Path, columns: dict[str, list[str]] | None = None) -> dict[str, list[tuple[Any, ...]]]:
    """Every row of every table, as far as its columns are among these."""
    columns = columns_of(path) if columns is None else columns
    with closing(sqlite3.connect(path)) as connection:
        return {
            table: sorted(
                connection.execute(f'SELECT {", ".join(map(quoted, names))} FROM "{table}"').fetchall(), key=repr
            )
            for table, names in columns.items()
        }


def quoted(name: str) -> str:
    return f'"{name}"'


def columns_of(path: Path) -> dict[str, list[str]]:
    with closing(sqlite3.connect(path)) as connection:
        tables = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        return {table: [row[1] for row in connection.execute(f'PRAGMA table_info("{table}")')] for table in tables}


def change(path: Path, statement: str) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(statement)
        connection.commit()


def open_and_close(path: Path) -> None:
    Index.open(f"sqlite:///{path}").close()


def test_an_index_of_an_earlier_version_opens_and_keeps_every_row(old: Path) -> None:
    columns, before = columns_of(old), rows_of(old)
    assert all(before.values())
    open_and_close(old)
    assert rows_of(old, columns) == before


def test_what_was_begun_with_an_earlier_version_goes_on(old: Path) -> None:
    index = Index.open(f"sqlite:///{old}")
    overview = read_overview(index, NOW)
    states = {study.study_instance_uid: study.state for study in overview.studies}
    assert states[study_uid("delivered")] is StudyState.DELIVERED
    assert states[study_uid("reading")] is StudyState.READING
    assert read_study(index, study_uid("delivered"), NOW).history[-1].after == StudyState.DELIVERED
    assert index.studies.add_instance(instance("receiving", 9, at=NOW)).value == "NEW"
    assert len(index.jobs.of_study(study_uid("queued"))) == 1
    index.close()


def test_an_earlier_versions_index_becomes_like_a_new_one(old: Path, tmp_path: Path) -> None:
    open_and_close(old)
    new = tmp_path / "new.sqlite"
    open_and_close(new)
    assert {table: set(names) for table, names in columns_of(old).items()} == {
        table: set(names) for table, names in columns_of(new).items()
    }
    with closing(sqlite3.connect(old)) as one, closing(sqlite3.connect(new)) as other:
        indexes = "SELECT name, tbl_name FROM sqlite_master WHERE type = 'index' ORDER BY name"
        assert one.execute(indexes).fetchall() == other.execute(indexes).fetchall()


def test_a_second_opening_compares_nothing(old: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    open_and_close(old)

    def compare(*_: object) -> None:
        raise AssertionError("the tables were compared again")

    monkeypatch.setattr("dicom_node.archive.schema._add_what_is_missing", compare)
    open_and_close(old)


@pytest.mark.parametrize(
    ("statement", "named"),
    [
        ("ALTER TABLE studies ADD COLUMN ward VARCHAR(16)", "studies.ward is not known to this version"),
        ("ALTER TABLE workers RENAME COLUMN device TO machine", "workers.machine is not known to this version"),
    ],
)
def test_what_is_no_addition_is_named_and_nothing_is_changed(old: Path, statement: str, named: str) -> None:
    change(old, statement)
    before = columns_of(old)
    with pytest.raises(SettingsError, match=named) as caught:
        open_and_close(old)
    assert "start the version that made it" in str(caught.value)
    assert columns_of(old) == before


def test_what_somebody_else_put_into_the_database_is_left_alone(old: Path) -> None:
    change(old, "CREATE TABLE ward (name TEXT)")
    change(old, "CREATE INDEX by_reason ON studies (reason)")
    open_and_close(old)
    assert columns_of(old)["ward"] == ["name"]


def test_a_change_that_breaks_off_leaves_the_index_as_it_was(old: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = columns_of(old)

    def full(*_: object) -> str:
        raise OSError("no space left on device")

    monkeypatch.setattr("dicom_node.archive.schema.sa.insert", full)
    with pytest.raises(OSError, match="no space"):
        open_and_close(old)
    assert columns_of(old) == before


def test_many_that_open_it_at_once_all_find_it_ready(old: Path) -> None:
    start, opened = threading.Barrier(4), []

    def open_it() -> None:
        start.wait()
        index = Index.open(f"sqlite:///{old}")
        opened.append(index.studies.counts()[StudyState.READING])
        index.close()

    threads = [threading.Thread(target=open_it) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert opened == [1, 1, 1, 1]


def with_column(column: Callable[[], "sa.Column[Any]"]) -> sa.MetaData:
    """Our tables, and one column more."""
    metadata = build_metadata()
    metadata.tables["studies"].append_column(column())
    return metadata


@pytest.mark.parametrize(
    ("column", "value"),
    [
        (lambda: sa.Column("ward", sa.String(8)), None),
        (lambda: sa.Column("ward", sa.String(8), nullable=False, default="3:4'"), "3:4'"),
        (lambda: sa.Column("ward", sa.Integer, nullable=False, default=7), 7),
        (lambda: sa.Column("ward", sa.Boolean, nullable=False, default=True), 1),
        (lambda: sa.Column("ward", sa.Float, nullable=False, default=0.5, index=True), 0.5),
    ],
)
def test_a_new_column_has_its_default_in_the_rows_that_were_there(
    old: Path, column: Callable[[], "sa.Column[Any]"], value: object
) -> None:
    engine = sa.create_engine(f"sqlite:///{old}")
    prepare_schema(engine, with_column(column))
    engine.dispose()
    assert {row for (row,) in rows_of(old, {"studies": ["ward"]})["studies"]} == {value}


def test_a_new_column_that_rows_cannot_have_is_an_error(old: Path) -> None:
    engine = sa.create_engine(f"sqlite:///{old}")
    with pytest.raises(SettingsError, match=r"column studies\.ward is missing and cannot be added"):
        prepare_schema(engine, with_column(lambda: sa.Column("ward", sa.Integer, nullable=False)))
    engine.dispose()


def test_the_fingerprint_changes_with_every_column_and_with_nothing_else() -> None:
    assert fingerprint(build_metadata()) == fingerprint(build_metadata())
    variants = [
        build_metadata(),
        with_column(lambda: sa.Column("ward", sa.String(8))),
        with_column(lambda: sa.Column("ward", sa.String(9))),
        with_column(lambda: sa.Column("ward", sa.String(8), nullable=False)),
        with_column(lambda: sa.Column("ward", sa.String(8), index=True)),
    ]
    assert len({fingerprint(metadata) for metadata in variants}) == len(variants)
