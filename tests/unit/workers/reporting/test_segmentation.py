"""The SEG is the mask, in the place of its source images."""

import copy
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import highdicom as hd
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from pydicom import dcmread

from dicom_node.core.errors import EvidenceInvalid
from tests.factories import ct_series, enhanced_ct
from tests.strategies import orientations
from tests.unit.workers.reporting.conftest import CENTRES, Reading, reading_of
from workers.lungs import LEFT_LUNG, LUNG_OF_UNKNOWN_SIDE, RIGHT_LUNG
from workers.reporting.encoding import as_file
from workers.reporting.report import Report
from workers.reporting.segmentation import (
    BINARY,
    LABEL_MAP,
    build_lung_segmentation,
    build_segmentation,
    check_labels,
)
from workers.volume import Volume


def masks_by_source(file: bytes, sop_instance_uids: tuple[str, ...]) -> NDArray[np.uint8]:
    """Voxels [k, j, i, segment] of a SEG, asked for by the source images' UIDs."""
    segmentation = hd.seg.segread(BytesIO(file))
    return segmentation.get_pixels_by_source_instance(
        list(sop_instance_uids), assert_missing_frames_are_empty=True, ignore_spatial_locations=False
    )


def labels_by_source(file: bytes, volume: Volume) -> NDArray[np.uint8]:
    """Voxels [k, j, i] of a SEG by segment number, asked for by the source images or frames."""
    segmentation = hd.seg.segread(BytesIO(file))
    how = {"combine_segments": True, "assert_missing_frames_are_empty": True, "ignore_spatial_locations": False}
    if volume.frame_numbers:
        return segmentation.get_pixels_by_source_frame(volume.sop_instance_uids[0], list(volume.frame_numbers), **how)
    return segmentation.get_pixels_by_source_instance(list(volume.sop_instance_uids), **how)


def test_each_segment_reads_back_as_the_voxels_of_its_finding(any_reading: Reading, any_report: Report) -> None:
    segmentation = any_report.segmentation
    if not any_reading.findings:
        assert segmentation is None
        return
    read_back = labels_by_source(as_file(segmentation), any_reading.evidence.volume)
    np.testing.assert_array_equal(read_back, any_reading.labels)


@settings(max_examples=12, deadline=None)
@given(data=st.data())
def test_any_mask_survives_the_way_through_a_file(reading: Reading, data: st.DataObject) -> None:
    """Law: what is marked, and only that, is read back; also single voxels, touching findings and whole slices."""
    labels = data.draw(arrays(np.uint8, reading.labels.shape, elements=st.integers(0, 3), fill=st.just(0)))
    labels[0, 0, :3] = (1, 2, 3)
    file = as_file(build_segmentation(reading.evidence, reading.findings, labels))
    masks = masks_by_source(file, reading.evidence.volume.sop_instance_uids)
    np.testing.assert_array_equal(np.sum(masks * np.arange(1, 4), axis=-1), labels)


def test_no_frame_is_empty_and_none_is_missing(reading: Reading, report: Report) -> None:
    frames = dcmread(BytesIO(as_file(report.segmentation))).pixel_array
    expected = sum(int((reading.labels == number).any(axis=(1, 2)).sum()) for number in (1, 2, 3))
    assert frames.any(axis=(1, 2)).all()
    assert len(frames) == expected


def test_frames_lie_where_their_source_images_lie(any_reading: Reading, any_report: Report) -> None:
    segmentation, volume = any_report.segmentation, any_reading.evidence.volume
    if segmentation is None:
        return
    assert segmentation.FrameOfReferenceUID == volume.frame_of_reference_uid
    orientation = segmentation.SharedFunctionalGroupsSequence[0].PlaneOrientationSequence[0].ImageOrientationPatient
    assert orientation == volume.headers[0].ImageOrientationPatient
    positions = {
        (header.SOPInstanceUID, volume.frame_number(k)): header.ImagePositionPatient
        for k, header in enumerate(volume.headers)
    }
    for frame in segmentation.PerFrameFunctionalGroupsSequence:
        source = frame.DerivationImageSequence[0].SourceImageSequence[0]
        place = (source.ReferencedSOPInstanceUID, source.get("ReferencedFrameNumber"))
        assert frame.PlanePositionSequence[0].ImagePositionPatient == positions[place]


def test_segments_say_what_they_are_where_and_by_whom(reading: Reading, report: Report) -> None:
    segments = report.segmentation.SegmentSequence
    assert [segment.SegmentLabel for segment in segments] == ["Nodule 1", "Nodule 2", "Nodule 3"]
    regions = [segment.AnatomicRegionSequence[0] for segment in segments]
    sides = [region.get("AnatomicRegionModifierSequence", [None])[0] for region in regions]
    assert [region.CodeValue for region in regions] == ["39607008"] * 3
    assert [side and side.CodeMeaning for side in sides] == ["Right", "Left", None]
    for segment in segments:
        assert segment.SegmentAlgorithmType == "AUTOMATIC"
        identification = segment.SegmentationAlgorithmIdentificationSequence[0]
        assert identification.AlgorithmVersion == reading.evidence.algorithm.version
    colours = {tuple(segment.RecommendedDisplayCIELabValue) for segment in segments}
    assert len(colours) == 3


def test_all_images_of_the_series_are_named_as_its_source(reading: Reading, report: Report) -> None:
    (series,) = report.segmentation.ReferencedSeriesSequence
    assert series.SeriesInstanceUID == reading.evidence.volume.series_instance_uid
    named = {item.ReferencedSOPInstanceUID for item in series.ReferencedInstanceSequence}
    assert named == set(reading.evidence.volume.sop_instance_uids)


def test_slices_whose_orientation_strays_by_rounding_are_one_orientation(reading: Reading) -> None:
    headers = copy.deepcopy(reading.evidence.volume.headers)
    headers[5].ImageOrientationPatient = ["1", "0", "0", "0", "0.9999999", "0.0000004"]
    volume = replace(reading.evidence.volume, headers=headers)
    evidence = replace(reading.evidence, volume=volume)
    segmentation = build_segmentation(evidence, reading.findings, reading.labels)
    masks = masks_by_source(as_file(segmentation), volume.sop_instance_uids)
    np.testing.assert_array_equal(masks[..., 0], reading.labels == 1)


@pytest.mark.parametrize(
    ("marked", "is_volume"),
    [((3, 4, 5), True), ((0, 1, 2), True), ((0, 2, 4), False), ((2, 5, 8), False), ((2, 3, 7), False), ((4,), False)],
)
def test_frames_are_said_to_be_a_volume_only_where_they_are_as_far_apart_as_the_slices(
    reading: Reading, marked: tuple[int, ...], is_volume: bool
) -> None:
    """Of slices without a voxel there is no frame: what is left may be even, and yet farther apart."""
    labels = np.zeros_like(reading.labels)
    labels[list(marked), 4:9, 4:9] = 1
    segmentation = build_segmentation(reading.evidence, reading.findings[:1], labels)
    assert segmentation is not None
    measures = segmentation.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
    assert float(measures.SpacingBetweenSlices) == pytest.approx(2.5)
    assert (segmentation.get("DimensionOrganizationType") == "3D") is is_volume


def test_a_finding_without_voxels_is_refused(reading: Reading) -> None:
    labels = np.where(reading.labels == 2, 0, reading.labels)
    with pytest.raises(EvidenceInvalid, match=r"labels mark \[1, 3\]"):
        check_labels(reading.evidence, reading.findings, labels)


def test_voxels_without_a_finding_are_refused(reading: Reading) -> None:
    with pytest.raises(EvidenceInvalid, match=r"the findings are \[1, 2\]"):
        check_labels(reading.evidence, reading.findings[:2], reading.labels)


def test_labels_of_another_shape_are_refused(reading: Reading) -> None:
    with pytest.raises(EvidenceInvalid, match="the volume is"):
        check_labels(reading.evidence, reading.findings, reading.labels[:-1])


def test_findings_that_do_not_count_from_one_are_refused(reading: Reading) -> None:
    findings = tuple(replace(finding, number=finding.number + 1) for finding in reading.findings)
    with pytest.raises(EvidenceInvalid, match="without a gap"):
        check_labels(reading.evidence, findings, reading.labels)


@settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_any_mask_survives_in_every_orientation_and_from_every_source(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """Law: mask to file to mask is the identity, for slices and frames, gaps and overlaps, BINARY and LABELMAP."""
    cosines = data.draw(orientations())
    folder = tmp_path_factory.mktemp("source")
    source = data.draw(st.sampled_from([ct_series, enhanced_ct]))
    thickness = data.draw(st.sampled_from(["1", "2.5", "5"]))
    how = {"directions": (cosines[:3], cosines[3:]), "voxels": np.full((5, 6, 7), -850)}
    if source is ct_series:
        how |= {"SliceThickness": thickness}
    reading = reading_of(folder, ((2, 3, 3),) * 3, source=source, **how)
    labels = data.draw(arrays(np.uint8, reading.labels.shape, elements=st.integers(0, 3), fill=st.just(0)))
    labels[0, 0, :3] = (1, 2, 3)
    file = as_file(
        build_segmentation(reading.evidence, reading.findings, labels, data.draw(st.sampled_from([BINARY, LABEL_MAP])))
    )
    np.testing.assert_array_equal(labels_by_source(file, reading.evidence.volume), labels)


def test_a_label_map_gives_its_background_no_colour_and_every_finding_one(reading: Reading) -> None:
    label_map = build_segmentation(reading.evidence, reading.findings, reading.labels, LABEL_MAP)
    assert label_map is not None
    coloured = {item.SegmentNumber: "RecommendedDisplayCIELabValue" in item for item in label_map.SegmentSequence}
    assert coloured == {0: False, **{finding.number: True for finding in reading.findings}}


def test_a_label_map_holds_the_same_voxels_under_the_same_tracking(reading: Reading, report: Report) -> None:
    label_map = build_segmentation(reading.evidence, reading.findings, reading.labels, LABEL_MAP)
    assert label_map.SOPClassUID == "1.2.840.10008.5.1.4.1.1.66.7"
    assert label_map.SOPInstanceUID != report.segmentation.SOPInstanceUID
    np.testing.assert_array_equal(labels_by_source(as_file(label_map), reading.evidence.volume), reading.labels)
    binary = {int(s.SegmentNumber): s.TrackingUID for s in report.segmentation.SegmentSequence}
    assert {int(s.SegmentNumber): s.TrackingUID for s in label_map.SegmentSequence if "TrackingUID" in s} == binary
    second = build_segmentation(reading.evidence, reading.findings, reading.labels, LABEL_MAP)
    assert as_file(label_map) == as_file(second)


def test_frames_of_a_multi_frame_source_are_referred_to_by_number(tmp_path: Path) -> None:
    reading = reading_of(tmp_path, CENTRES[:1], source=enhanced_ct)
    segmentation, volume = reading.report().segmentation, reading.evidence.volume
    for frame in segmentation.PerFrameFunctionalGroupsSequence:
        source = frame.DerivationImageSequence[0].SourceImageSequence[0]
        assert source.ReferencedSOPInstanceUID == volume.sop_instance_uids[0]
        k = volume.frame_numbers.index(source.ReferencedFrameNumber)
        assert frame.PlanePositionSequence[0].ImagePositionPatient == volume.headers[k].ImagePositionPatient


def lungs_like(reading: Reading, *values: int) -> NDArray[np.uint8]:
    """A mask in which each value has a block of its own."""
    lungs = np.zeros(reading.labels.shape, dtype=np.uint8)
    for place, value in enumerate(values):
        lungs[2:9, 4:28, 2 + 12 * place : 12 + 12 * place] = value
    return lungs


def test_the_lungs_are_anatomy_with_a_side_in_an_object_of_their_own(reading: Reading, report: Report) -> None:
    lungs = lungs_like(reading, RIGHT_LUNG, LEFT_LUNG)
    segmentation = build_lung_segmentation(reading.evidence, lungs)
    assert segmentation is not None
    assert segmentation.SeriesInstanceUID != report.segmentation.SeriesInstanceUID
    assert segmentation.SOPInstanceUID != report.segmentation.SOPInstanceUID
    right, left = segmentation.SegmentSequence
    for segment, name, side in ((right, "Right lung", "24028007"), (left, "Left lung", "7771000")):
        kind = segment.SegmentedPropertyTypeCodeSequence[0]
        assert segment.SegmentLabel == name
        assert segment.SegmentedPropertyCategoryCodeSequence[0].CodeValue == "91723000"
        assert kind.CodeValue == "39607008"
        assert kind.SegmentedPropertyTypeModifierCodeSequence[0].CodeValue == side
    np.testing.assert_array_equal(labels_by_source(as_file(segmentation), reading.evidence.volume), lungs)


def test_a_left_lung_alone_is_the_first_segment(reading: Reading) -> None:
    segmentation = build_lung_segmentation(reading.evidence, lungs_like(reading, LEFT_LUNG))
    assert segmentation is not None
    (segment,) = segmentation.SegmentSequence
    assert (segment.SegmentNumber, segment.SegmentLabel) == (1, "Left lung")


def test_a_lung_whose_side_is_not_known_has_none(reading: Reading) -> None:
    segmentation = build_lung_segmentation(reading.evidence, lungs_like(reading, LUNG_OF_UNKNOWN_SIDE))
    assert segmentation is not None
    (segment,) = segmentation.SegmentSequence
    kind = segment.SegmentedPropertyTypeCodeSequence[0]
    assert "SegmentedPropertyTypeModifierCodeSequence" not in kind


def test_a_lung_is_tracked_alike_whatever_a_report_replaces(reading: Reading, report: Report) -> None:
    lungs = np.full_like(reading.labels, RIGHT_LUNG)
    later = replace(reading.evidence, predecessor=report.structured_report)
    first, second = (build_lung_segmentation(evidence, lungs) for evidence in (reading.evidence, later))

    assert first.SOPInstanceUID != second.SOPInstanceUID
    assert first.SegmentSequence[0].TrackingUID == second.SegmentSequence[0].TrackingUID


def test_without_lungs_there_is_no_object_of_them(reading: Reading) -> None:
    assert build_lung_segmentation(reading.evidence, np.zeros_like(reading.labels)) is None


def test_lungs_of_another_shape_are_refused(reading: Reading) -> None:
    with pytest.raises(EvidenceInvalid, match="the volume is"):
        build_lung_segmentation(reading.evidence, lungs_like(reading, RIGHT_LUNG)[:-1])
