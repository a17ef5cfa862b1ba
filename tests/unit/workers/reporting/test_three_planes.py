"""A finding in three planes lies as the patient does, is as wide as it is, and says on what its score depended."""

from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pytest
from numpy.typing import NDArray
from pydicom import dcmread

from dicom_node.core.errors import EvidenceInvalid
from dicom_node.core.form import Form
from tests.factories import HEADFIRST_SUPINE, OBLIQUE
from tests.unit.workers.reporting.conftest import Reading, evidence_of, reading_of
from tests.unit.workers.reporting.test_encapsulated_pdf import text_of
from tests.unit.workers.reporting.test_secondary_capture import captures_of, pixels_like
from workers.dependence import NUMBERS, Dependence, Part
from workers.preprocessing import GRID_MM
from workers.reporting.encapsulated_pdf import build_encapsulated_pdf
from workers.reporting.report import build_report
from workers.reporting.segmentation import colour_of
from workers.reporting.three_planes import three_planes
from workers.reporting.upright import Upright
from workers.volume import Volume

#: Left, top, right, bottom of the planes, in pixels of the picture: axial, coronal, sagittal.
PLANES = ((9, 81, 345, 417), (357, 81, 693, 417), (9, 423, 345, 759))


def depends(volume: Volume, **without: float) -> Dependence:
    """Something told of the finding about the middle of the network's grid."""
    extents = zip(volume.voxels.shape, volume.spacing_mm, GRID_MM, strict=True)
    shape = tuple(int(n * mm / grid) + 1 for n, mm, grid in extents)
    parts = np.full(shape, NUMBERS[Part.OUTLINED], dtype=np.uint8)
    named = {Part[name.upper()]: score for name, score in without.items()}
    return Dependence(score=0.84, without=MappingProxyType(named), start=(0, 0, 0), parts=parts)


def planes_of(reading: Reading, told: Dependence | None = None) -> list[NDArray[np.uint8]]:
    picture = three_planes(reading.evidence, reading.findings[0], reading.labels, told)
    return [picture[top:bottom, left:right] for left, top, right, bottom in PLANES]


def outlined(plane: NDArray[np.uint8], reading: Reading) -> tuple[float, float]:
    """Height and width in mm of what is outlined in a plane that shows 40 mm."""
    rows, columns = np.nonzero(pixels_like(plane, colour_of(reading.findings[0]).to_rgb(clip=True)))
    return tuple(float(np.ptp(places)) * 40 / plane.shape[0] for places in (rows, columns))  # type: ignore[return-value]  # two


def test_in_every_plane_a_ball_is_as_high_as_wide(tmp_path: Path) -> None:
    """Slices are 2.5 mm apart, rows 0.8 and columns 0.7 mm: none of that may stretch it."""
    reading = reading_of(tmp_path, ((6, 16, 16),))
    for plane in planes_of(reading):
        # As far as a ball's voxels go: 4 mm to every side, and half a voxel.
        assert outlined(plane, reading) == pytest.approx((8.0, 8.0), abs=1.7)


def corner(volume: Volume) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """A cube whose right, front and upper eighth is bright, wherever those lie in the volume's own axes."""
    labels, hu = np.zeros(volume.voxels.shape, dtype=np.uint8), np.full(volume.voxels.shape, -850.0, dtype=np.float32)
    turned, values = (Upright.of(volume).turned(array) for array in (labels, hu))
    turned[13:20, 13:20, 13:20], values[13:20, 13:20, 13:20] = 1, -300.0
    values[16:20, 13:17, 13:17] = 400.0
    return labels, hu


@pytest.mark.parametrize(
    "directions",
    [
        HEADFIRST_SUPINE,
        ((-1.0, 0.0, 0.0), (0.0, -1.0, 0.0)),
        ((1.0, 0.0, 0.0), (0.0, -1.0, 0.0)),
        ((0.0, 1.0, 0.0), (1.0, 0.0, 0.0)),
        ((0.0, 0.0, -1.0), (1.0, 0.0, 0.0)),
    ],
)
def test_the_patients_right_is_at_the_left_and_his_head_above_however_the_series_was_laid(
    tmp_path: Path, directions: tuple[tuple[float, float, float], tuple[float, float, float]]
) -> None:
    """Law: turned by whole axes, a series gives the same picture."""
    pictures = []
    for name, turn in (("straight", HEADFIRST_SUPINE), ("turned", directions)):
        cube = {"slices": 33, "rows": 33, "spacing": (2.0, 2.0, 2.0)}
        reading = reading_of(tmp_path / name, ((16, 16, 16),), directions=turn, **cube)
        labels, hu = corner(reading.evidence.volume)
        evidence = evidence_of(replace(reading.evidence.volume, voxels=hu))
        pictures.append(three_planes(evidence, reading.findings[0], labels))
    np.testing.assert_array_equal(*pictures)
    for left, top, right, bottom in PLANES:
        # Within letters and bar.
        plane = pictures[0][top + 40 : bottom - 40, left + 40 : right - 40].min(axis=2)
        rows, columns = np.nonzero(plane > 235)
        assert rows.mean() < plane.shape[0] / 2 - 10
        assert columns.mean() < plane.shape[1] / 2 - 10


def test_of_oblique_slices_no_plane_is_called_the_patients(tmp_path: Path) -> None:
    straight, oblique = reading_of(tmp_path / "a"), reading_of(tmp_path / "b", directions=OBLIQUE)

    assert Upright.of(straight.evidence.volume).is_straight
    assert not Upright.of(oblique.evidence.volume).is_straight
    assert three_planes(oblique.evidence, oblique.findings[0], oblique.labels).any()


def test_the_map_is_coloured_where_the_score_changes_without_a_part(reading: Reading) -> None:
    def reddish(**without: float) -> float:
        told = depends(reading.evidence.volume, **without)
        cell = three_planes(reading.evidence, reading.findings[0], reading.labels, told)[425:622, 359:556]
        return float((cell[..., 0].astype(int) - cell[..., 2]).mean())

    falls, rises, hardly = reddish(outlined=0.1), reddish(outlined=1.0), reddish(outlined=0.83)
    assert falls > hardly + 10
    assert rises < hardly - 3


def test_a_finding_without_a_mark_is_refused(reading: Reading) -> None:
    with pytest.raises(EvidenceInvalid, match="do not mark"):
        three_planes(reading.evidence, reading.findings[0], reading.labels * 0)


def test_every_finding_has_its_page_after_the_slices(reading: Reading) -> None:
    pages = captures_of(reading)[4:]

    assert len(pages) == len(reading.findings) == 3
    for page, finding in zip(pages, reading.findings, strict=True):
        assert page.SourceImageSequence[0].ReferencedSOPInstanceUID == finding.outline.sop_instance_uid
        # Three planes lie in three ways, and have no one scale.
        assert not page.PatientOrientation
        assert "PixelSpacing" not in page
        assert pixels_like(page.pixel_array, colour_of(finding).to_rgb(clip=True)).sum() > 200


def test_what_is_told_of_a_score_stands_in_picture_and_document(reading: Reading) -> None:
    told = {1: depends(reading.evidence.volume, outlined=0.03, rim=0.61)}
    labels, findings = reading.labels, reading.findings
    text = text_of(build_encapsulated_pdf(reading.evidence, findings, labels, explained=told), "-raw")

    assert "depends most on what is outlined: 0.03 is left" in text
    assert "not why something is a nodule" in text
    assert "Nodule 2 in three planes." in text
    plain, explained = captures_of(reading), captures_of(reading, explained=told)
    assert plain[4].PixelData != explained[4].PixelData
    assert plain[5].PixelData == explained[5].PixelData


def test_what_is_told_of_a_score_makes_pictures_and_document_other_objects_and_nothing_else(reading: Reading) -> None:
    """A reading that had no time to explain must not put other pixels under a UID that peers know."""
    told = {1: depends(reading.evidence.volume, outlined=0.03)}
    forms = {Form.SEG, Form.SR, Form.SECONDARY_CAPTURE, Form.PDF}
    plain, explained = (
        build_report(reading.evidence, reading.findings, reading.labels, forms=forms, explained=how)
        for how in ({}, told)
    )
    assert plain.structured_report.SOPInstanceUID == explained.structured_report.SOPInstanceUID
    same = {part for part, ds in plain.others.items() if ds.SOPInstanceUID == explained.others[part].SOPInstanceUID}
    changed = set(plain.others) - same
    assert {(part.form, part.number) for part in changed} == {(Form.SECONDARY_CAPTURE, 5), (Form.PDF, 1)}


def test_it_can_be_read_back(reading: Reading, tmp_path: Path) -> None:
    page = captures_of(reading)[4]
    page.save_as(tmp_path / "page.dcm")

    assert dcmread(tmp_path / "page.dcm").pixel_array.shape == (768, 702, 3)
