"""The index's faults of the archive: files that are missing, altered, or known to nobody."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

import sqlalchemy as sa

from dicom_node.archive.conditions import Conditions
from dicom_node.archive.prepared import Prepared
from dicom_node.archive.transactions import Transactions

#: The name among the index's conditions of what is wrong with its files.
CONDITION = "archive"


class FaultKind(StrEnum):
    """What is wrong with a file of the archive."""

    #: The index knows it, and it is not there.
    MISSING = "missing"
    #: Its bytes are not those that were received or written.
    ALTERED = "altered"
    #: It is there, and the index does not know it.
    UNKNOWN = "unknown"


@dataclass(frozen=True, kw_only=True)
class ArchiveFault:
    """One file that is not as it should be."""

    #: Relative to the archive's root.
    path: str
    kind: FaultKind
    study_instance_uid: str
    #: Empty where nobody knows it.
    sop_instance_uid: str = ""


class Faults:
    """The faults of the archive, as far as they were found and not mended."""

    def __init__(self, transactions: Transactions) -> None:
        self._transactions = transactions
        self._faults = transactions.tables["archive_faults"]
        self._end = Prepared(sa.delete(self._faults).where(self._faults.c.path == sa.bindparam("ended")))

    def found(self, faults: list[ArchiveFault], *, actor: str, at: float) -> list[ArchiveFault]:
        """Keep these faults, with a line in the history of each study; returns those that were not known so far."""
        with self._transactions.write() as connection:
            new = [fault for fault in faults if self.enter(connection, fault, at)]
            for study in dict.fromkeys(fault.study_instance_uid for fault in new):
                self._note(connection, [fault for fault in new if fault.study_instance_uid == study], actor, at)
        return new

    def enter(self, connection: sa.Connection, fault: ArchiveFault, at: float) -> bool:
        """Keep a fault within a transaction; whether it was not known so far."""
        table = self._faults
        known = connection.execute(sa.select(table.c.kind).where(table.c.path == fault.path)).scalar_one_or_none()
        if known == fault.kind:
            return False
        connection.execute(sa.delete(table).where(table.c.path == fault.path))
        values = {name: getattr(fault, name) for name in ArchiveFault.__dataclass_fields__} | {"kind": fault.kind.value}
        connection.execute(sa.insert(table).values(found_at=at, **values))
        return True

    def mended(self, paths: list[str]) -> int:
        """These files are as they should be; how many of them were not."""
        table = self._faults
        with self._transactions.write() as connection:
            return connection.execute(sa.delete(table).where(table.c.path.in_(paths))).rowcount

    def end(self, connection: sa.Connection, path: str) -> bool:
        """This file was written or found whole within a transaction; whether something was wrong with it before."""
        return bool(self._end(connection, ended=path).rowcount > 0)

    def of_study(self, study_instance_uid: str) -> list[ArchiveFault]:
        """The study's faults, by path."""
        table = self._faults
        query = sa.select(table).where(table.c.study_instance_uid == study_instance_uid).order_by(table.c.path)
        with self._transactions.read() as connection:
            rows = connection.execute(query).mappings().all()
        fields = [{name: row[name] for name in ArchiveFault.__dataclass_fields__} for row in rows]
        return [ArchiveFault(**{**values, "kind": FaultKind(values["kind"])}) for values in fields]

    def studies(self, limit: int) -> list[str]:
        """Some of the studies that have a fault."""
        query = sa.select(self._faults.c.study_instance_uid).distinct().limit(limit)
        with self._transactions.read() as connection:
            return list(connection.execute(query).scalars())

    def paths(self, kind: FaultKind) -> list[str]:
        """Every file of one kind."""
        query = sa.select(self._faults.c.path).where(self._faults.c.kind == kind.value)
        with self._transactions.read() as connection:
            return list(connection.execute(query).scalars())

    def counts(self) -> dict[FaultKind, int]:
        """How many files there are of each fault."""
        query = sa.select(self._faults.c.kind, sa.func.count()).group_by(self._faults.c.kind)
        with self._transactions.read() as connection:
            found = {FaultKind(kind): count for kind, count in connection.execute(query).all()}
        return {kind: found.get(kind, 0) for kind in FaultKind}

    def _note(self, connection: sa.Connection, faults: list[ArchiveFault], actor: str, at: float) -> None:
        studies = self._transactions.tables["studies"]
        uid = faults[0].study_instance_uid
        state = connection.execute(
            sa.select(studies.c.state).where(studies.c.study_instance_uid == uid)
        ).scalar_one_or_none()
        if state is None:
            return
        for kind in FaultKind:
            paths = [fault.path for fault in faults if fault.kind is kind]
            if paths:
                cause = f"{len(paths)} file(s) of the archive found {kind}, the first {paths[0]}"
                self._transactions.remark(connection, uid, before=state, after=state, cause=cause, actor=actor, at=at)


#: What a person does about each.
_MENDS: Mapping[FaultKind, str] = {
    FaultKind.MISSING: "send their studies again",
    FaultKind.ALTERED: "look at the disk, then send their studies again",
    FaultKind.UNKNOWN: "they are in nobody's way; `dicom-node reindex` takes them in",
}


def faults_in_words(counts: Mapping[FaultKind, int]) -> str:
    """What is wrong and what to do, in one sentence; empty where nothing is."""
    return "; ".join(
        f"{count} file(s) of the archive {kind}{' to the index' if kind is FaultKind.UNKNOWN else ''}: {_MENDS[kind]}"
        for kind, count in counts.items()
        if count
    )


def tell_faults(faults: Faults, conditions: Conditions, at: float) -> None:
    """Let people see what is wrong, or that nothing is any more."""
    reason = faults_in_words(faults.counts())
    if reason:
        conditions.began(CONDITION, reason=reason, at=at)
    else:
        conditions.ended(CONDITION)
