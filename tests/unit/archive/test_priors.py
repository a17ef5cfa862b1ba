"""Which earlier studies go with a job: of this patient, by this algorithm, that stand; the latest ones."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from dicom_node.archive.index import Index
from dicom_node.archive.priors import MOST
from dicom_node.core.form import Form
from dicom_node.core.job import Job, Lease
from dicom_node.core.lifecycle import JobState, StudyState
from tests.populated_index import NOW, claim, instance, objects, queue, study_uid, summary
from tests.statements import told_statements

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
    report_of(index, claim(index, job, at=NOW + 2), name, findings=findings, held=held)
    return job


def report_of(index: Index, lease: Lease, name: str, *, findings: int = 2, held: str = "") -> None:
    """The report of a study whose job is claimed."""
    forms = {"seg": Form.SEG, "sr": Form.SR}
    written = objects(name, with_segmentation=findings > 0)
    rows = [replace(row, form=forms[row.path[-7:-4].strip("/")].value, held=held) for row in written]
    told = {**summary(findings), "layout": {"form": 1, "of": name}}
    index.jobs.report(lease, rows, summary=told, at=NOW + 3)


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


def unread(index: Index, job: Job, years: float = 5.0) -> list[tuple[bool, int]]:
    """Of the studies without a report, the latest first: whether their reading failed, and behind how many priors."""
    return [(one.has_failed, one.behind) for one in index.priors.known(job, years).unread]


def arriving(index: Index, name: str, day: str, modality: str = "CT", **attributes: str) -> None:
    """A study of a day of which images come in."""
    searchable = {**TESS, "StudyDate": day, "Modality": modality, **attributes}
    index.studies.add_instance(instance(name, 1, at=NOW, searchable=searchable))


TO_COME, FAILED = (False, 0), (True, 0)


def test_of_an_earlier_study_that_comes_in_or_whose_job_waits_a_report_is_to_come(index: Index) -> None:
    job = waiting(index, "this", "20240101", Modality="CT")
    assert unread(index, job) == []
    arriving(index, "comes in", "20231205")
    assert unread(index, job) == [TO_COME]
    waits = waiting(index, "waits", "20231206")
    assert unread(index, job) == [TO_COME] * 2
    claim(index, waits, at=NOW + 2)
    assert unread(index, job) == [TO_COME] * 2, "it is read"
    read(index, "is read again", "20231204")
    assert names(index, job) == ["is read again"]
    index.jobs.ask_again(study_uid("is read again"), actor="test", at=NOW + 5)
    assert names(index, job) == []
    assert unread(index, job) == [TO_COME] * 3
    assert unread(index, job, 0.0) == []


def test_what_is_of_a_later_day_or_was_read_is_not_without_a_report(index: Index) -> None:
    read(index, "was read", "20231203")
    arriving(index, "after", "20240201")
    assert unread(index, waiting(index, "this", "20240101", Modality="CT")) == []


@pytest.mark.parametrize("other", [{"modality": "US"}, {"PatientID": "T2"}, {"PatientBirthDate": "19610413"}])
def test_what_comes_in_of_another_kind_or_patient_is_none_to_compare_with(index: Index, other: dict[str, str]) -> None:
    arriving(index, "other", "20231201", **other)
    assert unread(index, waiting(index, "this", "20240101", Modality="CT")) == []


def test_what_waits_for_another_algorithm_alone_is_none_to_compare_with(index: Index) -> None:
    waiting(index, "earlier", "20231201")
    job = waiting(index, "this", "20240101")
    assert unread(index, job) == [TO_COME]
    assert unread(index, replace(job, algorithm="another")) == []


def test_a_reading_that_failed_or_whose_report_is_held_is_told_as_such(index: Index) -> None:
    job = waiting(index, "this", "20240101")
    failed = claim(index, waiting(index, "failed", "20231201"), at=NOW + 2)
    index.jobs.end(failed, JobState.FAILED, reason="its pixels cannot be decoded", at=NOW + 3)
    held = claim(index, waiting(index, "held", "20231202"), at=NOW + 2)
    index.jobs.hold(held, objects("held"), reason="it breaks a rule", at=NOW + 3)
    assert unread(index, job) == [FAILED] * 2
    # A person said that it is not to be used, perhaps since it is another's.
    index.withdrawals.withdraw(study_uid("held"), safety=True, reason="another's", actor="test", at=NOW + 5)
    assert unread(index, job) == [FAILED]


def test_what_was_reported_and_could_not_be_delivered_was_read(index: Index) -> None:
    for number in range(3):
        read(index, f"read {number}", f"2023120{number + 1}", Modality="CT")
    cause = "its peer refuses it"
    index.studies.move(study_uid("read 0"), StudyState.FAILED, cause=cause, actor="delivery", at=NOW + 4)
    assert unread(index, waiting(index, "this", "20240101", Modality="CT")) == []


def test_what_failed_for_another_algorithm_is_no_failed_reading_of_this_one(index: Index) -> None:
    lease = claim(index, waiting(index, "earlier", "20231201", Modality="CT"), at=NOW + 2)
    index.jobs.end(lease, JobState.FAILED, reason="its pixels cannot be decoded", at=NOW + 3)
    job = waiting(index, "this", "20240101", Modality="CT")
    assert unread(index, job) == [FAILED]
    assert unread(index, replace(job, algorithm="another")) == []


def test_what_was_not_for_this_algorithm_and_failed_for_something_else_is_no_failed_reading(index: Index) -> None:
    lease = claim(index, waiting(index, "earlier", "20231201", Modality="CT"), at=NOW + 2)
    index.jobs.end(lease, JobState.NOT_APPLICABLE, reason="no lungs", at=NOW + 3)
    index.studies.move(study_uid("earlier"), StudyState.FAILED, cause="a delivery", actor="test", at=NOW + 4)
    assert unread(index, waiting(index, "this", "20240101", Modality="CT")) == []


def test_a_study_that_failed_before_it_had_a_job_is_told_as_such(index: Index) -> None:
    for name, modality in (("incomplete", "CT"), ("another kind", "US")):
        arriving(index, name, "20231201", modality)
        cause = "slices are missing"
        index.studies.move(study_uid(name), StudyState.FAILED, cause=cause, actor="assembly", at=NOW + 1)
    assert unread(index, waiting(index, "this", "20240101", Modality="CT")) == [FAILED]


def test_of_one_day_what_has_no_time_may_be_the_later(index: Index) -> None:
    read(index, "at ten", "20231201")
    waiting(index, "at any time", "20231201", StudyTime="")
    waiting(index, "at eight", "20231201", StudyTime="080000")
    assert unread(index, waiting(index, "this", "20240101")) == [(False, 1), (False, 0)]


def test_however_many_other_studies_lie_between_a_waiting_one_is_known(index: Index) -> None:
    waiting(index, "waits", "20230101")
    for number in range(205):
        arriving(index, f"radiograph {number}", "20230601", "CR")
    assert unread(index, waiting(index, "this", "20240101", Modality="CT")) == [TO_COME]


def test_of_each_it_is_known_behind_how_many_of_the_studies_that_may_be_compared_it_lies(index: Index) -> None:
    for name, day in (("latest", "20231201"), ("older", "20231001")):
        read(index, name, day)
    for name, day in (("after both", "20231215"), ("between", "20231101"), ("before both", "20230901")):
        waiting(index, name, day)
    assert unread(index, waiting(index, "this", "20240101")) == [(False, 0), (False, 1), (False, 2)]


def test_however_many_jobs_there_are_only_those_of_the_patients_studies_are_looked_at(index: Index) -> None:
    """SQLite keeps no statistics of ours, and would look jobs up by what nearly all of them have in common."""
    waiting(index, "earlier", "20231201")
    job = waiting(index, "this", "20240101")
    statements = told_statements(index)
    assert unread(index, job) == [TO_COME]
    with index.transactions.read() as connection:
        plans = [connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {text}").all() for text in statements]
    steps = [row[-1] for plan in plans for row in plan]
    of_jobs = [step for step in steps if " jobs " in step]
    assert len(of_jobs) == 2
    assert all("study_instance_uid=?" in step or "job_uid=?" in step for step in of_jobs), of_jobs
    assert not [step for step in steps if step.startswith("SCAN") and "CONSTANT" not in step], steps
