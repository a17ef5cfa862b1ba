"""Whatever is posted, to whatever takes it, by whoever may: it is answered, and never as an error of the server."""

from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlencode

import pytest
from fastapi.routing import APIRoute
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dicom_node.core.access import Role
from dicom_node.settings import NodeSettings, Peer, Settings
from dicom_node.web.application import build_application
from dicom_node.web.doorkeeper import csrf_of
from dicom_node.web.server import WebServer
from tests.dicomweb_service import BOUNDARY, Service, dicom_file, multipart_body, serving
from tests.instances import STUDY_UID, ct_instance
from tests.room import NOW, Room
from tests.visitors import Person, session

# What pydicom says of broken values is no fault of ours.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:pydicom")

SETTINGS = {"deadline": None, "database": None, "suppress_health_check": list(HealthCheck)}

WHOLE = dicom_file(ct_instance(1))

#: Studies that are here, that are not, and what is no UID.
STUDIES = st.sampled_from([STUDY_UID, "1.2.3", "no-uid", "..", "9" * 65])

FIELDS = (
    *("number", "study", "attributes", "when", "priority", "reason", "safety", "user", "password", "next", "csrf"),
    *("name", "role", "no-password", "days", "scope-metrics"),
)
VALUES = st.one_of(
    st.text(max_size=30),
    st.sampled_from(
        [
            "STAT",
            "1",
            STUDY_UID,
            'Modality == "CT"',
            "Modality = CT\nInstances = 3",
            "(" * 200,
            "//x",
            "\x00",
            "an-admin",
            "ann",
            "reader",
        ]
    ),
)

#: Parts of a body: whole instances, broken ones, ones with some bytes changed, and anything.
PARTS = st.one_of(
    st.just(WHOLE),
    st.integers(0, len(WHOLE)).map(lambda end: WHOLE[:end]),
    st.tuples(st.integers(0, len(WHOLE) - 1), st.binary(min_size=1, max_size=8)).map(
        lambda change: WHOLE[: change[0]] + change[1] + WHOLE[change[0] + len(change[1]) :]
    ),
    st.binary(max_size=300),
)

KINDS = st.one_of(
    st.just(f'multipart/related; type="application/dicom"; boundary={BOUNDARY}'),
    st.sampled_from(
        [
            "multipart/related",
            f"multipart/related; boundary={BOUNDARY}",
            f'multipart/related; type="application/dicom+json"; boundary={BOUNDARY}',
            f"multipart/form-data; boundary={BOUNDARY}",
            "application/x-www-form-urlencoded",
            "application/dicom",
            "",
        ]
    ),
)


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    room = Room(tmp_path_factory.mktemp("room"))
    with serving(room) as service:
        yield service
    room.index.close()


@settings(max_examples=150, **SETTINGS)
@given(
    parts=st.lists(PARTS, max_size=4),
    kind=KINDS,
    study=st.one_of(st.none(), STUDIES),
    cut=st.integers(0, 60),
    before=st.binary(max_size=20),
)
def test_no_body_that_is_stored_is_an_error_of_the_server(
    service: Service, parts: list[bytes], kind: str, study: str | None, cut: int, before: bytes
) -> None:
    body = before + multipart_body(parts)
    path = "/studies" if study is None else f"/studies/{study}"
    answer = service.ask(path, method="POST", body=body[: len(body) - cut], Content_Type=kind)
    assert answer.status in {200, 202, 400, 404, 409, 415}, answer.body


class House:
    """The whole application over a room with one study."""

    def __init__(self, folder: Path) -> None:
        self.room = Room(folder)
        self.room.receive(1, 2)
        peer = Peer(name="pacs", ae_title="PACS", host="127.0.0.1", port=9, results=True)
        settings = Settings(node=NodeSettings(data_dir=folder), peers=(peer,))
        index, archive = self.room.index, self.room.archive
        self.application = build_application(
            index, dict, dict, lambda: NOW, settings=settings, archive=archive, echo=lambda _name: 0.01
        )
        self.server = WebServer(self.application, "127.0.0.1", 0)
        self.server.start()
        self.admin = Person(self.server.port, session(index, Role.ADMIN, at=NOW))

    def posts(self) -> list[str]:
        """The paths of everything that is posted to."""
        routes, found = list(self.application.routes), []
        while routes:
            route = routes.pop()
            routes += getattr(getattr(route, "original_router", None), "routes", ())
            if isinstance(route, APIRoute) and "POST" in (route.methods or ()):
                found.append(route.path)
        return sorted(found)


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    house = House(tmp_path_factory.mktemp("house"))
    yield house
    house.server.stop()
    house.room.index.close()


def test_every_deed_of_the_pages_is_among_those_that_are_tried(house: House) -> None:
    assert {"/search", "/rules", "/login", "/peers/{name}/echo", "/users/add", "/tokens/add"} < set(house.posts())
    assert {f"/studies/{{study_instance_uid}}/{word}" for word in ("requeue", "resend", "priority", "withdraw")} < set(
        house.posts()
    )


@settings(max_examples=250, **SETTINGS)
@given(
    number=st.integers(0, 100),
    study=STUDIES,
    fields=st.dictionaries(st.sampled_from(FIELDS), VALUES, max_size=5),
    with_token=st.booleans(),
    raw=st.one_of(st.none(), st.binary(max_size=200)),
)
def test_no_form_is_an_error_of_the_server(
    house: House, number: int, study: str, fields: dict[str, str], with_token: bool, raw: bytes | None
) -> None:
    # Whoever logs out asks nothing any more.
    paths = [path for path in house.posts() if path != "/logout"]
    path = paths[number % len(paths)].replace("{study_instance_uid}", study).replace("{name}", "pacs")
    if with_token:
        fields = {**fields, "csrf": csrf_of(house.admin.secret)}
    headers = {
        "Origin": f"http://127.0.0.1:{house.server.port}",
        "Content-Type": "application/x-www-form-urlencoded",
    }
    body = urlencode(fields, errors="surrogatepass") if raw is None else raw
    answer = house.admin.ask("POST", path, body, headers)
    assert answer.status < 500, (path, answer.status)
    if not with_token and path != "/login":
        assert answer.status in {303, 400, 403, 404, 405}, (path, answer.status)
