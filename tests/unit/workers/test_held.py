"""A report that fails its checks is kept, shown and alarmed, and sent to nobody; its peers are told so."""

from collections.abc import Iterator
from dataclasses import replace

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from pydicom import dcmread

from dicom_node.archive.overview import read_overview, read_study
from dicom_node.core.form import Form
from dicom_node.core.lifecycle import StudyState
from dicom_node.delivery import Delivery
from dicom_node.settings import Peer, Settings
from dicom_node.terminal import print_study
from dicom_node.web.metrics import IndexCollector
from dicom_node.web.pages import Pages
from tests.received_study import STUDY
from tests.triage_room import Room
from tests.unit.workers.test_explanation import ask_again, comment, processing
from workers import reading
from workers.reporting import passage
from workers.reporting.forms import Part
from workers.reporting.report import build_report

PACS = Peer(name="pacs", ae_title="PACS", host="127.0.0.1", port=11999, results=True)


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """The software writes reports that claim to be verified."""

    def build(*arguments: object, **others: object) -> object:
        report = build_report(*arguments, **others)  # type: ignore[arg-type]  # whatever the reading gives
        report.structured_report.VerificationFlag = "VERIFIED"
        return report

    with monkeypatch.context() as patch:
        patch.setattr(reading, "build_report", build)
        yield patch


def forms_sent(room: Room) -> list[Form]:
    """What waits for the peer."""
    Delivery(Settings(peers=(PACS,)), room.index, room.archive, lambda: room.now).oversee()
    return [row.form for row in room.index.deliveries.of_study(STUDY)]


def test_it_is_kept_and_sent_to_nobody(room: Room, broken: pytest.MonkeyPatch) -> None:
    room.read()
    assert room.row.state is StudyState.FAILED
    assert "SR breaks the rule 'status': VerificationFlag is not UNVERIFIED" in room.row.reason
    held = room.index.reports.held(STUDY)
    assert len(held) == 2, "the segmentation is of no use without its report"
    rows = {row.form: row for row in room.index.jobs.report_rows(room.job.job_uid)}
    assert room.archive.path_of(rows[Form.SR].path).is_file()
    assert forms_sent(room) == [Form.UNREAD]


def test_the_peers_are_told_that_there_is_no_report_and_why(room: Room, broken: pytest.MonkeyPatch) -> None:
    room.read()
    (row,) = [row for row in room.index.jobs.report_rows(room.job.job_uid) if row.form == Form.UNREAD]
    ds = dcmread(room.archive.path_of(row.path))
    assert processing(ds) == "111245"
    assert "The report failed its checks and is held" in comment(ds)


def test_people_are_alarmed(
    room: Room, broken: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    room.read()
    assert "a report failed its checks and is held" in caplog.messages
    overview = read_overview(room.index, room.now)
    assert [condition.condition for condition in overview.conditions] == ["reports held"]
    registry = CollectorRegistry()
    registry.register(IndexCollector(room.index, dict, lambda: room.now))
    assert b"dicom_node_reports_held 2.0" in generate_latest(registry)
    detail = read_study(room.index, STUDY, room.now)
    assert "SR held" in Pages("node").study(detail)
    print_study(detail)
    assert "HELD, sent to nobody" in capsys.readouterr().out


def test_read_again_by_software_that_was_mended_it_goes_out_and_the_alarm_ends(
    room: Room, broken: pytest.MonkeyPatch
) -> None:
    room.read()
    broken.undo()
    ask_again(room)
    room.read()
    assert room.row.state is StudyState.REPORTED
    assert room.index.reports.held() == []
    assert sorted(forms_sent(room)) == [Form.SEG, Form.SR]
    assert read_overview(room.index, room.now).conditions == ()


def test_a_form_that_others_do_not_rest_on_is_held_alone(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(passage, "find_faults", lambda *_: {Part(Form.REJECTION): (("rule", "fault"),)})

    # The rejection note stands in for whatever else may be built.
    def build(*arguments: object, **others: object) -> object:
        report = build_report(*arguments, **others)  # type: ignore[arg-type]  # whatever the reading gives
        extra = dcmread(room.file(0), stop_before_pixels=True)
        return replace(report, others={Part(Form.REJECTION): extra})

    monkeypatch.setattr(reading, "build_report", build)
    monkeypatch.setenv("PATH", "/nowhere")
    room.read()
    assert room.row.state is StudyState.REPORTED
    assert [held.reason for held in room.index.reports.held(STUDY)] == ["REJECTION breaks the rule 'rule': fault"]
    assert sorted(forms_sent(room)) == [Form.SEG, Form.SR]
