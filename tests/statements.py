"""What an SQLite index is really asked, whoever prepared it: statements as the driver tells them, values filled in."""

from typing import Any

import sqlalchemy as sa

from dicom_node.archive.index import Index


def told_statements(index: Index) -> list[str]:
    """A list that grows with every statement from now on, but those that begin and end transactions."""
    statements: list[str] = []

    def note(statement: str) -> None:
        if not statement.startswith(("BEGIN", "COMMIT", "ROLLBACK", "PRAGMA")):
            statements.append(statement)

    def listen(connection: Any, *_others: Any) -> None:
        connection.set_trace_callback(note)

    sa.event.listen(index._engine, "checkout", listen)
    return statements
