"""Marked text: documents in which people write, and code writes the parts between two marks."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from dicom_node.core.errors import NodeError


class MarkMissing(NodeError):
    """A document without the marks of a part, or with marks that nothing is written between."""


def with_parts(text: str, parts: Mapping[str, str]) -> str:
    """The document with each part between its marks, whatever stood there; MarkMissing unless marks and parts agree."""
    marked = re.findall(r"^<!-- generated: (.+) -->$", text, flags=re.MULTILINE)
    if sorted(marked) != sorted(parts):
        raise MarkMissing(f"the document marks {sorted(marked)}, the parts are {sorted(parts)}; mark each part once")
    for name, part in parts.items():
        begin, end = f"<!-- generated: {name} -->\n", f"<!-- end: {name} -->"
        before, rest = text.split(begin)
        if end not in rest:
            raise MarkMissing(f"the part {name} has no end; write {end} on a line below it")
        text = f"{before}{begin}\n{part}\n\n{end}{rest.split(end, 1)[1]}"
    return text


def rewrite(path: Path, parts: Mapping[str, str]) -> bool:
    """Write the parts into a document's file; whether that changed it."""
    text = path.read_text(encoding="utf-8")
    written = with_parts(text, parts)
    if written == text:
        return False
    path.write_text(written, encoding="utf-8")
    return True


def table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [headings, ["---"] * len(headings), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', '&#124;') for cell in line)} |" for line in lines)


def code(text: str) -> str:
    """Text as code; nothing for an empty one."""
    return f"`{text}`" if text else ""
