"""The one thing that the page can change: the button that has a study read again."""

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from dicom_node.archive.index import Index
from dicom_node.archive.lines import to_json
from dicom_node.archive.overview import read_overview, read_study
from dicom_node.core.access import Role
from dicom_node.core.attempts import Attempts
from dicom_node.core.lifecycle import StudyState
from dicom_node.settings import NodeSettings, Settings
from dicom_node.web.application import build_application
from dicom_node.web.server import WebServer
from dicom_node.work_log import WorkLog
from tests.populated_index import NOW, claim, queue, receive, study_uid
from tests.statements import told_statements
from tests.visitors import Person, session

STUDY = study_uid("poison")


class Visitor(Person):
    """Presses buttons of a running page, from wherever a test says."""

    def press(self, study: str = STUDY, **headers: str) -> tuple[int, str, str]:
        """The button of a study's page, by default as a browser on the page does."""
        answer = self.post(f"/studies/{study}/requeue", **headers)
        return answer.status, answer.headers.get("Location", ""), answer.text


@pytest.fixture
def index(tmp_path: Path) -> Iterator[Index]:
    """One study whose only attempt failed."""
    index = Index.open(f"sqlite:///{tmp_path / 'index.sqlite'}")
    lease = claim(index, queue(index, "poison", at=NOW - 60), at=NOW - 50)
    index.jobs.retry(lease, reason="the reading process was killed", attempts=Attempts(maximum=1), at=NOW - 40)
    yield index
    index.close()


@pytest.fixture
def visitor(index: Index) -> Iterator[Visitor]:
    server = WebServer(build_application(index, dict, dict, lambda: NOW), "127.0.0.1", 0)
    server.start()
    yield Visitor(server.port, session(index))
    server.stop()


def test_a_dead_letter_is_shown_as_such_with_its_reason_and_a_button(visitor: Visitor, index: Index) -> None:
    for path in ("/overview", f"/studies/{STUDY}"):
        text = visitor.get(path).text
        assert "Dead letter: lung_nodule gave up after the last attempt." in text
        assert "the reading process was killed" in text
        assert f'action="/studies/{STUDY}/requeue"' in text
    assert "dicom_node_dead_letters 1.0" in visitor.get("/metrics").text
    assert read_overview(index, NOW).dead_letters == 1
    (job,) = to_json(read_study(index, STUDY, NOW))["jobs"]
    assert (job["dead_letter"], job["state"], job["next_try_at"]) == (True, "FAILED", None)


def test_the_log_stands_beside_a_failure_for_who_may_mend_it_and_as_text(index: Index, tmp_path: Path) -> None:
    settings = Settings(node=NodeSettings(data_dir=tmp_path))
    record = {"name": "workers.triage", "levelno": logging.ERROR, "levelname": "ERROR", "msg": "reading broke off"}
    kept = WorkLog(tmp_path)
    kept.handle(logging.makeLogRecord({**record, "study_instance_uid": STUDY, "reason": "<script>alert(1)</script>"}))
    kept.close()
    server = WebServer(build_application(index, dict, dict, lambda: NOW, settings=settings), "127.0.0.1", 0)
    server.start()
    try:
        for path in ("/queue", f"/studies/{STUDY}"):
            text = Person(server.port, session(index)).get(path).text
            assert "reading broke off: reason &lt;script&gt;" in text
            assert "<script>alert" not in text
        text = Person(server.port, session(index, Role.READER)).get(f"/studies/{STUDY}").text
        assert "reading broke off" not in text
    finally:
        server.stop()


def test_a_study_page_reads_its_jobs_once(visitor: Visitor, index: Index) -> None:
    statements = told_statements(index)
    assert visitor.get(f"/studies/{STUDY}").status == 200
    assert sum("FROM jobs" in " ".join(text.split()) for text in statements) == 1


def test_the_button_has_the_study_read_again_and_leads_back_to_its_page(visitor: Visitor, index: Index) -> None:
    status, location, _ = visitor.press()
    assert (status, location) == (303, f"/studies/{STUDY}")
    assert index.studies.rows(STUDY)[0].state is StudyState.COMPLETE
    last = index.studies.history(STUDY)[-1]
    assert (last.at, last.before, last.after, last.cause, last.actor) == (
        NOW,
        "FAILED",
        "COMPLETE",
        "asked for again",
        "user an-admin",
    )
    assert index.jobs.dead_letters() == 0
    text = visitor.get(location).text
    assert "user an-admin" in text
    assert "requeue" not in text, "what waits needs no button"


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Sec_Fetch_Site": "cross-site", "Origin": "http://evil.example"},
        {"Sec_Fetch_Site": "same-site"},
        {"Sec_Fetch_Site": "none"},
        {"User_Agent": "curl"},
    ],
)
def test_no_other_site_can_press_it(visitor: Visitor, index: Index, headers: dict[str, str]) -> None:
    before = index.studies.history(STUDY)
    status, _, text = visitor.press(**headers)
    assert status == 403
    assert "own page" in text
    assert index.studies.history(STUDY) == before


def test_over_tls_the_browsers_word_is_enough(visitor: Visitor) -> None:
    # Behind a proxy the host that the browser asked for may not be the one that we are asked as.
    assert visitor.press(Sec_Fetch_Site="same-origin", Origin="https://node.example")[0] == 303


def test_what_cannot_be_read_again_says_why(visitor: Visitor, index: Index) -> None:
    receive(index, "arriving", at=NOW)
    status, _, text = visitor.press(study_uid("arriving"))
    assert status == 409
    assert "still arriving" in text
    assert visitor.press("1.2.3")[0] == 404
    assert visitor.press("Doe%5EJane")[0] == 404


def test_the_button_cannot_be_pressed_by_following_a_link(visitor: Visitor, index: Index) -> None:
    answer = visitor.ask("GET", f"/studies/{STUDY}/requeue", headers={"Sec-Fetch-Site": "same-origin"})
    assert answer.status in (404, 405)
    assert index.studies.rows(STUDY)[0].state is StudyState.FAILED
