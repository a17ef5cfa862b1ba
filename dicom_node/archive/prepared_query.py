"""A question that is asked for every study: prepared, and its rows made of what the driver gives, without more."""

from collections.abc import Callable
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine.interfaces import Dialect

from dicom_node.archive.prepared import Prepared

Row = dict[str, Any]


class PreparedQuery(Prepared):
    """A select with named values; for the one kind of database that its index is in."""

    def __init__(self, query: sa.Select[Any] | sa.CompoundSelect[Any]) -> None:
        super().__init__(query)
        self._columns = [(str(column.key), column.type) for column in query.selected_columns]
        #: What makes a value of ours of the driver's, by its place; None until it is known for this database.
        self._readers: list[tuple[int, Callable[[Any], Any]]] | None = None

    def tuples(self, connection: sa.Connection, **values: Any) -> list[tuple[Any, ...]]:
        """The rows as tuples."""
        cursor = self(connection, **values)
        found, readers = cursor.fetchall(), self._readers
        if readers is None:
            readers = self._readers = self._readers_of(connection.dialect, cursor.description)
        return [_read(row, readers) for row in found] if readers else [tuple(row) for row in found]

    def rows(self, connection: sa.Connection, **values: Any) -> list[Row]:
        """The rows by the names of their columns."""
        names = [name for name, _ in self._columns]
        return [dict(zip(names, row, strict=True)) for row in self.tuples(connection, **values)]

    def first(self, connection: sa.Connection, **values: Any) -> Row | None:
        """The first row by the names of its columns; None where there is none."""
        return next(iter(self.rows(connection, **values)), None)

    def scalars(self, connection: sa.Connection, **values: Any) -> list[Any]:
        """The first value of each row."""
        return [row[0] for row in self.tuples(connection, **values)]

    def _readers_of(self, dialect: Dialect, description: Any) -> list[tuple[int, Callable[[Any], Any]]]:
        """`description`: of each column, second, what the driver calls its type (PEP 249)."""
        kinds = zip(self._columns, description, strict=True)
        found = [kind._cached_result_processor(dialect, told[1]) for (_, kind), told in kinds]
        return [(at, reader) for at, reader in enumerate(found) if reader is not None]


def _read(row: Any, readers: list[tuple[int, Callable[[Any], Any]]]) -> tuple[Any, ...]:
    values = list(row)
    for at, reader in readers:
        values[at] = reader(values[at])
    return tuple(values)
