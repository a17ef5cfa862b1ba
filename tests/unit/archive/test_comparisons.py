"""A report that was compared with an earlier one: none rests on what was taken back, and each such one is told."""

import pytest

from dicom_node.archive.index import Index
from dicom_node.core.errors import Interrupted
from dicom_node.core.job import Lease
from dicom_node.core.prior import PRIOR_REPORT, PRIOR_STUDY, Prior
from tests.populated_index import NOW, claim, objects, study_uid, summary
from tests.unit.archive.test_priors import read, waiting

FIRST, SECOND = "20240101", "20240401"


def compared(index: Index, lease: Lease, name: str, prior: Prior) -> None:
    """A reading in hand ends in a report that rests on an earlier one."""
    rests_on = {PRIOR_STUDY: prior.study_instance_uid, PRIOR_REPORT: prior.report.sop_instance_uid}
    index.jobs.report(lease, objects(name), summary={**summary(2), **rests_on}, at=NOW + 9)


def withdraw(index: Index, name: str) -> None:
    """A person takes a result back."""
    index.withdrawals.withdraw(study_uid(name), safety=True, reason="another's", actor="test", at=NOW + 20)


def told(index: Index, name: str) -> list[str]:
    """What the study's history says of what it was compared with."""
    return [line.cause for line in index.studies.history(study_uid(name)) if "were compared with those" in line.cause]


def test_of_a_withdrawn_study_those_that_were_compared_with_it_are_told_and_no_others(index: Index) -> None:
    read(index, "first", FIRST)
    for name, day in (("second", SECOND), ("third", "20240501")):
        job = waiting(index, name, day)
        compared(index, claim(index, job, at=NOW + 8), name, index.priors.of(job, 5.0)[-1])
    read(index, "of the patient", "20240502")
    read(index, "of another", "20240503", PatientID="T2")
    withdraw(index, "first")
    study = study_uid("first")
    said = f"its findings were compared with those of study {study}, which was withdrawn: have it read again"
    assert [told(index, name) for name in ("second", "third")] == [[said], [said]]
    assert [told(index, name) for name in ("first", "of the patient", "of another")] == [[], [], []]


def test_no_report_rests_on_what_was_taken_back_before_it_was_written(index: Index) -> None:
    read(index, "first", FIRST)
    job = waiting(index, "second", SECOND)
    (prior,) = index.priors.of(job, 5.0)
    withdraw(index, "first")
    with pytest.raises(Interrupted, match="does not stand any more"):
        compared(index, claim(index, job, at=NOW + 40), "second", prior)
    assert index.jobs.report_rows(job.job_uid) == []


def test_no_report_rests_on_what_was_taken_back_though_its_study_has_been_read_again(index: Index) -> None:
    first = read(index, "first", FIRST)
    job = waiting(index, "second", SECOND)
    (prior,) = index.priors.of(job, 5.0)
    withdraw(index, "first")
    index.jobs.ask_again(study_uid("first"), actor="test", at=NOW + 30)
    index.jobs.queue(study_uid("first"), [first], cause="", actor="test", at=NOW + 31)
    index.jobs.report(claim(index, first, at=NOW + 32), objects("anew"), summary=summary(2), at=NOW + 33)
    with pytest.raises(Interrupted, match="does not stand any more"):
        compared(index, claim(index, job, at=NOW + 40), "second", prior)
