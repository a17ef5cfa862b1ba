"""A prepared statement: one that is executed for every instance, compiled once and given to the driver as it is.

SQLAlchemy's own way to the driver takes ten times as long as the statement itself, and the statements of one instance
would take longer than all that is done for it besides.
"""

from collections.abc import Callable
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine.interfaces import Dialect
from sqlalchemy.exc import DBAPIError


class Prepared:
    """A statement with named values; for the one kind of database that its index is in."""

    def __init__(self, statement: sa.Executable, *names: str) -> None:
        """`names`: the columns that an insert or update gives values to; all of them are given each time."""
        self._statement = statement
        self._names = names
        self._compiled: _Compiled | None = None

    def __call__(self, connection: sa.Connection, **values: Any) -> Any:
        """Execute it within a transaction; the driver's cursor, for `fetchone`, `fetchall` or `rowcount`."""
        compiled = self._compiled
        if compiled is None:
            # Two threads at once make two that are equal.
            compiled = self._compiled = _Compiled(self._statement, self._names, connection.dialect)
        cursor = connection.connection.cursor()
        module: Any = connection.dialect.dbapi
        try:
            cursor.execute(compiled.text, compiled.parameters(values))
        except module.Error as error:
            # The text of an error must not carry a row: headers are among the values.
            raise DBAPIError.instance(compiled.text, None, error, module.Error, hide_parameters=True) from error
        return cursor


def unless_there(table: sa.Table, *columns: str) -> dict[str, Prepared]:
    """Inserts a row unless there is one of its primary key, by the kind of database; `rowcount` says whether it did."""
    inserts = {
        "postgresql": postgresql.insert(table).on_conflict_do_nothing(),
        "sqlite": sqlite.insert(table).on_conflict_do_nothing(),
    }
    return {name: Prepared(insert, *columns) for name, insert in inserts.items()}


class _Compiled:
    """A statement's text, and what makes its parameters of named values, for one dialect."""

    def __init__(self, statement: Any, names: tuple[str, ...], dialect: Dialect) -> None:
        compiled = statement.compile(dialect=dialect, column_keys=list(names) or None)
        given = {name: None for name, bind in compiled.binds.items() if bind.required} | dict.fromkeys(names)
        # With what the statement itself has of values: of a list of them as many parameters as it is long.
        whole = compiled.construct_expanded_state(given, escape_names=False)
        self.text = str(whole.statement)
        self._order: list[str] | None = list(whole.positiontup) if compiled.positional else None
        converters: dict[str, Callable[[Any], Any]] = {**compiled._bind_processors, **whole.processors}
        self._converters = {name: convert for name, convert in converters.items() if name in given}
        constants = {name: value for name, value in whole.parameters.items() if name not in given}
        self._constants = {
            name: converters[name](value) if name in converters else value for name, value in constants.items()
        }

    def parameters(self, values: dict[str, Any]) -> Any:
        """In the statement's order, or by name, as the driver wants them."""
        for name, convert in self._converters.items():
            values[name] = convert(values[name])
        values |= self._constants
        return values if self._order is None else [values[name] for name in self._order]
