"""The schema of an index that an earlier version made: what this version's tables have more of is added at opening.

Only additions are made: tables, columns with a default, indexes, longer texts. Whatever else differs is an error that
names it, for this version would read or write such an index wrongly. A fingerprint of the tables in the index itself
says that nothing is to do, so that only the first opening by a new version compares anything.
"""

import hashlib
import json
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType
from typing import Any, cast

import sqlalchemy as sa

from dicom_node.core.errors import SettingsError

log = logging.getLogger(__name__)

#: The name of the mark that holds the fingerprint.
FINGERPRINT = "schema"

# Any number will do, as long as every version of this node takes the same.
_ADVISORY_LOCK = 0x1D1C0


def prepare_schema(engine: sa.Engine, metadata: sa.MetaData) -> None:
    """Make the tables in an empty database, or add to an earlier version's what it lacks; all or nothing.

    SettingsError, with nothing changed, where the difference is more than an addition.
    """
    wanted = fingerprint(metadata)
    with engine.execution_options(sqlite_begin="DEFERRED").begin() as connection:
        if _held(connection, metadata) == wanted:
            return
    with engine.begin() as connection:
        if connection.dialect.name == "postgresql":
            # Of several processes that start at once, one does it.
            connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_ADVISORY_LOCK)))
        before = _held(connection, metadata)
        if before == wanted:
            return
        older = not metadata.tables.keys().isdisjoint(sa.inspect(connection).get_table_names())
        added = _add_what_is_missing(connection, metadata) if older else _make(connection, metadata)
        marks = metadata.tables["marks"]
        connection.execute(sa.delete(marks).where(marks.c.name == FINGERPRINT))
        connection.execute(sa.insert(marks).values(name=FINGERPRINT, value=wanted))
    if older:
        log.warning("the index of an earlier version was brought up to date", extra={"added": added})


def fingerprint(metadata: sa.MetaData) -> str:
    """The same for the same tables, columns and indexes; 64 hex digits."""
    tables = [
        (
            table.name,
            [(column.name, str(column.type), column.nullable, column.primary_key) for column in table.columns],
            sorted((str(index.name), [column.name for column in index.columns]) for index in table.indexes),
        )
        for table in sorted(metadata.tables.values(), key=lambda table: table.name)
    ]
    return hashlib.sha256(json.dumps(tables).encode()).hexdigest()


def _held(connection: sa.Connection, metadata: sa.MetaData) -> str | None:
    marks = metadata.tables["marks"]
    if not sa.inspect(connection).has_table("marks"):
        return None
    return connection.execute(sa.select(marks.c.value).where(marks.c.name == FINGERPRINT)).scalar_one_or_none()


def _make(connection: sa.Connection, metadata: sa.MetaData) -> list[str]:
    """Make all tables in an empty database; nothing is added to what was there."""
    for definition in _definitions(metadata, connection.engine.url.drivername):
        connection.exec_driver_sql(definition)
    return []


@lru_cache(maxsize=2)
def _definitions(metadata: sa.MetaData, drivername: str) -> tuple[str, ...]:
    """What makes tables and indexes, as text: to write it takes longer than to run it."""
    dialect = sa.make_url(f"{drivername}://").get_dialect()()
    texts: list[str] = []

    def keep(ddl: sa.Executable, *_: object, **__: object) -> None:
        texts.append(str(cast(sa.DDLElement, ddl).compile(dialect=dialect)))

    metadata.create_all(sa.create_mock_engine(f"{drivername}://", keep), checkfirst=False)
    return tuple(texts)


def _add_what_is_missing(connection: sa.Connection, metadata: sa.MetaData) -> list[str]:
    """Add tables, and columns and indexes to those that are there; the names of what was added to them."""
    metadata.create_all(connection)
    # Half a second that only the first opening by a new version needs.
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext
    from alembic.operations import Operations

    context = MigrationContext.configure(connection, opts={"include_object": _is_ours})
    # Changes of one column come as a list of their own.
    found = [part if isinstance(part, list) else [part] for part in compare_metadata(context, metadata)]
    differences = [_judge(difference) for part in found for difference in part]
    if faults := [difference.name for difference in differences if difference.add is None]:
        raise SettingsError(
            f"the index was made by another version of this node and cannot be used: {'; '.join(faults)}; start the "
            "version that made it, or set another data_dir of [node] or url of [index]"
        )
    operations = Operations(context)
    for difference in differences:
        if difference.add is not None:
            difference.add(operations)
    return [difference.name for difference in differences]


@dataclass(frozen=True, kw_only=True)
class _Difference:
    """What the tables in the database and ours differ in."""

    name: str
    #: Makes the addition with Alembic's operations; None where it is no addition.
    add: Callable[[Any], object] | None = None


def _is_ours(_object: Any, _name: str | None, kind: str, reflected: bool, counterpart: Any) -> bool:
    """Tables and indexes that somebody else put into the database are none of our business."""
    return not (kind in ("table", "index") and reflected and counterpart is None)


def _judge(difference: tuple[Any, ...]) -> _Difference:
    kind = difference[0]
    if kind == "add_column":
        return _new_column(difference[2], difference[3])
    if kind == "add_index":
        return _new_index(difference[1])
    if kind == "modify_type" and _grows(*difference[5:7]):
        return _longer_text(difference[2], difference[3], difference[6])
    return _Difference(name=_named(difference))


def _new_column(table: str, column: "sa.Column[Any]") -> _Difference:
    name = f"column {table}.{column.name}"
    default = _default_of(column)
    if column.primary_key or column.foreign_keys or (default is None and not column.nullable):
        return _Difference(name=f"{name} is missing and cannot be added")
    # Without its index: that is a difference of its own.
    added = sa.Column(column.name, column.type, nullable=column.nullable, server_default=default)
    return _Difference(name=name, add=lambda operations: operations.add_column(table, added))


def _new_index(index: sa.Index) -> _Difference:
    return _Difference(name=f"index {index.name}", add=lambda operations: index.create(operations.get_bind()))


def _longer_text(table: str, column: str, text: sa.String) -> _Difference:
    def add(operations: Any) -> None:
        # SQLite keeps texts of any length, whatever their column says.
        if operations.get_bind().dialect.name != "sqlite":
            operations.alter_column(table, column, type_=text)

    return _Difference(name=f"column {table}.{column}", add=add)


def _default_of(column: "sa.Column[Any]") -> Any:
    """What the rows that are there already get, as the database writes it; None for NULL."""
    if column.server_default is not None:
        return getattr(column.server_default, "arg", None)
    value = getattr(column.default, "arg", None)
    if isinstance(value, bool):
        return sa.true() if value else sa.false()
    if isinstance(value, int | float):
        return sa.text(str(value))
    return value if isinstance(value, str) else None


def _grows(before: Any, after: Any) -> bool:
    if not isinstance(before, sa.String) or not isinstance(after, sa.String):
        return False
    return after.length is None or (before.length is not None and before.length <= after.length)


#: What a difference is called, by the word that the comparison has for it.
_WORDS: Mapping[str, str] = MappingProxyType(
    {
        "remove_column": "is not known to this version",
        "modify_type": "is of another type",
        "modify_nullable": "differs in whether it may be empty",
    }
)


def _named(difference: tuple[Any, ...]) -> str:
    kind = difference[0]
    parts = (part for part in _parts(difference[1:4]) if part)
    return f"{'.'.join(parts)} {_WORDS.get(kind, f'differs ({kind})')}"


def _parts(objects: Iterable[Any]) -> Iterator[str]:
    for part in objects:
        if isinstance(part, sa.ForeignKeyConstraint | sa.UniqueConstraint):
            yield from (str(part.table.name), *part.columns.keys())
        else:
            yield str(getattr(part, "name", part) or "")
