"""Contents: the files of a study, a series or an instance that can be had, received ones and results."""

from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from dicom_node.archive.prepared_query import PreparedQuery
from dicom_node.archive.remembered_query import RememberedQuery
from dicom_node.archive.settlement import stands
from dicom_node.archive.transactions import Transactions
from dicom_node.core.form import Form


@dataclass(frozen=True, kw_only=True)
class Content:
    """One instance and its file."""

    study_instance_uid: str
    series_instance_uid: str
    sop_instance_uid: str
    sop_class_uid: str
    #: Relative to the archive's root.
    path: str
    #: Empty where the index does not know it: of a result its file says it.
    transfer_syntax_uid: str
    sha256: str
    #: Whether this node made it, also where a peer sent it back; such a one may be withdrawn.
    is_result: bool

    @property
    def tag(self) -> str:
        """Another for another content: with the transfer syntax, which says what the bytes mean."""
        return f"{self.sha256}{self.transfer_syntax_uid}"


#: The columns of the UIDs, from study to instance.
_UIDS = ("study_instance_uid", "series_instance_uid", "sop_instance_uid")
_FIELDS = tuple(Content.__dataclass_fields__)

#: Whether a row is of an instance that came here, and not of a result that went out.
_RECEIVED = "received"


class Contents:
    """Tells where instances lie."""

    def __init__(self, transactions: Transactions) -> None:
        self._transactions = transactions
        names = ("instances", "reports", "studies")
        self._instances, self._reports, self._studies = (transactions.tables[name] for name in names)
        # A viewer asks for each frame by itself: what is asked is built once, for each number of UIDs.
        asked: list[tuple[sa.BindParameter[str], ...]] = [
            tuple(sa.bindparam(name) for name in _UIDS[:count]) for count in range(1, 4)
        ]
        questions = [sa.union_all(self._results(*some), self._images(*some)) for some in asked]
        # Of a multi-frame image it asks for the same instance each time.
        self._prepared = [*map(PreparedQuery, questions[:2]), RememberedQuery(questions[2])]

    def of(self, study: str, series: str = "", instance: str = "") -> list[Content]:
        """Every instance below these UIDs, by SOP Instance UID; none where the index does not hold it."""
        given = [uid for uid in (study, series, instance) if uid]
        uids = dict(zip(_UIDS, given, strict=False))
        with self._transactions.look(once=True) as connection:
            rows = self._prepared[len(given) - 1].rows(connection, **uids)
        found: dict[str, Content] = {}
        for row in rows:
            # One that a peer sent back is what was received.
            if row[_RECEIVED] or row["sop_instance_uid"] not in found:
                found[row["sop_instance_uid"]] = Content(**{name: row[name] for name in _FIELDS})
        return [found[uid] for uid in sorted(found)]

    def first(self, study: str, series: str = "", instance: str = "") -> Content | None:
        """One instance below these UIDs that stands for the others, an image where there is one."""
        with self._transactions.read() as connection:
            for query in (self._images(study, series, instance), self._results(study, series, instance)):
                if (row := connection.execute(query.limit(1)).first()) is not None:
                    return _content(row)
        return None

    def _images(self, *uids: Any) -> "sa.Select[Any]":
        instances, studies = self._instances, self._studies
        joined = instances.join(studies, studies.c.study_instance_uid == instances.c.study_instance_uid)
        shown = (
            instances.c.conflict.is_(False),
            studies.c.evicted_at.is_(None),
            ~is_taken_back(instances, self._reports),
        )
        made_here = _copies(instances, self._reports).exists().label("is_result")
        columns = (instances.c.transfer_syntax_uid, made_here, sa.true().label(_RECEIVED))
        query = _below(instances, uids).add_columns(*columns)
        return query.select_from(joined).where(*shown)

    def _results(self, *uids: Any) -> "sa.Select[Any]":
        reports = self._reports
        is_result, received = sa.true().label("is_result"), sa.false().label(_RECEIVED)
        columns = (sa.literal("").label("transfer_syntax_uid"), is_result, received)
        return _below(reports, uids).add_columns(*columns).where(can_be_had(reports))


def can_be_had(reports: sa.Table) -> sa.ColumnElement[bool]:
    """Whether a result is shown: it was not held, replaced or withdrawn, and is no note about others."""
    return sa.and_(reports.c.held == "", reports.c.form != Form.REJECTION.value, stands(reports))


def is_taken_back(instances: sa.Table, reports: sa.Table) -> sa.ColumnElement[bool]:
    """Whether a received instance is a result of ours that a peer sent back, and that is not to be had any more."""
    return _copies(instances, reports).where(~can_be_had(reports)).exists()


def _copies(instances: sa.Table, reports: sa.Table) -> "sa.Select[Any]":
    """The result of the same UID."""
    same = reports.c.sop_instance_uid == instances.c.sop_instance_uid
    return sa.select(sa.literal(1)).select_from(reports).where(same).correlate(instances)


def _below(table: sa.Table, uids: tuple[Any, ...]) -> "sa.Select[Any]":
    columns = (table.c[name] for name in (*_UIDS, "sop_class_uid", "path", "sha256"))
    given = [(name, uid) for name, uid in zip(_UIDS, uids, strict=False) if not isinstance(uid, str) or uid]
    return sa.select(*columns).where(*(table.c[name] == uid for name, uid in given))


def _content(row: Any) -> Content:
    return Content(**{name: getattr(row, name) for name in Content.__dataclass_fields__})
