"""The index: one database, the truth about every study, job, report and delivery."""

from typing import Any

import sqlalchemy as sa
from sqlalchemy.pool import ConnectionPoolEntry

from dicom_node.archive.deliveries import Deliveries
from dicom_node.archive.jobs import Jobs
from dicom_node.archive.studies import Studies
from dicom_node.archive.tables import build_metadata
from dicom_node.archive.transactions import Transactions
from dicom_node.archive.workers import Workers


class Index:
    """The index's parts over one engine; safe to share between threads, and between processes by URL."""

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine
        metadata = build_metadata()
        metadata.create_all(engine)
        transactions = self.transactions = Transactions(engine, metadata.tables)
        self.studies = Studies(transactions)
        self.jobs = Jobs(transactions)
        self.deliveries = Deliveries(transactions)
        self.workers = Workers(transactions)

    @classmethod
    def open(cls, url: str) -> "Index":
        """Open the database of this SQLAlchemy URL and make the tables that are missing."""
        # An error's text must not carry a row: headers are among its values.
        engine = sa.create_engine(url, pool_pre_ping=not url.startswith("sqlite"), hide_parameters=True)
        if engine.dialect.name == "sqlite":
            _prepare_sqlite(engine)
        return cls(engine)

    def close(self) -> None:
        """Give every connection back."""
        self._engine.dispose()


def _prepare_sqlite(engine: sa.Engine) -> None:
    """Durable at each commit, readable while written; a write takes its lock at once, so that no upgrade can fail."""

    def connect(connection: Any, _entry: ConnectionPoolEntry) -> None:
        connection.isolation_level = None
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "busy_timeout=30000", "foreign_keys=ON"):
            connection.execute(f"PRAGMA {pragma}")

    def begin(connection: sa.Connection) -> None:
        mode = connection.get_execution_options().get("sqlite_begin", "IMMEDIATE")
        connection.exec_driver_sql(f"BEGIN {mode}")

    sa.event.listen(engine, "connect", connect)
    sa.event.listen(engine, "begin", begin)
