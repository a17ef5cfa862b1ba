"""The index's peers that are away: since when, why, and when one of us asks again."""

from dataclasses import dataclass

import sqlalchemy as sa

from dicom_node.archive.prepared_query import PreparedQuery
from dicom_node.archive.transactions import Transactions


@dataclass(frozen=True, kw_only=True)
class PeerAway:
    """A peer with which no association could be had."""

    peer: str
    since: float
    #: Associations that were asked for in vain.
    attempts: int
    next_try_at: float
    reason: str


class Peers:
    """Peers that do not answer: one row each, so that one association a time asks for all that waits."""

    def __init__(self, transactions: Transactions) -> None:
        self._transactions = transactions
        self._away = transactions.tables["peers_away"]
        self._one = PreparedQuery(sa.select(self._away).where(self._away.c.peer == sa.bindparam("name")))
        self._all = PreparedQuery(sa.select(self._away).order_by(self._away.c.peer))

    def away(self, peer: str) -> PeerAway | None:
        """What is known of a peer's absence; None where the last association was established."""
        with self._transactions.read() as connection:
            row = self._one.first(connection, name=peer)
        return None if row is None else PeerAway(**row)

    def all_away(self) -> list[PeerAway]:
        """Every peer that is away, by name."""
        with self._transactions.read() as connection:
            return [PeerAway(**row) for row in self._all.rows(connection)]

    def missed(self, peer: str, *, reason: str, next_try_at: float, at: float) -> None:
        """An association with the peer could not be had."""
        values = {"reason": reason, "next_try_at": next_try_at}
        again = {**values, "attempts": self._away.c.attempts + 1}
        with self._transactions.write(durable=False) as connection:
            self._transactions.upsert(
                connection, self._away, {**values, "peer": peer, "since": at, "attempts": 1}, again
            )

    def reached(self, peer: str) -> None:
        """The peer answered again."""
        with self._transactions.write(durable=False) as connection:
            connection.execute(sa.delete(self._away).where(self._away.c.peer == peer))
