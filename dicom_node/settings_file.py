"""The settings file as text: its values, and the line that each of them stands on."""

import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from dicom_node.core.errors import SettingsError

#: The way to a value: keys of tables, numbers in arrays, as in ("peers", 1, "port").
KeyPath = tuple[str | int, ...]


def read_settings_file(path: Path) -> tuple[Mapping[str, Any], str]:
    """The file's values and its text; raises SettingsError when it is absent or no TOML."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"the settings file {path} cannot be read: {error}; name another with --config") from None
    try:
        return tomllib.loads(text), text
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"the settings file {path} is no TOML: {error}") from None


def lines_of(text: str) -> dict[KeyPath, int]:
    """The line on which each table, key and array element of a TOML text first appears, counted from 1.

    The TOML parser keeps no positions. But a text cut after a whole statement is TOML again, and cut elsewhere it
    is not: what is new in a longer piece came with its last statement. Quadratic, so asked for only to report faults.
    """
    lines: dict[KeyPath, int] = {}
    rows = text.split("\n")
    start = 0
    for end in range(1, len(rows) + 1):
        try:
            values = tomllib.loads("\n".join(rows[:end]))
        except tomllib.TOMLDecodeError:
            continue
        for path in _paths(values):
            lines.setdefault(path, start + 1)
        start = end
    return lines


def _paths(value: Any, path: KeyPath = ()) -> Iterator[KeyPath]:
    """Every way into nested tables and arrays."""
    yield path
    children = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, child in children:
        yield from _paths(child, (*path, key))
