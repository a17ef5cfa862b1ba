"""Findings followed from study to study: what the second report says of the first, and when it says nothing."""

import errno
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydicom import Dataset

from dicom_node.archive.files import Archive
from dicom_node.archive.index import Index
from dicom_node.core import codes
from dicom_node.core.form import BY_DEFAULT, Form
from dicom_node.core.job import Job
from dicom_node.core.lifecycle import JobState
from dicom_node.core.lung_rads import Composition
from dicom_node.core.prior import EarlierStudies
from tests.factories import ct_series
from tests.follow_ups import FIRST, NEW, SECOND, THIRD, Ball, Drawn, Ward, chest
from tests.unit.workers.reporting.test_summary import items
from workers.algorithms import Prepared, Reading
from workers.layout import Layout
from workers.reporting.encoding import as_file
from workers.volume import Volume

BEFORE, AFTER = "20240101", "20240401"
BASELINE = (FIRST, SECOND, THIRD)
#: One has grown, one is as it was, one is gone, and one is new.
LATER = (FIRST.grown(1.5), SECOND, NEW)
MOVED = {"breath": 0.92, "shift": (6.0, -5.0, 8.0)}


@pytest.fixture
def ward(tmp_path: Path) -> Iterator[Ward]:
    """A worker to which studies come."""
    index = Index.open("sqlite://")
    yield Ward(index=index, archive=Archive(tmp_path / "data"), folder=tmp_path)
    index.close()


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Ward, str, str]]:
    """Two studies of a patient, three months apart, in every form of a report; not to be changed."""
    folder = tmp_path_factory.mktemp("two")
    index = Index.open("sqlite://")
    forms = BY_DEFAULT | {Form.SR_OHIF, Form.LABEL_MAP, Form.PDF, Form.PRESENTATION_STATE}
    ward = Ward(index=index, archive=Archive(folder / "data"), folder=folder, forms=forms, source=ct_series)
    yield ward, ward.study("first", BEFORE, BASELINE), ward.study("second", AFTER, LATER, **MOVED)
    index.close()


class Composed(Drawn):
    """Says of each nodule that it is solid."""

    def read(self, volume: Volume, prepared: Prepared | None = None) -> Reading:
        reading = super().read(volume, prepared)
        return replace(reading, findings=tuple(replace(one, composition=Composition.SOLID) for one in reading.findings))


class Otherwise(Drawn):
    """Tells something else of how it read."""

    def __init__(self, then: dict[str, Any]) -> None:
        self._then = then

    def read(self, volume: Volume, prepared: Prepared | None = None) -> Reading:
        return replace(super().read(volume, prepared), **self._then)


class Elsewhere(Drawn):
    """Tells no side, which leaves no pair sure."""

    def read(self, volume: Volume, prepared: Prepared | None = None) -> Reading:
        reading = super().read(volume, prepared)
        return replace(reading, findings=tuple(replace(one, laterality=None) for one in reading.findings))


def values(report: Dataset, name: codes.Code) -> list[float]:
    return [float(item.MeasuredValueSequence[0].NumericValue) for item in items(report, name.value)]


def asked_again(ward: Ward, study: str) -> None:
    """A person has the study read again."""
    ward.index.jobs.ask_again(study, actor="test", at=ward.now)
    ward.index.jobs.queue(study, [ward.job(study).job], cause="", actor="test", at=ward.now)


def test_what_is_surely_the_same_keeps_its_name_and_uid_in_every_object(two: tuple[Ward, str, str]) -> None:
    ward, first, second = two
    then, now = ward.tracked(first), ward.tracked(second)
    assert set(now) == {"Nodule 1", "Nodule 3", "Nodule 4"}
    assert {name: now[name] for name in ("Nodule 1", "Nodule 3")} == {n: then[n] for n in ("Nodule 1", "Nodule 3")}
    assert now["Nodule 4"] not in then.values()
    results = ward.results(second)
    for form in ("SR", "SR OHIF"):
        assert {str(item.UID) for item in items(results[form], "112040")} == set(now.values())
    described = (s for s in results["LABELMAP"].SegmentSequence if "TrackingUID" in s)
    assert {str(s.TrackingID): str(s.TrackingUID) for s in described} == now
    drawn = results["GSPS"].GraphicAnnotationSequence
    graphics = [graphic for one in drawn for graphic in one.get("GraphicObjectSequence", [])]
    assert {str(graphic.TrackingUID) for graphic in graphics if "TrackingUID" in graphic} == set(now.values())


def test_the_report_says_what_became_of_each_in_codes_and_numbers(two: tuple[Ward, str, str]) -> None:
    ward, first, second = two
    then, now = (ward.results(study)["SR"] for study in (first, second))
    said = [item.ConceptCodeSequence[0].CodeValue for item in items(now, codes.CHANGE.value)]
    assert sorted(said) == sorted(
        code.value for code in (codes.INCREASE_IN_SIZE, codes.NO_SIGNIFICANT_CHANGE, codes.NEW_FINDING)
    )
    assert set(values(now, codes.PRIOR_DIAMETER)) < set(values(then, codes.DIAMETER))
    assert values(now, codes.DAYS_SINCE_PRIOR) == [91, 91]
    (grown, days) = max(values(now, codes.VOLUME_CHANGE)), values(now, codes.DOUBLING_TIME)
    assert grown == pytest.approx(100 * (1.5**3 - 1), rel=0.25)
    assert days == [pytest.approx(91 / 1.755, rel=0.25)]
    assert not items(then, codes.CHANGE.value)
    assert "PertinentOtherEvidenceSequence" not in then


def test_the_report_names_the_earlier_one_as_other_evidence_and_not_as_one_that_it_replaces(
    two: tuple[Ward, str, str],
) -> None:
    ward, first, second = two
    for form in ("SR", "SR OHIF"):
        then, now = ward.results(first)[form], ward.results(second)[form]
        (study,) = now.PertinentOtherEvidenceSequence
        assert study.StudyInstanceUID == first
        (referred,) = study.ReferencedSeriesSequence[0].ReferencedSOPSequence
        assert referred.ReferencedSOPInstanceUID == then.SOPInstanceUID
        assert "PredecessorDocumentsSequence" not in now
        (item,) = items(now, codes.PRIOR_REPORT.value)
        assert item.ReferencedSOPSequence[0].ReferencedSOPInstanceUID == then.SOPInstanceUID


def test_the_comment_tells_people_what_grew_what_is_new_and_what_is_gone(two: tuple[Ward, str, str]) -> None:
    ward, _, second = two
    said = ward.comment(second)
    assert "Compared with the report on the study of 2024-01-01, 91 days before." in said
    assert "Nodule 3: mean diameter" in said
    assert "): increase in size." in said
    assert "): no significant change." in said
    assert "Nodule 2 of 2024-01-01 was not found again." in said
    assert "Nodule 4 was not marked on 2024-01-01, where that scan shows its place." in said


def test_growth_makes_the_study_urgent_and_the_reason_says_so(two: tuple[Ward, str, str]) -> None:
    ward, first, second = two
    assert ward.job(first).summary["priority"] == codes.ACTIONABLE_CATEGORY_3.meaning
    assert ward.job(second).summary["priority"] == codes.ACTIONABLE_CATEGORY_2.meaning
    assert "Nodule 3" in ward.job(second).summary["priority_reason"]
    assert "volume doubled within 400 days" in ward.job(second).summary["priority_reason"]


def test_the_summary_has_no_date_of_the_patient(two: tuple[Ward, str, str]) -> None:
    ward, _, second = two
    rows = {row["name"]: row for row in ward.job(second).summary["rows"]}
    assert rows["Nodule 3"]["change"] == "increased"
    assert rows["Nodule 3"]["prior_days"] == 91
    assert "2024" not in str({**ward.job(second).summary, "layout": ""})


def test_outside_judges_find_no_fault(
    two: tuple[Ward, str, str], tmp_path: Path, shared: Path, program: Callable[[str], Path]
) -> None:
    ward, _, second = two
    faults: list[str] = []
    for form, ds in ward.results(second).items():
        path = tmp_path / "all" / f"{form}.dcm"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(as_file(ds))
        if form != "LABELMAP":  # the program knows no segment of number 0
            judged = subprocess.run([program("dciodvfy"), path], capture_output=True, text=True, check=False)
            faults += [f"{form}: {line}" for line in judged.stderr.splitlines() if line.startswith("Error")]
    assert faults == []
    for sr, seg in (("SR", "SEG"), ("SR OHIF", "SEG")):
        folder = tmp_path / sr.replace(" ", "")
        folder.mkdir()
        for form in (sr, seg):
            (folder / f"{form}.dcm").write_bytes(as_file(ward.results(second)[form]))
        check = [sys.executable, str(shared / "tools" / "check-evidence"), str(folder), "--sources"]
        # With what the earlier study left, as a PACS has it.
        said = subprocess.run([*check, str(ward.folder)], capture_output=True, text=True, check=False)
        assert said.returncode == 0, said.stdout
    shown = subprocess.run(
        [program("dsrdump"), "+Pl", tmp_path / "all" / "SR.dcm"], capture_output=True, text=True, check=True
    ).stdout
    assert "Increase in size" in shown
    assert "Prior report for current patient" in shown


def test_the_same_studies_read_again_write_the_same_objects(ward: Ward) -> None:
    ward.study("first", BEFORE, BASELINE)
    second = ward.study("second", AFTER, LATER)
    before = {form: as_file(ds) for form, ds in ward.results(second).items()}
    asked_again(ward, second)
    ward.read()
    assert {form: as_file(ds) for form, ds in ward.results(second).items()} == before


def test_a_third_study_goes_on_from_the_second_and_gives_no_name_twice(ward: Ward) -> None:
    first = ward.study("first", BEFORE, BASELINE)
    second = ward.study("second", AFTER, (FIRST, SECOND))
    third = ward.study("third", "20240701", (FIRST, SECOND, NEW))
    assert set(ward.tracked(second)) == {"Nodule 1", "Nodule 3"}
    assert set(ward.tracked(third)) == {"Nodule 1", "Nodule 3", "Nodule 4"}, "what was Nodule 2 is another one"
    assert ward.tracked(third)["Nodule 1"] == ward.tracked(first)["Nodule 1"]
    assert "2024-04-01" in ward.comment(third)


def test_a_study_that_comes_after_a_later_one_is_compared_when_that_is_read_again(ward: Ward) -> None:
    later = ward.study("later", AFTER, (FIRST.grown(1.5),))
    earlier = ward.study("earlier", BEFORE, (FIRST,))
    assert "Compared" not in ward.comment(earlier), "nothing is compared with what was not there yet"
    assert "Compared" not in ward.comment(later)
    own = ward.results(later)["SR"].SOPInstanceUID
    asked_again(ward, later)
    ward.read()
    assert "increase in size" in ward.comment(later)
    assert ward.tracked(later) == ward.tracked(earlier)
    assert ward.results(later)["SR"].SOPInstanceUID != own, "another content has another UID"


@pytest.mark.parametrize(
    "other",
    [
        {"PatientBirthDate": "19610413"},
        {"IssuerOfPatientID": "ELSEWHERE", "PatientBirthDate": ""},
    ],
)
def test_a_study_that_may_be_of_another_patient_is_not_compared(ward: Ward, other: dict[str, str]) -> None:
    first = ward.study("first", BEFORE, (FIRST,), **other)
    second = ward.study("second", AFTER, (FIRST,))
    assert "ompared" not in ward.comment(second)
    assert not set(ward.tracked(first).values()) & set(ward.tracked(second).values())


def test_what_an_issuer_calls_by_one_id_is_one_patient_without_a_birth_date(ward: Ward) -> None:
    issued = {"IssuerOfPatientID": "HOSPITAL", "PatientBirthDate": ""}
    first = ward.study("first", BEFORE, (FIRST,), **issued)
    second = ward.study("second", AFTER, (FIRST,), **issued)
    assert ward.tracked(second) == ward.tracked(first)


def test_hidden_patients_with_one_id_and_one_birth_date_for_all_are_not_compared(ward: Ward) -> None:
    hidden = {"PatientID": "ANON", "PatientName": "ANON", "PatientBirthDate": "19700101"}
    hidden |= {"PatientIdentityRemoved": "YES", "DeidentificationMethod": "by hand"}
    first = ward.study("first", BEFORE, (FIRST,), **hidden)
    second = ward.study("second", AFTER, (FIRST,), **hidden)
    assert "Compared" not in ward.comment(second)
    assert "under this Patient ID was not compared: it is not surely of the same patient" in ward.comment(second)
    assert not set(ward.tracked(first).values()) & set(ward.tracked(second).values())


def test_a_withdrawn_study_is_never_compared_and_the_one_before_is(ward: Ward) -> None:
    first = ward.study("first", BEFORE, (FIRST,))
    rejected = ward.study("rejected", "20240201", (FIRST,))
    ward.index.withdrawals.withdraw(rejected, safety=True, reason="another patient", actor="test", at=ward.now)
    second = ward.study("second", AFTER, (FIRST,))
    assert "study of 2024-01-01" in ward.comment(second)
    assert ward.tracked(second) == ward.tracked(first)


def test_studies_that_were_compared_with_a_withdrawn_one_say_so_in_their_history(ward: Ward) -> None:
    first = ward.study("first", BEFORE, (FIRST,))
    second = ward.study("second", AFTER, (FIRST,))
    ward.index.withdrawals.withdraw(first, safety=True, reason="another patient", actor="test", at=ward.now)
    told = [line.cause for line in ward.index.studies.history(second) if "which was withdrawn" in line.cause]
    assert told == [f"its findings were compared with those of study {first}, which was withdrawn: have it read again"]
    asked_again(ward, second)
    ward.read()
    assert "Compared" not in ward.comment(second)


def test_what_is_withdrawn_while_a_later_study_is_compared_with_it_is_in_no_report(ward: Ward) -> None:
    first = ward.study("first", BEFORE, (FIRST,))
    second = ward.arrive("second", AFTER, chest((FIRST,)))
    found = ward.index.priors.known

    def then_withdrawn(job: Job, years: float) -> EarlierStudies:
        known = found(job, years)
        if known.priors:
            ward.index.withdrawals.withdraw(first, safety=True, reason="another", actor="test", at=ward.now)
        return known

    ward.index.priors.known = then_withdrawn  # type: ignore[method-assign]  # a person acts while it is read
    ward.read()
    assert not [line for line in ward.index.studies.history(second) if line.after == "REPORTED"]
    assert "does not stand any more" in ward.job(second).job.reason


def test_what_is_withdrawn_while_a_later_report_is_being_kept_is_in_no_report(ward: Ward) -> None:
    first = ward.study("first", BEFORE, (FIRST,))
    second = ward.arrive("second", AFTER, chest((FIRST,)))
    store = ward.archive.store_result

    def then_withdrawn(**kept: Any) -> str:
        if kept["study_uid"] == second and not ward.index.withdrawals.of_study(first):
            ward.index.withdrawals.withdraw(first, safety=True, reason="another", actor="test", at=ward.now)
        return store(**kept)

    ward.archive.store_result = then_withdrawn  # type: ignore[method-assign]  # a person acts between two files
    ward.read()
    assert not [line for line in ward.index.studies.history(second) if line.after == "REPORTED"]
    assert "does not stand any more" in ward.job(second).job.reason


def test_a_study_that_is_being_read_again_is_compared_only_after_that(ward: Ward) -> None:
    first = ward.study("first", BEFORE, (FIRST,))
    asked_again(ward, first)
    second = ward.arrive("second", AFTER, chest((FIRST,)))
    assert ward.index.priors.of(ward.job(second).job, 5.0) == ()
    # The first study waits longest, and is read again before the second.
    ward.read()
    assert "Compared" in ward.comment(second)
    assert ward.tracked(second) == ward.tracked(first)


def test_images_that_left_the_disk_are_not_missed(ward: Ward) -> None:
    first = ward.study("first", BEFORE, (FIRST,))
    for series in ward.index.studies.study(first).series:
        for instance in series.instances:
            ward.archive.path_of(instance.path).unlink()
    second = ward.study("second", AFTER, (FIRST,))
    assert ward.tracked(second) == ward.tracked(first)


def test_a_report_that_is_not_there_any_more_is_named_and_passed_over(ward: Ward) -> None:
    first = ward.study("first", BEFORE, (FIRST,))
    lost = ward.study("lost", "20240201", (FIRST,))
    for row in ward.index.jobs.report_rows(ward.job(lost).job.job_uid):
        ward.archive.path_of(row.path).unlink()
    second = ward.study("second", AFTER, (FIRST,))
    assert "was not compared: its report is not in the archive any more" in ward.comment(second)
    assert "Compared with the report on the study of 2024-01-01" in ward.comment(second)
    assert ward.tracked(second) == ward.tracked(first)


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda content: b"", id="empty"),
        pytest.param(lambda content: content[:40], id="its beginning"),
        pytest.param(lambda content: content[:700], id="its header"),
        pytest.param(lambda content: content[:-2], id="all but its end"),
        pytest.param(lambda content: content[900:], id="all but its beginning"),
        pytest.param(lambda content: content.replace(b"Nodule 1", b"Nodule 7"), id="another name"),
        pytest.param(lambda content: content + b"\0\0", id="more"),
    ],
)
def test_a_report_that_was_altered_on_disk_is_named_and_passed_over(
    ward: Ward, damage: Callable[[bytes], bytes], caplog: pytest.LogCaptureFixture
) -> None:
    first = ward.study("first", BEFORE, (FIRST,))
    damaged = ward.study("damaged", "20240201", (FIRST,))
    for row in ward.index.jobs.report_rows(ward.job(damaged).job.job_uid):
        path = ward.archive.path_of(row.path)
        content = damage(path.read_bytes())
        path.unlink()
        path.write_bytes(content)
    second = ward.study("second", AFTER, (FIRST,))
    passed_over = "An earlier study under this Patient ID was not compared: its report was altered or cut short"
    assert passed_over in ward.comment(second)
    assert "Compared with the report on the study of 2024-01-01" in ward.comment(second)
    assert ward.tracked(second) == ward.tracked(first)
    (warning,) = [record for record in caplog.records if "altered on disk" in record.getMessage()]
    assert warning.levelname == "WARNING"
    assert "20240201" not in str(vars(warning))


def test_a_report_that_has_fewer_findings_than_were_found_then_is_named_and_passed_over(ward: Ward) -> None:
    ward.study("first", BEFORE, (FIRST,))
    second = ward.arrive("second", AFTER, chest((FIRST,)))
    (prior,) = ward.index.priors.of(ward.job(second).job, 5.0)
    (known,) = prior.layout["findings"].values()
    layout = {**prior.layout, "findings": {**prior.layout["findings"], "2.25.99": known}}
    left = EarlierStudies(priors=(replace(prior, layout=layout),))
    ward.index.priors.known = lambda *_: left  # type: ignore[method-assign]  # as no version left it
    ward.read()
    assert "was not compared: its report tells less than was found then" in ward.comment(second)


def test_a_disk_that_fails_is_no_report_that_is_gone(ward: Ward) -> None:
    first = ward.study("first", BEFORE, (FIRST,))
    for row in ward.index.jobs.report_rows(ward.job(first).job.job_uid):
        path = ward.archive.path_of(row.path)
        path.unlink()
        path.mkdir()  # to be read as a file raises what a disk may
    second = ward.study("second", AFTER, (FIRST,))
    assert ward.job(second).job.state is JobState.FAILED
    assert "IsADirectoryError" in ward.job(second).job.reason


def test_after_a_study_without_findings_what_is_marked_is_new(ward: Ward) -> None:
    ward.study("first", BEFORE, ())
    second = ward.study("second", AFTER, (FIRST,))
    assert "Nodule 1 was not marked on 2024-01-01, where that scan shows its place." in ward.comment(second)
    (said,) = items(ward.results(second)["SR"], codes.CHANGE.value)
    assert said.ConceptCodeSequence[0].CodeValue == codes.NEW_FINDING.value


def test_what_follows_a_study_that_cannot_be_compared_is_of_no_first_screening(ward: Ward) -> None:
    ward.study("first", BEFORE, (FIRST,))
    ward.algorithm = Composed()
    ward.screening = "baseline"
    assert "Lung-RADS" in str(ward.results(ward.study("alone", "20240201", (FIRST,), PatientID="ALONE"))["SR"])
    ward.prior_years = 0.0
    assert "Lung-RADS" in str(ward.results(ward.study("off", "20240202", (FIRST,)))["SR"])
    ward.prior_years = 5.0
    cut = ward.arrive("second", AFTER, chest((FIRST,))[24:])
    ward.read()
    assert "not compared: the lungs of both scans" in ward.comment(cut)
    assert "Lung-RADS" not in str(ward.results(cut)["SR"])


def test_sizes_of_another_build_are_called_a_change_only_far_beyond_what_that_may_make_and_nothing_is_called_new(
    ward: Ward, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = ward.study("first", BEFORE, (FIRST, SECOND))
    monkeypatch.setattr("workers.layout.measuring_digest", lambda: "another build")
    second = ward.study("second", AFTER, (FIRST.grown(1.5), SECOND, NEW))
    assert set(ward.tracked(first).values()) < set(ward.tracked(second).values())
    said = ward.comment(second)
    assert said.count("that is not called a change, since another version of this software measured it then") == 1
    assert (
        said.count(
            ": increase in size, by more than may come of it that another version of this software measured it then."
        )
        == 1
    )
    assert "was not marked on 2024-01-01." in said
    report = ward.results(second)["SR"]
    assert [item.ConceptCodeSequence[0].CodeValue for item in items(report, codes.CHANGE.value)] == [
        codes.INCREASE_IN_SIZE.value
    ]
    assert [item.ConceptCodeSequence[0].CodeValue for item in items(report, codes.COMPARABILITY.value)] == [
        codes.MEASURED_OTHERWISE.value
    ] * 2
    for number in (codes.DIAMETER_CHANGE, codes.VOLUME_CHANGE, codes.DOUBLING_TIME):
        assert not values(report, number)
    assert len(values(report, codes.PRIOR_DIAMETER)) == 2
    summary = ward.job(second).summary
    assert summary["priority"] == codes.ACTIONABLE_CATEGORY_2.meaning
    rows = {row["change"]: row for row in summary["rows"]}
    assert rows["increased"]["caveat"] == "another version of this software measured it then"
    assert rows["increased"]["doubling_days"] is None
    assert rows["not compared"]["caveat"] == "another version of this software measured it then"


@pytest.mark.parametrize(
    "then", [{"not_reported": 3}, {"incomplete": "a part was not read"}, {"parameters": (("threshold", "0.9"),)}]
)
def test_what_a_reading_that_left_something_out_or_ran_otherwise_did_not_mark_is_not_called_new(
    ward: Ward, then: dict[str, Any]
) -> None:
    ward.algorithm = Otherwise(then=then)
    ward.study("first", BEFORE, (FIRST,))
    ward.algorithm = Drawn()
    second = ward.study("second", AFTER, (FIRST, NEW))
    assert "Nodule 2 was not marked on 2024-01-01." in ward.comment(second)
    said = [item.ConceptCodeSequence[0].CodeValue for item in items(ward.results(second)["SR"], codes.CHANGE.value)]
    assert codes.NEW_FINDING.value not in said


def test_what_a_reading_that_leaves_something_out_does_not_mark_is_not_surely_gone(ward: Ward) -> None:
    ward.study("first", BEFORE, (FIRST, SECOND))
    ward.algorithm = Otherwise(then={"not_reported": 3})
    second = ward.study("second", AFTER, (FIRST,))
    assert "was not found again, but not everything is outlined now." in ward.comment(second)


def test_what_thick_slices_or_other_settings_do_not_mark_is_not_surely_gone(ward: Ward) -> None:
    ward.study("first", BEFORE, (FIRST, SECOND))
    ward.source = ct_series
    thick = ward.study("thick", "20240201", (FIRST,), SliceThickness="5.0", PatientID="TEST-1")
    assert "was not found again, but slices as thick as now may not show it." in ward.comment(thick)
    ward.prior_years = 0.2
    ward.study("second", "20250101", (FIRST, SECOND))
    ward.algorithm = Otherwise(then={"parameters": (("threshold", "0.9"),)})
    other = ward.study("other", "20250201", (FIRST,))
    assert "was not found again, but another version or setting read that scan." in ward.comment(other)


def test_what_was_paired_and_is_not_when_read_again_has_a_uid_of_its_own(ward: Ward) -> None:
    first = ward.study("first", BEFORE, (FIRST,))
    second = ward.study("second", AFTER, (FIRST,))
    assert ward.tracked(second) == ward.tracked(first)
    ward.algorithm = Elsewhere()
    asked_again(ward, second)
    ward.read()
    (again,) = ward.tracked(second).values()
    assert again not in ward.tracked(first).values()
    assert "is not clear" in ward.comment(second)


def test_what_an_earlier_version_read_is_named_and_passed_over(ward: Ward) -> None:
    first = ward.study("first", BEFORE, (FIRST,))
    second = ward.arrive("second", AFTER, chest((FIRST,)))
    (prior,) = ward.index.priors.of(ward.job(second).job, 5.0)
    assert prior.study_instance_uid == first
    left = EarlierStudies(priors=(replace(prior, layout={}),))
    ward.index.priors.known = lambda *_: left  # type: ignore[method-assign]  # as that left none
    ward.read()
    assert "not compared: its reading, by an earlier version," in ward.comment(second)
    assert "Compared" not in ward.comment(second)


def test_the_setting_says_how_far_back_and_turns_it_off(ward: Ward) -> None:
    ward.study("first", BEFORE, (FIRST,))
    ward.prior_years = 0.2
    assert "Compared" not in ward.comment(ward.study("second", AFTER, (FIRST,)))
    ward.prior_years = 0.0
    assert "Compared" not in ward.comment(ward.study("third", "20240402", (FIRST,)))


def test_slices_of_another_thickness_are_compared_without_calling_it_a_change(ward: Ward) -> None:
    ward.source = ct_series
    first = ward.study("first", BEFORE, (FIRST,), SliceThickness="5.0")
    second = ward.study("second", AFTER, (FIRST.grown(1.2),))
    assert ward.tracked(second) == ward.tracked(first)
    assert "that is not called a change, since slices were 5 mm thick then and are 2.5 mm now" in ward.comment(second)
    report = ward.results(second)["SR"]
    assert not items(report, codes.CHANGE.value)
    assert not values(report, codes.VOLUME_CHANGE)
    assert len(values(report, codes.PRIOR_VOLUME)) == 1
    assert ward.job(second).summary["priority"] == codes.ACTIONABLE_CATEGORY_3.meaning


def test_what_grew_to_more_than_three_times_its_width_is_told_as_growth_and_not_as_new(ward: Ward) -> None:
    small = Ball(side="Right", place=(0.0, 0.0, 0.0), radius_mm=5.0)
    first = ward.study("first", BEFORE, (small, SECOND))
    second = ward.study("second", AFTER, (small.grown(3.3), SECOND))
    assert set(ward.tracked(second).values()) == set(ward.tracked(first).values())
    assert "increase in size" in ward.comment(second)
    assert ward.job(second).summary["priority"] == codes.ACTIONABLE_CATEGORY_2.meaning


def test_what_is_so_much_larger_a_little_farther_is_called_unclear_and_neither_new_nor_gone(ward: Ward) -> None:
    ward.study("first", BEFORE, (replace(FIRST, radius_mm=3.0), SECOND))
    second = ward.study("second", AFTER, (replace(FIRST, place=(0.1, 0.05, 0.4), radius_mm=12.0), SECOND))
    said = ward.comment(second)
    assert said.count("or not: that is not clear.") == 1
    assert "may be one of those marked now: which, is not clear." in said
    assert "not found again" not in said
    assert "was not marked" not in said


def test_lungs_that_were_not_scanned_whole_are_not_compared(ward: Ward) -> None:
    ward.study("first", BEFORE, (FIRST,))
    second = ward.arrive("second", AFTER, chest((FIRST,))[24:])
    ward.read()
    assert "not compared: the lungs of both scans are not alike, or not whole" in ward.comment(second)


def test_growth_of_a_solid_nodule_far_beyond_what_versions_differ_by_has_the_category_of_a_growing_one(
    ward: Ward, monkeypatch: pytest.MonkeyPatch
) -> None:
    ward.algorithm, ward.screening = Composed(), "baseline"
    small = replace(FIRST, radius_mm=4.5)
    ward.study("first", BEFORE, (small, SECOND))
    monkeypatch.setattr("workers.layout.measuring_digest", lambda: "another build")
    second = ward.study("second", AFTER, (small.grown(2.4), SECOND))
    found = items(ward.results(second)["SR"], codes.LUNG_RADS_ASSESSMENT.value)
    assert [item.ConceptCodeSequence[0].CodeValue for item in found] == [codes.LUNG_RADS_4B.value], (
        "and none as a whole"
    )
    assert "increase in size, by more than" in ward.comment(second)


def test_contrast_agent_then_or_now_alone_is_said_of_the_comparison_and_of_each_size(ward: Ward) -> None:
    first = ward.study("first", BEFORE, (FIRST, SECOND))
    second = ward.study("second", AFTER, (FIRST.grown(1.5), SECOND), ContrastBolusAgent="IOHEXOL")
    said = ward.comment(second)
    assert set(ward.tracked(second).values()) == set(ward.tracked(first).values())
    assert "Caution: contrast agent was given now and not then: densities do not compare" in said
    assert said.count("that is not called a change, since contrast agent was given now and not then.") == 1
    assert (
        said.count("increase in size, by more than may come of it that contrast agent was given now and not then.") == 1
    )
    report = ward.results(second)["SR"]
    assert {item.ConceptCodeSequence[0].CodeValue for item in items(report, codes.COMPARABILITY.value)} == {
        codes.CONTRAST_OTHERWISE.value
    }
    third = ward.study("third", "20240501", (FIRST.grown(1.5), SECOND), ContrastBolusAgent="IOHEXOL")
    assert "ontrast agent" not in ward.comment(third)
    assert ward.comment(third).count("no significant change") == 2


def test_slices_that_lie_apart_hide_as_much_as_slices_that_are_as_thick(ward: Ward) -> None:
    ward.source = ct_series
    ward.study("first", BEFORE, (FIRST,), SliceThickness="1.0")
    apart = ward.study("apart", AFTER, (FIRST,), SliceThickness="2.5")
    assert "no significant change" in ward.comment(apart)


def test_it_is_not_said_that_contrast_agent_was_given_where_the_earlier_version_did_not_look(
    ward: Ward, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = Layout.as_json
    monkeypatch.setattr(Layout, "as_json", lambda layout: {k: v for k, v in whole(layout).items() if k != "contrast"})
    ward.study("first", BEFORE, (FIRST, SECOND), ContrastBolusAgent="IOHEXOL")
    second = ward.study("second", AFTER, (FIRST, SECOND), ContrastBolusAgent="IOHEXOL")
    assert "Compared with the report on the study of" in ward.comment(second)
    assert "contrast agent was given now" not in ward.comment(second)
    assert "it is not known whether contrast agent was given then" in ward.comment(second)


def test_a_disk_that_fails_for_another_form_of_the_earlier_report_costs_no_reading(
    ward: Ward, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    ward.forms = frozenset({Form.SEG, Form.SR, Form.SR_OHIF})
    first = ward.study("first", BEFORE, (FIRST,))
    (other,) = [row for row in ward.index.jobs.report_rows(ward.job(first).job.job_uid) if row.form == Form.SR_OHIF]
    broken, whole = ward.archive.path_of(other.path), Path.read_bytes

    def read(path: Path) -> bytes:
        if path == broken:
            raise OSError(errno.EIO, "the disk")
        return whole(path)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_bytes", read)
        second = ward.study("second", AFTER, (FIRST,))
    assert ward.tracked(second) == ward.tracked(first)
    assert "could not be read in another form" in caplog.text


def test_each_form_names_the_earlier_report_in_its_own_form_which_its_peer_has(two: tuple[Ward, str, str]) -> None:
    ward, first, second = two
    then, now = ward.results(first), ward.results(second)
    for form in ("SR", "SR OHIF"):
        (item,) = items(now[form], codes.PRIOR_REPORT.value)
        assert item.ReferencedSOPSequence[0].ReferencedSOPInstanceUID == then[form].SOPInstanceUID


def test_a_form_in_which_the_earlier_report_is_not_there_names_it_in_another(ward: Ward) -> None:
    first = ward.study("first", BEFORE, (FIRST,))
    ward.forms = BY_DEFAULT | {Form.SR_OHIF}
    second = ward.study("second", AFTER, (FIRST,))
    (item,) = items(ward.results(second)["SR OHIF"], codes.PRIOR_REPORT.value)
    assert item.ReferencedSOPSequence[0].ReferencedSOPInstanceUID == ward.results(first)["SR"].SOPInstanceUID


def test_a_form_of_the_earlier_report_that_was_altered_on_disk_is_not_named(ward: Ward) -> None:
    ward.forms = BY_DEFAULT | {Form.SR_OHIF}
    first = ward.study("first", BEFORE, (FIRST,))
    for row in ward.index.jobs.report_rows(ward.job(first).job.job_uid):
        if row.form == "SR OHIF":
            path = ward.archive.path_of(row.path)
            content = path.read_bytes()
            path.unlink()
            path.write_bytes(content[:-2])
    second = ward.study("second", AFTER, (FIRST,))
    (item,) = items(ward.results(second)["SR OHIF"], codes.PRIOR_REPORT.value)
    assert item.ReferencedSOPSequence[0].ReferencedSOPInstanceUID == ward.results(first)["SR"].SOPInstanceUID
