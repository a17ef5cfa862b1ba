"""The SR says of each finding what was measured, and of the study what it means."""

from collections.abc import Iterator
from dataclasses import replace
from io import BytesIO
from typing import Any

import numpy as np
import pytest
from pydicom import Dataset, dcmread

from dicom_node.core import codes
from dicom_node.core.codes import Code
from dicom_node.core.errors import EvidenceInvalid
from dicom_node.core.finding import Border, Finding, Outline
from dicom_node.core.lung_rads import Composition
from tests.unit.workers.reporting.conftest import RADIUS_MM, Reading, reading_of
from workers.reporting.measurement_group import outline_area
from workers.reporting.report import Report, build_report


def walk(item: Dataset) -> Iterator[Dataset]:
    """Every content item, depth first."""
    yield item
    for child in item.get("ContentSequence", []):
        yield from walk(child)


def name_of(item: Dataset) -> str:
    """The code value of a content item's concept name."""
    return item.ConceptNameCodeSequence[0].CodeValue if "ConceptNameCodeSequence" in item else ""


def value_of(item: Dataset) -> Any:
    """The value of a content item."""
    if item.ValueType == "NUM":
        return float(item.MeasuredValueSequence[0].NumericValue)
    return (
        item.ConceptCodeSequence[0].CodeValue if item.ValueType == "CODE" else item.get("TextValue") or item.get("UID")
    )


@pytest.fixture(scope="module")
def written(files: tuple[bytes, ...]) -> Dataset:
    """The structured report, read back from its file."""
    return dcmread(BytesIO(files[-1]))


def groups_of(structured_report: Dataset, template: str) -> list[Dataset]:
    """The measurement groups of one template."""
    containers = (item for item in walk(structured_report) if name_of(item) == "125007")
    return [group for group in containers if group.ContentTemplateSequence[0].TemplateIdentifier == template]


def child(group: Dataset, code: str, derivation: Code | None = None) -> Dataset:
    """The one child of a group that has this concept name, and this derivation if it has any."""
    wanted = derivation and derivation.value
    (found,) = (
        item
        for item in group.ContentSequence
        if name_of(item) == code
        and next((value_of(c) for c in item.get("ContentSequence", []) if name_of(c) == "121401"), None) == wanted
    )
    return found


def measured(group: Dataset, name: Code, unit: Code, derivation: Code | None = None) -> float:
    """A group's number, after a look at its unit."""
    item = child(group, name.value, derivation)
    assert item.MeasuredValueSequence[0].MeasurementUnitsCodeSequence[0].CodeValue == unit.value
    return float(item.MeasuredValueSequence[0].NumericValue)


def test_every_number_is_that_of_its_finding(reading: Reading, written: Dataset) -> None:
    groups = groups_of(written, "1411")
    assert len(groups) == len(reading.findings)
    for group, finding in zip(groups, reading.findings, strict=True):
        millimetres = {
            (codes.LONG_AXIS, None): finding.long_axis.length_mm,
            (codes.SHORT_AXIS, None): finding.short_axis.length_mm,
            (codes.DIAMETER, codes.MEAN): finding.mean_diameter_mm,
            (codes.MAXIMUM_3D_DIAMETER, None): finding.maximum_3d_diameter_mm,
        }
        for (name, derivation), expected in millimetres.items():
            assert measured(group, name, codes.MILLIMETRE, derivation) == round(expected, 1)
        hu = (codes.ATTENUATION_COEFFICIENT, codes.HOUNSFIELD_UNIT)
        assert measured(group, *hu, codes.MEAN) == round(finding.mean_hu)
        assert measured(group, *hu, codes.STANDARD_DEVIATION) == round(finding.deviation_hu)
        assert measured(group, codes.VOLUME, codes.CUBIC_MILLIMETRE) == round(finding.volume_mm3)
        assert measured(group, codes.CERTAINTY_OF_FINDING, codes.PERCENT) == round(100 * finding.score)


def test_whole_numbers_are_written_without_a_decimal_point(reading: Reading, written: Dataset) -> None:
    volume = child(groups_of(written, "1411")[0], codes.VOLUME.value)
    assert str(volume.MeasuredValueSequence[0].NumericValue) == str(round(reading.findings[0].volume_mm3))


def test_a_finding_is_placed_in_its_lung(reading: Reading, written: Dataset) -> None:
    for template in ("1411", "1410"):
        for group, finding in zip(groups_of(written, template), reading.findings, strict=True):
            site = child(group, "363698007")
            sides = [value_of(item) for item in site.get("ContentSequence", [])]
            assert value_of(site) == finding.site.value
            assert sides == ([finding.laterality.value] if finding.laterality else [])
            assert value_of(child(group, "121071")) == codes.NODULE.value


def test_numbers_and_outline_of_a_finding_share_its_segments_tracking_uid(
    reading: Reading, report: Report, written: Dataset
) -> None:
    segments = {segment.SegmentNumber: segment for segment in report.segmentation.SegmentSequence}
    volumetric, planar = groups_of(written, "1411"), groups_of(written, "1410")
    for finding, numbers, outline in zip(reading.findings, volumetric, planar, strict=True):
        reference = child(numbers, "121191").ReferencedSOPSequence[0]
        segment = segments[reference.ReferencedSegmentNumber]
        assert reference.ReferencedSOPInstanceUID == report.segmentation.SOPInstanceUID
        assert segment.SegmentNumber == finding.number
        for group in (numbers, outline):
            assert value_of(child(group, "112040")) == segment.TrackingUID
            assert value_of(child(group, "112039")) == segment.TrackingID


def test_the_outline_is_drawn_on_its_own_image(reading: Reading, written: Dataset) -> None:
    for group, finding in zip(groups_of(written, "1410"), reading.findings, strict=True):
        region = child(group, "111030")
        assert region.GraphicType == "POLYLINE"
        np.testing.assert_allclose(np.reshape(region.GraphicData, (-1, 2)), finding.outline.points, atol=1e-5)
        (source,) = region.ContentSequence
        assert source.ReferencedSOPSequence[0].ReferencedSOPInstanceUID == finding.outline.sop_instance_uid


def test_the_area_is_that_inside_the_outline(reading: Reading) -> None:
    """A circle in mm is an ellipse in pixels, as rows are further apart than columns."""
    (_, dy, dx), header = reading.evidence.volume.spacing_mm, reading.evidence.header
    square = Outline(sop_instance_uid="1", points=((1, 1), (4, 1), (4, 3), (1, 3), (1, 1)))
    assert outline_area(square, header) == pytest.approx(6 * dy * dx)
    assert outline_area(reading.findings[0].outline, header) == pytest.approx(np.pi * RADIUS_MM**2, rel=0.1)


def summary_of(report: Report) -> dict[str, Any]:
    """The study summary: concept name to value."""
    (container,) = (item for item in walk(report.structured_report) if name_of(item) == "C0034375")
    return {name_of(item): value_of(item) for item in container.ContentSequence}


def test_with_findings_the_summary_says_so_and_how_urgent_they_are(report: Report) -> None:
    summary = summary_of(report)
    assert summary["111017"] == "111242"
    assert summary["73568-8"] == "RID49482"


def test_without_findings_the_summary_is_all_there_is(tmp_path: Any) -> None:
    report = reading_of(tmp_path, ()).report()
    summary = summary_of(report)
    assert summary["111017"] == "111241"
    assert "73568-8" not in summary
    assert report.segmentation is None
    assert len(report.datasets) == 1
    assert not [item for item in walk(report.structured_report) if name_of(item) in ("125007", "126010")]


def test_the_report_says_that_it_is_no_diagnosis(any_report: Report) -> None:
    assert summary_of(any_report)["121106"].startswith("AI result, not for diagnostic use.")
    for dataset in any_report.datasets:
        assert dataset.SeriesDescription == "AI lung nodule - not for diagnosis"
    status = any_report.structured_report
    flags = (status.CompletionFlag, status.VerificationFlag, status.PreliminaryFlag)
    assert flags == ("COMPLETE", "UNVERIFIED", "PRELIMINARY")


def test_all_that_was_read_is_evidence(any_reading: Reading, any_report: Report) -> None:
    (study,) = any_report.structured_report.CurrentRequestedProcedureEvidenceSequence
    series = {item.SeriesInstanceUID: item.ReferencedSOPSequence for item in study.ReferencedSeriesSequence}
    volume = any_reading.evidence.volume
    listed = {item.ReferencedSOPInstanceUID for item in series[volume.series_instance_uid]}
    assert listed == set(volume.sop_instance_uids)
    if any_report.segmentation is not None:
        (segmentation,) = series[any_report.segmentation.SeriesInstanceUID]
        assert segmentation.ReferencedSOPInstanceUID == any_report.segmentation.SOPInstanceUID


def with_outline(finding: Finding, outline: Outline) -> Finding:
    """The finding, outlined otherwise."""
    return replace(finding, outline=outline)


def test_an_outline_on_an_image_that_was_not_read_is_refused(reading: Reading) -> None:
    first, *others = reading.findings
    stray = with_outline(first, replace(first.outline, sop_instance_uid="2.25.99"))
    with pytest.raises(EvidenceInvalid, match="not among the evidence"):
        build_report(reading.evidence, (stray, *others), reading.labels)


def test_an_open_outline_is_refused(reading: Reading) -> None:
    first, *others = reading.findings
    stray = with_outline(first, replace(first.outline, points=first.outline.points[:-1]))
    with pytest.raises(EvidenceInvalid, match="not closed"):
        build_report(reading.evidence, (stray, *others), reading.labels)


def test_remarks_stand_in_the_comment(reading: Reading) -> None:
    remarks = ("3456 ml of lung were searched.", "2 further marks are not outlined here.")
    report = build_report(reading.evidence, reading.findings, reading.labels, remarks)
    assert f"nodule 3. {' '.join(remarks)} Not verified by a physician".lower() in summary_of(report)["121106"].lower()


def methods_of(group: Dataset) -> dict[str, set[str]]:
    """By which method each number was measured, by its concept name."""
    return {
        name_of(item): {value_of(c) for c in item.get("ContentSequence", []) if name_of(c) == "370129005"}
        for item in group.ContentSequence
        if item.ValueType == "NUM"
    }


@pytest.mark.parametrize(
    ("border", "of_diameters", "of_volume"),
    [
        (Border.ATTENUATION, codes.FILLED_BORDER, codes.PARTIAL_VOLUME),
        (Border.SMOOTHED, codes.SMOOTHED_BORDER, codes.SUM_OF_VOXELS),
        (Border.VOXELS, codes.VOXEL_BORDER, codes.SUM_OF_VOXELS),
    ],
)
def test_each_measurement_says_how_it_was_measured(
    reading: Reading, border: Border, of_diameters: Code, of_volume: Code
) -> None:
    """One finding of several may have been measured otherwise than the others, and its solid part otherwise than it."""
    first, *others = reading.findings
    first = replace(first, border=border, solid_diameter_mm=3.2, solid_border=Border.VOXELS)
    report = build_report(reading.evidence, (first, *others), reading.labels).structured_report
    methods, *of_others = (methods_of(group) for group in groups_of(report, "1411"))

    for name in (codes.LONG_AXIS, codes.SHORT_AXIS, codes.DIAMETER, codes.MAXIMUM_3D_DIAMETER):
        assert methods[name.value] == {of_diameters.value}
    assert methods[codes.VOLUME.value] == {of_volume.value}
    assert methods[codes.SOLID_DIAMETER.value] == {codes.VOXEL_BORDER.value}
    for own, finding in zip(of_others, others, strict=True):
        assert (own[codes.LONG_AXIS.value] == {codes.SMOOTHED_BORDER.value}) is (finding.border is Border.SMOOTHED)
        assert codes.SOLID_DIAMETER.value not in own


def test_the_solid_parts_diameter_is_a_coded_mean_under_a_name_of_its_own(reading: Reading) -> None:
    """Who looks for the diameter of a nodule must not find that of a part of it."""
    first = replace(reading.findings[0], composition=Composition.PART_SOLID, solid_diameter_mm=6.349)
    report = build_report(reading.evidence, (first, *reading.findings[1:]), reading.labels).structured_report
    group = groups_of(report, "1411")[0]

    assert measured(group, codes.SOLID_DIAMETER, codes.MILLIMETRE, codes.MEAN) == 6.3
    assert measured(group, codes.DIAMETER, codes.MILLIMETRE, codes.MEAN) == round(first.mean_diameter_mm, 1)
