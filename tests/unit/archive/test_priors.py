"""Which earlier studies go with a job: of this patient, by this algorithm, that stand; the latest ones."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from dicom_node.archive.index import Index
from dicom_node.archive.priors import MOST
from dicom_node.core.form import Form
from dicom_node.core.job import Job
from tests.populated_index import NOW, claim, instance, objects, queue, study_uid, summary

TESS = {"PatientID": "T1", "PatientBirthDate": "19610412", "PatientSex": "F", "PatientName": "Test^Tess"}
TESS |= {"StudyTime": "100000"}


def waiting(index: Index, name: str, day: str, **attributes: str) -> Job:
    """A study of a day whose job waits."""
    searchable: dict[str, Any] = {**TESS, "StudyDate": day, **attributes}
    index.studies.add_instance(instance(name, 1, at=NOW, searchable=searchable))
    return queue(index, name, at=NOW + 1)


def read(index: Index, name: str, day: str, *, findings: int = 2, held: str = "", **attributes: str) -> Job:
    """A study of a day that was read."""
    job = waiting(index, name, day, **attributes)
    forms = {"seg": Form.SEG, "sr": Form.SR}
    written = objects(name, with_segmentation=findings > 0)
    rows = [replace(row, form=forms[row.path[-7:-4].strip("/")].value, held=held) for row in written]
    told = {**summary(findings), "layout": {"form": 1, "of": name}}
    index.jobs.report(claim(index, job, at=NOW + 2), rows, summary=told, at=NOW + 3)
    return job


def names(index: Index, job: Job, years: float = 5.0) -> Sequence[str]:
    """What the layouts of its priors say whose they are."""
    return [prior.layout["of"] for prior in index.priors.of(job, years)]


def test_the_latest_studies_before_this_one_go_with_a_job(index: Index) -> None:
    for name, day in (("oldest", "20230101"), ("older", "20230601"), ("latest", "20231201")):
        read(index, name, day)
    read(index, "after", "20240201")
    job = waiting(index, "this", "20240101")
    assert names(index, job) == ["latest", "older"]
    assert len(index.priors.of(job, 5.0)) == MOST
    (first, _) = index.priors.of(job, 5.0)
    assert first.study_instance_uid == study_uid("latest")
    assert first.report.path == "results/latest/sr.dcm"
    assert len(first.report.sha256) == 64
    assert first.others == {}


def test_the_report_goes_with_it_in_every_form_that_its_job_wrote(index: Index) -> None:
    job = waiting(index, "earlier", "20231201")
    (sr,) = objects("earlier", with_segmentation=False)
    ohif = replace(sr, form=Form.SR_OHIF.value, sop_instance_uid="2.25.77", path="results/earlier/ohif.dcm")
    written = [ohif, replace(sr, form=Form.SR.value)]
    told = {**summary(2), "layout": {"form": 1, "of": "earlier"}}
    index.jobs.report(claim(index, job, at=NOW + 2), written, summary=told, at=NOW + 3)
    (prior,) = index.priors.of(waiting(index, "this", "20240101"), 5.0)
    assert prior.report.path == "results/earlier/sr.dcm"
    assert {form: report.path for form, report in prior.others.items()} == {Form.SR_OHIF: "results/earlier/ohif.dcm"}


def test_a_study_without_findings_goes_with_a_job_since_what_is_marked_now_was_not_then(index: Index) -> None:
    read(index, "something", "20231201")
    read(index, "nothing found", "20231215", findings=0)
    assert names(index, waiting(index, "this", "20240101")) == ["nothing found", "something"]


def test_of_one_day_the_time_decides(index: Index) -> None:
    read(index, "in the morning", "20240101", StudyTime="080000")
    read(index, "in the evening", "20240101", StudyTime="200000")
    read(index, "at no time", "20240101", StudyTime="")
    assert names(index, waiting(index, "at noon", "20240101", StudyTime="120000")) == ["in the morning"]


@pytest.mark.parametrize(
    "other",
    [
        {"PatientID": "T2"},
        {"PatientBirthDate": "19610413"},
        {"PatientSex": "M"},
        {"PatientName": "Else^Ella"},
        {"IssuerOfPatientID": "ELSEWHERE", "PatientBirthDate": ""},
        {"StudyDate": ""},
    ],
)
def test_a_study_that_may_be_anothers_or_of_any_day_does_not(index: Index, other: dict[str, str]) -> None:
    day = other.pop("StudyDate", "20231201")
    read(index, "other", day, **other)
    assert names(index, waiting(index, "this", "20240101")) == []


def test_a_study_of_an_unknown_day_or_patient_has_none(index: Index) -> None:
    read(index, "earlier", "20231201")
    assert names(index, waiting(index, "no day", "")) == []
    assert names(index, waiting(index, "nobody", "20240101", PatientID="")) == []


def test_what_was_held_withdrawn_or_is_asked_for_again_does_not(index: Index) -> None:
    read(index, "held", "20231201", held="it breaks a rule")
    read(index, "withdrawn", "20231202")
    index.withdrawals.withdraw(study_uid("withdrawn"), safety=False, reason="wrong", actor="test", at=NOW + 5)
    read(index, "again", "20231203")
    index.jobs.ask_again(study_uid("again"), actor="test", at=NOW + 5)
    assert names(index, waiting(index, "this", "20240101")) == []


def test_what_another_algorithm_read_does_not(index: Index) -> None:
    read(index, "earlier", "20231201")
    job = waiting(index, "this", "20240101")
    assert names(index, replace(job, algorithm="another")) == []


@pytest.mark.parametrize(("years", "expected"), [(0.0, []), (0.5, []), (1.1, ["a year ago"]), (5000.0, ["a year ago"])])
def test_it_is_looked_so_many_years_back(index: Index, years: float, expected: list[str]) -> None:
    read(index, "a year ago", "20230101")
    assert names(index, waiting(index, "this", "20240101"), years) == expected


def test_a_prior_names_nobody(index: Index) -> None:
    read(index, "earlier", "20231201", PatientName="Test^Tess")
    (prior,) = index.priors.of(waiting(index, "this", "20240101"), 5.0)
    for told in ("T1", "Tess", "19610412", "20231201"):
        assert told not in repr(prior)


def awaited(index: Index, job: Job, years: float = 5.0) -> set[str]:
    return set(index.priors.awaited(job, years))


def arriving(index: Index, name: str, day: str, modality: str = "CT", **attributes: str) -> None:
    """A study of a day of which images come in."""
    searchable = {**TESS, "StudyDate": day, "Modality": modality, **attributes}
    index.studies.add_instance(instance(name, 1, at=NOW, searchable=searchable))


def test_an_earlier_study_is_awaited_while_it_comes_in_or_its_job_waits(index: Index) -> None:
    job = waiting(index, "this", "20240101", Modality="CT")
    arriving(index, "comes in", "20231201")
    waiting(index, "waits", "20231202")
    read(index, "was read", "20231203")
    read(index, "is read again", "20231204")
    index.jobs.ask_again(study_uid("is read again"), actor="test", at=NOW + 5)
    arriving(index, "after", "20240201")
    expected = {study_uid(name) for name in ("comes in", "waits", "is read again")}
    assert awaited(index, job) == expected
    assert names(index, job) == ["was read"]
    assert awaited(index, job, 0.0) == set()


@pytest.mark.parametrize("other", [{"modality": "US"}, {"PatientID": "T2"}, {"PatientBirthDate": "19610413"}])
def test_what_is_of_another_kind_or_patient_is_not_awaited(index: Index, other: dict[str, str]) -> None:
    arriving(index, "other", "20231201", **other)
    assert awaited(index, waiting(index, "this", "20240101", Modality="CT")) == set()


def test_what_waits_for_another_algorithm_alone_is_not_awaited(index: Index) -> None:
    waiting(index, "earlier", "20231201")
    job = waiting(index, "this", "20240101")
    assert awaited(index, job) == {study_uid("earlier")}
    assert awaited(index, replace(job, algorithm="another")) == set()
