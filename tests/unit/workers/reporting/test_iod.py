"""dciodvfy's word counts, but for what came from the source as it is; and its words hold no patient's data."""

import os
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest

from tests.unit.workers.reporting.conftest import CENTRES, Reading, reading_of
from workers.reporting.passage import Checked, check_objects
from workers.reporting.report import build_report

pytestmark = pytest.mark.skipif(
    shutil.which("dciodvfy") is None, reason="dciodvfy is not installed (Debian: dicom3tools)"
)

#: What senders really write, and what dciodvfy calls an error.
ODD_SOURCES: dict[str, dict[str, Any]] = {
    "a sex that is no term": {"PatientSex": "X"},
    "a year for a date of birth": {"PatientBirthDate": "1961"},
    "a long study ID": {"StudyID": "a study ID that is too long for a short string"},
    "a time with colons": {"StudyTime": "25:61"},
    "two accession numbers": {"AccessionNumber": ["A", "B"]},
    "a long patient ID": {"PatientID": "x" * 80},
    "a study UID with leading zeros": {"StudyInstanceUID": "1.02.3.4"},
    "a frame of reference with leading zeros": {"FrameOfReferenceUID": "1.02.3"},
}


def children() -> set[str]:
    """The processes that this one has started and not yet waited for."""
    lists = Path("/proc/self/task").glob("*/children")
    return {child for one in lists for child in one.read_text().split()}


def checked(reading: Reading, spoil: str = "") -> tuple[Checked, ...]:
    """The objects of a reading after the gate; `spoil` names an attribute of the segmentation to be taken away."""
    report = build_report(reading.evidence, reading.findings, reading.labels)
    if spoil:
        delattr(report.segmentation, spoil)
    return check_objects(report, reading.evidence)


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("source", ODD_SOURCES)
def test_a_value_of_the_source_is_copied_and_not_judged(tmp_path: Path, source: str) -> None:
    for one in checked(reading_of(tmp_path, CENTRES[:1], **ODD_SOURCES[source])):
        assert one.fault == ""


def test_what_we_forgot_is_named_with_its_object_and_nothing_of_the_patient(tmp_path: Path) -> None:
    reading = reading_of(tmp_path, CENTRES[:1], PatientName="Secret^Name", PatientID="SECRET-1")
    segmentation, structured_report = checked(reading, spoil="ContentLabel")
    assert "SEG breaks the rule 'iod'" in segmentation.fault
    assert "ContentLabel" in segmentation.fault
    assert "ecret" not in segmentation.fault.lower()
    assert structured_report.fault == "SR breaks the rule 'parts': SEG, which it refers to, must not be sent"


def test_no_value_is_quoted(tmp_path: Path) -> None:
    reading = reading_of(tmp_path, CENTRES[:1])
    report = build_report(reading.evidence, reading.findings, reading.labels)
    report.segmentation["ContentLabel"]._value = "small letters and spaces"
    segmentation, _ = check_objects(report, reading.evidence)
    assert "ContentLabel" in segmentation.fault
    assert "small letters" not in segmentation.fault


def test_nothing_is_left_open(reading: Reading) -> None:
    before = set(os.listdir("/proc/self/fd"))
    checked(reading)
    assert len(set(os.listdir("/proc/self/fd"))) <= len(before)


def test_nothing_is_left_open_or_running_where_a_rule_of_ours_raises(
    reading: Reading, monkeypatch: pytest.MonkeyPatch
) -> None:
    report = build_report(reading.evidence, reading.findings, reading.labels)
    monkeypatch.setattr("workers.reporting.passage.find_faults", lambda *_: 1 // 0)
    before, running = len(os.listdir("/proc/self/fd")), children()
    with pytest.raises(ZeroDivisionError):
        check_objects(report, reading.evidence)
    assert len(os.listdir("/proc/self/fd")) <= before
    assert children() <= running


def test_a_program_that_breaks_off_is_told(
    reading: Reading, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    program = tmp_path / "dciodvfy"
    program.write_text("#!/bin/sh\nkill -SEGV $$\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert [one.fault for one in checked(reading)] == ["", ""]
    told = [record for record in caplog.records if record.message == "an outside check broke off"]
    assert [(record.kind, record.signal) for record in told] == [("dciodvfy", signal.SIGSEGV)] * 2


def test_a_program_that_ends_itself_is_not_said_to_break_off(
    reading: Reading, caplog: pytest.LogCaptureFixture
) -> None:
    assert "iod" in checked(reading, spoil="ContentLabel")[0].fault
    assert not caplog.records


def test_without_the_program_our_own_rules_judge_alone(reading: Reading, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    assert [one.fault for one in checked(reading, spoil="ContentLabel")] == ["", ""]
