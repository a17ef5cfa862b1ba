"""The index's workers: who reads, on what device, and when each was last heard."""

from collections.abc import Sequence
from dataclasses import dataclass

import sqlalchemy as sa

from dicom_node.archive.transactions import Transactions


@dataclass(frozen=True, kw_only=True)
class WorkerRow:
    """A worker as it last described itself."""

    #: Host name and process number.
    worker: str
    device: str
    #: Name and version of each bundle it can run.
    bundles: tuple[str, ...]
    queues: tuple[str, ...]
    started_at: float
    heartbeat_at: float
    #: The job it reads now.
    job_uid: str | None


class Workers:
    """The workers of the index."""

    def __init__(self, transactions: Transactions) -> None:
        self._transactions = transactions
        self._workers = transactions.tables["workers"]

    def began(self, worker: str, *, device: str, bundles: Sequence[str], queues: Sequence[str], at: float) -> None:
        """A worker is ready; an earlier row of the same name is replaced."""
        row = {"device": device, "bundles": list(bundles), "queues": list(queues)}
        with self._transactions.write() as connection:
            self._delete(connection, worker)
            times = {"started_at": at, "heartbeat_at": at}
            connection.execute(sa.insert(self._workers).values(worker=worker, **row, **times))

    def beat(self, worker: str, *, job_uid: str | None, at: float) -> None:
        """The worker lives, and reads this job."""
        change = sa.update(self._workers).where(self._workers.c.worker == worker)
        with self._transactions.write() as connection:
            connection.execute(change.values(heartbeat_at=at, job_uid=job_uid))

    def ended(self, worker: str) -> None:
        """The worker went home, or is known to be dead."""
        with self._transactions.write() as connection:
            self._delete(connection, worker)

    def rows(self) -> list[WorkerRow]:
        """Every known worker, by name."""
        with self._transactions.read() as connection:
            rows = connection.execute(sa.select(self._workers).order_by(self._workers.c.worker)).mappings().all()
        return [WorkerRow(**{**row, "bundles": tuple(row["bundles"]), "queues": tuple(row["queues"])}) for row in rows]

    def _delete(self, connection: sa.Connection, worker: str) -> None:
        connection.execute(sa.delete(self._workers).where(self._workers.c.worker == worker))
