"""The reading worklist: what is shown of whom, how it is found, and how it stays current."""

import http.client
import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from dicom_node.archive.index import Index
from dicom_node.core.access import Role
from dicom_node.core.priority import Priority
from dicom_node.keying import key_of
from dicom_node.settings import Settings, WebSettings
from dicom_node.web.application import build_application
from dicom_node.web.reading import study_links
from dicom_node.web.server import WebServer
from tests.populated_index import (
    NOW,
    claim,
    complete,
    deliver,
    instance,
    objects,
    queue,
    receive,
    report,
    study_uid,
    summary,
)
from tests.visitors import Person, session

KEY = b"key"


@pytest.fixture
def index(tmp_path: Path) -> Iterator[Index]:
    """Six studies of one morning."""
    index = Index.open(f"sqlite:///{tmp_path / 'index.sqlite'}")
    report(index, "found", at=NOW - 300, findings=2)
    report(index, "nothing", at=NOW - 1200, findings=0)
    queue(index, "stat", at=NOW - 100, priority=Priority.STAT)
    complete(index, "old", at=NOW - 18_000)
    receive(index, "arriving", at=NOW - 5)
    report(index, "yesterday", at=NOW - 100_000, findings=1)
    yield index
    index.close()


@pytest.fixture
def person(index: Index) -> Iterator[Person]:
    settings = Settings(web=WebSettings(study_link="https://pacs.example/open?uid={study}"))
    server = WebServer(build_application(index, dict, dict, lambda: NOW, settings=settings, key=KEY), "127.0.0.1", 0)
    server.start()
    yield Person(server.port, session(index, Role.READER))
    server.stop()


def shown(text: str) -> list[str]:
    """The studies of a page, in its order, by name."""
    names = {study_uid(name): name for name in ("found", "nothing", "stat", "old", "arriving", "yesterday")}
    return [names.get(uid, uid) for uid in re.findall(r'data-study="([^"]+)"', text)]


def test_what_is_urgent_is_first_then_who_waits_longest(person: Person) -> None:
    assert shown(person.get("/").text) == ["stat", "old", "found", "nothing", "arriving"]


def test_a_line_says_why_since_when_and_that_it_is_no_diagnosis(person: Person) -> None:
    text = person.get("/").text
    line = text[text.index(study_uid("found")) :]
    line = line[: line.index("</li>")]
    for words in (
        "2 nodules, the largest 11.4 mm",
        "ACR Category 3 Actionable Finding",
        "AI result, not for diagnosis",
        "last image 5 min 11 s ago",
        f"/studies/{study_uid('found')}/preview.png",
        f"https://pacs.example/open?uid={study_uid('found')}",
    ):
        assert words in line
    assert "1 job for lung_nodule" in text, "what is not read yet says what it waits for"
    assert text.count("waits for over 4 h") == 1, "and what stands high for its waiting alone says so"
    assert "waits for over 4 h" in text[text.index(study_uid("old")) :].partition("</li>")[0]


@pytest.mark.parametrize(
    ("query", "names"),
    [
        ("urgency=actionable", ["old", "found"]),
        ("urgency=routine", ["nothing", "arriving"]),
        ("urgency=critical", ["stat"]),
        ("hours=72", ["stat", "yesterday", "old", "found", "nothing", "arriving"]),
        ("state=RECEIVING", ["arriving"]),
        ("hours=-1&urgency=x&page=x&state=y&study=%27", ["stat", "old", "found", "nothing", "arriving"]),
        (f"study={study_uid('yesterday')}", ["yesterday"]),
        ("study=9.9.9", []),
    ],
)
def test_the_list_can_be_filtered(person: Person, query: str, names: list[str]) -> None:
    assert shown(person.get(f"/?{query}").text) == names
    assert shown(person.get(f"/worklist?{query}").text) == names


@pytest.mark.parametrize(
    "headers", [{"Sec-Fetch-Mode": "navigate"}, {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}]
)
def test_who_opens_the_list_by_hand_is_led_to_its_page(person: Person, headers: dict[str, str]) -> None:
    answer = person.ask("GET", "/worklist?hours=72&state=FAILED", headers=headers)
    assert (answer.status, answer.headers["Location"]) == (303, "/?hours=72&state=FAILED")
    assert person.ask("GET", "/worklist", headers={"Accept": "text/html", "Sec-Fetch-Mode": "cors"}).status == 200


def test_an_accession_number_is_found_by_its_hash_and_stands_in_no_address(person: Person, index: Index) -> None:
    index.study_keys.keep({study_uid("yesterday"): (key_of("ACC 4711", KEY), "")})
    answer = person.post("/search", {"number": " ACC 4711 "})
    assert answer.status == 303
    assert "4711" not in answer.headers["Location"]
    assert shown(person.get(answer.headers["Location"]).text) == ["yesterday"]
    assert shown(person.get(person.post("/search", {"number": "ACC"}).headers["Location"]).text) == []
    by_uid = person.post("/search", {"number": study_uid("stat")})
    elsewhere = person.get(f"{by_uid.headers['Location']}&urgency=routine").text
    assert shown(elsewhere) == []
    assert "Nothing that has this number is routine" in elsewhere
    assert shown(person.get(by_uid.headers["Location"]).text) == ["stat"]


def test_a_withdrawn_result_is_no_flag_and_shows_no_finding(person: Person, index: Index) -> None:
    deliver(index, "found", at=NOW - 200)
    index.withdrawals.withdraw(study_uid("found"), safety=False, reason="wrong lung", actor="x", at=NOW - 100)
    text = person.get("/").text
    assert shown(text) == ["stat", "old", "nothing", "found", "arriving"]
    assert "preview.png" not in text
    assert "2 nodules" not in text


def test_a_description_of_a_study_cannot_become_markup(person: Person, index: Index) -> None:
    sly = "<img src=x onerror=alert(1)>"
    attributes = {"Modality": "CT", "StudyDescription": sly, "SeriesDescription": sly}
    index.studies.add_instance(instance("sly", 1, at=NOW, attributes=attributes, calling_ae_title='"><script>'))
    for path in ("/", "/worklist", f"/studies/{study_uid('sly')}", "/overview"):
        text = person.get(path).text
        assert "<img src=x" not in text
        assert '"><script>' not in text


def test_pages_of_the_list_have_fifty_studies_and_every_study_is_on_one(person: Person, index: Index) -> None:
    for number in range(60):
        receive(index, f"many {number}", at=NOW - 1000 - number, instances=1)
    first, second = (re.findall(r'data-study="([^"]+)"', person.get(f"/?page={page}").text) for page in (1, 2))
    assert (len(first), len(second)) == (50, 15)
    assert not set(first) & set(second)
    assert re.findall(r'data-study="([^"]+)"', person.get("/?page=99").text) == second


def test_a_change_is_told_to_who_watches(person: Person, index: Index) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", person.port, timeout=20)
    try:
        connection.request("GET", "/events", headers={"Cookie": f"session={person.secret}"})
        stream = connection.getresponse()
        assert stream.headers["Content-Type"].startswith("text/event-stream")

        def next_event() -> str:
            while not (line := stream.readline().decode()).startswith("data:"):
                assert line
            return line

        first = next_event()
        receive(index, "new", at=NOW)
        assert next_event() != first
    finally:
        connection.close()


def test_who_watches_does_not_hold_up_the_end(index: Index) -> None:
    server = WebServer(build_application(index, dict, dict, lambda: NOW), "127.0.0.1", 0)
    server.start()
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
    try:
        connection.request("GET", "/events", headers={"Cookie": f"session={session(index)}"})
        connection.getresponse().readline()
        began = time.monotonic()
        server.stop()
        assert time.monotonic() - began < 4
    finally:
        connection.close()


def test_a_study_opens_where_the_settings_say_or_in_the_viewer_that_is_here(tmp_path: Path) -> None:
    unsaid = WebSettings(viewer_dir=tmp_path)
    said = WebSettings(viewer_dir=tmp_path, study_link="https://pacs.example/open?uid={study}")
    assert study_links(unsaid)("1.2") == ""
    assert study_links(said)("1.2") == "https://pacs.example/open?uid=1.2"
    (tmp_path / "index.html").touch()
    assert study_links(unsaid)("1.2") == "/viewer/viewer?StudyInstanceUIDs=1.2"
    assert study_links(said)("1.2") == "https://pacs.example/open?uid=1.2"


@pytest.mark.parametrize(
    "folder",
    # A name that is too long stands for a closed folder: nobody is kept from looking who runs this as root.
    [Path("/srv") / ("x" * 300), Path("~nobody-has-this-name/viewer")],
    ids=["it may not be looked into", "there is no home"],
)
def test_pages_are_there_though_the_folder_of_the_viewer_cannot_be_looked_into(index: Index, folder: Path) -> None:
    settings = Settings(web=WebSettings(viewer_dir=folder))
    server = WebServer(build_application(index, dict, dict, lambda: NOW, settings=settings, key=KEY), "127.0.0.1", 0)
    server.start()
    try:
        reader = Person(server.port, session(index, Role.READER))
        for path in ("/", "/worklist", f"/studies/{study_uid('found')}"):
            answer = reader.get(path)
            assert (answer.status, "/viewer/viewer" in answer.text) == (200, False)
        assert len(shown(reader.get("/").text)) == 5
    finally:
        server.stop()


def test_it_is_looked_once_a_page_whether_the_viewer_is_there(tmp_path: Path) -> None:
    (tmp_path / "index.html").touch()
    link = study_links(WebSettings(viewer_dir=tmp_path))
    (tmp_path / "index.html").unlink()
    assert link("1.2") == "/viewer/viewer?StudyInstanceUIDs=1.2"


ROW = {
    "number": 1,
    "finding": "Nodule",
    "site": "Lung",
    "laterality": "Left",
    "long_axis_mm": 10.2,
    "short_axis_mm": 9.8,
    "volume_mm3": 520,
    "mean_hu": 30,
    "score": 0.9,
}


def read_with(index: Index, name: str, *rows: dict[str, object]) -> str:
    """A study that was read, with these rows of findings."""
    job = queue(index, name, at=NOW - 60)
    told = {**summary(len(rows)), "rows": [{**ROW, **row, "number": n} for n, row in enumerate(rows, start=1)]}
    index.jobs.report(claim(index, job, at=NOW - 50), objects(name), summary=told, at=NOW - 40)
    return study_uid(name)


def test_the_study_page_shows_what_became_of_findings_since_an_earlier_study(person: Person, index: Index) -> None:
    grown = {
        "name": "Nodule 3",
        "change": "increased",
        "prior_diameter_mm": 8.0,
        "mean_diameter_mm": 10.0,
        "prior_days": 91.0,
        "doubling_days": 95,
    }
    study = read_with(index, "followed", grown, {"name": "Nodule 4", "change": "not marked then"}, {})
    text = person.get(f"/studies/{study}").text
    assert "8.0 mm 91 days before, 10.0 mm now" in text
    assert "increased, doubled in 95 days" in text
    assert "not marked then" in text
    assert "Nodule 3" in text
    assert "another version" not in text


def test_the_study_page_says_that_a_size_was_measured_otherwise_then(person: Person, index: Index) -> None:
    caveat = "another version of this software measured it then"
    sizes = {"prior_diameter_mm": 9.3, "mean_diameter_mm": 32.1, "prior_days": 91.0, "doubling_days": None}
    grown, other = {"change": "increased", "caveat": caveat}, {"change": "not compared", "caveat": caveat}
    text = person.get(f"/studies/{read_with(index, 'otherwise', {**grown, **sizes}, {**other, **sizes})}").text
    assert f"increased <small>{caveat}</small>" in text
    assert f"not compared <small>{caveat}</small>" in text
    assert "doubled in" not in text


def test_without_an_earlier_study_the_page_says_nothing_of_one(person: Person, index: Index) -> None:
    text = person.get(f"/studies/{read_with(index, 'alone', {})}").text
    assert "Long axis mm" in text
    assert "then, now" not in text
