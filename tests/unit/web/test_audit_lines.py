"""The audit trail read back: newest first, whole, by time, who and what, and quickly however long it is."""

import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dicom_node.audit import CHANGED, LOGIN, QUERIED, SEEN, USERS_CHANGED, AuditFile, AuditTrail, Event, Happening
from dicom_node.web.audit_lines import KINDS, AuditLines, AuditPage, AuditWish

#: 2024-02-29T10:15:00Z.
NOW = 1709201700.0
DAY = 86400.0


def note(folder: Path, at: float, user: str = "ann", event: Event = SEEN, **facts: object) -> None:
    trail = AuditTrail([AuditFile(folder)], source="TRIAGE")
    trail.note(Happening(event=event, at=at, user=user, **facts))  # type: ignore[arg-type]  # by name


def whole(lines: AuditLines, wish: AuditWish, count: int) -> list[AuditPage]:
    """Every page to the end."""
    pages = [lines.page(wish, count)]
    while (older := pages[-1].older) is not None:
        asked = {name: getattr(wish, name) for name in ("first", "last", "who", "kind", "study", "failed")}
        pages.append(lines.page(AuditWish(**asked, before=older), count))
    return pages


@pytest.fixture(scope="module")
def busy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three days of a few people."""
    folder = tmp_path_factory.mktemp("audit")
    for number in range(30):
        note(folder, NOW - 2 * DAY + number * 5500, f"user-{number % 3}", studies=[f"1.2.{number}"])
    note(folder, NOW + 60, "eve", LOGIN, succeeded=False, description="wrong user or password", address="10.0.0.9")
    note(folder, NOW + 61, "an-admin", USERS_CHANGED, description="user <ann> & co removed")
    return folder


def test_what_was_noted_is_read_back_newest_first(busy: Path) -> None:
    page = AuditLines(folder=busy).page(AuditWish())
    assert [line.at for line in page.lines] == sorted((line.at for line in page.lines), reverse=True)
    assert (len(page.lines), page.older, page.unreadable) == (32, None, 0)
    first, second, third = page.lines[:3]
    assert (first.user, first.kind, first.description) == (
        "an-admin",
        "changed users or tokens",
        "user <ann> & co removed",
    )
    assert (second.succeeded, second.address, second.kind) == (False, "10.0.0.9", "logged in")
    assert (third.kind, list(third.studies)) == ("saw a study", ["1.2.29"])


@pytest.mark.parametrize(
    ("wish", "count"),
    [
        (AuditWish(who="user-1"), 10),
        (AuditWish(who="user-"), 30),
        (AuditWish(kind="login"), 1),
        (AuditWish(kind="changed"), 0),
        (AuditWish(failed=True), 1),
        (AuditWish(study="1.2.7"), 1),
        (AuditWish(first="2024-02-29T10:16"), 2),
        (AuditWish(last="2024-02-27"), 9),
        (AuditWish(first="2024-02-28", last="2024-02-28"), 16),
        (AuditWish(last="2024-02-27T10:15"), 1),
        (AuditWish(who='a"<b'), 0),
    ],
)
def test_it_is_filtered(busy: Path, wish: AuditWish, count: int) -> None:
    assert len(AuditLines(folder=busy).page(wish).lines) == count


@settings(deadline=None, database=None, suppress_health_check=list(HealthCheck), max_examples=25)
@given(count=st.integers(1, 12), block=st.integers(1, 3000), who=st.sampled_from(["", "user-2", "eve", "nobody"]))
def test_pages_hold_every_line_once_however_files_are_cut(busy: Path, count: int, block: int, who: str) -> None:
    lines = AuditLines(folder=busy, block_bytes=block)
    pages = whole(lines, AuditWish(who=who), count)
    found = [line for page in pages for line in page.lines]
    assert found == list(AuditLines(folder=busy).page(AuditWish(who=who)).lines)
    assert all(len(page.lines) == count for page in pages[:-1])
    assert not any(page.broke_off for page in pages)


def test_where_too_much_is_looked_at_it_says_so_and_goes_on(busy: Path) -> None:
    lines = AuditLines(folder=busy, most_bytes=4000, block_bytes=1000)
    pages = whole(lines, AuditWish(who="user-0"), 10)
    assert pages[0].broke_off
    assert len([line for page in pages for line in page.lines]) == 10


def test_what_a_power_cut_left_is_counted_and_hides_nothing(tmp_path: Path) -> None:
    note(tmp_path, NOW)
    path = tmp_path / "2024-02-29.xml"
    path.write_text(path.read_text() + "<AuditMessage><EventIden")
    # What comes next is written behind what is left, in one line with it.
    note(tmp_path, NOW)
    path.write_text(path.read_text() + "<Audit")
    page = AuditLines(folder=tmp_path).page(AuditWish())
    assert (len(page.lines), page.unreadable) == (2, 2)
    assert AuditLines(folder=tmp_path / "none").page(AuditWish()) == AuditPage(
        lines=[], older=None, broke_off=False, unreadable=0
    )


def test_every_kind_is_told_from_the_others(tmp_path: Path) -> None:
    for number, (_, event) in enumerate(KINDS.values()):
        note(tmp_path, NOW + number, event=event)
    for word, (words, _) in KINDS.items():
        assert [line.kind for line in AuditLines(folder=tmp_path).page(AuditWish(kind=word)).lines] == [words]


def test_a_page_of_a_hundred_thousand_lines_is_there_at_once(tmp_path: Path) -> None:
    note(tmp_path, NOW, "one", QUERIED)
    note(tmp_path, NOW, "many", CHANGED, description="read again", studies=["1.2.826.0.1.3680043.10.1"])
    path = tmp_path / "2024-02-29.xml"
    first, other = path.read_text().splitlines(keepends=True)
    path.write_text(first + other * 100_000)
    lines = AuditLines(folder=tmp_path)
    for wish, count in ((AuditWish(), 100), (AuditWish(who="one"), 1), (AuditWish(who="many"), 100)):
        began = time.process_time()
        page = lines.page(wish)
        assert len(page.lines) == count
        # Of this process alone: the machine may be busy.
        assert time.process_time() - began < 2.0
    assert page.older is not None
