"""The README's table of settings, written from the settings themselves: `python -m deploy.readme`."""

import sys
from collections.abc import Collection, Mapping
from pathlib import Path

from deploy.marked_text import code, rewrite, table
from dicom_node.settings import settings_reference

README = Path(__file__).resolve().parents[1] / "README.md"

#: Sections that may appear as often as there are entries.
_ARRAYS = ("peers", "routes", "bundles", "triage")


def settings_table(sections: Collection[str] = ()) -> str:
    """Every setting of these sections, or of all, with its default and meaning."""
    rows = [
        (
            code(f"[[{row.section}]]" if row.section in _ARRAYS else f"[{row.section}]"),
            code(row.key),
            code(row.default) or "must be given",
            row.meaning,
        )
        for row in settings_reference()
        if not sections or row.section in sections
    ]
    return table(("section", "key", "default", "meaning"), rows)


def parts() -> Mapping[str, str]:
    """The README's generated parts by name."""
    return {"settings": settings_table()}


def main() -> int:
    """Rewrite the README."""
    print(f"{README.name}: {'rewritten' if rewrite(README, parts()) else 'was up to date'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
