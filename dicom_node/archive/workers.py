"""The index's workers: who reads, on what device, and when each was last heard."""

from collections.abc import Sequence
from dataclasses import dataclass

import sqlalchemy as sa

from dicom_node.archive.prepared_query import PreparedQuery
from dicom_node.archive.transactions import Transactions
from dicom_node.core.lifecycle import JobState

_LONGEST_STEP = 64
#: A worker that was not heard of for so long is forgotten when another begins.
_FORGOTTEN_AFTER_SECONDS = 86400.0


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
    #: What its reading process does, and when that was last heard.
    step: str
    moved_at: float | None
    #: Of its device's memory; None where that has none of its own.
    memory_used_bytes: int | None
    memory_total_bytes: int | None


class Workers:
    """The workers of the index."""

    def __init__(self, transactions: Transactions) -> None:
        self._transactions = transactions
        self._workers = transactions.tables["workers"]
        jobs = transactions.tables["jobs"]
        waiting = sa.select(jobs.c.algorithm).distinct().where(jobs.c.state == JobState.QUEUED.value)
        self._waiting_algorithms = PreparedQuery(waiting.order_by(jobs.c.algorithm))
        self._rows = PreparedQuery(sa.select(self._workers).order_by(self._workers.c.worker))

    def began(self, worker: str, *, device: str, bundles: Sequence[str], queues: Sequence[str], at: float) -> None:
        """A worker is ready; an earlier row of the same name is replaced, and those silent for a day are forgotten."""
        row = {"device": device, "bundles": list(bundles), "queues": list(queues)}
        with self._transactions.write(durable=False) as connection:
            self._delete(connection, worker)
            silent = self._workers.c.heartbeat_at < at - _FORGOTTEN_AFTER_SECONDS
            connection.execute(sa.delete(self._workers).where(silent))
            times = {"started_at": at, "heartbeat_at": at}
            connection.execute(sa.insert(self._workers).values(worker=worker, **row, **times))

    def beat(
        self,
        worker: str,
        *,
        job_uid: str | None,
        at: float,
        step: str = "",
        moved_at: float | None = None,
        memory_bytes: tuple[int, int] | None = None,
    ) -> bool:
        """The worker lives, and reads this job; its reading process was last heard at `moved_at`, doing `step`.

        `memory_bytes` are the taken and the whole memory of its device. False when the index does not know this worker.
        """
        change = sa.update(self._workers).where(self._workers.c.worker == worker)
        used, total = (None, None) if memory_bytes is None else memory_bytes
        values = {"heartbeat_at": at, "job_uid": job_uid, "step": step[:_LONGEST_STEP], "moved_at": moved_at}
        values |= {"memory_used_bytes": used, "memory_total_bytes": total}
        with self._transactions.write(durable=False) as connection:
            return connection.execute(change.values(**values)).rowcount == 1

    def can(self, worker: str, *, device: str, bundles: Sequence[str]) -> bool:
        """What the worker can read changed; False when the index does not know this worker."""
        change = sa.update(self._workers).where(self._workers.c.worker == worker)
        with self._transactions.write(durable=False) as connection:
            return connection.execute(change.values(device=device, bundles=list(bundles))).rowcount == 1

    def ended(self, worker: str) -> None:
        """The worker went home, or is known to be dead."""
        with self._transactions.write(durable=False) as connection:
            self._delete(connection, worker)

    def unread(self, heard_since: float) -> list[str]:
        """The algorithms for which a job waits, and no worker that was heard since then has a bundle."""
        with self._transactions.read() as connection:
            waiting = self._waiting_algorithms.scalars(connection)
        if not waiting:
            return []
        live = [row for row in self.rows() if row.heartbeat_at >= heard_since]
        read = {title.rpartition(" ")[0] for row in live for title in row.bundles}
        return [algorithm for algorithm in waiting if algorithm not in read]

    def rows(self) -> list[WorkerRow]:
        """Every known worker, by name."""
        with self._transactions.read() as connection:
            rows = self._rows.rows(connection)
        return [WorkerRow(**{**row, "bundles": tuple(row["bundles"]), "queues": tuple(row["queues"])}) for row in rows]

    def _delete(self, connection: sa.Connection, worker: str) -> None:
        connection.execute(sa.delete(self._workers).where(self._workers.c.worker == worker))
