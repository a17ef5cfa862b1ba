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


def with_sizes(report: Dataset, mean_diameter_mm: float, volume_mm3: float) -> Dataset:
    """The same report, whose first finding had these sizes."""
    other = dcmread(BytesIO(as_file(report)))
    number(other, codes.DIAMETER, f"{mean_diameter_mm:.1f}")
    number(other, codes.VOLUME, f"{volume_mm3:.0f}")
    return other


@pytest.fixture(scope="module")
def small(prior: Dataset) -> Dataset:
    """The earlier report, as of a nodule that has grown far since."""
    return with_sizes(prior, 4.5, 60)


@pytest.fixture(scope="module")
def otherwise(later: Reading, small: Dataset) -> Reading:
    """The later study, whose scan had another kernel than the earlier one."""
    *others, grown = later.findings
    beside_it = beside(grown, small, next(iter(measured_in(small))))
    assert beside_it.change is not None
    change = replace(beside_it.change, earlier=replace(beside_it.change.earlier, kernel="sharp"))
    findings = (*others, replace(beside_it, change=change, doubling_days=None))
    return replace(later, findings=findings, evidence=replace(later.evidence, prior=small))


@pytest.fixture(scope="module")
def unlike(otherwise: Reading) -> tuple[bytes, ...]:
    """The files of a report that compares what was measured otherwise then."""
    return check_report(build_report(otherwise.evidence, otherwise.findings, otherwise.labels), otherwise.evidence)


def test_growth_that_was_measured_otherwise_has_its_caveat_and_no_number_as_codes(unlike: tuple[bytes, ...]) -> None:
    report = copy_of(unlike).structured_report
    (why,) = named(report, codes.COMPARABILITY)
    assert why.ConceptCodeSequence[0].CodeValue == codes.MEASURED_OTHERWISE.value
    values = [item.ConceptCodeSequence[0].CodeValue for item in named(report, codes.CHANGE)]
    assert sorted(values) == sorted([codes.INCREASE_IN_SIZE.value, codes.NEW_FINDING.value])
    for name in (codes.DIAMETER_CHANGE, codes.VOLUME_CHANGE, codes.DOUBLING_TIME):
        assert not named(report, name)
    assert named(report, codes.PRIOR_DIAMETER)


def keep_back_the_caveat(sr: Dataset) -> None:
    """Sizes would compare."""
    for group in groups(sr):
        group.ContentSequence = [item for item in group.ContentSequence if item not in named(sr, codes.COMPARABILITY)]


def say_that_the_caveat_is_another(sr: Dataset) -> None:
    named(sr, codes.COMPARABILITY)[0].ConceptCodeSequence[0].CodeValue = "alike"


def tell_a_difference(sr: Dataset) -> None:
    told = named(sr, codes.DAYS_SINCE_PRIOR)[0].ConceptNameCodeSequence[0]
    told.CodeValue = codes.DIAMETER_CHANGE.value


def tell_a_doubling_time(sr: Dataset) -> None:
    told = named(sr, codes.DAYS_SINCE_PRIOR)[0].ConceptNameCodeSequence[0]
    told.CodeValue = codes.DOUBLING_TIME.value


def call_it_unchanged(sr: Dataset) -> None:
    code(sr, codes.INCREASE_IN_SIZE, codes.NO_SIGNIFICANT_CHANGE)


@pytest.mark.parametrize(
    "break_it",
    [
        keep_back_the_caveat,
        say_that_the_caveat_is_another,
        tell_a_difference,
        tell_a_doubling_time,
        call_it_unchanged,
    ],
)
def test_what_is_said_wrongly_of_what_was_measured_otherwise_is_noticed(
    otherwise: Reading, unlike: tuple[bytes, ...], break_it: Callable[[Dataset], None]
) -> None:
    broken = copy_of(unlike)
    break_it(broken.structured_report)
    with pytest.raises(EvidenceInvalid, match="the rule 'prior'"):
        check_report(broken, otherwise.evidence)


@pytest.mark.parametrize(("times", "is_fault"), [(1.2, True), (2.4, True), (2.7, False)])
def test_only_growth_beyond_what_methods_differ_by_is_called_so(
    later: Reading, unlike: tuple[bytes, ...], prior: Dataset, times: float, is_fault: bool
) -> None:
    """As if the earlier report had said sizes of which those of now are so many times as large."""
    broken = copy_of(unlike)
    now = [named(broken.structured_report, name)[-1] for name in (codes.DIAMETER, codes.VOLUME)]
    width, volume = (float(item.MeasuredValueSequence[0].NumericValue) for item in now)
    other = with_sizes(prior, width / times ** (1 / 3), volume / times)
    (then,) = measured_in(other).values()
    number(broken.structured_report, codes.PRIOR_DIAMETER, str(then.mean_diameter_mm))
    number(broken.structured_report, codes.PRIOR_VOLUME, str(then.volume_mm3))
    evidence = replace(later.evidence, prior=other)
    if is_fault:
        with pytest.raises(EvidenceInvalid, match="it says 15454001 of a change"):
            check_report(broken, evidence)
    else:
        assert check_report(broken, evidence)


@pytest.mark.parametrize("of", ["version", "method"])
def test_a_report_must_say_that_another_version_or_method_measured_then(
    later: Reading, sound: tuple[bytes, ...], prior: Dataset, of: str
) -> None:
    other = dcmread(BytesIO(as_file(prior)))
    if of == "version":
        other.SoftwareVersions = "0.0.9"
    else:
        leave_out_the_method(other, codes.DIAMETER)
        assert {one.method for one in measured_in(other).values()} == {""}
    with pytest.raises(EvidenceInvalid, match="without saying that they were measured otherwise then"):
        check_report(copy_of(sound), replace(later.evidence, prior=other))


def leave_out_the_method(report: Dataset, name: Code) -> None:
    """A size does not say how it was measured."""
    for item in named(report, name):
        item.ContentSequence = [
            child for child in item.ContentSequence if child.ConceptNameCodeSequence[0].CodeValue != "370129005"
        ]


@pytest.mark.parametrize(
    "name",
    [codes.LONG_AXIS, codes.SHORT_AXIS, codes.DIAMETER, codes.MAXIMUM_3D_DIAMETER, codes.VOLUME],
    ids=lambda name: str(name.meaning),
)
def test_a_size_whose_method_is_left_out_is_noticed(reading: Reading, files: tuple[bytes, ...], name: Code) -> None:
    broken = copy_of(files)
    leave_out_the_method(broken.structured_report, name)
    with pytest.raises(EvidenceInvalid, match=f"by which method {name.meaning.lower()} was measured"):
        check_report(broken, reading.evidence)


def test_a_finding_whose_method_of_then_is_left_out_is_followed_and_its_sizes_do_not_compare(
    later: Reading, prior: Dataset
) -> None:
    other = dcmread(BytesIO(as_file(prior)))
    leave_out_the_method(other, codes.DIAMETER)
    uid = next(iter(measured_in(other)))
    finding = beside(later.findings[-1], other, uid)
    assert finding.change is not None
    assert finding.change.caveats == ("it was measured by another method then",)
    reading = replace(later, findings=(*later.findings[:-1], finding), evidence=replace(later.evidence, prior=other))
    files = check_report(build_report(reading.evidence, reading.findings, reading.labels), reading.evidence)
    (then,) = named(copy_of(files).structured_report, codes.PRIOR_DIAMETER)
    said = [child.ConceptNameCodeSequence[0].CodeValue for child in then.ContentSequence]
    assert "370129005" not in said, "nothing that was not told is made up"
