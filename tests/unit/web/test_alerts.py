"""Requests that are refused for want of a right: security alerts in the audit trail, once each, and never a flood."""

import base64
from collections.abc import Callable, Iterator
from pathlib import Path
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicom_node.archive.files import Archive
from dicom_node.archive.index import Index
from dicom_node.audit import AuditTrail
from dicom_node.core.access import Need, Role, Scope, Visitor
from dicom_node.core.errors import IndexUnavailable
from dicom_node.settings import AccessSettings, Settings
from dicom_node.telemetry import Metrics
from dicom_node.web.alerts import Alerts, Lack, Refused
from dicom_node.web.application import build_application
from dicom_node.web.line_limits import OF_ALL, OF_ONE, SECONDS, LeftOut, LineLimits
from dicom_node.web.server import WebServer
from tests.populated_index import NOW, deliver, report, study_uid
from tests.visitors import Answer, Person, session

STUDY = study_uid("a")
WITHDRAW = f"/studies/{STUDY}/withdraw"


class Sheet:
    """Keeps audit messages."""

    def __init__(self) -> None:
        self.messages: list[ElementTree.Element] = []

    def write(self, message: str, at: float) -> None:
        self.messages.append(ElementTree.fromstring(message))


class House:
    """A served application over one delivered study, DICOMweb too, with its clock and its audit trail."""

    def __init__(self, folder: Path) -> None:
        self.index = Index.open(f"sqlite:///{folder / 'index.sqlite'}")
        report(self.index, "a", at=NOW - 60)
        deliver(self.index, "a", at=NOW - 50)
        self.now, self.sheet = NOW, Sheet()
        application = build_application(
            self.index,
            dict,
            dict,
            lambda: self.now,
            settings=Settings(access=AccessSettings(login_attempts=1)),
            archive=Archive(folder / "archive"),
            audit=AuditTrail([self.sheet], source="TRIAGE", patient=self.patient),
        )
        self.index_is_away = False
        self.server = WebServer(application, "127.0.0.1", 0)
        self.server.start()
        self.stranger = Person(self.server.port)

    def patient(self, study: str) -> str:
        if self.index_is_away:
            raise IndexUnavailable("away")
        return "0123456789abcdef" if study == STUDY else ""

    def person(self, role: Role) -> Person:
        return Person(self.server.port, session(self.index, role))

    def program(self, *scopes: Scope) -> Person:
        token = self.index.tokens.add("viewer", scopes=scopes, at=NOW)
        return Person(self.server.port, headers={"Authorization": f"Bearer {token}"})

    def told(self) -> list[str]:
        """What the messages say in words."""
        return [one.findtext("EventIdentification/EventOutcomeDescription", "") for one in self.sheet.messages]


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    built = House(tmp_path)
    yield built
    built.server.stop()
    built.index.close()


def participants(message: ElementTree.Element) -> list[tuple[str | None, str | None]]:
    return [(one.get("UserID"), one.get("UserIsRequestor")) for one in message.findall("ActiveParticipant")]


def objects(message: ElementTree.Element) -> list[tuple[str | None, str | None]]:
    """Each with the kind of its name."""
    found = message.findall("ParticipantObjectIdentification")
    return [
        (one.get("ParticipantObjectID"), code.get("originalText"))
        for one in found
        if (code := one.find("ParticipantObjectIDTypeCode")) is not None
    ]


REFUSED: dict[str, tuple[Callable[[House], Answer], int, str, str]] = {
    "a reader who withdraws a result": (
        lambda house: house.person(Role.READER).post(WITHDRAW, {"reason": "why"}),
        403,
        "an-reader",
        "POST /studies/*/withdraw: it needs the role operator",
    ),
    "a reader who asks for the audit trail": (
        lambda house: house.person(Role.READER).get("/audit"),
        403,
        "an-reader",
        "GET /audit: it needs the role admin",
    ),
    "an operator who changes a priority": (
        lambda house: house.person(Role.OPERATOR).post(f"/studies/{STUDY}/priority", {"priority": "STAT"}),
        403,
        "an-operator",
        "POST /studies/*/priority: it needs the role admin",
    ),
    "a reader who stores over DICOMweb": (
        lambda house: house.person(Role.READER).post(f"/dicomweb/studies/{STUDY}"),
        403,
        "an-reader",
        "POST /dicomweb/**: it needs the role operator or a token with the scope dicomweb:write",
    ),
    "a token that searches without its scope": (
        lambda house: house.program(Scope.METRICS).get("/dicomweb/studies?PatientName=Doe"),
        403,
        "viewer",
        "GET /dicomweb/**: it needs the role reader or a token with the scope dicomweb:read",
    ),
    "a token that stores and may only read": (
        lambda house: house.program(Scope.DICOMWEB_READ).ask("POST", "/dicomweb/studies", b"x"),
        403,
        "viewer",
        "POST /dicomweb/**: it needs the role operator or a token with the scope dicomweb:write",
    ),
    "a token that asks for a page": (
        lambda house: house.program(Scope.DICOMWEB_READ).get(f"/studies/{STUDY}"),
        403,
        "viewer",
        "GET /studies/*: it needs the role reader",
    ),
    "a token that nobody made": (
        lambda house: house.stranger.ask("GET", "/metrics", headers={"Authorization": "Bearer dn_x"}),
        401,
        "unknown",
        "GET /metrics: the token does not hold",
    ),
    "a token that nobody made, at a frame": (
        lambda house: house.stranger.ask(
            "GET",
            f"/dicomweb/studies/{STUDY}/series/1.2/instances/1.3/frames/1",
            headers={"Authorization": "Basic YQ=="},
        ),
        401,
        "unknown",
        "GET /dicomweb/**: the token does not hold",
    ),
    "somebody who never logged in": (
        lambda house: house.stranger.post(WITHDRAW, {"reason": "why"}),
        401,
        "unknown",
        "POST /studies/*/withdraw: nobody had logged in",
    ),
    "another site's form": (
        lambda house: house.person(Role.OPERATOR).post(WITHDRAW, {"reason": "why"}, Origin="http://evil.example"),
        403,
        "an-operator",
        "POST /studies/*/withdraw: the form was not of the session's own page",
    ),
    "a form without the session's token": (
        lambda house: house.person(Role.OPERATOR).post(WITHDRAW, {"reason": "why", "csrf": "0" * 64}),
        403,
        "an-operator",
        "POST /studies/*/withdraw: the form was not of the session's own page",
    ),
}

ABOUT_NO_STUDY = {
    "a reader who asks for the audit trail",
    "a token that searches without its scope",
    "a token that stores and may only read",
    "a token that nobody made",
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused_is_a_security_alert_once(house: House, name: str) -> None:
    ask, status, user, words = REFUSED[name]
    assert ask(house).status == status
    (message,) = house.sheet.messages
    event = message.find("EventIdentification")
    assert event is not None
    assert (event.get("EventActionCode"), event.get("EventOutcomeIndicator")) == ("E", "4")
    codes = [event.find(tag).get("csd-code") for tag in ("EventID", "EventTypeCode")]  # type: ignore[union-attr]  # there
    assert codes == ["110113", "110132"]
    assert event.findtext("EventOutcomeDescription") == words
    assert participants(message) == [(user, "false"), ("TRIAGE", "true")]
    assert message.find("ActiveParticipant").get("NetworkAccessPointID") == "127.0.0.1"  # type: ignore[union-attr]
    detail = message.find(".//ParticipantObjectDetail")
    assert detail is not None
    assert (detail.get("type"), base64.b64decode(detail.get("value", ""))) == ("Alert Description", words.encode())
    about = [(words.split(" ")[1].rstrip(":"), "URI")]
    if name not in ABOUT_NO_STUDY:
        about += [(STUDY, "Study Instance UID"), ("0123456789abcdef", "Patient Number")]
    assert objects(message) == about


@pytest.mark.parametrize(
    "ask",
    [
        lambda house: house.stranger.get("/"),
        lambda house: house.stranger.get(f"/studies/{STUDY}"),
        lambda house: house.stranger.get("/events"),
        lambda house: house.stranger.get("/dicomweb/studies"),
        lambda house: house.stranger.post("/wp-login.php", {"a": "b"}),
        lambda house: house.person(Role.READER).get("/nowhere"),
        lambda house: house.person(Role.ADMIN).get(WITHDRAW),
        lambda house: house.person(Role.READER).get("/overview"),
    ],
)
def test_who_only_asks_unknown_or_for_what_nobody_has_is_no_alert(house: House, ask: Callable[[House], Answer]) -> None:
    ask(house)
    assert house.sheet.messages == []


def test_nothing_that_a_request_says_stands_in_the_trail(house: House) -> None:
    for path in ("/users/Doe-Jane", "/studies/Doe-Jane/withdraw", "/peers/Doe-Jane/echo"):
        assert house.person(Role.READER).post(path, {"reason": "Doe-Jane"}).status == 403
    assert len(house.sheet.messages) == 3
    assert "Doe" not in "".join(ElementTree.tostring(one, encoding="unicode") for one in house.sheet.messages)


def test_the_same_again_is_left_out_counted_and_told_a_minute_later(
    house: House, caplog: pytest.LogCaptureFixture
) -> None:
    reader = house.person(Role.READER)
    for _ in range(30):
        assert reader.post(WITHDRAW).status == 403
    assert len(house.sheet.messages) == 1
    assert [one.message for one in caplog.records].count("a request was refused") == 1
    house.now += SECONDS + 1
    reader.post(WITHDRAW)
    assert house.told()[1].endswith("the role operator; 29 before were left out")
    metrics = house.person(Role.ADMIN).get("/metrics").text
    assert 'dicom_node_refusals_total{reason="role",what="request"} 31.0' in metrics
    assert 'dicom_node_refusals_total{reason="token",what="request"} 0.0' in metrics


def test_a_reader_who_tries_study_after_study_fills_no_disk(house: House) -> None:
    reader = house.person(Role.READER)
    for number in range(OF_ONE + 10):
        reader.post(f"/studies/1.2.{number}/withdraw")
    assert len(house.sheet.messages) == OF_ONE
    house.person(Role.OPERATOR).post(f"/studies/{STUDY}/priority")
    assert len(house.sheet.messages) == OF_ONE + 1, "another's line is not left out for it"


def test_a_trail_that_cannot_tell_the_patient_still_tells_the_rest(house: House) -> None:
    house.index_is_away = True
    house.person(Role.READER).post(WITHDRAW)
    assert objects(house.sheet.messages[0]) == [("/studies/*/withdraw", "URI"), (STUDY, "Study Instance UID")]


def test_a_link_that_holds_no_more_is_a_failed_login_and_many_are_a_few_lines(house: House) -> None:
    for number in range(50):
        assert house.stranger.get(f"/enter/guess-{number}").status == 401
    assert house.told() == ["a link that was used, is over or never was"]
    assert "guess" not in ElementTree.tostring(house.sheet.messages[0], encoding="unicode")
    event = house.sheet.messages[0].find("EventIdentification")
    assert event is not None
    assert event.get("EventOutcomeIndicator") == "4"


def test_who_goes_on_though_he_is_told_to_wait_is_told_of_once_a_minute(house: House) -> None:
    for _ in range(8):
        house.stranger.post("/login", {"user": "an-admin", "password": "wrong"})
    assert house.told() == ["wrong user or password", "too many attempts"]
    house.now += SECONDS
    house.stranger.post("/login", {"user": "an-admin", "password": "wrong"})
    assert house.told()[2:] == ["too many attempts; 6 before were left out"]


class Clock:
    """A time that a test can change."""

    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> float:
        return self.now


def test_all_unknown_senders_together_have_a_bound_and_are_heard_again_a_minute_later() -> None:
    clock = Clock()
    limits = LineLimits(clock=clock)
    told = [limits.admit(f"10.0.{n // 250}.{n % 250}", "x", is_known=False) for n in range(2 * OF_ALL)]
    assert told == [LeftOut()] * OF_ALL + [None] * OF_ALL
    clock.now += SECONDS
    left_out = limits.admit("10.0.1.99", "x", is_known=False)
    assert left_out == LeftOut(unknown=OF_ALL)
    assert left_out.words == "; 200 of unknown senders were left out"


def refused(name: str, address: str) -> Refused:
    """What somebody who is nobody, or a reader, may not."""
    visitor = Visitor(name=name, role=Role.READER if name else None, address=address)
    need = Need(role=Role.OPERATOR)
    return Refused(lack=Lack.ROLE, need=need, method="POST", path=WITHDRAW, form="/withdraw", visitor=visitor)


def test_however_many_unknown_senders_there_are_they_hide_nothing_of_who_is_known() -> None:
    sheet, clock = Sheet(), Clock()
    trail = AuditTrail([sheet], source="TRIAGE")
    alerts = Alerts(trail=trail, metrics=Metrics(), limits=LineLimits(clock=clock), clock=clock)
    for number in range(2000):
        alerts.counted(refused("", f"fe80::{number:x}"))
    tell = alerts.counted(refused("ann", "10.0.0.5"))
    assert tell is not None
    tell()
    outcome = sheet.messages[0].findtext("EventIdentification/EventOutcomeDescription", "")
    assert outcome == f"POST /withdraw: it needs the role operator; {2000 - OF_ALL} of unknown senders were left out"
    for number in range(2000):
        alerts.counted(refused("", f"fe80::1:{number:x}"))
    assert alerts.counted(refused("ann", "10.0.0.5")) is None, "that it was told just now is forgotten for them"


def test_who_is_known_has_no_more_lines_from_many_addresses() -> None:
    clock = Clock()
    trail = AuditTrail([], source="TRIAGE")
    alerts = Alerts(trail=trail, metrics=Metrics(), limits=LineLimits(clock=clock), clock=clock)
    told = [alerts.counted(refused("ann", f"fe80::{number:x}")) is not None for number in range(2 * OF_ONE)]
    assert told == [True] * OF_ONE + [False] * OF_ONE


@given(
    tries=st.lists(
        st.tuples(st.sampled_from("abc"), st.integers(0, 2 * OF_ONE), st.floats(-100.0, 100.0)), max_size=120
    )
)
def test_no_try_is_lost_between_what_is_told_and_what_is_counted(tries: list[tuple[str, int, float]]) -> None:
    """However the clock goes: every try is a line, or is counted by one later line, also of one who is forgotten."""
    clock = Clock()
    limits, counted = LineLimits(clock=clock), 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("dicom_node.web.line_limits._MOST", 1)
        patch.setattr("dicom_node.web.line_limits.OF_ALL", 5)
        for sender, what, step in tries:
            clock.now += step
            left_out = limits.admit(sender, str(what), is_known=sender == "a")
            counted += 0 if left_out is None else 1 + left_out.total
        clock.now += 1000.0
        for sender in "abc":
            told = limits.admit(sender, "last", is_known=sender == "a")
            assert told is not None
            counted += told.total
    assert counted == len(tries)
