"""Search: studies, series and instances of the index by their attributes, a page at a time.

Only what can be had is found: not the instances of a study that left the disk, no copy that conflicts with another,
and no result that was held, replaced or withdrawn. An answer counts what it finds at that moment, by an index.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import sqlalchemy as sa

from dicom_node.archive.conditions_of_search import conditions
from dicom_node.archive.contents import can_be_had, is_taken_back
from dicom_node.archive.prepared_query import PreparedQuery
from dicom_node.archive.transactions import Transactions
from dicom_node.core.matching import Match
from dicom_node.core.searchable import UID_KEYWORDS, Level, columns_of

#: A result of a search: keyword to value.
Found = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Search:
    """What is asked for."""

    level: Level
    matches: tuple[Match, ...]
    limit: int
    offset: int = 0
    #: Whether names are compared by words and sound.
    fuzzy: bool = False


@dataclass(frozen=True, kw_only=True)
class Page:
    """What was found."""

    found: Sequence[Found]
    #: Whether there is more behind it.
    more: bool


class Searches:
    """Searches the index."""

    def __init__(self, transactions: Transactions) -> None:
        self._transactions = transactions
        names = ("searched_studies", "searched_series", "instances", "reports", "studies")
        self._study, self._series, self._instances, self._reports, self._state = (
            transactions.tables[name] for name in names
        )
        # To build a statement takes longer than to execute it: what all searches share is built once.
        study, series = self._study, self._series
        uid, uids = study.c.study_instance_uid, (series.c.study_instance_uid, series.c.series_instance_uid)
        visible = sa.or_(self._images_of(uid).exists(), self._results_of(uid).exists())
        newest = (study.c.StudyDate.desc(), study.c.StudyTime.desc(), uid)
        self._of_studies = sa.select(study).where(visible).order_by(*newest)
        visible = sa.or_(self._images_of(*uids).exists(), self._results_of(*uids).exists())
        joined = series.join(study, uid == uids[0])
        self._of_series = sa.select(*_without_uids(study), series).select_from(joined).where(visible)
        self._of_series = self._of_series.order_by(study.c.StudyDate.desc(), *uids)
        self._arms = {table.name: self._arm(table) for table in (self._instances, self._reports)}
        self._counting = self._counted()
        self._modalities = _OfStudies(sa.select(*uids, series.c.Modality), uids[0])

    def find(self, search: Search) -> Page:
        """One page of what matches, in an order that stays the same while nothing is received."""
        finders = {Level.STUDY: self._studies, Level.SERIES: self._series_of, Level.INSTANCE: self._instances_of}
        with self._transactions.read() as connection:
            rows = finders[search.level](connection, search)
        return Page(found=rows[: search.limit], more=len(rows) > search.limit)

    def _studies(self, connection: sa.Connection, search: Search) -> list[Found]:
        modalities = [match for match in search.matches if match.keyword == "ModalitiesInStudy"]
        others = [match for match in search.matches if match.keyword != "ModalitiesInStudy"]
        query = self._of_studies.where(
            *self._conditions(connection, others, search), *(self._has_modality(connection, m) for m in modalities)
        )
        rows = connection.execute(_page(query, search)).mappings().all()
        found = [_named(Level.STUDY, row, ("StudyInstanceUID",)) for row in rows]
        self._count_studies(connection, found)
        return found

    def _series_of(self, connection: sa.Connection, search: Search) -> list[Found]:
        query = self._of_series.where(*self._conditions(connection, search.matches, search))
        rows = connection.execute(_page(query, search)).mappings().all()
        names = ("StudyInstanceUID", "SeriesInstanceUID")
        found = [_named(Level.STUDY, row) | _named(Level.SERIES, row, names) for row in rows]
        self._count_series(connection, found)
        return found

    def _instances_of(self, connection: sa.Connection, search: Search) -> list[Found]:
        tables = (self._instances, self._reports)
        arms = [
            self._arms[table.name].where(*self._conditions(connection, search.matches, search, table))
            for table in tables
        ]
        query = sa.union_all(*arms).order_by(sa.literal_column("sop_instance_uid"))
        rows = connection.execute(_page(query, search)).mappings().all()
        found = []
        for row in rows:
            named = _named(Level.STUDY, row) | _named(Level.SERIES, row, tuple(UID_KEYWORDS))
            own = {a.keyword: (row["attributes"] or {}).get(a.keyword) for a in columns_of(Level.INSTANCE)}
            found.append(named | {keyword: value for keyword, value in own.items() if value is not None})
        self._count_series(connection, found)
        return found

    def _arm(self, table: sa.Table) -> "sa.Select[Any]":
        study, series = self._study, self._series
        joined = table.join(study, study.c.study_instance_uid == table.c.study_instance_uid).join(
            series,
            sa.and_(
                series.c.study_instance_uid == table.c.study_instance_uid,
                series.c.series_instance_uid == table.c.series_instance_uid,
            ),
        )
        uids = (table.c[name] for name in UID_KEYWORDS.values())
        columns = (*uids, table.c.attributes, *_without_uids(study), *_without_uids(series))
        query = sa.select(*columns).select_from(joined)
        shown = self._is_image() if table is self._instances else self._is_result()
        return query.where(shown)

    def _conditions(
        self, connection: sa.Connection, matches: Sequence[Match], search: Search, table: sa.Table | None = None
    ) -> list[sa.ColumnElement[bool]]:
        def column(keyword: str) -> Any:
            if (name := UID_KEYWORDS.get(keyword)) is not None:
                tables = [t for t in (table, self._series, self._study) if t is not None]
                own = self._study if search.level is Level.STUDY else next(t for t in tables if name in t.c)
                return own.c[name]
            for one in (self._study, self._series):
                if keyword in one.c:
                    return one.c[keyword]
            assert table is not None, "an attribute of instances is asked for at their level alone"
            return table.c.attributes[keyword].as_integer()

        return conditions(matches, column, dialect=connection.dialect.name, fuzzy=search.fuzzy)

    def _has_modality(self, connection: sa.Connection, match: Match) -> sa.ColumnElement[bool]:
        series = self._series
        one = conditions([match], lambda _: series.c.Modality, dialect=connection.dialect.name, fuzzy=False)
        of_study = series.c.study_instance_uid == self._study.c.study_instance_uid
        return sa.exists().where(of_study, *one)

    def _is_image(self) -> sa.ColumnElement[bool]:
        gone = sa.exists().where(
            self._state.c.study_instance_uid == self._instances.c.study_instance_uid,
            self._state.c.evicted_at.is_not(None),
        )
        taken_back = is_taken_back(self._instances, self._reports)
        return sa.and_(self._instances.c.conflict.is_(False), ~gone, ~taken_back)

    def _is_result(self) -> sa.ColumnElement[bool]:
        """One that a peer sent back is found as an image, as long as it stands."""
        reports = self._reports
        came_back = sa.exists().where(
            self._instances.c.sop_instance_uid == reports.c.sop_instance_uid, self._instances.c.conflict.is_(False)
        )
        return sa.and_(can_be_had(reports), sa.not_(came_back))

    def _images_of(self, study: Any, series: Any = None) -> "sa.Select[Any]":
        return self._of(self._instances, self._is_image(), study, series)

    def _results_of(self, study: Any, series: Any = None) -> "sa.Select[Any]":
        return self._of(self._reports, self._is_result(), study, series)

    @staticmethod
    def _of(table: sa.Table, shown: sa.ColumnElement[bool], study: Any, series: Any) -> "sa.Select[Any]":
        query = sa.select(sa.literal(1)).select_from(table).where(table.c.study_instance_uid == study, shown)
        return query if series is None else query.where(table.c.series_instance_uid == series)

    def _counted(self) -> "Sequence[tuple[int, _OfStudies]]":
        """What is added and taken away to count the instances that can be had, so that most are counted by an index.

        To ask of each image whether it is a result that was taken back costs seven times as much as to count them all.
        """
        images, results, state = self._instances, self._reports, self._state
        here = state.join(images, images.c.study_instance_uid == state.c.study_instance_uid)
        is_here = (state.c.evicted_at.is_(None), images.c.conflict.is_(False))
        all_images = _counting(images).select_from(here).where(*is_here)
        # A result that came back is in the study that it was made for.
        back = here.join(results, results.c.sop_instance_uid == images.c.sop_instance_uid)
        same_study = results.c.study_instance_uid == images.c.study_instance_uid
        taken_back = _counting(images).select_from(back).where(*is_here, same_study, ~can_be_had(results))
        of_results = _counting(results).where(self._is_result())
        return (
            (1, _OfStudies(all_images, state.c.study_instance_uid)),
            (-1, _OfStudies(taken_back, results.c.study_instance_uid)),
            (1, _OfStudies(of_results, results.c.study_instance_uid)),
        )

    def _counts(self, connection: sa.Connection, uids: Iterable[str]) -> dict[tuple[str, str], int]:
        """How many instances each series of these studies has."""
        counts = dict[tuple[str, str], int]()
        for sign, question in self._counting:
            for study_uid, series_uid, count in question.tuples(connection, sorted(set(uids))):
                key = (study_uid, series_uid)
                counts[key] = counts.get(key, 0) + sign * count
        return {key: count for key, count in counts.items() if count > 0}

    def _count_studies(self, connection: sa.Connection, found: Sequence[Found]) -> None:
        counts = self._counts(connection, [row["StudyInstanceUID"] for row in found])
        rows = self._modalities.tuples(connection, sorted({uid for uid, _ in counts}))
        shown = [(uid, modality) for uid, series_uid, modality in rows if (uid, series_uid) in counts and modality]
        modalities = {uid: sorted({m for _, m in group}) for uid, group in groupby(shown, key=lambda pair: pair[0])}
        totals = _totals(counts)
        for row in found:
            uid = row["StudyInstanceUID"]
            row["ModalitiesInStudy"] = modalities.get(uid, [])
            row["NumberOfStudyRelatedSeries"], row["NumberOfStudyRelatedInstances"] = totals.get(uid, (0, 0))

    def _count_series(self, connection: sa.Connection, found: Sequence[Found]) -> None:
        counts = self._counts(connection, [row["StudyInstanceUID"] for row in found])
        for row in found:
            key = (row["StudyInstanceUID"], row["SeriesInstanceUID"])
            row["NumberOfSeriesRelatedInstances"] = counts.get(key, 0)


class _OfStudies:
    """A question about some studies: of few one by one, prepared, which is quicker than one about all."""

    _FEW = 12

    def __init__(self, query: "sa.Select[Any]", uid: "sa.Column[str]") -> None:
        some: sa.BindParameter[list[str]] = sa.bindparam("uids", expanding=True)
        self._of_one = PreparedQuery(query.where(uid == sa.bindparam("uid")))
        self._of_many = query.where(uid.in_(some)).order_by(uid)

    def tuples(self, connection: sa.Connection, uids: Sequence[str]) -> list[tuple[Any, ...]]:
        """The rows, by study."""
        if len(uids) <= self._FEW:
            return [row for uid in uids for row in self._of_one.tuples(connection, uid=uid)]
        return [tuple(row) for row in connection.execute(self._of_many, {"uids": uids})]


def _counting(table: sa.Table) -> "sa.Select[Any]":
    keys = (table.c.study_instance_uid, table.c.series_instance_uid)
    return sa.select(*keys, sa.func.count()).group_by(*keys)


def _totals(counts: Mapping[tuple[str, str], int]) -> dict[str, tuple[int, int]]:
    """Series and instances of each study."""
    totals: dict[str, tuple[int, int]] = {}
    for (uid, _), count in counts.items():
        series, instances = totals.get(uid, (0, 0))
        totals[uid] = (series + 1, instances + count)
    return totals


def _page(query: Any, search: Search) -> Any:
    # One more than wanted tells whether there are more.
    return query.limit(search.limit + 1).offset(search.offset)


def _without_uids(table: sa.Table) -> list["sa.Column[Any]"]:
    return [column for column in table.c if not column.name.endswith("_instance_uid")]


def _named(level: Level, row: Mapping[Any, Any], uids: Sequence[str] = ()) -> Found:
    """What a row has of a level, by keyword; what is empty is left out."""
    values = {attribute.keyword: row[attribute.keyword] for attribute in columns_of(level)}
    found = {keyword: value for keyword, value in values.items() if value not in ("", None)}
    return found | {keyword: row[UID_KEYWORDS[keyword]] for keyword in uids}
