"""IHE AI Results (AIR), Evidence Creator: a test for each rule, named after its clause; deploy/AIR.md lists them.

Over every situation: findings, none, oblique slices, both forms of the structured report, and a study not read.
"""

from collections.abc import Iterator
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import pytest
from pydicom import Dataset, dcmread

from dicom_node.core.form import SAY_THAT_NOTHING_WAS_FOUND, Form
from dicom_node.core.outcome import outcome_of_error
from tests.unit.workers.reporting.conftest import SITUATIONS, Reading
from tests.unit.workers.reporting.test_structured_report import child, name_of, value_of, walk
from workers.reporting.encoding import as_file
from workers.reporting.report import Report, build_report, build_unread_report

COMPREHENSIVE_3D_SR = "1.2.840.10008.5.1.4.1.1.88.34"
SEGMENTATION = "1.2.840.10008.5.1.4.1.1.66.4"


class Written:
    """A report as its peers get it, and what it is about."""

    def __init__(self, reading: Reading, report: Report) -> None:
        self.reading = reading
        self.objects = {part.form: dcmread(BytesIO(as_file(ds))) for part, ds in report.objects.items()}

    @property
    def reports(self) -> list[Dataset]:
        """The structured reports."""
        return [ds for form, ds in self.objects.items() if form is not Form.SEG]

    @property
    def segmentation(self) -> Dataset | None:
        return self.objects.get(Form.SEG)

    @property
    def groups(self) -> Iterator[Dataset]:
        """Every measurement group of every structured report."""
        return (item for ds in self.reports for item in walk(ds) if name_of(item) == "125007")


@pytest.fixture(scope="module", params=[*SITUATIONS, "not read"])
def written(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Written:
    """Every situation in turn, in every form."""
    if request.param != "not read":
        reading = SITUATIONS[request.param](tmp_path_factory.mktemp("air"))
        forms = {Form.SEG, Form.SR, Form.SR_OHIF}
        return Written(reading, build_report(reading.evidence, reading.findings, reading.labels, forms=forms))
    reading = SITUATIONS["no finding"](tmp_path_factory.mktemp("air"))
    evidence = replace(reading.evidence, was_read=False)
    return Written(reading, build_unread_report(evidence, outcome_of_error("NotApplicable", "no lungs were found")))


def equipment(ds: Dataset) -> list[Dataset]:
    """The Contributing Equipment items that are Processing Equipment."""
    items = ds.ContributingEquipmentSequence
    return [item for item in items if item.PurposeOfReferenceCodeSequence[0].CodeValue == "109102"]


def test_6_5_3_1_each_algorithm_is_described_in_contributing_equipment(written: Written) -> None:
    for ds in written.objects.values():
        (item,) = equipment(ds)
        assert item.PurposeOfReferenceCodeSequence[0].CodingSchemeDesignator == "DCM"
        for keyword in ("Manufacturer", "ManufacturerModelName", "SoftwareVersions", "DeviceUID"):
            assert item.get(keyword), keyword


def test_6_5_3_1_table_1_the_device_observer_has_equal_values(written: Written) -> None:
    for ds in written.reports:
        (item,) = equipment(ds)
        assert value_of(child(ds, "121014")) == item.Manufacturer
        assert value_of(child(ds, "121015")) == item.ManufacturerModelName
        assert value_of(child(ds, "121012")) == item.DeviceUID


def test_6_5_3_1_table_1_the_algorithm_identification_has_equal_values(written: Written) -> None:
    for ds in written.reports:
        (item,) = equipment(ds)
        names = {value_of(part) for part in walk(ds) if name_of(part) == "111001"}
        versions = {value_of(part) for part in walk(ds) if name_of(part) == "111003"}
        assert names <= {item.ManufacturerModelName}
        assert versions <= {item.SoftwareVersions}
    for segment in [] if written.segmentation is None else written.segmentation.SegmentSequence:
        (item,) = equipment(written.segmentation)
        (algorithm,) = segment.SegmentationAlgorithmIdentificationSequence
        said = (algorithm.AlgorithmSource, algorithm.AlgorithmName, algorithm.AlgorithmVersion)
        assert said == (item.Manufacturer, item.ManufacturerModelName, item.SoftwareVersions)


def test_6_5_3_1_every_finding_names_its_algorithm(written: Written) -> None:
    """Once for each finding: the groups of one finding share their Tracking Unique Identifier."""
    named = {value_of(child(group, "112040")) for group in written.groups if _has(group, "111001")}
    assert named == {value_of(child(group, "112040")) for group in written.groups}


def test_6_5_3_4_the_root_is_a_comprehensive_3d_sr_after_tid_1500(written: Written) -> None:
    for ds in written.reports:
        assert ds.SOPClassUID == COMPREHENSIVE_3D_SR
        (template,) = ds.ContentTemplateSequence
        assert (template.MappingResource, template.TemplateIdentifier) == ("DCMR", "1500")
        assert ds.ConceptNameCodeSequence[0].CodeValue in ("126000", "126001")


def test_6_5_3_qualitative_findings_are_codes(written: Written) -> None:
    for ds in written.reports:
        (summary,) = (item for item in walk(ds) if name_of(item) == "111017")
        assert summary.ValueType == "CODE"
        assert value_of(summary) in ("111241", "111242", "111243", "111244", "111245")


def test_6_5_3_measurements_are_numbers_with_units(written: Written) -> None:
    for group in written.groups:
        numbers = [item for item in group.ContentSequence if item.ValueType == "NUM"]
        assert numbers
        for number in numbers:
            unit = number.MeasuredValueSequence[0].MeasurementUnitsCodeSequence[0]
            assert unit.CodingSchemeDesignator == "UCUM"


def test_6_5_3_locations_are_coordinates_in_an_image_of_the_evidence(written: Written) -> None:
    known = set(written.reading.evidence.volume.sop_instance_uids)
    for ds in written.reports:
        places = [item for item in walk(ds) if item.get("ValueType") == "SCOORD"]
        assert bool(places) is bool(written.segmentation)
        for place in places:
            (image,) = place.ContentSequence
            assert image.ReferencedSOPSequence[0].ReferencedSOPInstanceUID in known


def test_6_5_3_regions_are_segments_that_the_report_refers_to(written: Written) -> None:
    if written.segmentation is None:
        return
    assert written.segmentation.SOPClassUID == SEGMENTATION
    numbers = {segment.SegmentNumber for segment in written.segmentation.SegmentSequence}
    for ds in written.reports:
        referred = [item.ReferencedSOPSequence[0] for item in walk(ds) if name_of(item) == "121191"]
        assert {ref.ReferencedSegmentNumber for ref in referred} == numbers
        assert {ref.ReferencedSOPInstanceUID for ref in referred} == {written.segmentation.SOPInstanceUID}


def test_6_5_3_every_finding_is_tracked_alike_in_report_and_segmentation(written: Written) -> None:
    segments = [] if written.segmentation is None else written.segmentation.SegmentSequence
    expected = {(segment.TrackingID, segment.TrackingUID) for segment in segments}
    with_segment = [group for group in written.groups if _has(group, "121191")]
    assert {(value_of(child(g, "112039")), value_of(child(g, "112040"))) for g in with_segment} == expected
    assert {value_of(child(group, "112040")) for group in written.groups} == {uid for _, uid in expected}


def test_6_5_3_the_result_is_in_the_study_of_its_source(written: Written) -> None:
    header = written.reading.evidence.header
    for ds in written.objects.values():
        assert ds.StudyInstanceUID == header.StudyInstanceUID
        assert (ds.PatientID, ds.PatientName) == (header.PatientID, header.PatientName)


def test_6_5_3_whatever_is_referred_to_is_evidence(written: Written) -> None:
    for ds in written.reports:
        listed = {
            ref.ReferencedSOPInstanceUID
            for study in ds.CurrentRequestedProcedureEvidenceSequence
            for series in study.ReferencedSeriesSequence
            for ref in series.ReferencedSOPSequence
        }
        used = {ref.ReferencedSOPInstanceUID for item in walk(ds) for ref in item.get("ReferencedSOPSequence", [])}
        assert used <= listed
        assert set(written.reading.evidence.volume.sop_instance_uids) <= listed


def test_6_5_3_other_forms_are_beside_the_report_and_never_instead() -> None:
    """A peer cannot be set up to get no structured report."""
    assert SAY_THAT_NOTHING_WAS_FOUND == ("SR",)


def test_the_page_lists_these_tests_and_no_others() -> None:
    page = (Path(__file__).parents[4] / "deploy" / "AIR.md").read_text(encoding="utf-8")
    own = {name for name in globals() if name.startswith("test_6")}
    listed = {word.strip("`") for word in page.split() if word.startswith("`test_6")}
    assert listed == own


def _has(group: Dataset, code: str) -> bool:
    return any(name_of(item) == code for item in group.ContentSequence)
