"""Secondary captures show the findings to whoever sees nothing but images."""

from dataclasses import replace
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from pydicom import Dataset, dcmread

from dicom_node.core.outcome import outcome_of_error
from tests.factories import OBLIQUE, enhanced_ct
from tests.unit.workers.reporting.conftest import CENTRES, Reading, reading_of
from workers.reporting import encapsulated_pdf, secondary_capture
from workers.reporting.encapsulated_pdf import build_encapsulated_pdf
from workers.reporting.encoding import as_file
from workers.reporting.key_picture import key_picture, orientation
from workers.reporting.marked_slice import key_slices
from workers.reporting.picture import NOTICE
from workers.reporting.report import Report
from workers.reporting.secondary_capture import build_secondary_captures
from workers.reporting.segmentation import colour_of

#: Whatever a viewer could take a scale from (PS3.3 Sections C.8.6.1, C.8.7.10 and 10.7).
SCALES = (
    "PixelSpacing",
    "NominalScannedPixelSpacing",
    "ImagerPixelSpacing",
    "SpatialLocationsPreserved",
    "PixelAspectRatio",
    "PixelMeasuresSequence",
)


def captures_of(reading: Reading, **how: object) -> list[Dataset]:
    """The pictures as a peer gets them."""
    captures = build_secondary_captures(reading.evidence, reading.findings, reading.labels, **how)  # type: ignore[arg-type]  # by name
    return [dcmread(BytesIO(as_file(capture))) for capture in captures]


def slices_of(reading: Reading, **how: object) -> list[Dataset]:
    """Those of them that show one slice as it lies."""
    return [capture for capture in captures_of(reading, **how) if capture.PatientOrientation]


def pixels_like(pixels: NDArray[np.uint8], colour: tuple[int, int, int]) -> NDArray[np.bool_]:
    return (np.abs(pixels.astype(int) - colour) < 12).all(axis=-1)


def test_a_page_of_text_is_followed_by_a_picture_of_each_key_slice(reading: Reading) -> None:
    page, *pictures = captures_of(reading)

    assert "SourceImageSequence" not in page
    assert pictures[:3] == slices_of(reading)
    sources = [picture.SourceImageSequence[0].ReferencedSOPInstanceUID for picture in pictures[:3]]
    assert sources == [finding.outline.sop_instance_uid for finding in reading.findings]
    assert [capture.InstanceNumber for capture in (page, *pictures)] == [1, 2, 3, 4, 5, 6, 7]
    assert len({capture.SeriesInstanceUID for capture in (page, *pictures)}) == 1


def test_each_is_one_colour_image_of_at_least_512_pixels(any_reading: Reading) -> None:
    for capture in captures_of(any_reading):
        assert (capture.SOPClassUID, capture.Modality) == ("1.2.840.10008.5.1.4.1.1.7", "OT")
        assert "NumberOfFrames" not in capture
        assert capture.PhotometricInterpretation == "RGB"
        assert max(capture.Rows, capture.Columns) >= 512
        assert capture.pixel_array.shape == (capture.Rows, capture.Columns, 3)
        assert capture.ImageType[:2] == ["DERIVED", "SECONDARY"]


def test_findings_are_outlined_in_their_colours_where_they_are(reading: Reading) -> None:
    """Every picture has its finding's colour around the finding, and the notice somewhere."""
    for finding, picture in zip(reading.findings, slices_of(reading), strict=True):
        scale = picture.Columns / reading.evidence.volume.voxels.shape[2]
        points = np.array(finding.outline.points) * scale
        (left, top), (right, bottom) = points.min(axis=0).astype(int) - 20, points.max(axis=0).astype(int) + 20
        near = picture.pixel_array[max(0, top) : bottom, max(0, left) : right]
        assert pixels_like(near, colour_of(finding).to_rgb(clip=True)).sum() > 50
        assert pixels_like(picture.pixel_array, NOTICE).sum() > 100


@pytest.mark.parametrize("centre", [(6, j, i) for j in (4, 16, 27) for i in (4, 16, 27)])
def test_nothing_that_is_written_hides_a_finding(tmp_path: Path, centre: tuple[int, int, int]) -> None:
    """Neither notice nor bar nor close-up lies over what is outlined, wherever that is."""
    reading = reading_of(tmp_path, (centre,))
    (picture,) = slices_of(reading)
    scale = np.array([picture.Columns, picture.Rows]) / reading.evidence.volume.voxels.shape[:0:-1]
    left, top, right, bottom = np.array(
        [
            *(reading.findings[0].outline.points * scale).min(axis=0),
            *(reading.findings[0].outline.points * scale).max(axis=0),
        ]
    ).clip(0, 511)
    inside = picture.pixel_array[round(top) + 3 : round(bottom) - 3, round(left) + 3 : round(right) - 3]
    # The source is even here: what is darker, or bright as a letter, was written over it.
    assert not pixels_like(inside, NOTICE).any()
    assert (inside.min(axis=-1) >= 60).mean() > 0.9


def crowded(folder: Path) -> Reading:
    """A finding in every corner, so that no close-up finds room."""
    return reading_of(folder, ((5, 8, 8), (5, 8, 55), (5, 55, 8), (5, 55, 55)), voxels=np.full((12, 64, 64), -850))


def test_a_picture_with_a_close_up_claims_no_scale(any_reading: Reading) -> None:
    """A ruler would read a multiple of the nodule in the close-up, exactly where a reader would lay it."""
    pieces = key_slices(any_reading.evidence, any_reading.findings, any_reading.labels) if any_reading.findings else ()
    for piece, picture in zip(pieces, slices_of(any_reading), strict=True):
        assert key_picture(any_reading.evidence, piece).close_ups
        assert not [element.keyword for element in picture.iterall() if element.keyword in SCALES]
        assert "not for measuring" in picture.DerivationDescription


def test_without_a_close_up_pixel_spacing_is_that_of_the_picture(tmp_path: Path) -> None:
    """The picture spans what its source spans, whatever it was enlarged by."""
    reading = crowded(tmp_path)
    (picture,) = slices_of(reading)
    rows, columns = reading.evidence.volume.voxels.shape[1:]
    down, across = reading.evidence.volume.spacing_mm[1:]
    assert picture.PixelSpacing[0] == picture.PixelSpacing[1]
    assert float(picture.PixelSpacing[0]) * picture.Rows == pytest.approx(rows * down, rel=0.002)
    assert float(picture.PixelSpacing[1]) * picture.Columns == pytest.approx(columns * across, rel=0.002)


def test_a_page_of_text_has_no_place_and_no_scale(reading: Reading) -> None:
    page = captures_of(reading)[0]

    assert not page.PatientOrientation
    assert not [element.keyword for element in page.iterall() if element.keyword in SCALES]


def test_no_picture_is_said_to_hold_the_patients_name(reading: Reading) -> None:
    assert {capture.BurnedInAnnotation for capture in captures_of(reading)} == {"NO"}


def test_the_patients_data_changes_no_pixel(tmp_path: Path) -> None:
    """Law: pictures depend on the images and the findings; nothing of the patient is drawn in."""
    plain = reading_of(tmp_path / "a", CENTRES[:1])
    other = reading_of(
        tmp_path / "b",
        CENTRES[:1],
        PatientName="Other^Olga",
        PatientID="OTHER-9",
        PatientBirthDate="19000101",
        AccessionNumber="X9",
        StudyDate="19991231",
        ReferringPhysicianName="Somebody^Else",
        StudyDescription="Other^Olga",
        SeriesDescription="Other^Olga",
        InstitutionName="Elsewhere",
    )
    for one, two in zip(captures_of(plain), captures_of(other), strict=True):
        assert one.PixelData == two.PixelData
        assert two.PatientName == "Other^Olga"


def test_of_a_multi_frame_source_the_frame_is_named(tmp_path: Path) -> None:
    reading = reading_of(tmp_path, CENTRES[:1], source=enhanced_ct)
    source = captures_of(reading)[1].SourceImageSequence[0]

    assert source.ReferencedFrameNumber == reading.findings[0].outline.frame_number


def test_a_reading_without_findings_is_one_page_that_says_so(tmp_path: Path) -> None:
    reading = reading_of(tmp_path, ())
    nothing, failed = (
        captures_of(reading),
        captures_of(reading, outcome=outcome_of_error("NotApplicable", "the lungs were not found")),
    )

    assert len(nothing) == len(failed) == 1
    assert nothing[0].PixelData != failed[0].PixelData
    assert nothing[0].pixel_array.any()


def test_a_later_report_counts_on_and_has_pictures_of_its_own(reading: Reading, report: Report) -> None:
    """A late image leads to a second report in the same series: its pictures must not be taken for the first ones."""
    later = replace(reading, evidence=replace(reading.evidence, predecessor=report.structured_report))
    first, second = captures_of(reading), captures_of(later)

    assert {capture.SeriesInstanceUID for capture in first} == {capture.SeriesInstanceUID for capture in second}
    assert [capture.InstanceNumber for capture in second] == [1001, 1002, 1003, 1004, 1005, 1006, 1007]
    assert not {c.SOPInstanceUID for c in first} & {c.SOPInstanceUID for c in second}


def test_pictures_that_look_otherwise_are_other_objects(reading: Reading, monkeypatch: pytest.MonkeyPatch) -> None:
    """A version of the software that draws otherwise must not put other pixels under a UID that peers know."""
    before, before_in_words = captures_of(reading), build_encapsulated_pdf(reading.evidence, (), None)
    for module in (secondary_capture, encapsulated_pdf):
        monkeypatch.setattr(module, "DRAWING", "drawing of another kind")
    after, after_in_words = captures_of(reading), build_encapsulated_pdf(reading.evidence, (), None)
    assert not {c.SOPInstanceUID for c in before} & {c.SOPInstanceUID for c in after}
    assert before_in_words.SOPInstanceUID != after_in_words.SOPInstanceUID
    assert {c.SeriesInstanceUID for c in before} == {c.SeriesInstanceUID for c in after}


def test_labels_are_not_needed_where_nothing_was_found(reading: Reading) -> None:
    (page,) = build_secondary_captures(
        reading.evidence, (), None, outcome=outcome_of_error("Interrupted", "it broke off")
    )

    assert page.Rows == 512


def test_long_texts_go_on_on_further_pages(reading: Reading) -> None:
    remarks = ("A sentence that is long. " * 150, "W" * 3000)
    pages = [capture for capture in captures_of(reading, remarks=remarks) if "SourceImageSequence" not in capture]

    assert len(pages) > 2
    assert all(page.pixel_array.any() for page in pages)


def test_directions_are_the_patients(tmp_path: Path, reading: Reading) -> None:
    oblique = reading_of(tmp_path, CENTRES[:1], directions=OBLIQUE)

    assert orientation(reading.evidence) == ("L", "P")
    assert orientation(oblique.evidence) == ("LP", "HPR")
    assert captures_of(oblique)[1].PatientOrientation == ["LP", "HPR"]


@pytest.mark.parametrize("shape", [(12, 20, 64), (12, 64, 20), (12, 700, 520)])
def test_pictures_of_any_shape_can_be_drawn(tmp_path: Path, shape: tuple[int, int, int]) -> None:
    reading = reading_of(tmp_path, ((5, 10, 10), (5, 14, 12)), voxels=np.full(shape, -850))
    for piece in key_slices(reading.evidence, reading.findings, reading.labels):
        drawn = key_picture(reading.evidence, piece)
        assert max(drawn.pixels.shape[:2]) >= 512
        assert drawn.pixels.shape[0] * drawn.pixel_mm == pytest.approx(shape[1] * 0.8, rel=0.01)


def test_many_findings_on_one_slice_are_all_named(tmp_path: Path) -> None:
    """More than there is room for close-ups: each still has its outline."""
    centres = tuple((5, 20 + 30 * row, 20 + 30 * column) for row in range(4) for column in range(5))
    reading = reading_of(tmp_path, centres, voxels=np.full((12, 160, 200), -850))
    (piece,) = key_slices(reading.evidence, reading.findings, reading.labels)
    pixels = key_picture(reading.evidence, piece).pixels

    assert len(piece.keys) == 20
    for finding in reading.findings:
        assert pixels_like(pixels, colour_of(finding).to_rgb(clip=True)).sum() > 100
