"""Matching: what a query's value for an attribute means (PS3.4 Annex C.2.2.2), free of any database."""

import re
from dataclasses import dataclass
from enum import StrEnum

from dicom_node.core.errors import QueryInvalid
from dicom_node.core.searchable import Searchable
from dicom_node.core.uid import is_uid


class Kind(StrEnum):
    """How a value is compared."""

    #: Equal to one of the values.
    ONE_OF = "ONE_OF"
    #: Like the pattern: * is any text, ? any one character.
    WILDCARD = "WILDCARD"
    #: Between two values, which belong to it; an empty one is no bound.
    RANGE = "RANGE"


@dataclass(frozen=True, kw_only=True)
class Match:
    """One attribute's condition."""

    attribute: Searchable
    kind: Kind
    values: tuple[str | int, ...]

    @property
    def keyword(self) -> str:
        """The attribute's."""
        return self.attribute.keyword


_DATE = re.compile(r"\d{8}")
_TIME = re.compile(r"\d{2}(\d{2}(\d{2}(\.\d{1,6})?)?)?")
_LATEST = "235959.999999"

#: VRs whose values are numbers.
_NUMBERS = frozenset({"IS", "US", "UL", "SS", "SL"})

#: A database takes only so many values in one question.
_MOST_UIDS = 500

#: LO holds 64 characters and PN five components of each of three groups; a pattern as long as this is none.
_LONGEST = 1024


def parse_match(attribute: Searchable, text: str) -> Match | None:
    """The condition of an attribute; None where it is universal, QueryInvalid where the value is no value of its VR."""
    text = text.strip()
    if len(text) > _LONGEST * (_MOST_UIDS if attribute.vr == "UI" else 1) or "\x00" in text:
        raise QueryInvalid(f"the value of {attribute.keyword} is too long or holds a NUL")
    if text in ("", "*"):
        return None
    if attribute.vr in ("DA", "TM"):
        return _moment(attribute, text)
    if attribute.vr in _NUMBERS:
        return _match(attribute, Kind.ONE_OF, _number(attribute, text))
    if attribute.vr == "UI":
        return _match(attribute, Kind.ONE_OF, *_uids(attribute, text))
    if "*" in text or "?" in text:
        return _match(attribute, Kind.WILDCARD, text)
    # A code string holds neither commas nor backslashes (PS3.5 Table 6.2-1).
    values = [part.strip() for part in re.split(r"[,\\]", text)] if attribute.vr == "CS" else [text]
    return _match(attribute, Kind.ONE_OF, *filter(None, values))


def normal_date(text: str) -> str:
    """A date as eight digits, also one of the old form with dots (PS3.5 Table 6.2-1); empty where it is none."""
    digits = text.strip().replace(".", "")
    return digits if _DATE.fullmatch(digits) else ""


def normal_time(text: str) -> str:
    """A time with at least its seconds, so that times compare as texts do; empty where it is none."""
    digits = text.strip().replace(":", "")
    if not _TIME.fullmatch(digits):
        return ""
    return digits if len(digits) > 6 else f"{digits:0<6}"


def _match(attribute: Searchable, kind: Kind, *values: str | int) -> Match | None:
    return Match(attribute=attribute, kind=kind, values=values) if values else None


def _moment(attribute: Searchable, text: str) -> Match | None:
    first, dash, last = text.partition("-")
    if not dash:
        last = first
    pattern, kind = (_DATE, "date") if attribute.vr == "DA" else (_TIME, "time")
    first, last = (bound.strip().replace(":", "") for bound in (first, last))
    if any(bound and not pattern.fullmatch(bound) for bound in (first, last)) or not (first or last):
        raise QueryInvalid(f"the value of {attribute.keyword} is no {kind} and no range of {kind}s")
    if attribute.vr == "TM":
        # 1015 is the whole minute.
        first, last = normal_time(first) if first else "", last + _LATEST[len(last) :] if last else ""
    return _match(attribute, Kind.RANGE, first, last)


def _number(attribute: Searchable, text: str) -> int:
    if not re.fullmatch(r"[+-]?\d{1,12}", text, re.ASCII):
        raise QueryInvalid(f"the value of {attribute.keyword} is no integer")
    return int(text)


def _uids(attribute: Searchable, text: str) -> list[str]:
    uids = [part.strip() for part in re.split(r"[,\\]", text) if part.strip()]
    if not all(map(is_uid, uids)) or len(uids) > _MOST_UIDS:
        raise QueryInvalid(f"the value of {attribute.keyword} is no list of up to {_MOST_UIDS} UIDs")
    return uids
