"""The button that takes a result back: from our own page alone, and with a reason."""

import http.client
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlencode

import pytest

from dicom_node.archive.index import Index
from dicom_node.core.lifecycle import StudyState
from dicom_node.web.application import build_application
from dicom_node.web.server import WebServer
from tests.populated_index import NOW, deliver, report, study_uid

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
def port(index: Index) -> Iterator[int]:
    server = WebServer(build_application(index, dict, dict, lambda: NOW), "127.0.0.1", 0)
    server.start()
    assert server.port is not None
    yield server.port
    server.stop()


def ask(port: int, method: str, path: str, body: str = "", **headers: str) -> tuple[int, str]:
    """Status and text of the answer."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        kind = {"Content-Type": "application/x-www-form-urlencoded"} if body else {}
        connection.request(method, path, body=body or None, headers={**kind, **headers})
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


def press(port: int, study: str = STUDY, origin: str = "", **form: str) -> tuple[int, str]:
    """The button, by default as a browser on the page presses it."""
    headers = {"Origin": origin or f"http://127.0.0.1:{port}"}
    return ask(port, "POST", f"/studies/{study}/withdraw", urlencode(form), **headers)


def state(index: Index) -> StudyState:
    return index.studies.rows(STUDY)[0].state


def test_the_page_has_the_button_and_after_it_the_withdrawal(index: Index, port: int) -> None:
    assert "Withdraw the result" in ask(port, "GET", f"/studies/{STUDY}")[1]
    assert press(port, reason=REASON, safety="1")[0] == 303
    (withdrawal,) = index.withdrawals.of_study(STUDY)
    assert (withdrawal.safety, withdrawal.reason, withdrawal.actor) == (True, REASON, "page")
    assert state(index) is StudyState.WITHDRAWN
    _, page = ask(port, "GET", f"/studies/{STUDY}")
    assert "Withdraw the result" not in page
    assert "for the safety of the patient: the outlines lie in the &lt;wrong&gt; lung" in page
    assert "waits for a worker" in page
    assert "WITHDRAWN" in ask(port, "GET", "/")[1]


def test_another_site_cannot_press_it(index: Index, port: int) -> None:
    assert press(port, origin="http://elsewhere.example", reason=REASON)[0] == 403
    assert ask(port, "POST", f"/studies/{STUDY}/withdraw", urlencode({"reason": REASON}))[0] == 403
    assert state(index) is StudyState.DELIVERED


@pytest.mark.parametrize("reason", ["", "   "])
def test_without_a_reason_nothing_is_withdrawn(index: Index, port: int, reason: str) -> None:
    status, page = press(port, reason=reason)
    assert status == 409
    assert "a reason must be given" in page
    assert state(index) is StudyState.DELIVERED


def test_a_long_reason_is_cut_and_a_body_that_is_no_form_is_no_reason(index: Index, port: int) -> None:
    headers = {"Origin": f"http://127.0.0.1:{port}"}
    assert ask(port, "POST", f"/studies/{STUDY}/withdraw", "\xff\x00" * 5000, **headers)[0] == 409
    assert press(port, reason="x" * 3000)[0] == 303
    assert index.withdrawals.of_study(STUDY)[0].reason == "x" * 200


def test_a_study_that_is_not_there_is_not_found(port: int) -> None:
    assert press(port, study="1.2.3", reason=REASON)[0] == 404
    assert press(port, study="no-uid", reason=REASON)[0] == 404


def test_twice_is_once(index: Index, port: int) -> None:
    assert press(port, reason=REASON)[0] == 303
    assert press(port, reason=REASON)[0] == 409
    assert len(index.withdrawals.of_study(STUDY)) == 1
