"""Geometry against truth: a nodule at known millimetres is at those millimetres in segmentation and report."""

from io import BytesIO
from pathlib import Path

import highdicom as hd
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from pydicom import Dataset, dcmread

from dicom_node.core import codes
from dicom_node.core.finding import Finding
from tests.factories import ct_series, enhanced_ct
from tests.strategies import orientations
from tests.unit.workers.reporting.conftest import evidence_of
from workers.measurement import measure
from workers.reporting.encoding import as_file
from workers.reporting.report import Report, build_report
from workers.volume import Region, Volume, load_volume

SHAPE = (16, 28, 30)
SPACING = (2.0, 1.1, 0.9)
RADIUS_MM = 5.5
#: mm from the volume's middle, such that the nodule stays inside however the slices run.
offsets = st.tuples(*[st.floats(-2.5, 2.5)] * 3)


def nodule_at(volume: Volume, truth: NDArray[np.float64]) -> Report:
    """The report on a ball of known radius about a place of the patient."""
    index = np.moveaxis(np.indices(SHAPE, dtype=float), 0, -1)[..., ::-1]
    places = index @ volume.affine[:3, :3].T + volume.affine[:3, 3]
    mask = ((places - truth) ** 2).sum(axis=-1) <= RADIUS_MM**2
    measured = measure(Region(box=tuple(slice(0, n) for n in SHAPE), mask=mask), volume)  # type: ignore[arg-type]  # three axes
    finding = Finding(
        number=1,
        concept=codes.NODULE,
        category=codes.MORPHOLOGICALLY_ABNORMAL_STRUCTURE,
        site=codes.LUNG,
        laterality=None,
        score=0.9,
        **vars(measured),
    )
    return build_report(evidence_of(volume), (finding,), mask.astype(np.uint8))


def centre_in(segmentation: Dataset) -> NDArray[np.float64]:
    """LPS mm of the centre of a segmentation's voxels, by what its own frames say."""
    volume = hd.seg.segread(BytesIO(as_file(segmentation))).get_volume(combine_segments=True)
    voxels = np.argwhere(volume.array)
    return np.asarray(volume.map_indices_to_reference(voxels)).mean(axis=0)


def outline_in(report: Dataset, headers: dict[tuple[str, int | None], Dataset]) -> NDArray[np.float64]:
    """LPS mm of the middle of a report's outline, by what the source image that it refers to says."""
    (region,) = (item for item in walk(report) if item.get("ValueType") == "SCOORD")
    reference = region.ContentSequence[0].ReferencedSOPSequence[0]
    header = headers[reference.ReferencedSOPInstanceUID, reference.get("ReferencedFrameNumber")]
    points = np.array(region.GraphicData, dtype=float).reshape(-1, 2)
    # (0.5, 0.5) is the centre of the first pixel (PS3.3 Section C.18.6.1.1).
    column, row = (points.min(axis=0) + points.max(axis=0)) / 2 - 0.5
    cosines = np.array(header.ImageOrientationPatient, dtype=float)
    down, across = (float(value) for value in header.PixelSpacing)
    origin = np.array(header.ImagePositionPatient, dtype=float)
    return origin + cosines[:3] * across * column + cosines[3:] * down * row


def walk(item: Dataset) -> list[Dataset]:
    return [item, *(below for child in item.get("ContentSequence", []) for below in walk(child))]


@settings(max_examples=12)
@given(cosines=orientations(), offset=offsets, falling=st.booleans(), several=st.booleans())
def test_a_nodule_is_found_at_its_true_millimetres(
    tmp_path_factory: pytest.TempPathFactory,
    cosines: tuple[float, ...],
    offset: tuple[float, float, float],
    falling: bool,
    several: bool,
) -> None:
    """Law: within half a voxel along each axis of the image, in every orientation, for slices and for frames."""
    folder = tmp_path_factory.mktemp("place")
    write = enhanced_ct if several else ct_series
    paths = write(folder, voxels=np.full(SHAPE, -850), spacing=SPACING, directions=(cosines[:3], cosines[3:]))
    volume = load_volume(paths[::-1] if falling else paths)
    truth = np.add(volume.to_patient(*((n - 1) / 2 for n in SHAPE[::-1])), offset)
    report = nodule_at(volume, truth)

    axes = volume.affine[:3, :3] / np.array(SPACING[::-1])
    half_a_voxel = np.array(SPACING[::-1]) / 2 + 1e-6
    assert (np.abs(axes.T @ (centre_in(report.segmentation) - truth)) <= half_a_voxel).all()
    headers = {(uid, volume.frame_number(k)): volume.headers[k] for k, uid in enumerate(volume.sop_instance_uids)}
    read_back = dcmread(BytesIO(as_file(report.structured_report)))
    # A nodule half way between two slices may be outlined on either.
    half_a_voxel[2] *= 1.05
    assert (np.abs(axes.T @ (outline_in(read_back, headers) - truth)) <= half_a_voxel).all()


@pytest.mark.parametrize(
    "cosines",
    [
        (1, 0, 0, 0, 1, 0),
        (-1, 0, 0, 0, -1, 0),
        (-1, 0, 0, 0, 1, 0),
        (1, 0, 0, 0, -1, 0),
        (1, 0, 0, 0, 0, -1),
        (0, 1, 0, 0, 0, -1),
        (0, -1, 0, 1, 0, 0),
    ],
    ids=["supine", "prone", "feet first", "feet first, prone", "coronal", "sagittal", "decubitus"],
)
def test_usual_planes_are_no_exception(tmp_path: Path, cosines: tuple[int, ...]) -> None:
    paths = ct_series(tmp_path, voxels=np.full(SHAPE, -850), spacing=SPACING, directions=(cosines[:3], cosines[3:]))
    volume = load_volume(paths)
    truth = np.add(volume.to_patient(*((n - 1) / 2 for n in SHAPE[::-1])), (1.3, -0.8, 0.4))
    report = nodule_at(volume, truth)

    assert np.abs(centre_in(report.segmentation) - truth).max() <= max(SPACING) / 2
