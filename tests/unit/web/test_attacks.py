"""Attacks that concern every page at once, and the list of all that were tried."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi import FastAPI
from fastapi.routing import APIRoute

from dicom_node.core.access import Role
from dicom_node.settings import NodeSettings, Settings
from dicom_node.web.application import build_application
from dicom_node.web.server import WebServer
from tests.instances import SERIES_UID, STUDY_UID, files_below, sop_uid
from tests.room import NOW, Room
from tests.visitors import Person, session

LIST = Path(__file__).parents[3] / "deploy" / "ATTACKS.md"

MARKUP = "<script>alert(1)</script>"

#: Texts of a header that any page might show.
TEXTS = {
    "PatientName": MARKUP,
    "PatientID": MARKUP,
    "StudyDescription": MARKUP,
    "SeriesDescription": MARKUP,
    "ProtocolName": MARKUP,
    "ReferringPhysicianName": MARKUP,
    "StationName": "<b>x</b>",
}

PATHS_OUT = (
    "../../secret",
    "..%2f..%2fsecret",
    "%2e%2e%2f%2e%2e%2fsecret",
    "/secret",
    "..\\..\\secret",
    "file:///secret",
)


def test_every_attack_of_the_list_names_a_test_and_each_kind_has_one() -> None:
    text = LIST.read_text(encoding="utf-8")
    tests = "".join(path.read_text(encoding="utf-8") for path in Path(__file__).parent.glob("test_*.py"))
    rows = [line for line in text.splitlines() if line.startswith("| ") and "---" not in line][1:]
    assert len(rows) > 25
    for row in rows:
        named = re.findall(r"`(test_\w+)`", row)
        assert named, row
        for name in named:
            assert f"def {name}(" in tests, name
    for kind in ("Stored XSS", "CSRF", "Path traversal", "Session fixation", "Header injection", "rule expression"):
        assert kind in text
    assert "Oversized" in text
    assert "Slow body" in text


class House:
    """The whole application over a room whose one study has markup in its texts, and a secret beside its data."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "secret").write_text("the secret")
        self.room = Room(folder / "node" / "data")
        self.room.receive(1, 2, **TEXTS)
        settings = Settings(node=NodeSettings(data_dir=self.room.folder))
        index, archive = self.room.index, self.room.archive
        self.application: FastAPI = build_application(
            index, dict, dict, lambda: NOW, settings=settings, archive=archive
        )
        self.server = WebServer(self.application, "127.0.0.1", 0)
        self.server.start()
        self.admin = Person(self.server.port, session(index, Role.ADMIN, at=NOW))

    def close(self) -> None:
        self.server.stop()
        self.room.index.close()


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    folder = tmp_path_factory.mktemp("house")
    (folder / "node" / "data").mkdir(parents=True)
    house = House(folder)
    yield house
    house.close()


def addresses(application: FastAPI, **parameters: str) -> list[str]:
    """Every address that answers a page, its parameters filled in, and one with each in its query."""
    known = {"study_instance_uid": STUDY_UID, "series_instance_uid": SERIES_UID, "sop_instance_uid": sop_uid(1)}
    found = []
    for path in sorted(_paths(application)):
        found.append(re.sub(r"{(\w+)(?::path)?}", lambda m: {**known, **parameters}.get(m[1], "1"), path))
    return found


def _paths(application: FastAPI) -> set[str]:
    routes, found = list(application.routes), set()
    while routes:
        route = routes.pop()
        routes += getattr(getattr(route, "original_router", None), "routes", ())
        if isinstance(route, APIRoute) and "GET" in (route.methods or ()):
            found.add(route.path)
    return found


def test_texts_of_a_received_header_become_no_markup_on_any_page(house: House) -> None:
    paths = addresses(house.application)
    assert f"/studies/{STUDY_UID}" in paths
    pages = 0
    for path in [*paths, "/?hours=720", f"/rules?study={STUDY_UID}"]:
        if path == "/events":
            continue
        answer = house.admin.get(path)
        if answer.headers.get_content_type() == "text/html":
            pages += 1
            assert MARKUP not in answer.text, path
            assert "<b>x</b>" not in answer.text, path
    assert pages >= 5
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in house.admin.get(f"/studies/{STUDY_UID}").text


@pytest.mark.parametrize("out", PATHS_OUT)
def test_a_path_in_any_parameter_of_any_address_leads_nowhere(house: House, out: str) -> None:
    before = files_below(house.folder)
    templates = [path for path in sorted(_paths(house.application)) if "{" in path]
    assert len(templates) > 5
    tried = [re.sub(r"{\w+(?::path)?}", lambda _: out, path) for path in templates]
    names = ("study", "accession", "urgency", "state", "page", "hours", "next", "echo", "window", "renewal", "accept")
    tried += [f"{path}?{name}={out}" for path in ("/", "/queue", "/rules", "/login") for name in names]
    tried += [f"/studies/{STUDY_UID}/slices/{sop_uid(1)}?window={out}", f"/static/{out}", f"/viewer/{out}"]
    tried += [f"/dicomweb/studies?{name}={out}" for name in ("PatientID", "includefield", "limit", "accept")]
    for path in tried:
        answer = house.admin.get(path)
        assert answer.status < 500, path
        assert "the secret" not in answer.text, path
    assert files_below(house.folder) == before
