"""A question that is asked again and again, such as whose token this is: looked up once a version of the index.

SQLite counts the versions of its file. As long as its count stays, nobody has committed anything, and what was
answered is the answer still; with the first commit of anybody everything is asked anew. Other databases are asked
each time.
"""

from typing import Any
from weakref import WeakKeyDictionary

import sqlalchemy as sa

from dicom_node.archive.prepared import Prepared
from dicom_node.archive.prepared_query import PreparedQuery, Row

#: Answers that are kept for each connection.
_MOST = 2000

#: A version of the file, as a connection counts it, and what was answered in it by the values asked for.
_Answers = tuple[int, dict[tuple[Any, ...], list[Row]]]


class RememberedQuery(PreparedQuery):
    """Of connections that only look: of its own commits a connection does not count any.

    Whoever is given rows changes none of them.
    """

    def __init__(self, query: sa.Select[Any] | sa.CompoundSelect[Any]) -> None:
        super().__init__(query)
        self._version = Prepared(sa.text("PRAGMA data_version"))
        self._answers: WeakKeyDictionary[sa.Connection, _Answers] = WeakKeyDictionary()

    def rows(self, connection: sa.Connection, **values: Any) -> list[Row]:
        """The rows by the names of their columns."""
        if connection.dialect.name != "sqlite":
            return super().rows(connection, **values)
        known, key = self._known(connection), tuple(values.values())
        if (rows := known.get(key)) is None:
            rows = super().rows(connection, **values)
            # What is not there is not kept: whoever tries names could ask for any number of them.
            if rows and len(known) < _MOST:
                known[key] = rows
        return rows

    def _known(self, connection: sa.Connection) -> dict[tuple[Any, ...], list[Row]]:
        version = int(self._version(connection).fetchone()[0])
        kept = self._answers.get(connection)
        if kept is None or kept[0] != version:
            kept = self._answers[connection] = (version, {})
        return kept[1]
