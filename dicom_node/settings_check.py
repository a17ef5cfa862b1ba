"""Tables of settings as frozen dataclasses: every fault is collected, none raised, and each says its mend."""

import difflib
import math
import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import MISSING, Field, dataclass, fields
from enum import StrEnum
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from pydicom.charset import python_encoding as encodings
from pydicom.datadict import keyword_dict

from dicom_node.core.errors import ExpressionError
from dicom_node.core.expression import Expression, parse_expression
from dicom_node.core.priority import QUEUES
from dicom_node.settings_file import KeyPath

TableT = TypeVar("TableT")

#: Characters of a name: the columns of the index hold no more, and not every database cuts what is longer.
LONGEST_NAME = 64


class Text(str):
    """A value from the environment or the command line, which has no type of its own yet."""

    __slots__ = ()


@dataclass(frozen=True, kw_only=True)
class Fault:
    """What is wrong with the value at a path, and the mend."""

    path: KeyPath
    message: str


class _Mismatch(ValueError):
    """A value that cannot stand there; says what can."""


def check_table(kind: type[TableT], raw: object, path: KeyPath, faults: list[Fault]) -> TableT | None:
    """Build `kind` from a table of raw values; None, with the faults appended, when it cannot be built."""
    if not isinstance(raw, Mapping):
        faults.append(Fault(path=path, message="is a table of settings, no single value"))
        return None
    known = {entry.name: entry for entry in fields(kind)}  # type: ignore[arg-type]  # a dataclass by our own calls
    faults.extend(Fault(path=(*path, key), message=unknown_key(key, known)) for key in raw if key not in known)
    hints = get_type_hints(kind)
    values: dict[str, Any] = {}
    before = len(faults)
    for name, entry in known.items():
        if name in raw:
            values[name] = _checked(hints[name], raw[name], entry, (*path, name), faults)
        elif entry.default is not MISSING:
            values[name] = _checked(hints[name], entry.default, entry, (*path, name), faults)
        else:
            faults.append(Fault(path=path, message=f"lacks {name}, {entry.metadata['meaning']}"))
    return kind(**values) if len(faults) == before else None


def check_array(kind: type[TableT], raw: object, path: KeyPath, faults: list[Fault]) -> tuple[TableT, ...] | None:
    """Build one `kind` from each table of an array; None, with the faults appended, when one cannot be built."""
    try:
        tables = toml_value(raw) if isinstance(raw, Text) else raw
    except _Mismatch as mismatch:
        faults.append(Fault(path=path, message=str(mismatch)))
        return None
    if not isinstance(tables, list):
        faults.append(Fault(path=path, message=f"is an array of tables; write [[{path[-1]}]]"))
        return None
    built = [check_table(kind, table, (*path, number), faults) for number, table in enumerate(tables)]
    return tuple(entry for entry in built if entry is not None)


def unknown_key(key: str, known: Mapping[str, object]) -> str:
    """What to say of a key that is none of the known ones."""
    near = difflib.get_close_matches(str(key), known, n=1)
    return f"is no setting; {f'did you mean {near[0]}?' if near else 'there are ' + ', '.join(known)}"


def _checked(hint: Any, raw: object, entry: Field[Any], path: KeyPath, faults: list[Fault]) -> Any:
    """A value of the hinted type, or None with a fault."""
    try:
        value = convert(hint, raw)
        for part in value if isinstance(value, tuple) else (value,):
            _keep_to(part, entry.metadata.get("allowed"), entry.metadata.get("rule", ""))
        return value
    except _Mismatch as mismatch:
        faults.append(Fault(path=path, message=str(mismatch)))
        return None


def _keep_to(value: Any, allowed: tuple[float, float] | None, rule: str) -> None:
    if allowed is not None and not allowed[0] <= value <= allowed[1]:
        raise _Mismatch(f"is {value:g}; it must be from {allowed[0]:g} to {allowed[1]:g}")
    if rule and not _RULES[rule][0](value):
        raise _Mismatch(f'is "{value}"; {_RULES[rule][1]}')


def _is_ae_title(text: str) -> bool:
    # PS3.5 Section 6.2, AE: up to 16 characters of the default repertoire, no backslash, no control characters, not
    # only spaces.
    return text.strip() != "" and len(text) <= 16 and text.isascii() and text.isprintable() and "\\" not in text


_RULES: Mapping[str, tuple[Callable[[str], bool], str]] = {
    "ae_title": (_is_ae_title, "an AE title is 1 to 16 ASCII characters without backslash"),
    "not_empty": (lambda text: bool(text.strip()), "it must not be empty"),
    "name": (
        lambda text: text == text.strip() != "" and text.isprintable() and len(text) <= LONGEST_NAME,
        f"a name is one line of at most {LONGEST_NAME} characters, not padded",
    ),
    "character_set": (
        lambda text: all(part in encodings for part in text.split("\\")),
        "it must be a defined term of Specific Character Set, such as ISO_IR 100 or ISO_IR 192",
    ),
    "https": (
        lambda text: text == "" or re.match(r"https://|http://(127\.0\.0\.1|localhost)[:/]", text) is not None,
        "it must begin with https://",
    ),
    "http": (
        lambda text: text == "" or re.fullmatch(r"https?://[^/@\s]+(/\S*)?", text) is not None,
        "it must begin with https:// or http://, without a name or password",
    ),
    "study_link": (
        lambda text: text == "" or (re.match(r"https?://|/", text) is not None and "{study}" in text),
        "it must begin with https://, http:// or / and have {study} in it",
    ),
    "syslog": (
        lambda text: text == "" or re.fullmatch(r"(tls|tcp|udp)://[^/]+", text) is not None,
        "write tls://host:6514, tcp://host or udp://host",
    ),
    "queue": (lambda text: text in QUEUES, f"queues are {', '.join(QUEUES)}"),
    "device": (lambda text: re.fullmatch(r"auto|cpu|cuda(:\d+)?", text) is not None, "write auto, cpu, cuda or cuda:0"),
}


def convert(hint: Any, raw: object) -> Any:
    """The raw value as the hinted type; raises _Mismatch, which says what is expected."""
    if get_origin(hint) is tuple:
        return _as_tuple(get_args(hint)[0], raw)
    if get_origin(hint) is Literal:
        return _as_choice(get_args(hint), raw)
    if isinstance(hint, type) and issubclass(hint, StrEnum):
        return hint(_as_choice([term.value for term in hint], raw))
    return _CONVERSIONS[hint](raw)


def _as_tuple(element: Any, raw: object) -> tuple[Any, ...]:
    if isinstance(raw, Text):
        raw = toml_value(raw) if raw.lstrip().startswith("[") else [part.strip() for part in raw.split(",") if part]
    if not isinstance(raw, list | tuple):
        raise _Mismatch(f"is {_shown(raw)}; it must be a list, as in [ ..., ... ]")
    return tuple(convert(element, part) for part in raw)


def _as_choice(choices: Any, raw: object) -> str:
    if raw not in choices:
        raise _Mismatch(f"is {_shown(raw)}; it must be one of {', '.join(choices)}")
    return str(raw)


def _as_str(raw: object) -> str:
    if not isinstance(raw, str):
        raise _Mismatch(f"is {_shown(raw)}; it must be a text in quotes")
    return str(raw)


def _as_bool(raw: object) -> bool:
    value = {"true": True, "1": True, "false": False, "0": False}.get(raw.lower()) if isinstance(raw, Text) else raw
    if not isinstance(value, bool):
        raise _Mismatch(f"is {_shown(raw)}; it must be true or false")
    return value


def _as_int(raw: object) -> int:
    value = int(raw) if isinstance(raw, Text) and re.fullmatch(r"\s*-?\d{1,18}\s*", raw) else raw
    if not isinstance(value, int) or isinstance(value, bool):
        raise _Mismatch(f"is {_shown(raw)}; it must be a whole number")
    return value


def _as_float(raw: object) -> float:
    try:
        value = float(raw) if isinstance(raw, Text) else raw
    except ValueError:
        value = raw
    if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value):
        raise _Mismatch(f"is {_shown(raw)}; it must be a number")
    return float(value)


def _as_path(raw: object) -> Path:
    if isinstance(raw, Path):
        raw = str(raw)
    if not _as_str(raw):
        raise _Mismatch("is empty; it must be a folder")
    return Path(_as_str(raw)).expanduser().absolute()


def _as_expression(raw: object) -> Expression:
    try:
        return parse_expression(_as_str(raw), known=keyword_dict)
    except ExpressionError as error:
        raise _Mismatch(f"cannot be used: {error}") from None


_CONVERSIONS: Mapping[Any, Callable[[object], Any]] = {
    str: _as_str,
    bool: _as_bool,
    int: _as_int,
    float: _as_float,
    Path: _as_path,
    Expression: _as_expression,
}


def toml_value(text: str) -> object:
    """A text read as the right side of a TOML line."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        raise _Mismatch(f"is {_shown(text)}; it must be a TOML list") from None


def _shown(raw: object) -> str:
    """A raw value as TOML would write it, cut short."""
    text = str(raw).lower() if isinstance(raw, bool) else f'"{raw}"' if isinstance(raw, str) else str(raw)
    return text if len(text) <= 60 else f"{text[:57]}..."
