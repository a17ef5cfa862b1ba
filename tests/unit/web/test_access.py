"""Who is let in where: nothing is open by default, and every attack that was tried is here with what happened."""

import re
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from importlib import resources
from pathlib import Path
from threading import Barrier
from urllib.parse import urlencode

import pytest
from argon2 import PasswordHasher
from fastapi import FastAPI
from starlette.routing import Mount

from dicom_node.archive.index import Index
from dicom_node.audit import AuditTrail
from dicom_node.core.access import Need, Role, Scope, Visitor
from dicom_node.credentials import Passwords, new_password
from dicom_node.settings import AccessSettings, Settings
from dicom_node.web.application import build_application
from dicom_node.web.doorkeeper import csrf_of
from dicom_node.web.gate import LONGEST_FORM_BYTES, RENEWAL
from dicom_node.web.login import own_path
from dicom_node.web.login_limits import FOR_ALL, LoginLimits
from dicom_node.web.needs import RULES, SAFE_METHODS, SECURITY_HEADERS, rule_of
from dicom_node.web.server import WebServer
from tests.populated_index import NOW, deliver, report, study_uid
from tests.visitors import Person, session

STUDY = study_uid("a")
PASSWORD = "correct-horse-battery"


class Sheet:
    """Keeps audit messages."""

    def __init__(self) -> None:
        self.messages: list[str] = []

    def write(self, message: str, at: float) -> None:
        self.messages.append(message)


class Clock:
    """A time that a test can change."""

    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> float:
        return self.now


class House:
    """A served application over one delivered study, with its clock and its audit trail."""

    def __init__(self, folder: Path, access: AccessSettings | None = None) -> None:
        self.index = Index.open(f"sqlite:///{folder / 'index.sqlite'}")
        report(self.index, "a", at=NOW - 60)
        deliver(self.index, "a", at=NOW - 50)
        # Weak on purpose: a test's time is for the rules, not for the hash.
        quick = Passwords(PasswordHasher(time_cost=1, memory_cost=8, parallelism=1))
        for role in Role:
            self.index.users.add(f"an-{role}", role=role, password=quick.hash(PASSWORD), at=NOW)
        self.clock, self.sheet = Clock(), Sheet()
        audit = AuditTrail([self.sheet], source="TRIAGE")
        settings = Settings(access=access or AccessSettings())
        self.application: FastAPI = build_application(
            self.index, dict, dict, self.clock, settings=settings, audit=audit
        )
        self.server = WebServer(self.application, "127.0.0.1", 0)
        self.server.start()
        self.stranger = Person(self.server.port)

    def person(self, role: Role) -> Person:
        return Person(self.server.port, session(self.index, role, at=self.clock()))

    def close(self) -> None:
        self.server.stop()
        self.index.close()

    def log_in(self, user: str = "an-admin", password: str = PASSWORD, **fields: str) -> tuple[int, str, str]:
        """Status, the new session's secret and the text of the answer."""
        answer = self.stranger.post("/login", {"user": user, "password": password, **fields})
        found = re.search(r"session=([^;]*)", answer.headers.get("Set-Cookie", ""))
        return answer.status, found[1] if found else "", answer.text


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    built = House(tmp_path)
    yield built
    built.close()


def walked(routes: list, before: str = "") -> Iterator[tuple[str, str]]:
    """Method and path of every route, those of routers and mounted parts too, with something for its parameters."""
    for route in routes:
        if isinstance(route, Mount):
            yield "GET", f"{before}{route.path}/something"
        elif hasattr(route, "methods"):
            path = before + re.sub(r"\{study_instance_uid\}", STUDY, route.path)
            for method in route.methods:
                yield method, re.sub(r"\{[^}]*\}", "1.2.3", path)
        else:
            found = getattr(route, "routes", None) or route.original_router.routes
            yield from walked(found, before)


def test_every_route_has_a_rule_and_only_these_are_open(house: House) -> None:
    paths = dict.fromkeys(walked(house.application.routes))
    assert len(paths) > 12
    open_ones = set()
    for method, path in paths:
        rule = rule_of(path)
        assert rule is not None, f"{path} is closed to everybody: give it a line in needs.RULES"
        if rule.need(method).open:
            open_ones.add((method, path))
    assert {path for _, path in open_ones} <= {"/healthz", "/static/something", "/login", "/enter/1.2.3"}


def test_without_a_session_every_other_route_leads_to_the_login_or_refuses(house: House) -> None:
    for method, path in walked(house.application.routes):
        rule = rule_of(path)
        if rule is None or rule.need(method).open:
            continue
        for headers in ({}, {"Cookie": "session=" + "x" * 43}, {"Authorization": "Bearer dn_" + "x" * 43}):
            answer = house.stranger.ask(method, path, headers=headers)
            assert answer.status in (303, 401), (method, path)
            assert answer.status == 401 or answer.headers["Location"].startswith("/login?next=%2F")
            assert STUDY not in answer.text


def test_a_route_that_names_no_role_is_closed_to_everybody(tmp_path: Path) -> None:
    house = House(tmp_path)
    try:

        @house.application.get("/forgotten")
        def forgotten() -> str:
            return "secret"

        house.application.mount("/other", FastAPI())
        for path in ("/forgotten", "/other/x"):
            answer = house.person(Role.ADMIN).get(path)
            assert (answer.status, "secret" in answer.text) == (404, False)
    finally:
        house.close()


@pytest.mark.parametrize(("role", "status"), [(Role.READER, 403), (Role.OPERATOR, 303), (Role.ADMIN, 303)])
def test_who_may_only_read_changes_nothing(house: House, role: Role, status: int) -> None:
    assert house.person(role).post(f"/studies/{STUDY}/withdraw", {"reason": "why"}).status == status
    assert bool(house.index.withdrawals.of_study(STUDY)) == (status == 303)


def test_a_reader_is_shown_no_button_that_would_be_refused(house: House) -> None:
    assert "Withdraw the result" not in house.person(Role.READER).get(f"/studies/{STUDY}").text
    assert "Withdraw the result" in house.person(Role.OPERATOR).get(f"/studies/{STUDY}").text


def test_the_right_password_lets_in_and_leads_to_where_one_wanted(house: House) -> None:
    answer = house.stranger.post("/login", {"user": "an-admin", "password": PASSWORD, "next": f"/studies/{STUDY}"})
    assert (answer.status, answer.headers["Location"]) == (303, f"/studies/{STUDY}")
    cookie = answer.headers["Set-Cookie"]
    assert {"HttpOnly", "SameSite=lax", "Path=/"} <= set(cookie.split("; "))
    secret = cookie.partition("=")[2].partition(";")[0]
    assert Person(house.server.port, secret).get("/").status == 200
    assert secret not in (
        house.index._engine.url.database and Path(house.index._engine.url.database).read_bytes().decode("latin-1")
    )


def test_behind_tls_the_cookie_says_so(tmp_path: Path) -> None:
    house = House(tmp_path, AccessSettings(secure_cookies=True))
    try:
        answer = house.stranger.post("/login", {"user": "an-admin", "password": PASSWORD})
    finally:
        house.close()
    assert answer.headers["Set-Cookie"].startswith("__Host-session=")
    assert "Secure" in answer.headers["Set-Cookie"].split("; ")


@pytest.mark.parametrize(
    ("user", "password"), [("an-admin", "wrong"), ("nobody", PASSWORD), ("", ""), ("an-admin", "x" * 5000)]
)
def test_a_wrong_password_and_an_unknown_user_are_answered_alike(house: House, user: str, password: str) -> None:
    status, secret, text = house.log_in(user, password)
    assert (status, secret) == (401, "")
    assert "do not go together" in text


def test_a_user_without_a_password_cannot_log_in_by_one(house: House) -> None:
    house.index.users.add("linked", role=Role.READER, password="", at=NOW)
    assert house.log_in("linked", "")[0] == 401
    assert house.log_in("linked", "x")[0] == 401


def test_no_session_begins_by_a_password_that_is_changed_while_it_is_looked_at(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who has a stolen password tries it all the time, also in the moment when it is taken from him."""
    fits = Passwords.fits

    def then_changed(passwords: Passwords, password: str, held: str) -> bool:
        found = fits(passwords, password, held)
        house.index.users.change("an-admin", password="another hash", at=NOW)
        return found

    monkeypatch.setattr(Passwords, "fits", then_changed)
    answer = house.stranger.post("/login", {"user": "an-admin", "password": PASSWORD})
    assert (answer.status, answer.headers["Set-Cookie"]) == (401, None)
    row = house.index.users.find("an-admin")
    assert row is not None
    assert row.password == "another hash", "the newer hash of the old password takes the new one's place"


def test_two_right_logins_at_once_with_an_old_hash_both_come_in(house: House) -> None:
    both, users = Barrier(2), house.index.users
    rehash = users.rehash

    def at_once(name: str, password: str, *, instead_of: str) -> str:
        both.wait(20)
        return rehash(name, password, instead_of=instead_of)

    with pytest.MonkeyPatch.context() as patch, ThreadPoolExecutor(2) as two:
        patch.setattr(users, "rehash", at_once)
        form = {"user": "an-admin", "password": PASSWORD}
        answers = list(two.map(lambda _: house.stranger.post("/login", form), range(2)))
    assert [answer.status for answer in answers] == [303, 303]
    assert not any('EventOutcomeIndicator="4"' in message for message in house.sheet.messages)
    row = users.find("an-admin")
    assert row is not None
    assert Passwords().fits(PASSWORD, row.password)
    assert not Passwords().is_old(row.password)


def test_session_fixation_gains_nothing(house: House) -> None:
    """What the browser came with is worth nothing after the login: neither made up nor of an earlier session."""
    planted = Person(house.server.port, "planted-by-somebody-else")
    answer = planted.post("/login", {"user": "an-admin", "password": PASSWORD})
    assert answer.status == 303
    assert planted.get("/").status == 303
    earlier = house.person(Role.READER)
    answer = earlier.post("/login", {"user": "an-admin", "password": PASSWORD})
    assert answer.status == 303
    assert earlier.get("/").status == 303, "the session before the login has ended"


def test_after_logging_out_the_cookie_is_worth_nothing(house: House) -> None:
    person = house.person(Role.READER)
    answer = person.post("/logout")
    assert (answer.status, answer.headers["Clear-Site-Data"]) == (303, '"cache"')
    assert person.get("/").status == 303


def test_a_session_ends_when_nobody_uses_it_and_after_its_longest_time(tmp_path: Path) -> None:
    house = House(tmp_path, AccessSettings(session_hours=2.0, idle_minutes=30.0))
    try:
        person = house.person(Role.READER)
        for _ in range(4):
            house.clock.now += 29 * 60
            assert person.get("/").status == 200
        house.clock.now += 29 * 60
        assert person.get("/").status == 303, "longer than two hours"
        person = house.person(Role.READER)
        house.clock.now += 31 * 60
        assert person.get("/").status == 303, "idle"
    finally:
        house.close()


def test_what_a_page_asks_by_itself_keeps_no_session_alive(tmp_path: Path) -> None:
    house = House(tmp_path, AccessSettings(idle_minutes=30.0))
    try:
        for path, headers in (
            ("/worklist", {}),
            (f"/studies/{STUDY}/preview.png", {}),
            (f"/studies/{STUDY}", {"X-Renewal": "1"}),
            ("/queue", {"X-Renewal": "1"}),
            ("/overview?renewal=1", {}),
            (f"/studies/{STUDY}?renewal=1", {}),
        ):
            person = house.person(Role.ADMIN)
            house.clock.now += 20 * 60
            assert person.ask("GET", path, headers=headers).status in (200, 404)
            house.clock.now += 11 * 60
            assert person.get("/").status == 303, path
        person = house.person(Role.ADMIN)
        house.clock.now += 20 * 60
        with socket.create_connection(("127.0.0.1", house.server.port), timeout=20) as stream:
            stream.sendall(f"GET /events HTTP/1.1\r\nHost: x\r\nCookie: session={person.secret}\r\n\r\n".encode())
            assert b" 200 " in stream.recv(4096)
        house.clock.now += 11 * 60
        assert person.get("/").status == 303, "events"
    finally:
        house.close()


def test_pages_say_that_they_ask_by_themselves() -> None:
    script = resources.files("dicom_node.web") / "static" / "renew.js"
    assert RENEWAL in script.read_text().lower()


def test_a_page_without_scripts_says_in_its_address_that_it_renews_itself(house: House) -> None:
    for path in ("/overview", "/queue"):
        found = re.search(r'http-equiv="refresh" content="\d+; url=([^"]*)"', house.person(Role.ADMIN).get(path).text)
        assert found is not None
        assert found[1] == "?renewal=1"


@pytest.mark.parametrize("change", ["password", "role", "remove"])
def test_whoever_is_changed_is_logged_out(house: House, change: str) -> None:
    person = house.person(Role.READER)
    if change == "remove":
        house.index.users.remove("an-reader")
    else:
        values = {"password": {"password": "x"}, "role": {"role": Role.ADMIN}}[change]
        house.index.users.change("an-reader", at=NOW, **values)
    assert person.get("/").status == 303


def test_too_many_wrong_passwords_are_told_to_wait_and_the_right_one_too(tmp_path: Path) -> None:
    house = House(tmp_path, AccessSettings(login_attempts=3, login_wait_minutes=1.0))
    try:
        for _ in range(3):
            assert house.log_in(password="wrong")[0] == 401
        status, _, text = house.log_in()
        assert status == 429
        assert "Try again in 1 min" in text
        assert house.log_in("an-reader")[0] == 303, "others at the address do not wait"
        house.clock.now += 61
        assert house.log_in()[0] == 303
        failed = [message for message in house.sheet.messages if 'EventOutcomeIndicator="4"' in message]
        assert len(failed) == 4
    finally:
        house.close()


def test_a_stranger_keeps_nobody_out_elsewhere_and_a_user_nobody_else_here() -> None:
    clock = Clock()
    limits = LoginLimits(attempts=3, wait_seconds=60, clock=clock)
    for _ in range(3):
        assert limits.try_once("ann", "10.0.0.1") == 0
    assert limits.try_once("ann", "10.0.0.1") == 60
    assert limits.try_once("ann", "10.0.0.9") == 0
    assert limits.try_once("bob", "10.0.0.1") == 0
    clock.now += 60
    assert limits.try_once("ann", "10.0.0.1") == 0


@pytest.mark.parametrize("of_user", [True, False])
def test_a_user_from_everywhere_and_an_address_for_everybody_have_higher_bounds(of_user: bool) -> None:
    limits = LoginLimits(attempts=3, wait_seconds=60, clock=Clock())

    def attempt(number: int) -> float:
        return limits.try_once("ann", f"10.0.0.{number}") if of_user else limits.try_once(f"u{number}", "10.0.0.1")

    assert [attempt(number) for number in range(3 * FOR_ALL)] == [0.0] * 3 * FOR_ALL
    assert attempt(99) == 60


def test_who_logs_in_again_and_again_is_no_attacker() -> None:
    limits = LoginLimits(attempts=3, wait_seconds=60, clock=Clock())
    for _ in range(20):
        assert limits.try_once("ann", "10.0.0.1") == 0
        limits.succeeded("ann", "10.0.0.1")


def test_a_link_lets_in_once_and_in_time(house: House) -> None:
    secret = house.index.sessions.make_entry("an-admin", expires_at=NOW + 60)
    answer = house.stranger.get(f"/enter/{secret}")
    assert (answer.status, answer.headers["Location"]) == (303, "/")
    cookie = re.search(r"session=([^;]*)", answer.headers["Set-Cookie"])
    assert cookie is not None
    assert Person(house.server.port, cookie[1]).get("/").status == 200
    again = house.stranger.get(f"/enter/{secret}")
    assert (again.status, "used already" in again.text) == (401, True)
    late = house.index.sessions.make_entry("an-admin", expires_at=NOW - 1)
    assert house.stranger.get(f"/enter/{late}").status == 401


@pytest.mark.parametrize(
    "fields", [{}, {"csrf": ""}, {"csrf": "0" * 64}, {"csrf": csrf_of("another session")}], ids=str
)
def test_a_form_without_this_sessions_token_changes_nothing(house: House, fields: dict[str, str]) -> None:
    person = house.person(Role.OPERATOR)
    headers = {"Content-Type": "application/x-www-form-urlencoded", "Origin": f"http://127.0.0.1:{person.port}"}
    answer = person.ask("POST", f"/studies/{STUDY}/withdraw", urlencode({"reason": "x", **fields}), headers)
    assert answer.status == 403
    assert "not of this session" in answer.text
    assert not house.index.withdrawals.of_study(STUDY)


def test_another_sites_form_is_refused_even_with_the_right_token(house: House) -> None:
    answer = house.person(Role.OPERATOR).post(
        f"/studies/{STUDY}/withdraw", {"reason": "x"}, Origin="http://evil.example"
    )
    assert answer.status == 403
    assert not house.index.withdrawals.of_study(STUDY)


def test_a_program_needs_the_scope_and_no_form_token(house: House) -> None:
    tokens = house.index.tokens
    right = tokens.add("prometheus", scopes=[Scope.METRICS], at=NOW)
    other = tokens.add("viewer", scopes=[Scope.DICOMWEB_READ], at=NOW)
    over = tokens.add("old", scopes=[Scope.METRICS], at=NOW - 9, expires_at=NOW - 1)

    def ask(secret: str, path: str = "/metrics") -> int:
        return house.stranger.ask("GET", path, headers={"Authorization": f"Bearer {secret}"}).status

    assert [ask(secret) for secret in (right, other, over, right + "x")] == [200, 403, 401, 401]
    assert ask(right, "/") == 403, "pages are for people"
    tokens.remove("prometheus")
    assert ask(right) == 401
    assert right not in Path(str(house.index._engine.url.database)).read_bytes().decode("latin-1")


def test_metrics_are_open_only_where_the_settings_say_so(tmp_path: Path) -> None:
    house = House(tmp_path, AccessSettings(metrics="open"))
    try:
        assert house.stranger.get("/metrics").status == 200
        assert house.stranger.get("/").status == 303
    finally:
        house.close()


@pytest.mark.parametrize(
    "path",
    [
        "/static/../studies/x",
        "/static/%2e%2e/application.py",
        "/static/..%2f..%2fnode.py",
        "//etc/passwd",
        "/studies/..%2f..%2fetc%2fpasswd",
        "/studies/%00",
        "/studies/1.2.3%0d%0aSet-Cookie:x=1",
        "/static/%5c..%5capplication.py",
        "/healthz/../metrics",
        "/HEALTHZ",
        "/metrics/",
        "/login/../",
        "/./metrics",
        "/static//metrics",
    ],
)
def test_path_traversal_and_double_slashes_lead_nowhere(house: House, path: str) -> None:
    for person in (house.stranger, house.person(Role.ADMIN)):
        answer = person.get(path)
        assert answer.status in (303, 307, 400, 401, 404), path
        assert "root:" not in answer.text
        assert "def build_application" not in answer.text
        assert "dicom_node_studies" not in answer.text
        assert "x=1" not in str(answer.headers.get("Set-Cookie", ""))


@pytest.mark.parametrize(
    "after",
    [
        "//evil.example",
        "https://evil.example",
        "/\\evil.example",
        "/a\r\nSet-Cookie: x=1",
        "javascript:alert(1)",
        "",
        "x",
        "/a\\b",
    ],
)
def test_a_login_leads_to_no_other_site_and_injects_no_header(house: House, after: str) -> None:
    assert own_path(after) == "/"
    answer = house.stranger.post("/login", {"user": "an-admin", "password": PASSWORD, "next": after})
    assert (answer.status, answer.headers["Location"]) == (303, "/")
    assert len(answer.headers.get_all("Set-Cookie", [])) == 1


def test_a_forged_address_is_not_believed(tmp_path: Path) -> None:
    house = House(tmp_path, AccessSettings(login_attempts=1))
    try:
        for number in range(FOR_ALL):
            house.stranger.ask(
                "POST",
                "/login",
                urlencode({"user": f"u{number}", "password": "x"}),
                {
                    "Content-Type": "application/x-www-form-urlencoded",
                    "Origin": f"http://127.0.0.1:{house.server.port}",
                    "X-Forwarded-For": f"10.9.9.{number}",
                },
            )
        assert house.log_in()[0] == 429
    finally:
        house.close()


def test_an_oversized_form_is_refused_before_it_is_looked_at(house: House) -> None:
    answer = house.stranger.post("/login", {"user": "a", "password": "x" * (LONGEST_FORM_BYTES + 1)})
    assert answer.status == 413
    # What announces no length is counted as it comes.
    person = house.person(Role.OPERATOR)
    headers = {"Origin": f"http://127.0.0.1:{person.port}", "Content-Type": "application/x-www-form-urlencoded"}
    chunks = iter([b"reason=" + b"x" * LONGEST_FORM_BYTES, b"more"])
    answer = person.ask("POST", f"/studies/{STUDY}/withdraw", chunks, headers)  # type: ignore[arg-type]  # chunked
    assert answer.status == 413


@pytest.mark.parametrize(
    "header", [{"Authorization": "Bearer a"}, {"Authorization": "Basic eA=="}, {"X-CSRF-Token": "x"}, {}], ids=str
)
def test_no_header_of_a_stranger_takes_the_bound_off_a_form(house: House, header: dict[str, str]) -> None:
    host = f"127.0.0.1:{house.server.port}"
    headers = {"Origin": f"http://{host}", "Content-Type": "application/octet-stream", **header}
    body = b"user=a&password=" + b"x" * LONGEST_FORM_BYTES
    assert house.stranger.ask("POST", "/login", body, headers).status == 413
    assert house.stranger.ask("POST", "/login", b"user=a", {**headers, "Origin": "http://evil.example"}).status == 403


def test_a_token_that_holds_opens_no_way_round_the_form_of_the_login(house: House) -> None:
    secret = house.index.tokens.add("prometheus", scopes=[Scope.METRICS], at=NOW)
    headers = {"Authorization": f"Bearer {secret}", "Origin": f"http://127.0.0.1:{house.server.port}"}
    answer = house.stranger.ask("POST", "/login", b"x" * (LONGEST_FORM_BYTES + 1), headers)
    assert answer.status == 413
    assert house.stranger.ask("POST", "/login", b"user=a", {"Authorization": f"Bearer {secret}"}).status == 403


@pytest.mark.parametrize(
    ("method", "path", "headers", "status"),
    [
        ("GET", "/login?next=http://[", {}, 200),
        ("POST", "/login", {"Origin": "http://["}, 403),
        ("GET", "/?hours=" + "9" * 5000, {}, 200),
        ("GET", "/?page=" + "9" * 5000, {}, 200),
    ],
    ids=lambda one: str(one)[:20],
)
def test_no_address_and_no_header_breaks_a_page(
    house: House, method: str, path: str, headers: dict[str, str], status: int
) -> None:
    answer = house.person(Role.READER).ask(method, path, b"user=a" if method == "POST" else None, headers)
    assert answer.status == status


def test_slow_bodies_are_cut_off_and_hold_nobody_up(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dicom_node.web.gate.FORM_SECONDS", 0.5)
    with ExitStack() as stack:
        slow = []
        for _ in range(60):
            connection = stack.enter_context(socket.create_connection(("127.0.0.1", house.server.port), timeout=20))
            host = f"127.0.0.1:{house.server.port}"
            head = f"POST /login HTTP/1.1\r\nHost: {host}\r\nOrigin: http://{host}\r\nContent-Length: 100\r\n"
            connection.sendall(f"{head}Content-Type: application/x-www-form-urlencoded\r\n\r\nuser=".encode())
            slow.append(connection)
        # Heads that never end, beside them.
        for _ in range(20):
            stack.enter_context(socket.create_connection(("127.0.0.1", house.server.port), timeout=20)).sendall(
                b"GET / "
            )
        began = time.monotonic()
        assert house.stranger.get("/healthz").status == 200
        assert time.monotonic() - began < 5
        assert b" 408 " in slow[0].recv(100)


def test_every_answer_has_the_strict_policy_and_runs_no_script_of_a_page(house: House) -> None:
    policy = SECURITY_HEADERS["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "http" not in policy
    for path in ("/", "/login", "/nowhere", "/healthz", "/static/page.css", f"/studies/{STUDY}"):
        for person in (house.stranger, house.person(Role.ADMIN)):
            assert person.get(path).headers["Content-Security-Policy"] == policy


def test_the_audit_trail_has_who_saw_and_changed_what_and_no_secret(house: House) -> None:
    _, secret, _ = house.log_in()
    person = Person(house.server.port, secret)
    person.get(f"/studies/{STUDY}")
    person.post(f"/studies/{STUDY}/withdraw", {"reason": "Doe, Jane was measured wrongly"})
    person.post(f"/studies/{STUDY}/requeue")
    person.post("/logout")
    told = "\n".join(house.sheet.messages)
    assert told.count("User Authentication") == 2
    assert [re.search(r'EventActionCode="(\w)"', line)[1] for line in house.sheet.messages] == ["E", "R", "U", "U", "E"]  # type: ignore[index]  # it is there
    assert told.count(STUDY) == 3
    assert "withdrawn for its quality" in told
    for never in (PASSWORD, secret, "Jane"):
        assert never not in told


def test_what_is_typed_into_the_wrong_field_is_in_no_trail(house: House) -> None:
    house.log_in("my secret pass phrase", "x")
    assert "secret" not in "".join(house.sheet.messages)


@pytest.mark.parametrize("role", Role)
@pytest.mark.parametrize("other", Role)
def test_a_role_covers_itself_and_those_before_it(role: Role, other: Role) -> None:
    order = [Role.READER, Role.OPERATOR, Role.ADMIN]
    assert role.covers(other) == (order.index(role) >= order.index(other))


def test_a_need_without_role_and_scope_is_met_by_nobody() -> None:
    everything = Visitor(name="all", role=Role.ADMIN, scopes=[scope.value for scope in Scope])
    assert not everything.meets(Need())
    assert everything.meets(Need(role=Role.READER))
    assert not Visitor().meets(Need(role=Role.READER))


def test_no_rule_opens_a_change_but_the_login() -> None:
    assert [rule.path for rule in RULES if rule.write.open] == ["/login"]
    assert {"GET", "HEAD", "OPTIONS"} == SAFE_METHODS


def test_new_passwords_differ_and_can_be_typed() -> None:
    made = {new_password() for _ in range(100)}
    assert len(made) == 100
    assert all(re.fullmatch(r"[a-z2-9]{4}(-[a-z2-9]{4}){4}", password) for password in made)
