"""A late image: the new report stands in the same series, names the one it replaces, and says so."""

import copy
import datetime
from dataclasses import replace
from io import BytesIO

import pytest
from pydicom import Dataset, dcmread

from dicom_node.core.errors import EvidenceInvalid
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
