"""What a report says of an earlier study: each thing is said wrongly once, and the gate notices."""

from collections.abc import Callable
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import pytest
from pydicom import Dataset, dcmread

from dicom_node.core import codes
from dicom_node.core.change import Change, Size
from dicom_node.core.codes import Code
from dicom_node.core.errors import EvidenceInvalid
from dicom_node.core.finding import Finding
from dicom_node.core.lung_rads import Course
from tests.unit.workers.reporting.conftest import CENTRES, Reading, reading_of
from tests.unit.workers.reporting.test_gate import copy_of, groups
from workers.reporting.encoding import as_file
from workers.reporting.gate import check_report
from workers.reporting.prior_report import measured_in
from workers.reporting.report import Report, build_report


def named(report: Dataset, code: Code) -> list[Dataset]:
    """The items of this name in the groups of a report."""
    return [
        item
        for group in groups(report)
        for item in group.ContentSequence
        if item.ConceptNameCodeSequence[0].CodeValue == code.value
    ]


def number(report: Dataset, code: Code, value: str) -> None:
    named(report, code)[0].MeasuredValueSequence[0].NumericValue = value


def beside(finding: Finding, prior: Dataset, uid: str) -> Finding:
    """A finding that was there before, and was measured then as the prior report says."""
    then = measured_in(prior)[uid]
    assert then.mean_diameter_mm
    assert then.volume_mm3
    how = {"slice_thickness_mm": 2.5, "kernel": "soft", "outlined_by": ("lung_nodule", "0.1.0", "ab" * 32)}
    earlier = Size(mean_diameter_mm=then.mean_diameter_mm, volume_mm3=then.volume_mm3, method=then.method, **how)
    later = Size(
        mean_diameter_mm=round(finding.mean_diameter_mm, 1),
        volume_mm3=round(finding.volume_mm3),
        method=finding.border.value,
        **how,
    )
    change = Change(earlier=earlier, later=later, days=60.0, name="Nodule 1", date="20240101")
    doubling = change.doubling_days
    return replace(
        finding,
        tracking_identifier="Nodule 1",
        tracking_uid=uid,
        change=change,
        is_compared=True,
        doubling_days=doubling,
    )


@pytest.fixture(scope="module")
def prior(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """The report on an earlier study of the patient, with its smallest ball."""
    earlier = reading_of(tmp_path_factory.mktemp("prior"), CENTRES[:1], seed="prior", StudyDate="20240101")
    return dcmread(BytesIO(as_file(earlier.report().structured_report)))


@pytest.fixture(scope="module")
def later(tmp_path_factory: pytest.TempPathFactory, prior: Dataset) -> Reading:
    """A study in which that one is the largest ball, and another is new."""
    reading = reading_of(tmp_path_factory.mktemp("later"), CENTRES, seed="later")
    first, second, third = reading.findings
    grown = replace(beside(third, prior, next(iter(measured_in(prior)))), number=3)
    findings = (
        replace(first, tracking_identifier="Nodule 2", is_compared=True, course=Course.NEW),
        replace(second, tracking_identifier="Nodule 3", is_compared=True, course=Course.BASELINE),
        grown,
    )
    return replace(reading, findings=findings, evidence=replace(reading.evidence, prior=prior))


@pytest.fixture(scope="module")
def sound(later: Reading) -> tuple[bytes, ...]:
    """The files of a report that is right."""
    report = build_report(later.evidence, later.findings, later.labels)
    return check_report(report, later.evidence)


def forget_the_prior(sr: Dataset, _: Reading) -> None:
    del sr.PertinentOtherEvidenceSequence


def name_another_report(sr: Dataset, _: Reading) -> None:
    study = sr.PertinentOtherEvidenceSequence[0]
    study.ReferencedSeriesSequence[0].ReferencedSOPSequence[0].ReferencedSOPInstanceUID = "2.25.99"


def say_another_diameter_of_then(sr: Dataset, _: Reading) -> None:
    number(sr, codes.PRIOR_DIAMETER, "5.0")


def say_another_volume_of_then(sr: Dataset, _: Reading) -> None:
    number(sr, codes.PRIOR_VOLUME, "100")


def say_another_difference(sr: Dataset, _: Reading) -> None:
    number(sr, codes.DIAMETER_CHANGE, "9.9")


def say_another_share(sr: Dataset, _: Reading) -> None:
    number(sr, codes.VOLUME_CHANGE, "999")


def call_growth_a_decrease(sr: Dataset, _: Reading) -> None:
    code(sr, codes.INCREASE_IN_SIZE, codes.DECREASE_IN_SIZE)


def call_growth_no_change(sr: Dataset, _: Reading) -> None:
    code(sr, codes.INCREASE_IN_SIZE, codes.NO_SIGNIFICANT_CHANGE)


def call_what_was_there_new(sr: Dataset, _: Reading) -> None:
    code(sr, codes.INCREASE_IN_SIZE, codes.NEW_FINDING)


def call_what_is_new_grown(sr: Dataset, _: Reading) -> None:
    code(sr, codes.NEW_FINDING, codes.INCREASE_IN_SIZE)


def turn_the_doubling_time(sr: Dataset, _: Reading) -> None:
    number(sr, codes.DOUBLING_TIME, "-40")


def code(sr: Dataset, before: Code, after: Code) -> None:
    (item,) = (i for i in named(sr, codes.CHANGE) if i.ConceptCodeSequence[0].CodeValue == before.value)
    item.ConceptCodeSequence[0].CodeValue = after.value


BREAKS: tuple[Callable[[Dataset, Reading], None], ...] = (
    forget_the_prior,
    name_another_report,
    say_another_diameter_of_then,
    say_another_volume_of_then,
    say_another_difference,
    say_another_share,
    call_growth_a_decrease,
    call_growth_no_change,
    call_what_was_there_new,
    call_what_is_new_grown,
    turn_the_doubling_time,
)


@pytest.mark.parametrize("break_it", BREAKS)
def test_what_is_said_wrongly_of_an_earlier_study_is_noticed(
    later: Reading, sound: tuple[bytes, ...], break_it: Callable[[Dataset, Reading], None]
) -> None:
    broken = copy_of(sound)
    break_it(broken.structured_report, later)
    with pytest.raises(EvidenceInvalid, match=r"the rule .(prior|evidence)."):
        check_report(broken, later.evidence)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"PatientID": "SOMEBODY"}, "another patient"),
        ({"PatientBirthDate": "19610413"}, "another patient"),
        ({"StudyDate": "20250101"}, "a later day"),
    ],
)
def test_a_prior_of_another_patient_or_a_later_day_is_noticed(
    later: Reading, sound: tuple[bytes, ...], prior: Dataset, changes: dict[str, str], words: str
) -> None:
    other = dcmread(BytesIO(as_file(prior)))
    other.update(changes)
    with pytest.raises(EvidenceInvalid, match=words):
        check_report(copy_of(sound), replace(later.evidence, prior=other))


def test_what_became_of_findings_without_a_prior_is_noticed(later: Reading, sound: tuple[bytes, ...]) -> None:
    report: Report = copy_of(sound)
    with pytest.raises(EvidenceInvalid, match=r"the rule .(prior|evidence)."):
        check_report(report, replace(later.evidence, prior=None))


def test_sizes_of_then_are_read_as_they_were_written(tmp_path: Path) -> None:
    reading = reading_of(tmp_path)
    found = measured_in(reading.report().structured_report)
    assert len(found) == len(reading.findings)
    by_size = sorted(found.values(), key=lambda one: one.mean_diameter_mm or 0.0)
    for measured, finding in zip(by_size, sorted(reading.findings, key=lambda one: one.mean_diameter_mm), strict=True):
        assert measured.mean_diameter_mm == round(finding.mean_diameter_mm, 1)
        assert measured.volume_mm3 == round(finding.volume_mm3)
        assert measured.method == finding.border.value
