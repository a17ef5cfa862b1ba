"""The index's study keys: keyed hashes of Accession Number and Patient ID, which pages and audit trail use."""

from collections.abc import Mapping
from dataclasses import dataclass

import sqlalchemy as sa

from dicom_node.archive.prepared import unless_there
from dicom_node.archive.transactions import Transactions


@dataclass(frozen=True, kw_only=True)
class Unkeyed:
    """A study without its keys, and one of its files."""

    study_instance_uid: str
    path: str
    last_received_at: float


class StudyKeys:
    """The study keys of the index."""

    def __init__(self, transactions: Transactions) -> None:
        self._transactions = transactions
        names = ("study_keys", "studies", "instances")
        self._keys, studies, instances = (transactions.tables[name] for name in names)
        keys = self._keys
        path = sa.select(instances.c.path).where(instances.c.study_instance_uid == studies.c.study_instance_uid)
        known = sa.select(keys.c.accession).where(keys.c.study_instance_uid == studies.c.study_instance_uid)
        columns = (
            studies.c.study_instance_uid,
            path.limit(1).scalar_subquery().label("path"),
            studies.c.last_received_at,
        )
        self._unkeyed = (
            sa.select(*columns)
            .where(studies.c.last_received_at >= sa.bindparam("since"), ~known.exists(), studies.c.evicted_at.is_(None))
            .order_by(studies.c.last_received_at)
            .limit(sa.bindparam("most"))
        )
        self._insert = unless_there(keys, "study_instance_uid", "accession", "patient")

    def unkeyed(self, since: float, most: int) -> list[Unkeyed]:
        """Studies that lack their keys, the earliest first; `since` as their last instance."""
        with self._transactions.read() as connection:
            rows = connection.execute(self._unkeyed, {"since": since, "most": most}).mappings().all()
        return [Unkeyed(**row) for row in rows if row["path"] is not None]

    def keep(self, keys: Mapping[str, tuple[str, str]]) -> None:
        """Keep accession and patient hashes by Study Instance UID."""
        with self._transactions.write(durable=False) as connection:
            insert = self._insert[connection.dialect.name]
            for study, (accession, patient) in keys.items():
                insert(connection, study_instance_uid=study, accession=accession, patient=patient)

    def patient(self, study_instance_uid: str) -> str:
        """The hash of the study's Patient ID; empty where it is not known yet."""
        query = sa.select(self._keys.c.patient).where(self._keys.c.study_instance_uid == study_instance_uid)
        with self._transactions.read() as connection:
            return str(connection.execute(query).scalar() or "")
