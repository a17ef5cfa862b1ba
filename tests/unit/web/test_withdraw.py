"""The button that takes a result back: from our own page alone, and with a reason."""

from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlencode

import pytest

from dicom_node.archive.index import Index
from dicom_node.core.access import Role
from dicom_node.core.lifecycle import StudyState
from dicom_node.web.application import build_application
from dicom_node.web.doorkeeper import csrf_of
from dicom_node.web.server import WebServer
from tests.populated_index import NOW, deliver, report, study_uid
from tests.visitors import Person, session

STUDY = study_uid("a")
REASON = "the outlines lie in the <wrong> lung"


@pytest.fixture
def index(tmp_path: Path) -> Iterator[Index]:
    """One study whose report is at its peer."""
    index = Index.open(f"sqlite:///{tmp_path / 'index.sqlite'}")
    report(index, "a", at=NOW - 60)
    deliver(index, "a", at=NOW - 50)
    yield index
    index.close()


@pytest.fixture
def person(index: Index) -> Iterator[Person]:
    server = WebServer(build_application(index, dict, dict, lambda: NOW), "127.0.0.1", 0)
    server.start()
    yield Person(server.port, session(index, Role.OPERATOR))
    server.stop()


def press(person: Person, study: str = STUDY, origin: str = "", **form: str) -> tuple[int, str]:
    """The button, by default as a browser on the page presses it."""
    headers = {"Origin": origin} if origin else {}
    answer = person.post(f"/studies/{study}/withdraw", form, **headers)
    return answer.status, answer.text


def state(index: Index) -> StudyState:
    return index.studies.rows(STUDY)[0].state


def test_the_page_has_the_button_and_after_it_the_withdrawal(index: Index, person: Person) -> None:
    assert "Withdraw the result" in person.get(f"/studies/{STUDY}").text
    assert press(person, reason=REASON, safety="1")[0] == 303
    (withdrawal,) = index.withdrawals.of_study(STUDY)
    assert (withdrawal.safety, withdrawal.reason, withdrawal.actor) == (True, REASON, "user an-operator")
    assert state(index) is StudyState.WITHDRAWN
    page = person.get(f"/studies/{STUDY}").text
    assert "Withdraw the result" not in page
    assert "for the safety of the patient: the outlines lie in the &lt;wrong&gt; lung" in page
    assert "waits for a worker" in page
    assert "WITHDRAWN" in person.get("/").text


def test_another_site_cannot_press_it(index: Index, person: Person) -> None:
    assert press(person, origin="http://elsewhere.example", reason=REASON)[0] == 403
    assert person.ask("POST", f"/studies/{STUDY}/withdraw", urlencode({"reason": REASON})).status == 403
    assert state(index) is StudyState.DELIVERED


@pytest.mark.parametrize("reason", ["", "   "])
def test_without_a_reason_nothing_is_withdrawn(index: Index, person: Person, reason: str) -> None:
    status, page = press(person, reason=reason)
    assert status == 409
    assert "a reason must be given" in page
    assert state(index) is StudyState.DELIVERED


def test_a_long_reason_is_cut_and_a_body_that_is_no_form_is_no_reason(index: Index, person: Person) -> None:
    headers = {"Origin": f"http://127.0.0.1:{person.port}", "X-CSRF-Token": csrf_of(person.secret)}
    assert person.ask("POST", f"/studies/{STUDY}/withdraw", "\xff\x00" * 5000, headers).status == 409
    assert press(person, reason="x" * 3000)[0] == 303
    assert index.withdrawals.of_study(STUDY)[0].reason == "x" * 200


def test_a_study_that_is_not_there_is_not_found(person: Person) -> None:
    assert press(person, study="1.2.3", reason=REASON)[0] == 404
    assert press(person, study="no-uid", reason=REASON)[0] == 404


def test_twice_is_once(index: Index, person: Person) -> None:
    assert press(person, reason=REASON)[0] == 303
    assert press(person, reason=REASON)[0] == 409
    assert len(index.withdrawals.of_study(STUDY)) == 1
