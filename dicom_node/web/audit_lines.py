"""The audit trail read back from its files, the newest line first, a page at a time.

However long the trail is, a page costs what is looked at for it: files are read from their ends, lines that cannot
fit are passed over unread, and where too much was looked at the page ends early and says from where to go on.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO
from xml.etree import ElementTree
from xml.sax.saxutils import escape

from dicom_node.audit import (
    CHANGED,
    LOG_USED,
    LOGIN,
    LOGOUT,
    NODE_CHANGED,
    QUERIED,
    RESTRICTED,
    SEEN,
    USERS_CHANGED,
    Event,
)

#: Lines of a page.
PAGE_LINES = 100

#: Read from a file at once, and looked at for one page: some hundred thousand lines.
_BLOCK_BYTES, _MOST_BYTES = 1 << 20, 160 << 20

#: Kinds of things that happened, by the word for them in an address, and in words.
KINDS: Mapping[str, tuple[str, Event]] = {
    "login": ("logged in", LOGIN),
    "logout": ("logged out", LOGOUT),
    "seen": ("saw a study", SEEN),
    "searched": ("searched", QUERIED),
    "changed": ("changed a study", CHANGED),
    "users": ("changed users or tokens", USERS_CHANGED),
    "node": ("asked something of the node", NODE_CHANGED),
    "refused": ("was refused", RESTRICTED),
    "trail": ("read the audit trail", LOG_USED),
}

_DAY = re.compile(r"\d{4}-\d{2}-\d{2}")
_BEGIN = b"<AuditMessage"
_MOMENT = re.compile(rb'EventDateTime="([^"]*)"')


@dataclass(frozen=True, kw_only=True)
class Spot:
    """A place in the trail: only what stands before it is looked at."""

    #: Of a file, as its name has it.
    day: str
    offset: int


@dataclass(frozen=True, kw_only=True)
class AuditWish:
    """What is wanted of the trail; what is empty asks for nothing."""

    #: A day, or a minute of it, in UTC as 2026-01-31 or 2026-01-31T13:05; both belong to it.
    first: str = ""
    last: str = ""
    #: How the user's or token's name begins.
    who: str = ""
    #: Of KINDS.
    kind: str = ""
    study: str = ""
    #: Only what was refused or went wrong.
    failed: bool = False
    before: Spot | None = None

    def needles(self) -> list[bytes]:
        """What the text of a line that fits must hold."""
        found = [b'EventOutcomeIndicator="4"'] if self.failed else []
        if self.who:
            found.append(f'UserID="{escape(self.who, {chr(34): "&quot;"})}'.encode())
        if self.study:
            found.append(f'ParticipantObjectID="{self.study}"'.encode())
        if self.kind:
            event = KINDS[self.kind][1]
            code = event.id if event.type is None else event.type
            found += [f'EventActionCode="{event.action}"'.encode(), f'csd-code="{code.value}"'.encode()]
        return found

    def is_when(self, line: bytes) -> bool:
        """Whether a line is of the time asked for."""
        found = _MOMENT.search(line)
        at = found[1].decode("ascii", "replace") if found else ""
        return at[: len(self.first)] >= self.first and (not self.last or at[: len(self.last)] <= self.last)


@dataclass(frozen=True, kw_only=True)
class AuditLine:
    """One thing that happened."""

    #: Seconds since 1970 UTC.
    at: float
    user: str
    address: str
    kind: str
    succeeded: bool
    description: str
    studies: Sequence[str]


@dataclass(frozen=True, kw_only=True)
class AuditPage:
    """What was found."""

    lines: Sequence[AuditLine]
    #: Where the next page begins; None: there is nothing before.
    older: Spot | None
    #: Whether the page ended because enough was looked at.
    broke_off: bool
    #: Lines that are no audit messages, such as one that a power cut left half-written.
    unreadable: int


@dataclass(kw_only=True)
class AuditLines:
    """Reads a folder of audit files, one a day."""

    folder: Path
    most_bytes: int = _MOST_BYTES
    block_bytes: int = _BLOCK_BYTES

    def page(self, wish: AuditWish, count: int = PAGE_LINES) -> AuditPage:
        """The newest lines that fit, and where to go on."""
        lines: list[AuditLine] = []
        left, unreadable = self.most_bytes, 0
        for spot, size, text in self._looked_at(wish):
            left -= size + 1
            if left < 0:
                return AuditPage(lines=lines, older=spot, broke_off=len(lines) < count, unreadable=unreadable)
            if not text or not wish.is_when(text):
                continue
            if len(lines) == count:
                return AuditPage(lines=lines, older=spot, broke_off=False, unreadable=unreadable)
            line = _line_of(text)
            unreadable += line is None or _begin_of(text) > text.find(_BEGIN)
            # Others than whoever did it are named in a message, too.
            if line and line.user.startswith(wish.who) and (not wish.kind or line.kind == KINDS[wish.kind][0]):
                lines.append(line)
        return AuditPage(lines=lines, older=None, broke_off=False, unreadable=unreadable)

    def _looked_at(self, wish: AuditWish) -> Iterator[tuple[Spot, int, bytes]]:
        """Whatever was looked at: the place behind it, its bytes, and, where it may fit, its line."""
        needles = wish.needles()
        for path in self._files(wish):
            with path.open("rb") as file:
                for offset, text in self._backwards(file, path.stem, wish.before, needles):
                    fits = all(needle in text for needle in needles) and b"\n" not in text
                    yield Spot(day=path.stem, offset=offset), len(text), text if fits else b""

    def _files(self, wish: AuditWish) -> list[Path]:
        """Those of the days asked for, the newest first."""
        days = sorted((path for path in self.folder.glob("*.xml") if _DAY.fullmatch(path.stem)), reverse=True)
        latest = min(filter(None, (wish.last[:10], wish.before.day if wish.before else "")), default="9999-99-99")
        return [path for path in days if wish.first[:10] <= path.stem <= latest]

    def _backwards(
        self, file: BinaryIO, day: str, before: Spot | None, needles: Sequence[bytes]
    ) -> Iterator[tuple[int, bytes]]:
        """The lines from the last on, each with the place behind it; a block that cannot fit comes whole."""
        size = file.seek(0, 2)
        end = min(size, before.offset) if before and before.day == day else size
        rest = b""
        while end > 0:
            start = max(0, end - self.block_bytes)
            file.seek(start)
            block, behind = file.read(end - start) + rest, end + len(rest)
            # What stands before the first end of a line belongs to one that began before.
            cut = (block.find(b"\n") + 1 or len(block)) if start else 0
            rest, block, end = block[:cut], block[cut:], start
            if any(needle not in block for needle in needles):
                yield behind, block
                continue
            first, last = behind - len(block), len(block)
            while last:
                at = block.rfind(b"\n", 0, last - 1) + 1
                yield first + last, block[at:last].rstrip(b"\n")
                last = at


def _line_of(text: bytes) -> AuditLine | None:
    """What a message says; None where it is none."""
    try:
        root = ElementTree.fromstring(text[_begin_of(text) :])
        event, who = root.find("EventIdentification"), root.find("ActiveParticipant")
        if event is None or who is None:
            return None
        at = datetime.fromisoformat(event.get("EventDateTime", "")).replace(tzinfo=UTC).timestamp()
    except (ElementTree.ParseError, ValueError):
        return None
    objects = root.findall("ParticipantObjectIdentification")
    return AuditLine(
        at=at,
        user=who.get("UserID", ""),
        address=who.get("NetworkAccessPointID", ""),
        kind=_kind_of(event),
        succeeded=event.get("EventOutcomeIndicator") == "0",
        description=event.findtext("EventOutcomeDescription", ""),
        studies=[
            one.get("ParticipantObjectID", "")
            for one in objects
            if _code(one, "ParticipantObjectIDTypeCode") == "110180"
        ],
    )


def _begin_of(text: bytes) -> int:
    """Where the message begins: before it may stand what a power cut left of another one."""
    return max(0, text.rfind(_BEGIN))


def _kind_of(event: ElementTree.Element) -> str:
    action, code = event.get("EventActionCode"), _code(event, "EventID")
    kind = _code(event, "EventTypeCode")
    for words, one in KINDS.values():
        if (one.action, one.id.value, one.type.value if one.type else "") == (action, code, kind):
            return words
    return "did something else"


def _code(element: ElementTree.Element, tag: str) -> str:
    found = element.find(tag)
    return "" if found is None else found.get("csd-code", "")
