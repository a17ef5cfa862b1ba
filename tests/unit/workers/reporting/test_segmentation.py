"""The SEG is the mask, in the place of its source images."""

import copy
from dataclasses import replace
from io import BytesIO

import highdicom as hd
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from pydicom import dcmread

from dicom_node.core.errors import EvidenceInvalid
from tests.unit.workers.reporting.conftest import Reading
from workers.reporting.report import Report, as_file
from workers.reporting.segmentation import build_segmentation, check_labels


def masks_by_source(file: bytes, sop_instance_uids: tuple[str, ...]) -> NDArray[np.uint8]:
    """Voxels [k, j, i, segment] of a SEG, asked for by the source images' UIDs."""
    segmentation = hd.seg.segread(BytesIO(file))
    return segmentation.get_pixels_by_source_instance(
        list(sop_instance_uids), assert_missing_frames_are_empty=True, ignore_spatial_locations=False
    )


def test_each_segment_reads_back_as_the_voxels_of_its_finding(any_reading: Reading, any_report: Report) -> None:
    segmentation = any_report.segmentation
    if not any_reading.findings:
        assert segmentation is None
        return
    masks = masks_by_source(as_file(segmentation), any_reading.evidence.volume.sop_instance_uids)
    for finding in any_reading.findings:
        np.testing.assert_array_equal(masks[..., finding.number - 1], any_reading.labels == finding.number)


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
    positions = {header.SOPInstanceUID: header.ImagePositionPatient for header in volume.headers}
    for frame in segmentation.PerFrameFunctionalGroupsSequence:
        source = frame.DerivationImageSequence[0].SourceImageSequence[0].ReferencedSOPInstanceUID
        assert frame.PlanePositionSequence[0].ImagePositionPatient == positions[source]


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
