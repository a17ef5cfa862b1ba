"""Search: studies, series and instances of the index by their attributes, a page at a time.

Only what can be had is found: not the instances of a study that left the disk, no copy that conflicts with another,
and no result that was held, replaced or withdrawn. An answer counts what it finds at that moment, by an index.
"""

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from dicom_node.archive.conditions_of_search import Group, conditions, expression, shape, values_of
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
        self._arms = [(table, self._arm(table)) for table in (self._instances, self._reports)]
        #: What makes a result of a row, by level.
        self._reads = {
            Level.STUDY: _Reading([*study.c], [Level.STUDY], ["StudyInstanceUID"]),
            Level.SERIES: _Reading(
                [*_without_uids(study), *series.c],
                [Level.STUDY, Level.SERIES],
                ["StudyInstanceUID", "SeriesInstanceUID"],
            ),
            Level.INSTANCE: _Reading(
                [*self._arms[0][1].selected_columns], [Level.STUDY, Level.SERIES], [*UID_KEYWORDS]
            ),
        }
        self._questions = _Questions()
        counted = self._counted()
        self._counting = _OfStudies(*counted)
        # What a study consists of is asked at once: each question costs more than its answer.
        with_modality = [(query.add_columns(sa.null()), uid) for query, uid in counted]
        modalities = sa.select(*uids, sa.literal_column("0"), sa.literal_column("0"), series.c.Modality)
        self._counting_modalities = _OfStudies(*with_modality, (modalities, uids[0]))

    def find(self, search: Search) -> Page:
        """One page of what matches, in an order that stays the same while nothing is received."""
        with self._transactions.look() as connection:
            found = self._found(connection, search)
            count = self._count_studies if search.level is Level.STUDY else self._count_series
            count(connection, found)
        return Page(found=found[: search.limit], more=len(found) > search.limit)

    def _found(self, connection: sa.Connection, search: Search) -> list[Found]:
        parts = _parts(search)
        dialect = connection.dialect.name
        values = {f"v{n}": value for n, value in enumerate(v for part in parts for v in values_of(part, dialect))}
        key = (search.level, tuple(map(shape, parts)))
        question = self._questions.get(key, len(values), lambda: self._question(search.level, parts, dialect))
        # One more than wanted tells whether there are more.
        rows = question.tuples(connection, **values, most=search.limit + 1, first=search.offset)
        return [self._reads[search.level](row) for row in rows]

    def _question(self, level: Level, parts: Sequence[Group], dialect: str) -> PreparedQuery:
        """The statement for searches of this shape; of modalities there is a part each."""
        most: sa.BindParameter[int] = sa.bindparam("most", type_=sa.Integer)
        first: sa.BindParameter[int] = sa.bindparam("first", type_=sa.Integer)
        names = [f"v{n}" for n in range(sum(len(list(values_of(part, dialect))) for part in parts))]
        if level is Level.INSTANCE:
            # Both arms are given the same values.
            arms = [arm.where(*self._expressions(parts, iter(names), level, dialect, t)) for t, arm in self._arms]
            ordered = sa.union_all(*arms).order_by(sa.literal_column("sop_instance_uid"))
            return PreparedQuery(ordered.limit(most).offset(first))
        query = self._of_studies if level is Level.STUDY else self._of_series
        matching = query.where(*self._expressions(parts, iter(names), level, dialect))
        return PreparedQuery(matching.limit(most).offset(first))

    def _expressions(
        self,
        parts: Sequence[Group],
        names: Iterator[str],
        level: Level,
        dialect: str,
        table: sa.Table | None = None,
    ) -> list[sa.ColumnElement[bool]]:
        first, *modalities = parts
        found = [expression(first, lambda keyword: self._column(keyword, level, table), names, dialect)]
        series = self._series
        for one in modalities:
            of_study = series.c.study_instance_uid == self._study.c.study_instance_uid
            matches = expression(one, lambda _: series.c.Modality, names, dialect)
            found.append(sa.exists().where(of_study, matches))
        return found

    def _column(self, keyword: str, level: Level, table: sa.Table | None) -> Any:
        if (name := UID_KEYWORDS.get(keyword)) is not None:
            tables = [t for t in (table, self._series, self._study) if t is not None]
            own = self._study if level is Level.STUDY else next(t for t in tables if name in t.c)
            return own.c[name]
        for one in (self._study, self._series):
            if keyword in one.c:
                return one.c[keyword]
        assert table is not None, "an attribute of instances is asked for at their level alone"
        return table.c.attributes[keyword].as_integer()

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

    def _counted(self) -> "list[tuple[sa.Select[Any], sa.Column[str]]]":
        """What is added and taken away to count the instances that can be had, so that most are counted by an index.

        To ask of each image whether it is a result that was taken back costs seven times as much as to count them all.
        """
        images, results, state = self._instances, self._reports, self._state
        here = state.join(images, images.c.study_instance_uid == state.c.study_instance_uid)
        is_here = (state.c.evicted_at.is_(None), images.c.conflict.is_(False))
        all_images = _counting(images, 1).select_from(here).where(*is_here)
        # A result that came back is in the study that it was made for.
        back = here.join(results, results.c.sop_instance_uid == images.c.sop_instance_uid)
        same_study = results.c.study_instance_uid == images.c.study_instance_uid
        taken_back = _counting(images, -1).select_from(back).where(*is_here, same_study, ~can_be_had(results))
        of_results = _counting(results, 1).where(self._is_result())
        return [
            (all_images, state.c.study_instance_uid),
            (taken_back, results.c.study_instance_uid),
            (of_results, results.c.study_instance_uid),
        ]

    def _count_studies(self, connection: sa.Connection, found: Sequence[Found]) -> None:
        uids = sorted({row["StudyInstanceUID"] for row in found})
        rows = self._counting_modalities.tuples(connection, uids)
        counts = _counts(rows)
        modalities: dict[str, set[str]] = {}
        for uid, series_uid, _, _, modality in rows:
            if modality and (uid, series_uid) in counts:
                modalities.setdefault(uid, set()).add(modality)
        totals = _totals(counts)
        for row in found:
            uid = row["StudyInstanceUID"]
            row["ModalitiesInStudy"] = sorted(modalities.get(uid, ()))
            row["NumberOfStudyRelatedSeries"], row["NumberOfStudyRelatedInstances"] = totals.get(uid, (0, 0))

    def _count_series(self, connection: sa.Connection, found: Sequence[Found]) -> None:
        uids = sorted({row["StudyInstanceUID"] for row in found})
        counts = _counts(self._counting.tuples(connection, uids))
        for row in found:
            key = (row["StudyInstanceUID"], row["SeriesInstanceUID"])
            row["NumberOfSeriesRelatedInstances"] = counts.get(key, 0)


class _OfStudies:
    """Questions about some studies, prepared: of few one by one, which is quicker, of others a hundred at once."""

    _FEW, _MANY = 12, 100

    def __init__(self, *questions: "tuple[sa.Select[Any], sa.Column[str]]") -> None:
        """Each with the column that names the study; all are asked at once."""
        some: list[sa.BindParameter[str]] = [sa.bindparam(name) for name in self._names()]
        of_one = [query.where(uid == sa.bindparam("uid")) for query, uid in questions]
        of_many = [query.where(uid.in_(some)) for query, uid in questions]
        self._of_one, self._of_many = (PreparedQuery(sa.union_all(*queries)) for queries in (of_one, of_many))

    def tuples(self, connection: sa.Connection, uids: Sequence[str]) -> list[tuple[Any, ...]]:
        """The rows, in any order."""
        if len(uids) <= self._FEW:
            return [row for uid in uids for row in self._of_one.tuples(connection, uid=uid)]
        hundreds = [uids[n : n + self._MANY] for n in range(0, len(uids), self._MANY)]
        return [row for some in hundreds for row in self._of_many.tuples(connection, **self._named(some))]

    def _named(self, uids: Sequence[str]) -> dict[str, str]:
        """Where there are fewer, the last stands for the missing ones."""
        return {name: uids[min(n, len(uids) - 1)] for n, name in enumerate(self._names())}

    def _names(self) -> list[str]:
        return [f"uid{n}" for n in range(self._MANY)]


def _counting(table: sa.Table, sign: int) -> "sa.Select[Any]":
    keys = (table.c.study_instance_uid, table.c.series_instance_uid)
    return sa.select(*keys, sa.func.count(), sa.literal_column(str(sign))).group_by(*keys)


def _counts(rows: Iterable[tuple[Any, ...]]) -> dict[tuple[str, str], int]:
    """How many instances each series has that has any."""
    counts = dict[tuple[str, str], int]()
    for study_uid, series_uid, count, sign, *_ in rows:
        key = (study_uid, series_uid)
        counts[key] = counts.get(key, 0) + sign * count
    return {key: count for key, count in counts.items() if count > 0}


def _totals(counts: Mapping[tuple[str, str], int]) -> dict[str, tuple[int, int]]:
    """Series and instances of each study."""
    totals: dict[str, tuple[int, int]] = {}
    for (uid, _), count in counts.items():
        series, instances = totals.get(uid, (0, 0))
        totals[uid] = (series + 1, instances + count)
    return totals


def _without_uids(table: sa.Table) -> list["sa.Column[Any]"]:
    return [column for column in table.c if not column.name.endswith("_instance_uid")]


def _parts(search: Search) -> list[Group]:
    """What must hold of a study's, series' or instance's own columns, and then for each modality asked for."""
    modalities = [match for match in search.matches if match.keyword == "ModalitiesInStudy"]
    others = [match for match in search.matches if match.keyword != "ModalitiesInStudy"]
    return [conditions(some, fuzzy=search.fuzzy) for some in (others, *([one] for one in modalities))]


class _Questions:
    """Statements by their shape, those used last; each takes some 40 kB, and 0.7 kB more for each of its values."""

    _MOST, _MOST_VALUES = 100, 8000

    def __init__(self) -> None:
        self._made: OrderedDict[Hashable, tuple[PreparedQuery, int]] = OrderedDict()
        self._values = 0
        self._lock = threading.Lock()

    def get(self, key: Hashable, values: int, make: Callable[[], PreparedQuery]) -> PreparedQuery:
        """The one of this shape, for so many values, made where it is not there."""
        with self._lock:
            if (known := self._made.get(key)) is not None:
                self._made.move_to_end(key)
                return known[0]
        made = make()
        with self._lock:
            if key not in self._made:
                self._made[key] = made, values
                self._values += values
            while len(self._made) > self._MOST or self._values > self._MOST_VALUES:
                self._values -= self._made.popitem(last=False)[1][1]
        return made


class _Reading:
    """Makes results of rows: values by keyword, of instances also those of their JSON; what is empty is left out."""

    def __init__(self, columns: Sequence[Any], levels: Sequence[Level], uids: Sequence[str]) -> None:
        keywords = {a.keyword: a.keyword for level in levels for a in columns_of(level)}
        keywords |= {UID_KEYWORDS[keyword]: keyword for keyword in uids}
        self._places = [(n, keywords[c.name]) for n, c in enumerate(columns) if c.name in keywords]
        self._attributes = next((n for n, column in enumerate(columns) if column.name == "attributes"), None)

    def __call__(self, row: Sequence[Any]) -> Found:
        """One of them."""
        found = {keyword: row[n] for n, keyword in self._places if row[n] not in ("", None)}
        if self._attributes is not None:
            own = row[self._attributes] or {}
            values = {a.keyword: own.get(a.keyword) for a in columns_of(Level.INSTANCE)}
            found |= {keyword: value for keyword, value in values.items() if value is not None}
        return found
