import io
from pathlib import Path

import pytest

from dicom_node.archive.index import Index
from dicom_node.archive.overview import read_overview, read_study
from dicom_node.terminal import print_overview, print_study, print_table
from tests.populated_index import NOW, WORKERS, open_populated, study_uid, uid


class Screen(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Index:
    """A busy morning; no test changes it."""
    return open_populated(tmp_path_factory.mktemp("index"))


def test_a_piped_overview_has_no_colours_and_every_uid_whole(index: Index) -> None:
    pipe = io.StringIO()
    overview = read_overview(index, NOW)
    print_overview(overview, pipe)
    text = pipe.getvalue()
    assert "\x1b" not in text
    for study in overview.studies:
        assert study.study_instance_uid in text
        assert str(study.state) in text
    for delivery in overview.deliveries:
        assert delivery.sop_instance_uid in text
    assert "slices are missing between 33.0 mm and 38.0 mm along the normal; send the series again whole" in text


def test_a_narrow_terminal_cuts_no_uid(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setenv("TERM", "dumb")
    screen = Screen()
    detail = read_study(index, study_uid("delivered 1"), NOW)
    print_study(detail, screen)
    text = screen.getvalue()
    for line in detail.series:
        assert line.series_instance_uid in text
    for kind in ("seg", "sr"):
        assert uid(kind, "delivered 1") in text
    assert "…" not in text


def test_the_overview_tells_queues_and_workers_and_who_is_silent(index: Index) -> None:
    pipe = io.StringIO()
    print_overview(read_overview(index, NOW), pipe)
    rows = {line.split()[0]: line for line in pipe.getvalue().splitlines() if line.strip()}
    assert rows["urgent"].split() == ["urgent", "1", "0", "1", "min", "15", "s"]
    assert "SILENT" in rows[WORKERS[2]]
    assert "SILENT" not in rows[WORKERS[0]]


def test_a_node_without_workers_says_so(tmp_path: Path) -> None:
    pipe = io.StringIO()
    print_overview(read_overview(Index.open(f"sqlite:///{tmp_path / 'index.sqlite'}"), NOW), pipe)
    assert "No worker: jobs wait until one starts." in pipe.getvalue()
    assert "Studies at 2024-02-29T10:15:00Z: none" in pipe.getvalue()


def test_a_study_tells_its_history_and_its_result(index: Index) -> None:
    pipe = io.StringIO()
    print_study(read_study(index, study_uid("delivered 1"), NOW), pipe)
    text = pipe.getvalue()
    for words in ("the first instance arrived", "3 nodules, the largest 11.4 mm", "CHEST 1.0 LUNG", "lung_nodule"):
        assert words in text


def test_a_table_of_findings_aligns_numbers_at_the_right_and_shows_brackets_as_they_are() -> None:
    pipe = io.StringIO()
    print_table("Findings", ("number", "site", "volume mm3"), [(1, "[red]Lung[/red]", 712.5), (12, "", 9)], pipe)
    title, heading, first, second = (line.rstrip() for line in pipe.getvalue().rstrip().splitlines())
    assert title == "Findings"
    assert heading.split() == ["number", "site", "volume", "mm3"]
    assert first.split() == ["1", "[red]Lung[/red]", "712.5"]
    assert second.split() == ["12", "-", "9"]
    assert len(first) == len(second)
