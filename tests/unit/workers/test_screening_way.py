"""From a route that says that it is screening to a report with a Lung-RADS category, before judges from outside.

Only what the network gives is played: findings with their composition. Settings, job, worker, gate and files are real.
"""

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from pydicom import dcmread

from dicom_node.core.codes import LUNG_RADS_ASSESSMENT, RECOMMENDED_INTERVAL
from dicom_node.core.errors import SettingsError
from dicom_node.core.lung_rads import Composition
from dicom_node.core.priority import Priority
from dicom_node.core.routing import TOGETHER
from dicom_node.core.urgency import TriageRule
from dicom_node.settings_loading import load_settings
from tests.received_study import STUDY
from tests.triage_room import NOW, FakeAlgorithm, Room
from tests.unit.workers.reporting.test_summary import items
from workers.algorithms import Prepared, Reading
from workers.reporting import evidence
from workers.triage import Triage
from workers.volume import Volume

ROUTE = """
[[routes]]
name = "{name}"
algorithm = "lung_nodule"
when = 'Modality == "CT" and "SCREENING" in StudyDescription'
screening = "{screening}"
"""


class Solid(FakeAlgorithm):
    """An algorithm that tells the composition of what it finds."""

    def read(self, volume: Volume, prepared: Prepared | None = None) -> Reading:
        """Solid balls in fixed places."""
        reading = super().read(volume, prepared)
        findings = tuple(replace(finding, composition=Composition.SOLID) for finding in reading.findings)
        return replace(reading, findings=findings)


def reported(room: Room, folder: Path, screening: str, algorithm: FakeAlgorithm | None = None) -> Path:
    """The files of the report on the room's study, whose route says so of its examinations."""
    settings = folder / "node.toml"
    settings.write_text(ROUTE.format(name=room.job.route, screening=screening), encoding="utf-8")
    routes = load_settings(settings, {}).routes
    algorithm = algorithm or Solid()
    algorithm.nodules = 2
    triage: Triage = room.triage_with(lung_nodule=algorithm)
    triage._screenings = {route.name: route.screening for route in routes}
    room.triage = triage
    room.read()
    results = folder / "results"
    results.mkdir()
    for row in room.index.jobs.report_rows(room.job.job_uid):
        (results / f"{row.form}.dcm").write_bytes(room.archive.path_of(row.path).read_bytes())
    return results


def test_a_first_screening_has_a_category_for_each_nodule_and_for_the_examination(
    room: Room,
    tmp_path: Path,
    shared: Path,
    program: Callable[[str], Path],
) -> None:
    results = reported(room, tmp_path, "baseline")
    said = dcmread(results / "SR.dcm")
    codes = [item.ConceptCodeSequence[0].CodeMeaning for item in items(said, LUNG_RADS_ASSESSMENT.value)]
    assert codes == ["Lung-RADS 4A"] * 3, "8.8 and 9.8 mm, and the examination"
    (interval,) = items(said, RECOMMENDED_INTERVAL.value)
    assert interval.MeasuredValueSequence[0].NumericValue == 3

    shown = subprocess.run(
        [program("dsrdump"), "+Pl", results / "SR.dcm"], capture_output=True, text=True, check=True
    ).stdout
    assert shown.count('"Lung-RADS 4A"') == 3
    assert shown.count('"Solid"') == 2
    check = [sys.executable, shared / "tools" / "check-evidence", results, "--sources", tmp_path / "series"]
    program("dciodvfy")
    run = subprocess.run(check, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout


class TooMany(Solid):
    """An algorithm that marked more than it could measure."""

    def read(self, volume: Volume, prepared: Prepared | None = None) -> Reading:
        """Solid balls, and two marks of which nothing else is known."""
        return replace(super().read(volume, prepared), not_reported=2)


def test_marks_that_were_not_measured_leave_the_examination_without_a_category(
    room: Room,
    tmp_path: Path,
) -> None:
    said = dcmread(reported(room, tmp_path, "baseline", TooMany()) / "SR.dcm")
    assert len(items(said, LUNG_RADS_ASSESSMENT.value)) == 2, "of the two nodules alone"
    assert not items(said, RECOMMENDED_INTERVAL.value)


def test_a_series_that_another_route_wants_too_has_categories_where_either_says_that_it_is_screening(
    room: Room, tmp_path: Path
) -> None:
    """One job serves both routes, and is named after both."""
    room.read()
    room.index.jobs.ask_again(STUDY, actor="test", at=room.now)
    job = replace(room.job, route=TOGETHER.join(("every chest", room.job.route)))
    room.index.jobs.queue(STUDY, [job], cause="", actor="test", at=room.now)
    said = dcmread(reported(room, tmp_path, "baseline") / "SR.dcm")
    assert len(items(said, LUNG_RADS_ASSESSMENT.value)) == 3


def test_any_other_examination_has_none(room: Room, tmp_path: Path) -> None:
    assert not items(dcmread(reported(room, tmp_path, "no") / "SR.dcm"), LUNG_RADS_ASSESSMENT.value)


def test_other_rules_of_urgency_write_another_report_and_never_the_same_uid_with_other_content(
    room: Room,
) -> None:
    room.read()
    before = {row.sop_instance_uid for row in room.index.jobs.report_rows(room.job.job_uid)}
    room.triage._rules = (TriageRule(name="anything", priority=Priority.STAT),)
    room.index.jobs.ask_again(STUDY, actor="a person", at=NOW)
    room.index.jobs.queue(STUDY, [room.job], cause="", actor="test", at=NOW)
    room.read()
    (sr,) = (row for row in room.index.jobs.report_rows(room.job.job_uid) if row.form == "SR")
    assert sr.sop_instance_uid not in before


def test_what_a_route_may_not_say_is_refused(tmp_path: Path) -> None:
    settings = tmp_path / "node.toml"
    settings.write_text(ROUTE.format(name="r", screening="annual"), encoding="utf-8")
    with pytest.raises(SettingsError, match=r'screening is "annual"; it must be one of no, baseline'):
        load_settings(settings, {})


def test_what_is_read_again_after_an_upgrade_has_other_uids(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another build may write other bytes, and a peer that has the first ones must not get those under one UID."""
    room.read()
    before = {row.sop_instance_uid for row in room.index.jobs.report_rows(room.job.job_uid)}
    monkeypatch.setattr(evidence, "software_digest", lambda: "another build")
    room.index.jobs.ask_again(STUDY, actor="a person", at=NOW)
    room.index.jobs.queue(STUDY, [room.job], cause="", actor="test", at=NOW)
    room.read()
    after = {row.sop_instance_uid for row in room.index.jobs.report_rows(room.job.job_uid)}
    assert after
    assert not after & before
