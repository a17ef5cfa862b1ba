"""The index's conditions: what is wrong with the node as a whole, for people in front of another process to see."""

from dataclasses import dataclass

import sqlalchemy as sa

from dicom_node.archive.transactions import Transactions


@dataclass(frozen=True, kw_only=True)
class ConditionRow:
    """Something that is wrong, and since when."""

    condition: str
    reason: str
    since: float


class Conditions:
    """The conditions that hold now."""

    def __init__(self, transactions: Transactions) -> None:
        self._transactions = transactions
        self._conditions = transactions.tables["conditions"]

    def began(self, condition: str, *, reason: str, at: float) -> None:
        """Something is wrong; where that is known already, only the reason is new."""
        row = {"condition": condition, "reason": reason, "since": at}
        with self._transactions.write(durable=False) as connection:
            self._transactions.upsert(connection, self._conditions, row, {"reason": reason})

    def ended(self, condition: str) -> None:
        """It is right again, or was never wrong."""
        same = self._conditions.c.condition == condition
        with self._transactions.write(durable=False) as connection:
            connection.execute(sa.delete(self._conditions).where(same))

    def rows(self) -> list[ConditionRow]:
        """What is wrong now, the longest standing first."""
        table = self._conditions
        query = sa.select(table).order_by(table.c.since, table.c.condition)
        with self._transactions.read() as connection:
            return [ConditionRow(**row) for row in connection.execute(query).mappings()]
