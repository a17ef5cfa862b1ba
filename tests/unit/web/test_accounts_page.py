"""The pages of users and tokens and of the audit trail: for admins alone, each change once and in the trail."""

import re
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Event
from typing import Any
from urllib.parse import urlencode

import pytest
from starlette.types import Receive

from dicom_node.archive.index import Index
from dicom_node.audit import USERS_CHANGED, AuditFile, AuditTrail, Happening
from dicom_node.core.access import Role, Scope
from dicom_node.credentials import Passwords
from dicom_node.settings import NodeSettings, Settings
from dicom_node.web.application import build_application
from dicom_node.web.doorkeeper import csrf_of
from dicom_node.web.form_body import whole_form
from dicom_node.web.server import WebServer
from tests.populated_index import NOW, study_uid
from tests.visitors import Answer, Person, session


class Office:
    """A served node with its trail in files."""

    def __init__(self, folder: Path) -> None:
        self.index = Index.open(f"sqlite:///{folder / 'index.sqlite'}")
        self.folder = folder / "audit"
        audit = AuditTrail([AuditFile(self.folder)], source="TRIAGE")
        settings = Settings(node=NodeSettings(data_dir=folder))
        self.application = build_application(self.index, dict, dict, lambda: NOW, settings=settings, audit=audit)
        self.server = WebServer(self.application, "127.0.0.1", 0)
        self.server.start()

    def close(self) -> None:
        self.server.stop()
        self.index.close()

    def person(self, role: Role = Role.ADMIN) -> Person:
        return Person(self.server.port, session(self.index, role))

    def trail(self) -> str:
        return "".join(path.read_text() for path in self.folder.glob("*.xml"))


@pytest.fixture
def office(tmp_path: Path) -> Iterator[Office]:
    office = Office(tmp_path)
    yield office
    office.close()


@pytest.fixture(scope="module")
def quiet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Office]:
    """One that nobody may change: for what is refused."""
    office = Office(tmp_path_factory.mktemp("office"))
    yield office
    assert office.index.tokens.rows() == []
    office.close()


def secret_of(answer: Answer) -> str:
    """What is shown once."""
    assert answer.status == 200
    assert answer.headers["Cache-Control"] == "no-store"
    found = re.search(r"<code[^>]*>([^<]+)</code>", answer.text)
    assert found is not None
    return found[1]


def test_a_user_is_made_with_a_password_that_is_shown_once_and_logs_in(office: Office) -> None:
    admin = office.person()
    password = secret_of(admin.post("/users/add", {"name": "ann", "role": "operator"}))
    assert password not in admin.get("/users").text
    answer = Person(office.server.port).post("/login", {"user": "ann", "password": password})
    assert answer.status == 303
    row = office.index.users.find("ann")
    assert row is not None
    assert (row.role, row.disabled) == (Role.OPERATOR, False)
    assert "user ann added with the role operator" in office.trail()
    assert password not in office.trail()


def test_a_user_without_a_password_is_made_for_the_identity_provider(office: Office) -> None:
    answer = office.person().post("/users/add", {"name": "ann@example.org", "role": "reader", "no-password": "1"})
    assert (answer.status, answer.headers["Location"]) == (303, "/users#user-ann@example.org")
    row = office.index.users.find("ann@example.org")
    assert row is not None
    assert row.password == ""


def test_whoever_is_disabled_comes_in_by_nothing_until_he_is_enabled(office: Office) -> None:
    admin, reader = office.person(), office.person(Role.READER)
    password = secret_of(admin.post("/users/password", {"name": "an-reader"}))
    stranger = Person(office.server.port)
    reader = office.person(Role.READER)
    link = office.index.sessions.make_entry("an-reader", expires_at=NOW + 900)
    assert admin.post("/users/disable", {"name": "an-reader"}).status == 303
    assert reader.get("/").status == 303
    assert stranger.post("/login", {"user": "an-reader", "password": password}).status == 401
    assert stranger.get(f"/enter/{link}").status == 401
    assert "disabled" in admin.get("/users").text
    assert admin.post("/users/enable", {"name": "an-reader"}).status == 303
    assert stranger.post("/login", {"user": "an-reader", "password": password}).status == 303


def test_a_role_and_a_password_are_changed_and_end_the_sessions(office: Office) -> None:
    admin, reader = office.person(), office.person(Role.READER)
    assert admin.post("/users/role", {"name": "an-reader", "role": "operator"}).status == 303
    assert reader.get("/").status == 303
    row = office.index.users.find("an-reader")
    assert row is not None
    assert row.role is Role.OPERATOR
    password = secret_of(admin.post("/users/password", {"name": "an-reader"}))
    row = office.index.users.find("an-reader")
    assert row is not None
    assert Passwords().fits(password, row.password)
    assert admin.post("/users/remove", {"name": "an-reader"}).status == 303
    assert office.index.users.find("an-reader") is None


def test_an_admin_does_not_shut_himself_out(office: Office) -> None:
    admin = office.person()
    for path, fields in (("role", {"role": "reader"}), ("disable", {}), ("remove", {})):
        answer = admin.post(f"/users/{path}", {"name": "an-admin", **fields})
        assert (answer.status, "your own account" in answer.text) == (400, True)
    assert admin.get("/users").status == 200
    assert office.trail().count('EventOutcomeIndicator="4"') == 3


@pytest.mark.parametrize(("path", "fields"), [("disable", {}), ("remove", {}), ("role", {"role": "reader"})])
def test_of_two_admins_who_shut_each_other_out_at_once_one_stays(
    office: Office, monkeypatch: pytest.MonkeyPatch, path: str, fields: dict[str, str]
) -> None:
    admin, users = office.person(), office.index.users
    users.add("eve", role=Role.ADMIN, password="", at=NOW)
    change, remove = users.change, users.remove

    def while_the_other_does(deed: Callable[..., None]) -> Callable[..., None]:
        def late(name: str, **values: Any) -> None:
            # The gate let him in; now the other one is quicker.
            change("an-admin", disabled=True, at=NOW, by="eve")
            deed(name, **values)

        return late

    monkeypatch.setattr(users, "change", while_the_other_does(change))
    monkeypatch.setattr(users, "remove", while_the_other_does(remove))
    answer = admin.post(f"/users/{path}", {"name": "eve", **fields})
    assert (answer.status, "is no admin any more" in answer.text) == (400, True)
    assert [row.name for row in users.rows() if row.role is Role.ADMIN and not row.disabled] == ["eve"]


def late_answer(office: Office, secret: str, path: str, fields: dict[str, str], meanwhile: Callable[[], None]) -> bytes:
    """To a form of which the last byte comes when the gate let its sender in, and something else was done."""
    body, host = urlencode({"csrf": csrf_of(secret), **fields}).encode(), f"127.0.0.1:{office.server.port}"
    head = (
        f"POST {path} HTTP/1.1\r\nHost: {host}\r\nOrigin: http://{host}\r\nCookie: session={secret}\r\n"
        f"Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", office.server.port), timeout=20) as connection:
        connection.sendall(head.encode() + body[:-1])
        meanwhile()
        connection.sendall(body[-1:])
        return b"".join(iter(lambda: connection.recv(65536), b""))


@pytest.mark.parametrize(
    ("path", "fields"),
    [
        ("/users/add", {"name": "eve", "role": "admin"}),
        ("/users/role", {"name": "an-reader", "role": "admin"}),
        ("/tokens/add", {"name": "back", "scope-dicomweb:write": "1"}),
        ("/tokens/remove", {"name": "viewer"}),
        (f"/studies/{study_uid('a')}/withdraw", {"reason": "why"}),
        (f"/studies/{study_uid('a')}/priority", {"priority": "STAT"}),
    ],
)
def test_who_is_shut_out_while_his_form_comes_changes_nothing_by_it(
    office: Office, monkeypatch: pytest.MonkeyPatch, path: str, fields: dict[str, str]
) -> None:
    users, tokens, comes = office.index.users, office.index.tokens, Event()
    mallory = session(office.index, Role.ADMIN, name="mallory")
    office.person(Role.READER)
    tokens.add("viewer", scopes=[Scope.DICOMWEB_READ], at=NOW)

    async def told(receive: Receive, most: int) -> bytes:
        comes.set()
        return await whole_form(receive, most)

    def shut_out() -> None:
        assert comes.wait(20)
        users.change("mallory", disabled=True, at=NOW)

    monkeypatch.setattr("dicom_node.web.gate.whole_form", told)
    assert late_answer(office, mallory, path, fields, shut_out).startswith(b"HTTP/1.1 401 ")
    assert {row.name: row.role for row in users.rows()} == {"mallory": Role.ADMIN, "an-reader": Role.READER}
    assert [row.name for row in tokens.rows()] == ["viewer"]
    assert "nobody had logged in" in office.trail(), "it is an alert"


@pytest.mark.parametrize(
    ("part", "deed", "path", "fields"),
    [
        ("users", "add", "/users/add", {"name": "eve", "role": "admin"}),
        ("tokens", "add", "/tokens/add", {"name": "back", "scope-dicomweb:write": "1"}),
        ("tokens", "remove", "/tokens/remove", {"name": "viewer"}),
    ],
)
def test_who_is_shut_out_behind_the_gate_makes_no_user_and_no_token(
    office: Office, monkeypatch: pytest.MonkeyPatch, part: str, deed: str, path: str, fields: dict[str, str]
) -> None:
    admin, kept = office.person(), getattr(office.index, part)
    office.index.tokens.add("viewer", scopes=[Scope.DICOMWEB_READ], at=NOW)
    real = getattr(kept, deed)

    def late(name: str, **values: Any) -> Any:
        office.index.users.change("an-admin", disabled=True, at=NOW)
        return real(name, **values)

    monkeypatch.setattr(kept, deed, late)
    answer = admin.post(path, fields)
    assert (answer.status, "is no admin any more" in answer.text) == (400, True)
    assert office.index.users.find("eve") is None
    assert [row.name for row in office.index.tokens.rows()] == ["viewer"]


def test_a_token_is_made_for_its_scopes_shown_once_and_withdrawn(office: Office) -> None:
    admin = office.person()
    form = {"name": "viewer", "scope-dicomweb:read": "1", "days": "30"}
    secret = secret_of(admin.post("/tokens/add", form))
    assert secret not in admin.get("/users").text
    (row,) = office.index.tokens.rows()
    assert (row.scopes, row.expires_at) == (("dicomweb:read",), NOW + 30 * 86400)
    assert office.index.tokens.find(secret, at=NOW) is not None
    program = Person(office.server.port, headers={"Authorization": f"Bearer {secret}"})
    assert program.get("/users").status == 403
    assert admin.post("/tokens/remove", {"name": "viewer"}).status == 303
    assert office.index.tokens.find(secret, at=NOW) is None
    assert "token viewer removed" in office.trail()


@pytest.mark.parametrize(
    ("path", "fields", "said"),
    [
        ("/users/add", {"name": "a b", "role": "reader"}, "no name of a user"),
        ("/users/add", {"name": "an-admin", "role": "reader"}, "already"),
        ("/users/add", {"name": "ann", "role": "king"}, "no such role"),
        ("/users/role", {"name": "nobody", "role": "reader"}, "there is no user nobody"),
        ("/users/password", {}, "there is no user"),
        ("/tokens/add", {"name": "t"}, "one scope or more"),
        ("/tokens/add", {"name": "t", "scope-metrics": "1", "days": "nan"}, "up to 3650 days"),
        ("/tokens/add", {"name": "t", "scope-metrics": "1", "days": "-1"}, "up to 3650 days"),
        ("/tokens/remove", {"name": "t"}, "there is no token t"),
    ],
)
def test_what_cannot_be_done_is_said_and_changes_nothing(
    quiet: Office, path: str, fields: dict[str, str], said: str
) -> None:
    before = quiet.person(), quiet.index.users.rows()
    failures = quiet.trail().count('EventOutcomeIndicator="4"')
    answer = before[0].post(path, fields)
    assert (answer.status, said in answer.text) == (400, True)
    assert quiet.index.users.rows() == before[1]
    assert quiet.trail().count('EventOutcomeIndicator="4"') == failures + 1


PATHS = ("/users/add", "/users/role", "/users/password", "/users/disable", "/users/enable", "/users/remove")


@pytest.mark.parametrize("role", [Role.READER, Role.OPERATOR])
def test_only_admins_see_and_change_them(quiet: Office, role: Role) -> None:
    person = quiet.person(role)
    for path in ("/users", "/audit"):
        assert person.get(path).status == 403
    for path in (*PATHS, "/tokens/add", "/tokens/remove"):
        assert person.post(path, {"name": f"an-{role}", "role": "admin"}).status == 403
    row = quiet.index.users.find(f"an-{role}")
    assert row is not None
    assert row.role is role


def test_without_the_sessions_own_token_nothing_is_changed(quiet: Office) -> None:
    admin, body = quiet.person(), "name=eve&role=admin"
    kind = {"Content-Type": "application/x-www-form-urlencoded", "Origin": f"http://127.0.0.1:{quiet.server.port}"}
    for path in (*PATHS, "/tokens/add"):
        assert admin.ask("POST", path, body, kind).status == 403
        assert admin.get(path).status in (404, 405)
    assert quiet.index.users.find("eve") is None


def test_the_trail_is_shown_filtered_and_paged_and_that_is_in_it(office: Office) -> None:
    admin, trail = office.person(), AuditTrail([AuditFile(office.folder)], source="TRIAGE")
    for number in range(120):
        words, succeeded = f"user u{number} added with the role reader", number % 60 != 0
        trail.note(Happening(event=USERS_CHANGED, at=NOW, user="ann", description=words, succeeded=succeeded))
    first = admin.get("/audit?what=users")
    assert first.text.count("<tr>") == 101
    assert "user u119 added with the role reader" in first.text
    older = re.search(r'rel="next" href="([^"]+)"', first.text)
    assert older is not None
    second = admin.get(older[1].replace("&amp;", "&"))
    assert second.text.count("<tr>") == 21, "and the table's head"
    assert "user u1 added" in second.text
    assert "Newest" in second.text
    failed = admin.get("/audit?failed=1").text
    assert failed.count(">failed<") == 2
    assert "read the audit trail" in admin.get("/audit?who=an-admin&what=trail").text
    assert "Nothing of that" in admin.get("/audit?who=nobody").text


@pytest.mark.parametrize("query", ["from=yesterday", "what=x", "study=../etc", "who=" + "x" * 61, "until=%D9%A3"])
def test_what_the_trail_cannot_be_asked_is_said(quiet: Office, query: str) -> None:
    answer = quiet.person().get(f"/audit?{query}")
    assert (answer.status, 'role="alert"' in answer.text) == (400, True)


def test_scopes_of_the_page_are_all_there_are(quiet: Office) -> None:
    page = quiet.person().get("/users").text
    assert all(f'name="scope-{scope}"' in page for scope in Scope)
