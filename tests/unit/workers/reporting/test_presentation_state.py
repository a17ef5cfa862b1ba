"""The presentation state draws the findings over the source images, where they are."""

from io import BytesIO
from pathlib import Path

import numpy as np
import pydicom
import pytest
from numpy.typing import NDArray
from pydicom import Dataset, dcmread
from skimage.draw import polygon2mask

from dicom_node.core.errors import EvidenceInvalid
from tests.factories import enhanced_ct
from tests.unit.workers.reporting.conftest import CENTRES, Reading, evidence_of, reading_of
from workers.reporting.encoding import as_file
from workers.reporting.presentation_state import build_presentation_states
from workers.volume import load_volume


def states_of(reading: Reading) -> list[Dataset]:
    """The states as a peer gets them."""
    states = build_presentation_states(reading.evidence, reading.findings, reading.labels)
    return [dcmread(BytesIO(as_file(state))) for state in states]


def drawn_on(state: Dataset, reading: Reading, number: int) -> NDArray[np.bool_]:
    """The voxels [k, j, i] that a finding's lines surround."""
    volume = reading.evidence.volume
    places = {(uid, volume.frame_number(k)): k for k, uid in enumerate(volume.sop_instance_uids)}
    mask = np.zeros(volume.voxels.shape, dtype=bool)
    for annotation in state.GraphicAnnotationSequence:
        if annotation.GraphicLayer != f"FINDING {number}":
            continue
        (image,) = annotation.ReferencedImageSequence
        k = places[image.ReferencedSOPInstanceUID, image.get("ReferencedFrameNumber")]
        for graphic in annotation.GraphicObjectSequence:
            points = np.array(graphic.GraphicData).reshape(-1, 2)[:, ::-1] - 0.5
            mask[k] |= polygon2mask(mask[k].shape, points)
    return mask


def test_the_lines_surround_the_voxels_of_each_finding_on_every_slice(any_reading: Reading) -> None:
    states = states_of(any_reading)
    if not any_reading.findings:
        assert states == []
        return
    (state,) = states
    for finding in any_reading.findings:
        drawn = drawn_on(state, any_reading, finding.number)
        np.testing.assert_array_equal(drawn, any_reading.labels == finding.number)


def test_they_do_so_on_frames_too(tmp_path: Path) -> None:
    reading = reading_of(tmp_path, source=enhanced_ct)
    (state,) = states_of(reading)
    for finding in reading.findings:
        np.testing.assert_array_equal(drawn_on(state, reading, finding.number), reading.labels == finding.number)


def test_the_window_is_that_for_lungs_over_the_images_own_rescaling(reading: Reading) -> None:
    (state,) = states_of(reading)

    (window,) = state.SoftcopyVOILUTSequence
    assert (window.WindowCenter, window.WindowWidth, window.WindowCenterWidthExplanation) == (-600, 1500, "LUNG")
    assert (state.RescaleSlope, state.RescaleIntercept, state.RescaleType) == (1, -1024, "HU")


def test_each_finding_has_a_layer_in_its_colour_of_the_segmentation(reading: Reading) -> None:
    (state,) = states_of(reading)
    notice, *layers = state.GraphicLayerSequence

    assert "not for diagnosis" in notice.GraphicLayerDescription
    assert [layer.GraphicLayer for layer in layers] == ["FINDING 1", "FINDING 2", "FINDING 3"]
    segmentation = reading.report().segmentation
    assert segmentation is not None
    for layer, segment in zip(layers, segmentation.SegmentSequence, strict=True):
        assert layer.GraphicLayerRecommendedDisplayCIELabValue == segment.RecommendedDisplayCIELabValue


def test_texts_stand_in_the_image_and_tell_axes_on_the_slice_of_largest_extent(reading: Reading) -> None:
    (state,) = states_of(reading)
    texts: dict[str, list[str]] = {}
    for annotation in state.GraphicAnnotationSequence:
        for text in annotation.TextObjectSequence:
            texts.setdefault(text.UnformattedTextValue, []).append(
                annotation.ReferencedImageSequence[0].ReferencedSOPInstanceUID
            )
            corners = [*text.BoundingBoxTopLeftHandCorner, *text.BoundingBoxBottomRightHandCorner]
            assert 0 <= min(corners) <= max(corners) <= 32
    assert texts["Nodule 1: 8.3 x 8.1 mm"] == [reading.findings[0].outline.sop_instance_uid]
    assert len(texts["Nodule 1"]) == len(np.flatnonzero((reading.labels == 1).any(axis=(1, 2)))) - 1


def test_every_marked_slice_says_whose_marks_these_are(reading: Reading) -> None:
    (state,) = states_of(reading)
    (notice,) = (a for a in state.GraphicAnnotationSequence if a.GraphicLayer == "AI NOTICE")

    marked = np.flatnonzero(reading.labels.any(axis=(1, 2)))
    expected = [reading.evidence.volume.sop_instance_uids[k] for k in marked]
    assert [image.ReferencedSOPInstanceUID for image in notice.ReferencedImageSequence] == expected
    (series,) = state.ReferencedSeriesSequence
    assert [image.ReferencedSOPInstanceUID for image in series.ReferencedImageSequence] == expected
    assert notice.TextObjectSequence[0].UnformattedTextValue == "AI result, not for diagnosis"


def test_the_whole_image_is_shown_with_its_own_ratio_of_sides(reading: Reading) -> None:
    (state,) = states_of(reading)
    (area,) = state.DisplayedAreaSelectionSequence

    assert (area.DisplayedAreaTopLeftHandCorner, area.DisplayedAreaBottomRightHandCorner) == ([1, 1], [32, 32])
    assert area.PresentationPixelSpacing == reading.evidence.header.PixelSpacing


def test_of_a_multi_frame_source_it_names_the_frames_once(tmp_path: Path) -> None:
    reading = reading_of(tmp_path, CENTRES[:1], source=enhanced_ct)
    (state,) = states_of(reading)
    (image,) = state.ReferencedSeriesSequence[0].ReferencedImageSequence

    marked = np.flatnonzero(reading.labels.any(axis=(1, 2)))
    assert sorted(image.ReferencedFrameNumber) == sorted(reading.evidence.volume.frame_numbers[k] for k in marked)


def test_slices_that_are_rescaled_otherwise_have_a_state_of_their_own(tmp_path: Path, reading: Reading) -> None:
    """A state has one rescaling for all that it refers to; under that of another slice the window would be wrong."""
    other = reading_of(tmp_path)
    changed = other.evidence.volume.sop_instance_uids[3]
    for path in tmp_path.iterdir():
        ds = pydicom.dcmread(path)
        if changed == ds.SOPInstanceUID:
            ds.RescaleIntercept = "-1000"
            ds.save_as(path)
    evidence = evidence_of(load_volume(sorted(tmp_path.iterdir())))
    states = build_presentation_states(evidence, reading.findings, reading.labels)

    assert [state.RescaleIntercept for state in states] == [-1024, -1000]
    assert len({state.SOPInstanceUID for state in states}) == len({state.InstanceNumber for state in states}) == 2
    images = [state.ReferencedSeriesSequence[0].ReferencedImageSequence for state in states]
    assert [image.ReferencedSOPInstanceUID for image in images[1]] == [changed]
    assert changed not in {image.ReferencedSOPInstanceUID for image in images[0]}


def test_marks_of_no_finding_are_refused(reading: Reading) -> None:
    with pytest.raises(EvidenceInvalid, match=r"labels mark \[3\], which are no findings"):
        build_presentation_states(reading.evidence, reading.findings[:2], reading.labels)


def test_a_finding_without_its_mark_is_refused(reading: Reading) -> None:
    labels = np.where(reading.labels == 2, 0, reading.labels).astype(np.uint8)
    with pytest.raises(EvidenceInvalid, match=r"labels do not mark \[2\]"):
        build_presentation_states(reading.evidence, reading.findings, labels)
