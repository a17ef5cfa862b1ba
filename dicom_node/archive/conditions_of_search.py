"""What a search means to the database: conditions on columns, whose shape is one thing and whose values another.

A statement is built once for each shape, which takes longer than to execute it, and executed with each search's values.
"""

from collections.abc import Callable, Hashable, Iterator, Sequence
from enum import StrEnum
from typing import Any, NamedTuple

import sqlalchemy as sa

from dicom_node.archive.search_tables import name_column
from dicom_node.core.errors import QueryInvalid
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


#: Of a name that is compared by sound: five components in three groups (PS3.5 Section 6.2.1), and some more.
_MOST_WORDS = 24


class Test(StrEnum):
    """How a column is compared with values."""

    #: Equal to one of them.
    ONE_OF = "ONE_OF"
    #: Like a DICOM pattern; upper and lower case differ (PS3.4 Annex C.2.2.2.4).
    LIKE = "LIKE"
    #: Has a text within it.
    HOLDS = "HOLDS"
    LEAST = "LEAST"
    MOST = "MOST"
    ABOVE = "ABOVE"
    BELOW = "BELOW"
    #: Is not empty; without a value.
    FILLED = "FILLED"


class Condition(NamedTuple):
    """A condition on one column."""

    test: Test
    column: str
    values: tuple[str | int, ...] = ()


class Group(NamedTuple):
    """Conditions that hold all of them, or at least one."""

    all_of: bool
    parts: "tuple[Condition | Group, ...]"


def conditions(matches: Sequence[Match], *, fuzzy: bool) -> Group:
    """What must hold."""
    by_keyword = {match.keyword: match for match in matches}
    found: list[Condition | Group] = []
    for date, time in PAIRS:
        if date in by_keyword and time in by_keyword:
            found.append(_between_moments(by_keyword.pop(date), by_keyword.pop(time)))
    return Group(True, (*found, *(_condition(match, fuzzy) for match in by_keyword.values())))


def shape(part: Condition | Group) -> Hashable:
    """What makes it another statement; of values only their number."""
    if isinstance(part, Condition):
        return part.test, part.column, len(part.values)
    return part.all_of, tuple(map(shape, part.parts))


def values_of(part: Condition | Group, dialect: str) -> Iterator[str | int]:
    """Its values as the database is given them, in the order of `expression`'s names."""
    if isinstance(part, Group):
        for one in part.parts:
            yield from values_of(one, dialect)
        return
    written = _WRITTEN.get((dialect, part.test)) or _WRITTEN.get(("", part.test))
    yield from part.values if written is None else (written(str(value)) for value in part.values)


def expression(part: Condition | Group, column: ColumnOf, names: Iterator[str], dialect: str) -> Expression:
    """It as an expression with a named value for each of its own; `names` are the names to take."""
    if isinstance(part, Group):
        parts = [expression(one, column, names, dialect) for one in part.parts]
        empty = sa.true() if part.all_of else sa.false()
        return (sa.and_ if part.all_of else sa.or_)(*parts) if parts else empty
    given: list[sa.BindParameter[Any]] = [sa.bindparam(next(names)) for _ in part.values]
    return sa.and_(_compared(part.test, column(part.column), given, dialect))


def _compared(test: Test, column: Any, given: Sequence[Any], dialect: str) -> Any:
    if test is Test.ONE_OF:
        return column == given[0] if len(given) == 1 else column.in_(given)
    if test is Test.LIKE and dialect == "sqlite":
        return column.op("GLOB")(given[0])
    return _COMPARED[test](column, *given)


_COMPARED: dict[Test, Callable[..., Any]] = {
    Test.LIKE: lambda column, pattern: column.like(pattern, escape="\\"),
    Test.HOLDS: lambda column, pattern: column.like(pattern, escape="\\"),
    Test.LEAST: lambda column, value: column >= value,
    Test.MOST: lambda column, value: column <= value,
    Test.ABOVE: lambda column, value: column > value,
    Test.BELOW: lambda column, value: column < value,
    Test.FILLED: lambda column: column != "",
}


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")


#: How a database is given a value of a test, where not as it is; the empty dialect: every one.
_WRITTEN: dict[tuple[str, Test], Callable[[str], str]] = {
    ("sqlite", Test.LIKE): lambda pattern: pattern.replace("[", "[[]"),
    ("", Test.LIKE): lambda pattern: _escaped(pattern).replace("*", "%").replace("?", "_"),
    ("", Test.HOLDS): lambda text: f"%{_escaped(text)}%",
}


def _condition(match: Match, fuzzy: bool) -> Condition | Group:
    if match.attribute.vr == "PN":
        return (_sounds_like if fuzzy else _is_named)(match)
    if match.kind is Kind.RANGE:
        return Group(True, _within(match.keyword, *_texts(match)))
    return _like(match, match.keyword, match.values)


def _like(match: Match, column: str, values: tuple[str | int, ...]) -> Condition:
    if match.kind is not Kind.ONE_OF:
        return Condition(Test.LIKE, column, values)
    # Lists of a few lengths only: each is another statement.
    longer = (1 << (len(values) - 1).bit_length()) - len(values) if values else 0
    return Condition(Test.ONE_OF, column, values + values[-1:] * longer)


def _is_named(match: Match) -> Group:
    """As a whole name, in letters or in ideographs."""
    keys = name_keys(str(match.values[0]))
    columns = [name_column(match.keyword, key) for key in ("key", "ideographic_key")]
    pairs = zip(columns, keys, strict=True)
    found = tuple(_like(match, column, (value,)) for column, value in pairs if value and value != "*")
    if keys[0] and not keys[1]:
        # Whoever types ideographs does not type an equals sign before them.
        return Group(False, (*found, _like(match, columns[1], (keys[0],))))
    return Group(True, found)


def _sounds_like(match: Match) -> Group:
    """Each word begins a word of the name, or sounds like one; QueryInvalid for more words than a name has."""
    column, words = name_column(match.keyword, "words"), words_of(str(match.values[0]))
    if len(words) > _MOST_WORDS:
        raise QueryInvalid(
            f"the value of {match.keyword} has more than {_MOST_WORDS} words, too many to compare by sound"
        )
    found: list[Group] = []
    for word in words:
        alike = [Condition(Test.HOLDS, column, (f" {plain(word)}",))]
        if sound := sound_of(word):
            alike.append(Condition(Test.HOLDS, column, (f" ~{sound} ",)))
        found.append(Group(False, tuple(alike)))
    return Group(True, tuple(found))


def _within(column: str, first: str, last: str) -> tuple[Condition, ...]:
    begins = Condition(Test.LEAST, column, (first,)) if first else Condition(Test.FILLED, column)
    return (begins, Condition(Test.MOST, column, (last,))) if last else (begins,)


def _between_moments(dates: Match, times: Match) -> Group:
    date, time = dates.keyword, times.keyword
    (first_date, last_date), (first_time, last_time) = map(_texts, (dates, times))
    bounds: list[Condition | Group] = list(_within(date, first_date, last_date))
    if first_date and first_time:
        later = (Condition(Test.ABOVE, date, (first_date,)), Condition(Test.LEAST, time, (first_time,)))
        bounds.append(Group(False, later))
    if last_date and last_time:
        earlier = (Condition(Test.BELOW, date, (last_date,)), Condition(Test.MOST, time, (last_time,)))
        bounds.append(Group(False, earlier))
    return Group(True, tuple(bounds))


def _texts(match: Match) -> tuple[str, str]:
    return str(match.values[0]), str(match.values[1])
