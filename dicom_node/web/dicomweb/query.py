"""A QIDO-RS query: the parameters of an address as a search (PS3.18 Section 8.3.4 and Table 8.3.4-1)."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from pydicom.datadict import keyword_for_tag, tag_for_keyword

from dicom_node.archive.search import Search
from dicom_node.core.errors import QueryInvalid
from dicom_node.core.matching import Match, parse_match
from dicom_node.core.searchable import BY_KEYWORD, Level, Searchable

#: Results that are given at most, and without a limit.
MOST, USUAL = 10_000, 1000

#: Beyond it nobody pages.
_FARTHEST = 10_000_000

#: A database takes only so many conditions.
_MOST_PARAMETERS = 200


@dataclass(frozen=True, kw_only=True)
class Query:
    """What a client asks."""

    search: Search
    #: Paths of tags that are wanted beside what is always returned; a path leads into sequences.
    fields: tuple[tuple[int, ...], ...]
    #: Whether everything is wanted that the index has.
    everything: bool


def parse_query(level: Level, parameters: Iterable[tuple[str, str]], **uids: str) -> Query:
    """By the address's parameters and the UIDs in its path, by keyword; QueryInvalid says what is wrong."""
    pairs = list(parameters)
    if len(pairs) > _MOST_PARAMETERS:
        raise QueryInvalid(f"more than {_MOST_PARAMETERS} parameters")
    matches = [match for keyword, uid in uids.items() if uid and (match := parse_match(BY_KEYWORD[keyword], uid))]
    limit, offset, fuzzy, everything = USUAL, 0, False, False
    fields: list[tuple[int, ...]] = []
    for name, value in pairs:
        if name == "limit":
            limit = min(_count(name, value), MOST)
        elif name == "offset":
            offset = _count(name, value)
        elif name == "fuzzymatching":
            fuzzy = _truth(name, value)
        elif name == "includefield":
            wanted = [field for field in value.split(",") if field]
            everything = everything or "all" in wanted
            fields += [_path(field) for field in wanted if field != "all"]
        elif name not in _OTHERS and (match := _match(level, name, value)) is not None:
            matches.append(match)
    search = Search(level=level, matches=_distinct(matches), limit=limit, offset=offset, fuzzy=fuzzy)
    return Query(search=search, fields=tuple(dict.fromkeys(fields)), everything=everything)


#: Parameters that are not matched: `accept` stands for the header.
_OTHERS = frozenset({"accept", "emptyvaluematching", "multiplevaluematching"})


def _match(level: Level, name: str, value: str) -> Match | None:
    path = _path(name)
    searchable = BY_KEYWORD.get(keyword_for_tag(path[0])) if len(path) == 1 else None
    if searchable is None or searchable.level.rank > level.rank:
        # Nothing that is asked is dropped in silence: the answer would name other patients, too.
        raise QueryInvalid(f"cannot be searched by at this level; these can: {', '.join(_searchable(level))}")
    if searchable.computed and level is not Level.STUDY:
        raise QueryInvalid(f"{searchable.keyword} can be searched by in studies alone")
    return parse_match(searchable, value)


def _searchable(level: Level) -> Sequence[str]:
    return [attribute.keyword for attribute in BY_KEYWORD.values() if attribute.level.rank <= level.rank]


def _distinct(matches: Sequence[Match]) -> tuple[Match, ...]:
    names: dict[str, Match] = {}
    for match in matches:
        # A UID in the path and another in the parameters must both hold.
        if names.setdefault(match.keyword, match) != match:
            first = names[match.keyword]
            if match.attribute.vr != "UI":
                raise QueryInvalid(f"{match.keyword} is given twice")
            both = tuple(value for value in first.values if value in match.values) or ("0",)
            names[match.keyword] = Match(attribute=match.attribute, kind=match.kind, values=both)
    return tuple(names.values())


def _path(name: str) -> tuple[int, ...]:
    """A path of keywords or tags, between dots."""
    return tuple(_tag(part) for part in name.split("."))


def _tag(part: str) -> int:
    if len(part) == 8 and all(sign in "0123456789abcdefABCDEF" for sign in part):
        return int(part, 16)
    tag = tag_for_keyword(part) if part.isascii() else None
    if tag is None:
        raise QueryInvalid("a parameter is neither a keyword of the dictionary, eight hex digits, nor a known option")
    return int(tag)


def _count(name: str, value: str) -> int:
    if not (value.isascii() and value.isdigit() and len(value) < 12):
        raise QueryInvalid(f"{name} is no number")
    return min(int(value), _FARTHEST)


def _truth(name: str, value: str) -> bool:
    if value not in ("true", "false"):
        raise QueryInvalid(f"{name} is neither true nor false")
    return value == "true"


def returned(attribute: Searchable, asked: "Asked") -> bool:
    """Whether an attribute of the index is part of the answer."""
    tag = tag_for_keyword(attribute.keyword)
    is_wanted = asked.everything or (tag is not None and (int(tag),) in asked.fields)
    return is_wanted or attribute.returned or attribute.keyword in asked.matched


class Asked(NamedTuple):
    """What of a query says which attributes are answered."""

    level: Level
    #: Keywords of what is matched.
    matched: frozenset[str]
    fields: tuple[tuple[int, ...], ...]
    everything: bool

    @classmethod
    def by(cls, query: Query) -> "Asked":
        """A query's."""
        matched = frozenset(match.keyword for match in query.search.matches)
        return cls(query.search.level, matched, query.fields, query.everything)
