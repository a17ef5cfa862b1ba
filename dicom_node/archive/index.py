"""The index: one database, the truth about every study, job, report and delivery."""

import sqlite3
from contextlib import nullcontext
from functools import cache
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.pool import ConnectionPoolEntry

from dicom_node.archive.arrivals import Arrivals
from dicom_node.archive.commitments import Commitments
from dicom_node.archive.conditions import Conditions
from dicom_node.archive.contents import Contents
from dicom_node.archive.deliveries import Deliveries
from dicom_node.archive.faults import Faults
from dicom_node.archive.inventory import Inventory
from dicom_node.archive.jobs import Jobs
from dicom_node.archive.peers import Peers
from dicom_node.archive.performed_steps import PerformedSteps
from dicom_node.archive.priorities import Priorities
from dicom_node.archive.priors import Priors
from dicom_node.archive.promises import Promises
from dicom_node.archive.reports import Reports
from dicom_node.archive.resending import Resending
from dicom_node.archive.retention import Evictions
from dicom_node.archive.schema import prepare_schema
from dicom_node.archive.search import Searches
from dicom_node.archive.sessions import Sessions
from dicom_node.archive.studies import Studies
from dicom_node.archive.study_keys import StudyKeys
from dicom_node.archive.tables import build_metadata
from dicom_node.archive.tokens import Tokens
from dicom_node.archive.transactions import Transactions, lies_in_file
from dicom_node.archive.turns import Turns
from dicom_node.archive.users import Users
from dicom_node.archive.waits import Waits
from dicom_node.archive.withdrawals import Withdrawals
from dicom_node.archive.workers import Workers
from dicom_node.core.errors import IndexUnavailable

#: Whoever may not write for so long finds the index unavailable.
PATIENCE_SECONDS = 30.0


class Index:
    """The index's parts over one engine; safe to share between threads, and between processes by URL."""

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine
        metadata = _metadata()
        prepare_schema(engine, metadata)
        self._turns = _turns(engine)
        turn = self._turns.taken if self._turns is not None else nullcontext
        transactions = self.transactions = Transactions(engine, metadata.tables, turn)
        self.studies = Studies(transactions)
        self.arrivals = Arrivals(transactions, self.studies)
        self.performed_steps = PerformedSteps(transactions, self.arrivals)
        self.jobs = Jobs(transactions)
        self.reports = Reports(transactions)
        self.deliveries = Deliveries(transactions)
        self.commitments = Commitments(transactions)
        self.promises = Promises(transactions)
        self.peers = Peers(transactions)
        self.workers = Workers(transactions)
        self.inventory = Inventory(transactions)
        self.faults = Faults(transactions)
        self.evictions = Evictions(transactions)
        self.conditions = Conditions(transactions)
        self.withdrawals = Withdrawals(transactions)
        self.priorities = Priorities(transactions)
        self.priors = Priors(transactions)
        self.resending = Resending(transactions)
        self.users = Users(transactions)
        self.sessions = Sessions(transactions)
        self.tokens = Tokens(transactions)
        self.study_keys = StudyKeys(transactions)
        self.searches = Searches(transactions)
        self.contents = Contents(transactions)
        self.waits = Waits(transactions)

    @classmethod
    def open(cls, url: str) -> "Index":
        """Open the database of this SQLAlchemy URL, make its tables, or add to an earlier version's what is new.

        SettingsError where another version's tables cannot be used.
        """
        # An error's text must not carry a row: headers are among its values.
        engine = sa.create_engine(url, pool_pre_ping=not url.startswith("sqlite"), hide_parameters=True)
        if engine.dialect.name == "sqlite":
            _prepare_sqlite(engine)
        try:
            return cls(engine)
        except BaseException:  # nobody else can close its connections
            engine.dispose()
            raise

    def damage(self) -> str:
        """What is wrong with the pages of an SQLite index, empty where nothing is; three seconds a gigabyte.

        Another database checks itself.
        """
        if self._engine.dialect.name != "sqlite":
            return ""
        try:
            with self.transactions.read() as connection:
                found = str(connection.exec_driver_sql("PRAGMA quick_check(1)").scalar())
        except IndexUnavailable as error:
            return f"damaged ({error.__cause__})"
        return "" if found == "ok" else f"damaged ({found})"

    def close(self) -> None:
        """Give every connection back."""
        self.transactions.close()
        self._engine.dispose()
        if self._turns is not None:
            self._turns.close()


@cache
def _metadata() -> sa.MetaData:
    """The tables, which nobody changes: half of what opening an index costs is to build them."""
    return build_metadata()


def _turns(engine: sa.Engine) -> Turns | None:
    """The turns of an SQLite index in a file; other databases let those who wait go in order by themselves."""
    if not lies_in_file(engine):
        return None
    return Turns(Path(str(engine.url.database)), patience_seconds=PATIENCE_SECONDS)


def _prepare_sqlite(engine: sa.Engine) -> None:
    """Durable as asked, readable while written; a write takes its lock at once, so that no upgrade can fail."""

    def connect(connection: Any, _entry: ConnectionPoolEntry) -> None:
        connection.isolation_level = None
        patience = f"busy_timeout={PATIENCE_SECONDS * 1000:.0f}"
        for pragma in ("journal_mode=WAL", "synchronous=FULL", patience, "foreign_keys=ON"):
            connection.execute(f"PRAGMA {pragma}")

    def begin(connection: sa.Connection) -> None:
        options = connection.get_execution_options()
        statement = f"BEGIN {options.get('sqlite_begin', 'IMMEDIATE')}"
        synchronous = options.get("sqlite_synchronous", "FULL")
        try:
            # By the driver: what else comes with a statement would double the time of the shortest transactions.
            cursor = connection.connection.cursor()
            if connection.info.get("synchronous", "FULL") != synchronous:
                cursor.execute(f"PRAGMA synchronous={synchronous}")
                connection.info["synchronous"] = synchronous
            cursor.execute(statement)
        except sqlite3.Error as error:
            raise sa.exc.DBAPIError.instance(statement, None, error, sqlite3.Error, hide_parameters=True) from error

    sa.event.listen(engine, "connect", connect)
    sa.event.listen(engine, "begin", begin)
