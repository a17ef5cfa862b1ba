"""The key object selection opens the slices to look at first."""

from io import BytesIO
from pathlib import Path

from pydicom import Dataset, dcmread

from tests.factories import enhanced_ct
from tests.unit.workers.reporting.conftest import CENTRES, Reading, reading_of
from workers.reporting.encoding import as_file
from workers.reporting.key_object_selection import build_key_object_selection
from workers.reporting.report import Report


def selection_of(reading: Reading, *others: Dataset) -> Dataset:
    """The document as a peer gets it."""
    document = build_key_object_selection(reading.evidence, reading.findings, others)
    assert document is not None
    return dcmread(BytesIO(as_file(document)))


def references(document: Dataset, kind: str) -> list[Dataset]:
    items = [item for item in document.ContentSequence if item.ValueType == kind]
    return [item.ReferencedSOPSequence[0] for item in items]


def test_it_is_of_interest_and_opens_the_slice_of_largest_extent_of_each_finding(reading: Reading) -> None:
    document = selection_of(reading)

    assert document.ConceptNameCodeSequence[0].CodeValue == "113000"
    assert document.ContentTemplateSequence[0].TemplateIdentifier == "2010"
    opened = [reference.ReferencedSOPInstanceUID for reference in references(document, "IMAGE")]
    assert opened == [finding.outline.sop_instance_uid for finding in reading.findings]


def test_its_text_names_each_finding_with_its_axes_and_its_slice(reading: Reading) -> None:
    items = selection_of(reading).ContentSequence
    (text,) = (i.TextValue for i in items if i.ConceptNameCodeSequence[0].CodeValue == "113012")

    assert text.startswith("AI result, not for diagnostic use.")
    assert "Nodule 1: 8.3 x 8.1 mm, slice 4 of 12 (image 9)." in text
    assert "Nodule 3:" in text


def test_two_findings_on_one_slice_open_it_once(tmp_path: Path) -> None:
    reading = reading_of(tmp_path, ((3, 8, 9), (3, 21, 20)))

    assert len(references(selection_of(reading), "IMAGE")) == 1


def test_it_refers_to_the_rest_of_the_report_and_lists_it_as_evidence(reading: Reading, report: Report) -> None:
    document = selection_of(reading, *report.datasets)

    images = {reference.ReferencedSOPInstanceUID for reference in references(document, "IMAGE")}
    (other,) = references(document, "COMPOSITE")
    assert report.segmentation is not None
    assert report.segmentation.SOPInstanceUID in images
    assert other.ReferencedSOPInstanceUID == report.structured_report.SOPInstanceUID
    (study,) = document.CurrentRequestedProcedureEvidenceSequence
    listed = {i.ReferencedSOPInstanceUID for s in study.ReferencedSeriesSequence for i in s.ReferencedSOPSequence}
    assert listed == images | {other.ReferencedSOPInstanceUID}


def test_of_a_multi_frame_source_it_opens_the_frames(tmp_path: Path) -> None:
    reading = reading_of(tmp_path, CENTRES, source=enhanced_ct)

    frames = [reference.ReferencedFrameNumber for reference in references(selection_of(reading), "IMAGE")]
    assert frames == [finding.outline.frame_number for finding in reading.findings]


def test_without_findings_there_is_none(tmp_path: Path) -> None:
    reading = reading_of(tmp_path, ())

    assert build_key_object_selection(reading.evidence, ()) is None
