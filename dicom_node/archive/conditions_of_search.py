"""What a match means to the database: one attribute's condition as an expression over a column."""

from collections.abc import Callable, Sequence
from typing import Any

import sqlalchemy as sa

from dicom_node.archive.search_tables import name_column
from dicom_node.core.matching import Kind, Match
from dicom_node.core.person_name import name_keys, plain, sound_of, words_of

Expression = sa.ColumnElement[bool]

#: The column of a keyword.
ColumnOf = Callable[[str], Any]

#: Dates and times that belong together: a range over both is one from moment to moment (PS3.18 Section 8.3.4.1).
PAIRS = (
    ("StudyDate", "StudyTime"),
    ("SeriesDate", "SeriesTime"),
    ("PerformedProcedureStepStartDate", "PerformedProcedureStepStartTime"),
)


def conditions(matches: Sequence[Match], column: ColumnOf, *, dialect: str, fuzzy: bool) -> list[Expression]:
    """The conditions that all must hold."""
    by_keyword = {match.keyword: match for match in matches}
    found: list[Expression] = []
    for date, time in PAIRS:
        if date in by_keyword and time in by_keyword:
            found.append(_between_moments(by_keyword.pop(date), by_keyword.pop(time), column))
    return found + [_condition(match, column, dialect, fuzzy) for match in by_keyword.values()]


def _condition(match: Match, column: ColumnOf, dialect: str, fuzzy: bool) -> Expression:
    if match.attribute.vr == "PN":
        return (_sounds_like if fuzzy else _is_named)(match, column, dialect)
    if match.kind is Kind.RANGE:
        return _within(column(match.keyword), str(match.values[0]), str(match.values[1]))
    return _like(match, column(match.keyword), dialect, match.values)


def _like(match: Match, column: Any, dialect: str, values: Sequence[str | int]) -> Expression:
    if match.kind is Kind.ONE_OF:
        return sa.and_(column == values[0]) if len(values) == 1 else sa.and_(column.in_(values))
    return wildcard(column, str(values[0]), dialect)


def wildcard(column: Any, pattern: str, dialect: str) -> Expression:
    """Like a DICOM pattern; upper and lower case differ (PS3.4 Annex C.2.2.2.4)."""
    if dialect == "sqlite":
        return sa.and_(column.op("GLOB")(pattern.replace("[", "[[]")))
    escaped = pattern.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
    return sa.and_(column.like(escaped.replace("*", "%").replace("?", "_"), escape="\\"))


def _is_named(match: Match, column: ColumnOf, dialect: str) -> Expression:
    """As a whole name, in letters or in ideographs."""
    found: list[Expression] = []
    for key, value in zip(("key", "ideographic_key"), name_keys(str(match.values[0])), strict=True):
        if value and value != "*":
            found.append(_like(match, column(name_column(match.keyword, key)), dialect, (value,)))
    alone = name_keys(str(match.values[0]))
    if alone[0] and not alone[1]:
        # Whoever types ideographs does not type an equals sign before them.
        other = _like(match, column(name_column(match.keyword, "ideographic_key")), dialect, (alone[0],))
        return sa.or_(*found, other)
    return sa.and_(*found) if found else sa.true()


def _sounds_like(match: Match, column: ColumnOf, dialect: str) -> Expression:
    """Each word begins a word of the name, or sounds like one."""
    words = column(name_column(match.keyword, "words"))
    found: list[Expression] = []
    for word in words_of(str(match.values[0])):
        alike = [words.contains(f" {plain(word)}", autoescape=True)]
        if sound := sound_of(word):
            alike.append(words.contains(f" ~{sound} ", autoescape=True))
        found.append(sa.or_(*alike))
    return sa.and_(*found) if found else sa.true()


def _within(column: Any, first: str, last: str) -> Expression:
    bounds = [column >= first] if first else [column != ""]
    if last:
        bounds.append(column <= last)
    return sa.and_(*bounds)


def _between_moments(dates: Match, times: Match, column: ColumnOf) -> Expression:
    date, time = column(dates.keyword), column(times.keyword)
    (first_date, last_date), (first_time, last_time) = map(_texts, (dates, times))
    bounds = [_within(date, first_date, last_date)]
    if first_date and first_time:
        bounds.append(sa.or_(date > first_date, time >= first_time))
    if last_date and last_time:
        bounds.append(sa.or_(date < last_date, time <= last_time))
    return sa.and_(*bounds)


def _texts(match: Match) -> tuple[str, str]:
    return str(match.values[0]), str(match.values[1])
