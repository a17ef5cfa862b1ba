"""What a report says of the study as a whole, and of a finding where the algorithm tells more than its size."""

from dataclasses import replace
from io import BytesIO

import pytest
from pydicom import Dataset, dcmread

from dicom_node.core import codes
from dicom_node.core.finding import Finding
from dicom_node.core.form import Form
from dicom_node.core.lung_rads import Category, Composition
from dicom_node.core.outcome import Outcome, outcome_of_error, outcome_of_reading
from tests.unit.workers.reporting.conftest import Reading
from tests.unit.workers.reporting.test_structured_report import child, groups_of, name_of, value_of, walk
from workers.reporting.forms import Part
from workers.reporting.gate import check_report
from workers.reporting.report import build_report, build_unread_report

WHY_NOT = outcome_of_error("InconsistentGeometry", "3 slices are missing; send the series again")


def written(reading: Reading, findings: tuple[Finding, ...], outcome: Outcome | None = None) -> Dataset:
    """The structured report as a peer gets it."""
    labels = reading.labels if findings else reading.labels * 0
    report = build_report(reading.evidence, findings, labels, outcome=outcome)
    return dcmread(BytesIO(check_report(report, reading.evidence)[-1]))


def unread(reading: Reading, outcome: Outcome = WHY_NOT) -> Dataset:
    """The report that says why there is none."""
    evidence = replace(reading.evidence, was_read=False)
    return dcmread(BytesIO(check_report(build_unread_report(evidence, outcome), evidence)[0]))


def items(report: Dataset, code: str) -> list[Dataset]:
    """Every item of this concept name."""
    return [item for item in walk(report) if name_of(item) == code]


def told(reading: Reading, category: Category | None = Category.SUSPICIOUS_A) -> tuple[Finding, ...]:
    """The findings of an algorithm that tells all it can."""
    first, *others = reading.findings
    rich = replace(
        first,
        composition=Composition.PART_SOLID,
        solid_diameter_mm=5.0,
        margin=codes.SPICULATED,
        malignancy=0.34,
        lung_rads=category,
    )
    return (rich, *(replace(other, lung_rads=Category.BENIGN) for other in others))


def test_the_detectors_score_and_the_estimate_of_cancer_are_two_numbers(reading: Reading) -> None:
    report = written(reading, told(reading))
    group = groups_of(report, "1411")[0]
    assert value_of(child(group, codes.CERTAINTY_OF_FINDING.value)) == round(100 * reading.findings[0].score)
    assert value_of(child(group, codes.PROBABILITY_OF_CANCER.value)) == 34


def test_what_the_algorithm_tells_is_said_in_codes(reading: Reading) -> None:
    group = groups_of(written(reading, told(reading)), "1411")[0]
    assert value_of(child(group, codes.COMPOSITION.value)) == codes.PARTIALLY_SOLID.value
    assert value_of(child(group, codes.MARGINS.value)) == codes.SPICULATED.value
    assert value_of(child(group, codes.LUNG_RADS_ASSESSMENT.value)) == codes.LUNG_RADS_4A.value


def test_what_it_does_not_tell_is_not_said(reading: Reading) -> None:
    report = written(reading, reading.findings)
    for code in (codes.COMPOSITION, codes.MARGINS, codes.LUNG_RADS_ASSESSMENT, codes.PROBABILITY_OF_CANCER):
        assert not items(report, code.value)


def test_the_category_of_the_examination_is_its_worst_and_leads_to_a_recommendation(reading: Reading) -> None:
    report = written(reading, told(reading))
    assert value_of(child(report.ContentSequence[-1], codes.LUNG_RADS_ASSESSMENT.value)) == codes.LUNG_RADS_4A.value
    (interval,) = items(report, codes.RECOMMENDED_INTERVAL.value)
    assert str(interval.MeasuredValueSequence[0].NumericValue) == "3"
    (recommendation,) = items(report, codes.RECOMMENDATION.value)
    assert recommendation.TextValue.startswith("By Lung-RADS 4A, if a radiologist agrees: low-dose CT in 3 months")


def test_with_one_finding_of_unknown_category_the_examination_has_none(reading: Reading) -> None:
    report = written(reading, told(reading, category=None))
    assert len(items(report, codes.LUNG_RADS_ASSESSMENT.value)) == 2
    (recommendation,) = items(report, codes.RECOMMENDATION.value)
    assert recommendation.TextValue == "A radiologist should look at the marked places."


def test_the_priority_has_its_reason(reading: Reading) -> None:
    (urgency,) = items(written(reading, reading.findings), codes.COMMUNICATION_OF_CRITICAL_RESULTS.value)
    (reason,) = urgency.ContentSequence
    assert reason.RelationshipType == "INFERRED FROM"
    assert reason.TextValue == (
        "Nodule 3, of 10.7 mm mean diameter and 2 more: something was marked; to be seen within days."
    )


def test_an_outlined_organ_has_no_priority_and_no_recommendation(reading: Reading) -> None:
    organs = tuple(replace(finding, category=codes.ANATOMICAL_STRUCTURE) for finding in reading.findings)
    report = written(reading, organs)
    for code in (codes.COMMUNICATION_OF_CRITICAL_RESULTS, codes.RECOMMENDATION):
        assert not items(report, code.value)
    assert len(groups_of(report, "1411")) == 3


@pytest.mark.parametrize("found", [True, False])
def test_a_reading_of_a_part_says_which_part_was_not_read(reading: Reading, found: bool) -> None:
    reason = "the lowest 40 mm of the lungs are not in the series"
    findings = reading.findings if found else ()
    report = written(reading, findings, outcome_of_reading(found=found, incomplete=reason))
    (summary,) = items(report, codes.PROCESSING_SUMMARY.value)
    assert value_of(summary) == ("111244" if found else "111243")
    assert summary.ContentSequence[0].TextValue == "The lowest 40 mm of the lungs are not in the series."
    assert value_of(items(report, codes.IMAGE_QUALITY.value)[0]) == codes.LIMITED_QUALITY.value


def test_a_study_that_was_not_read_gets_a_report_that_says_why(reading: Reading) -> None:
    report = unread(reading)
    (summary,) = items(report, codes.PROCESSING_SUMMARY.value)
    assert value_of(summary) == "111245"
    assert summary.ContentSequence[0].TextValue == "3 slices are missing; send the series again."
    assert value_of(items(report, codes.IMAGE_QUALITY.value)[0]) == codes.NON_DIAGNOSTIC_QUALITY.value
    (comment,) = items(report, codes.COMMENT.value)
    assert "did not read this study; 12 images of one series were received" in comment.TextValue
    assert "3 slices are missing" in comment.TextValue
    assert not items(report, "125007")
    assert report.StudyInstanceUID == reading.evidence.header.StudyInstanceUID
    assert report.PatientName == reading.evidence.header.PatientName


def test_it_lists_what_was_received(reading: Reading) -> None:
    (study,) = unread(reading).CurrentRequestedProcedureEvidenceSequence
    listed = {
        ref.ReferencedSOPInstanceUID
        for series in study.ReferencedSeriesSequence
        for ref in series.ReferencedSOPSequence
    }
    assert listed == set(reading.evidence.volume.sop_instance_uids)


def test_images_that_say_nothing_but_who_they_are_suffice_for_it(reading: Reading) -> None:
    headers = []
    for header in reading.evidence.volume.headers:
        bare = Dataset()
        for keyword in ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID"):
            bare[keyword] = header[keyword]
        headers.append(bare)
    headers[0] = reading.evidence.volume.headers[0]
    volume = replace(reading.evidence.volume, headers=tuple(headers))
    evidence = replace(reading.evidence, volume=volume, was_read=False)
    check_report(build_unread_report(evidence, WHY_NOT), evidence)


def test_another_reason_is_another_object_and_the_same_one_the_same_bytes(reading: Reading) -> None:
    evidence = replace(reading.evidence, was_read=False)
    first, again = (check_report(build_unread_report(evidence, WHY_NOT), evidence) for _ in range(2))
    assert first == again
    other = unread(reading, outcome_of_error("NotApplicable", "no lungs were found"))
    assert other.SOPInstanceUID != unread(reading).SOPInstanceUID
    assert other.SOPInstanceUID != written(reading, ()).SOPInstanceUID


def test_a_later_success_replaces_it_in_the_same_series(reading: Reading) -> None:
    earlier = unread(reading)
    evidence = replace(reading.evidence, predecessor=earlier, predecessors={Form.SR_OHIF: earlier})
    report = build_report(evidence, reading.findings, reading.labels, forms=set(Form))
    check_report(report, evidence)
    for form in (Form.SR, Form.SR_OHIF):
        (study,) = report.objects[Part(form)].PredecessorDocumentsSequence
        named = study.ReferencedSeriesSequence[0].ReferencedSOPSequence[0].ReferencedSOPInstanceUID
        assert named == earlier.SOPInstanceUID
    assert report.structured_report.SeriesInstanceUID == earlier.SeriesInstanceUID
    assert report.structured_report.InstanceNumber == 2


def test_a_later_failure_replaces_the_reports_in_every_form(reading: Reading) -> None:
    report = build_report(reading.evidence, reading.findings, reading.labels, forms=set(Form))
    earlier = {
        part.form: dcmread(BytesIO(file))
        for part, file in zip(report.objects, check_report(report, reading.evidence), strict=True)
    }
    evidence = replace(
        reading.evidence,
        was_read=False,
        predecessor=earlier[Form.SR],
        predecessors={Form.SR_OHIF: earlier[Form.SR_OHIF]},
    )
    failure = build_unread_report(evidence, WHY_NOT)
    check_report(failure, evidence)
    named = {
        document.ReferencedSOPInstanceUID
        for study in failure.structured_report.PredecessorDocumentsSequence
        for series in study.ReferencedSeriesSequence
        for document in series.ReferencedSOPSequence
    }
    assert named == {earlier[Form.SR].SOPInstanceUID, earlier[Form.SR_OHIF].SOPInstanceUID}


def test_a_finding_keeps_its_tracking_uid_whatever_its_report_replaces(reading: Reading) -> None:
    evidence = replace(reading.evidence, predecessor=unread(reading))
    assert evidence.tracking_uid(1) == reading.evidence.tracking_uid(1)
    assert evidence.uid("SR") != reading.evidence.uid("SR")


def test_in_other_evidence_nobody_knows_whether_a_finding_is_the_same(reading: Reading) -> None:
    assert replace(reading.evidence, evidence="00" * 32).tracking_uid(1) != reading.evidence.tracking_uid(1)


@pytest.mark.parametrize(
    "outcome",
    [
        replace(outcome_of_reading(found=True), further_marks=1),
        replace(outcome_of_reading(found=True), quality=codes.LIMITED_QUALITY),
        outcome_of_reading(found=True, incomplete="the last slices were not read"),
    ],
    ids=["more was marked", "the images are at fault", "not all was read"],
)
def test_the_examination_has_no_category_where_more_may_be_there_than_was_measured(
    reading: Reading, outcome: Outcome
) -> None:
    report = written(reading, told(reading), outcome)
    of_findings = sum(
        len([i for i in walk(g) if name_of(i) == codes.LUNG_RADS_ASSESSMENT.value]) for g in groups_of(report, "1411")
    )
    assert of_findings == len(reading.findings)
    assert len(items(report, codes.LUNG_RADS_ASSESSMENT.value)) == of_findings, "none of the examination"
    assert not items(report, codes.RECOMMENDED_INTERVAL.value)
    (recommendation,) = items(report, codes.RECOMMENDATION.value)
    assert "radiologist should look" in recommendation.TextValue
