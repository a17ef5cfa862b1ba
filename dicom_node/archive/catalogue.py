"""The catalogue: what studies are searched by, completed from the files where intake did not write it.

That is so for results, which workers write, and for what an earlier version received. Intake writes its rows itself.
"""

import logging
from io import BytesIO

import sqlalchemy as sa
from pydicom.errors import InvalidDicomError

from dicom_node.archive.file_meta import open_data_set
from dicom_node.archive.files import Archive
from dicom_node.archive.header import Header, read_header
from dicom_node.archive.prepared_query import PreparedQuery
from dicom_node.archive.searched import Searched
from dicom_node.archive.transactions import Transactions
from dicom_node.core.errors import CannotUnderstand

log = logging.getLogger(__name__)

#: The name of the mark that says that every study was looked at.
COMPLETE = "catalogue"

#: Headers are shorter; the attributes that are searched stand before long sequences.
_HEADER_BYTES = 4 << 20

#: Results and studies that are completed in one transaction.
_AT_ONCE = 50


class Catalogue:
    """Completes the rows that searches read; safe to call from many threads and processes."""

    def __init__(self, transactions: Transactions, archive: Archive) -> None:
        self._transactions, self._archive = transactions, archive
        self._tables = transactions.tables
        self._searched = Searched(self._tables)
        self._is_complete = False
        reports = self._tables["reports"]
        names = ("sop_instance_uid", "study_instance_uid", "series_instance_uid", "path")
        unread = sa.select(*(reports.c[name] for name in names)).where(reports.c.attributes.is_(None))
        self._unread = unread.order_by(reports.c.written_at)
        # Each search asks it.
        self._first_unread = PreparedQuery(unread.limit(1))

    @property
    def is_complete(self) -> bool:
        """Whether every study that was received can be found."""
        if not self._is_complete:
            marks = self._tables["marks"]
            query = sa.select(marks.c.value).where(marks.c.name == COMPLETE)
            with self._transactions.read() as connection:
                self._is_complete = connection.execute(query).first() is not None
        return self._is_complete

    def add_results(self) -> int:
        """Take in the results that nobody looked into yet; how many. It costs one question where there is none."""
        reports = self._tables["reports"]
        count = 0
        with self._transactions.look(once=True) as connection:
            if self._first_unread.first(connection) is None:
                return 0
        while rows := self._some(self._unread):
            headers = [self._header(row.path) for row in rows]
            with self._transactions.write(durable=False) as connection:
                for row, header in zip(rows, headers, strict=True):
                    uids = (row.study_instance_uid, row.series_instance_uid)
                    attributes, searchable = _of(header)
                    self._searched.add_series(connection, *uids, attributes, searchable, is_result=True)
                    # Where the study's images were received by an earlier version and have left.
                    self._searched.add_study(connection, row.study_instance_uid, attributes, searchable)
                    same = reports.c.sop_instance_uid == row.sop_instance_uid
                    connection.execute(sa.update(reports).where(same).values(attributes=attributes))
            count += len(rows)
        return count

    def step(self) -> None:
        """Take in results, and some of the studies that an earlier version received."""
        self.add_results()
        if not self.is_complete and not self._add_studies():
            marks = self._tables["marks"]
            row = {"name": COMPLETE, "value": "1"}
            with self._transactions.write(durable=False) as connection:
                self._transactions.upsert(connection, marks, row, {"value": "1"})
            log.info("every study can be searched for")

    def complete(self) -> None:
        """Take in everything; for a command that waits for it."""
        while not self.is_complete:
            self.step()

    def _add_studies(self) -> int:
        studies, searched = self._tables["studies"], self._tables["searched_studies"]
        uid = studies.c.study_instance_uid
        known = sa.exists().where(searched.c.study_instance_uid == uid)
        rows = self._some(sa.select(uid).where(~known).order_by(studies.c.last_received_at.desc()))
        for row in rows:
            self._add_study(row.study_instance_uid)
        return len(rows)

    def _add_study(self, uid: str) -> None:
        instances = self._tables["instances"]
        query = sa.select(instances).where(instances.c.study_instance_uid == uid, instances.c.conflict.is_(False))
        with self._transactions.read() as connection:
            rows = connection.execute(query.order_by(instances.c.received_at)).mappings().all()
        series = {row["series_instance_uid"]: row for row in reversed(rows)}
        headers = {key: self._header(row["path"]) for key, row in series.items()}
        with self._transactions.write(durable=False) as connection:
            for key, header in headers.items():
                # Where the file is gone, what routing kept of its header says at least what it is.
                attributes, searchable = _of(header) if header else (series[key]["attributes"], {})
                self._searched.add_series(connection, uid, key, attributes, searchable)
            readable = next(filter(None, headers.values()), None)
            first = rows[0]["attributes"] if rows else {}
            self._searched.add_study(connection, uid, *(_of(readable) if readable else (first, {})))

    def _some(self, query: "sa.Select[tuple[str]]") -> "list[sa.Row[tuple[str]]]":
        with self._transactions.read() as connection:
            return list(connection.execute(query.limit(_AT_ONCE)).all())

    def _header(self, path: str) -> Header | None:
        try:
            syntax, file = open_data_set(self._archive.path_of(path))
            with file:
                return read_header(BytesIO(file.read(_HEADER_BYTES)), syntax)
        except (OSError, InvalidDicomError, CannotUnderstand):
            log.warning("a file cannot be read for the search", extra={"reason": "it is missing or damaged"})
            return None


def _of(header: Header | None) -> tuple[dict[str, object], dict[str, object]]:
    return ({}, {}) if header is None else (dict(header.attributes), dict(header.searchable))
