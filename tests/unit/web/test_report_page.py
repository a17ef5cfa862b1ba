"""The page of a structured report: what was taken back or replaced says so before anything else."""

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from pydicom import Dataset, dcmread

from dicom_node.archive.files import Archive
from dicom_node.archive.index import Index
from dicom_node.core.access import Role
from dicom_node.settings import NodeSettings, Settings
from dicom_node.web.application import build_application
from dicom_node.web.server import WebServer
from tests.populated_index import NOW
from tests.read_study import read_study
from tests.visitors import Answer, Person, session

FINDING = "nodule"


class House:
    """A served application over one read study."""

    def __init__(self, folder: Path) -> None:
        self.index, self.archive = Index.open(f"sqlite:///{folder / 'index.sqlite'}"), Archive(folder / "archive")
        self.study = read_study(self.index, self.archive, folder / "series", at=NOW - 500)
        settings = Settings(node=NodeSettings(data_dir=folder))
        application = build_application(self.index, dict, dict, lambda: NOW, settings=settings, archive=self.archive)
        self.server = WebServer(application, "127.0.0.1", 0)
        self.server.start()
        self.person = Person(self.server.port, session(self.index, Role.OPERATOR))
        (self.report,) = self.index.reports.kept(self.study)

    def page(self) -> Answer:
        return self.person.get(f"/studies/{self.study}/report/{self.report.sop_instance_uid}")

    def change(self, table: str, **values: object) -> None:
        with self.index.transactions.write() as connection:
            connection.execute(sa.update(self.index.transactions.tables[table]).values(**values))


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    built = House(tmp_path)
    yield built
    built.server.stop()
    built.index.close()


def test_the_study_page_tells_what_scores_depended_on_where_that_is_known(house: House) -> None:
    text = house.person.get(f"/studies/{house.study}").text
    assert text.count("<li>Nodule 1: score 0.91; without what is outlined 0.12.</li>") == 1
    assert text.count("scores depended on") == 1


def test_a_withdrawn_report_says_so_when_and_why_before_anything_else(house: House) -> None:
    before = house.page()
    assert (before.status, FINDING in before.text.lower(), "WITHDRAWN" in before.text) == (200, True, False)
    outlined = [one["findings"] for one in _slices(house)]
    assert any(outlined)
    preview = house.person.ask("GET", f"/studies/{house.study}/preview.png")
    house.index.withdrawals.withdraw(house.study, safety=True, reason="wrong <lung>", actor="user ann", at=NOW - 7)
    text = house.page().text
    assert text.index("WITHDRAWN") < text.index("<h1>")
    assert "for the safety of the patient: wrong &lt;lung&gt;" in text
    assert "Not valid: " in text
    assert "(withdrawn)" in house.person.get(f"/studies/{house.study}").text
    assert not any(one["findings"] for one in _slices(house))
    after = house.person.ask("GET", f"/studies/{house.study}/preview.png")
    assert after.headers["ETag"] != preview.headers["ETag"]
    assert after.headers["Cache-Control"] == "private, no-cache"


def test_what_was_found_stands_before_what_follows_from_it_and_how_it_is_known(house: House) -> None:
    text = house.page().text
    places = [text.index(words) for words in ("Not for diagnosis", "Findings", "Size", "Assessment", "Method and prov")]
    assert places == sorted(places)
    row = text[text.index('<th scope="row">Nodule 2') :].partition("</tr>")[0]
    assert [words for words in (" × ", " mm, mean ", " mm³", "Left Lung", " HU", " %") if words not in row] == []


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda house: house.change("reports", replaced_at=NOW - 3), "REPLACED"),
        (lambda house: house.change("jobs", current=False), "NO LONGER CURRENT"),
    ],
    ids=["replaced", "no longer current"],
)
def test_a_report_that_stands_no_more_says_so_first(house: House, change: Callable[[House], None], words: str) -> None:
    change(house)
    text = house.page().text
    assert text.index(words) < text.index("<h1>")
    assert "Not valid: " in text


def grown(house: House, *more: Dataset) -> str:
    """The page of the report with these items before its own."""
    path = house.archive.path_of(house.report.path)
    ds = dcmread(path)
    ds.ContentSequence = [*more, *ds.ContentSequence]
    os.chmod(path, 0o600)
    ds.save_as(path)
    return house.page().text


def item(kind: str, *below: Dataset) -> Dataset:
    ds = Dataset()
    ds.RelationshipType, ds.ValueType = "CONTAINS", kind
    if below:
        ds.ContentSequence = list(below)
    return ds


@pytest.mark.parametrize("kind", ["SCOORD", "SCOORD3D"])
def test_outlines_without_number_leave_no_finding_out(house: House, kind: str) -> None:
    before = house.page().text
    text = grown(house, item("CONTAINER", *(item(kind, item("IMAGE")) for _ in range(3000))))
    assert "NOT THE WHOLE REPORT" not in text
    shown = [words for words in ("Nodule 1", "Nodule 2", "Assessment") if text.count(words) != before.count(words)]
    assert shown == []


def deep(levels: int) -> Dataset:
    return item("CONTAINER", deep(levels - 1)) if levels else item("TEXT")


@pytest.mark.parametrize(
    "more",
    [
        lambda: [item("TEXT") for _ in range(5000)],
        lambda: [item("CONTAINER", *(item("TEXT") for _ in range(5000)))],
        lambda: [item("SCOORD") for _ in range(101)],
        lambda: [deep(12)],
    ],
    ids=["many items", "many items below one", "too many outlines", "too deep"],
)
def test_a_report_that_goes_on_is_said_to_be_cut_before_anything_else(
    house: House, monkeypatch: pytest.MonkeyPatch, more: Callable[[], list[Dataset]]
) -> None:
    assert "NOT THE WHOLE REPORT" not in house.page().text
    monkeypatch.setattr("dicom_node.web.report_text._MOST_OUTLINES", 100)
    text = grown(house, *more())
    assert text.index("NOT THE WHOLE REPORT") < text.index("<h1>")
    assert "No finding is measured" not in text


@pytest.mark.parametrize(
    "data", [b"", b"broken" * 100, b"\0" * 128 + b"DICM" + b"\x02\0\0\0UL\x04\0\xff\xff\xff\xff" * 9]
)
def test_a_damaged_report_is_said_to_be_one(house: House, data: bytes) -> None:
    path = house.archive.path_of(house.report.path)
    os.chmod(path, 0o600)
    path.write_bytes(data)
    answer = house.page()
    assert (answer.status, "damaged" in answer.text) == (404, True)


def _slices(house: House) -> list[dict]:
    series = house.index.studies.study(house.study).series[0].series_instance_uid
    return json.loads(house.person.get(f"/studies/{house.study}/series/{series}/slices").text)
