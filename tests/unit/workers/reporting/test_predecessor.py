"""A late image: the new report stands in the same series, names the one it replaces, and says so."""

import copy
import datetime
from dataclasses import replace
from io import BytesIO

import numpy as np
import pytest
from pydicom import Dataset, dcmread

from dicom_node.core.errors import EvidenceInvalid
from dicom_node.core.form import Form
from tests.unit.workers.reporting.conftest import Reading, algorithm
from workers.reporting.encoding import as_file
from workers.reporting.evidence import Evidence
from workers.reporting.gate import check_report
from workers.reporting.report import Report, build_report


def read_back(dataset: Dataset) -> Dataset:
    return dcmread(BytesIO(as_file(dataset)))


def grown(reading: Reading, predecessor: Dataset, **changes: object) -> Evidence:
    """The evidence a day later, with more of it."""
    later = reading.evidence.completed_at + datetime.timedelta(days=1)
    fields = {"evidence": "ef" * 32, "completed_at": later, "predecessor": predecessor}
    return replace(reading.evidence, **(fields | changes))


def texts(structured_report: Dataset) -> str:
    """Everything that a report says in words."""
    return "\n".join(str(element.value) for element in structured_report.iterall() if element.keyword == "TextValue")


@pytest.fixture(scope="module")
def first(report: Report) -> Dataset:
    return read_back(report.structured_report)


@pytest.fixture(scope="module")
def second(reading: Reading, first: Dataset) -> Report:
    evidence = grown(reading, first)
    made = build_report(evidence, reading.findings, reading.labels)
    check_report(made, evidence)
    return made


def test_it_names_the_report_that_it_replaces(second: Report, first: Dataset) -> None:
    (study,) = read_back(second.structured_report).PredecessorDocumentsSequence
    (series,) = study.ReferencedSeriesSequence
    (document,) = series.ReferencedSOPSequence
    assert study.StudyInstanceUID == first.StudyInstanceUID
    assert series.SeriesInstanceUID == first.SeriesInstanceUID
    assert document.ReferencedSOPClassUID == first.SOPClassUID
    assert document.ReferencedSOPInstanceUID == first.SOPInstanceUID


def test_both_stand_in_one_series_whose_attributes_are_the_same(second: Report, report: Report) -> None:
    for before, after in zip(report.datasets, second.datasets, strict=True):
        for keyword in (
            "SeriesInstanceUID",
            "SeriesDate",
            "SeriesTime",
            "SeriesNumber",
            "SeriesDescription",
            "Modality",
        ):
            assert before[keyword].value == after[keyword].value, keyword
        assert after.SOPInstanceUID != before.SOPInstanceUID
        assert (before.InstanceNumber, after.InstanceNumber) == (1, 2)
        assert after.ContentDate > before.ContentDate


def test_it_says_so_in_words(second: Report, first: Dataset) -> None:
    words = "This report replaces an earlier one of this study"
    assert words in texts(read_back(second.structured_report))
    assert words not in texts(first)


def test_a_first_report_replaces_none(first: Dataset) -> None:
    assert "PredecessorDocumentsSequence" not in first


def test_another_predecessor_makes_another_object_and_the_same_one_the_same(
    reading: Reading, first: Dataset, second: Report
) -> None:
    other = copy.deepcopy(first)
    other.SOPInstanceUID = "2.25.1234"
    again = build_report(grown(reading, first), reading.findings, reading.labels)
    another = build_report(grown(reading, other), reading.findings, reading.labels)
    assert [as_file(made) for made in again.datasets] == [as_file(made) for made in second.datasets]
    assert another.structured_report.SOPInstanceUID != second.structured_report.SOPInstanceUID


def test_a_new_version_of_the_algorithm_begins_a_series_of_its_own(reading: Reading, first: Dataset) -> None:
    evidence = grown(reading, first, algorithm=algorithm(version="9.9.9"))
    made = build_report(evidence, reading.findings, reading.labels)
    assert made.structured_report.SeriesInstanceUID != first.SeriesInstanceUID
    assert made.structured_report.InstanceNumber == 1
    assert "PredecessorDocumentsSequence" in made.structured_report
    check_report(made, evidence)


def test_a_report_that_names_no_predecessor_or_that_of_another_study_is_not_sent(
    reading: Reading, report: Report, first: Dataset
) -> None:
    with pytest.raises(EvidenceInvalid, match="predecessor"):
        check_report(report, replace(reading.evidence, predecessor=first))
    stranger = copy.deepcopy(first)
    stranger.StudyInstanceUID = "2.25.99"
    evidence = grown(reading, stranger)
    with pytest.raises(EvidenceInvalid, match="of another study"):
        check_report(build_report(evidence, reading.findings, reading.labels), evidence)


def tracked(report: Report) -> dict[int, str]:
    """The Tracking UID of each segment, by its number."""
    assert report.segmentation is not None
    return {int(segment.SegmentNumber): str(segment.TrackingUID) for segment in report.segmentation.SegmentSequence}


@pytest.fixture(scope="module", params=[Form.SR, Form.SR_OHIF])
def earlier(request: pytest.FixtureRequest, reading: Reading) -> tuple[Report, Dataset]:
    """A report in every form, and it as it was read back."""
    made = build_report(reading.evidence.in_form(request.param), reading.findings, reading.labels)
    return made, read_back(made.structured_report)


def test_a_nodule_that_is_found_again_keeps_its_tracking_uid_whatever_its_number(
    reading: Reading, earlier: tuple[Report, Dataset]
) -> None:
    """A late image may change the scores, and with them the order."""
    turned = tuple(replace(finding, number=4 - finding.number) for finding in reversed(reading.findings))
    labels = np.where(reading.labels > 0, 4 - reading.labels, 0).astype(np.uint8)
    evidence = grown(reading, earlier[1])
    made = build_report(evidence, turned, labels)
    check_report(made, evidence)
    before = tracked(earlier[0])
    assert tracked(made) == {4 - number: uid for number, uid in before.items()}


def test_what_lies_elsewhere_is_another_nodule(reading: Reading, first: Dataset, report: Report) -> None:
    """Its centre is farther off than its radius."""
    away = (reading.findings[0].long_axis.length_mm / 2 + 0.5, 0.0, 0.0)
    moved = replace(reading.findings[0], centre=tuple(np.add(reading.findings[0].centre, away)))
    made = build_report(grown(reading, first), (moved, *reading.findings[1:]), reading.labels)
    before, after = tracked(report), tracked(made)
    assert after[1] not in before.values()
    assert {number: after[number] for number in (2, 3)} == {number: before[number] for number in (2, 3)}


def test_one_earlier_nodule_becomes_one(reading: Reading, first: Dataset, report: Report) -> None:
    """Of two where one was, the nearer is it."""
    (one, two, three), near = reading.findings, np.add(reading.findings[0].centre, (1.0, 0.0, 0.0))
    made = build_report(grown(reading, first), (one, replace(two, centre=tuple(near)), three), reading.labels)
    before, after = tracked(report), tracked(made)
    assert (after[1], after[3]) == (before[1], before[3])
    assert after[2] not in before.values()


def test_what_stands_on_a_slice_that_is_not_there_any_more_is_tracked_no_further(
    reading: Reading, first: Dataset, report: Report
) -> None:
    stranger = copy.deepcopy(first)
    for element in stranger.iterall():
        if element.keyword == "ReferencedSOPInstanceUID":
            element.value = "2.25.99"
    made = build_report(grown(reading, stranger), reading.findings, reading.labels)
    assert set(tracked(made).values()).isdisjoint(tracked(report).values())


def test_an_earlier_report_that_cannot_be_understood_is_no_obstacle(reading: Reading, first: Dataset) -> None:
    broken = copy.deepcopy(first)
    for item in broken.iterall():
        if item.keyword == "NumericValue":
            item.value = None
    build_report(grown(reading, broken), reading.findings, reading.labels)
