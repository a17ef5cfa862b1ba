"""An Enhanced CT in by C-STORE, read from the queue by a worker: what comes back names its frames, and lies on them."""

import math
import subprocess
import sys
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from pydicom import Dataset, dcmread
from pydicom.uid import EnhancedCTImageStorage
from skimage.draw import polygon2mask

from dicom_node.core.lifecycle import StudyState
from tests.acceptance.conftest import PhantomStudy, Site, by_modality, study_uid
from tests.factories import enhanced_ct
from workers.volume import load_volume

#: Lung is darker, and what was drawn into it is denser.
DENSE_HU = -500.0


@pytest.fixture(scope="module")
def folder(part_of_phantom: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A part of the phantom as one multi-frame instance, whose first frame is its highest slice."""
    volume = load_volume(sorted(part_of_phantom().iterdir()))
    x, y, z = (float(value) for value in volume.affine[:3, 3])
    folder = tmp_path_factory.mktemp("enhanced")
    enhanced_ct(folder, voxels=volume.voxels, spacing=volume.spacing_mm, origin=(x, y, z), seed="enhanced phantom")
    return folder


@pytest.fixture(scope="module")
def source(folder: Path) -> Dataset:
    """The instance that is sent."""
    (path,) = folder.iterdir()
    return dcmread(path)


@pytest.fixture(scope="module")
def arrived(site: Site, folder: Path) -> dict[str, list[Dataset]]:
    """What Orthanc holds after DCMTK sent it to the node."""
    uid = site.send_with_dcmtk(folder)
    row = site.end_of(uid)
    assert row.state is StudyState.DELIVERED, row.reason
    return by_modality([dcmread(BytesIO(data)) for data in site.pacs.files(uid)])


def frame_hu(source: Dataset, number: int) -> NDArray[np.float64]:
    """A frame's HU, by its number."""
    shared = source.SharedFunctionalGroupsSequence[0].PixelValueTransformationSequence[0]
    return np.asarray(source.pixel_array[number - 1] * float(shared.RescaleSlope) + float(shared.RescaleIntercept))


def position(groups: Dataset) -> tuple[float, ...]:
    return tuple(float(value) for value in groups.PlanePositionSequence[0].ImagePositionPatient)


def marked(segmentation: Dataset) -> Iterator[tuple[int, int, NDArray[np.bool_], Dataset]]:
    """Number of the segment and of the source's frame, pixels, and functional groups of every frame."""
    shared = segmentation.SharedFunctionalGroupsSequence[0]
    frames = segmentation.pixel_array.reshape(int(segmentation.NumberOfFrames), -1, int(segmentation.Columns))
    for pixels, groups in zip(frames, segmentation.PerFrameFunctionalGroupsSequence, strict=True):
        identification = groups if "SegmentIdentificationSequence" in groups else shared
        number = identification.SegmentIdentificationSequence[0].ReferencedSegmentNumber
        image = groups.DerivationImageSequence[0].SourceImageSequence[0]
        yield int(number), int(image.ReferencedFrameNumber), pixels > 0, groups


def items(item: Dataset) -> Iterator[Dataset]:
    yield item
    for child in item.get("ContentSequence", []):
        yield from items(child)


def test_a_report_and_a_segmentation_of_the_one_instance_come_back(
    arrived: dict[str, list[Dataset]], source: Dataset, folder: Path
) -> None:
    assert source.SOPClassUID == EnhancedCTImageStorage
    assert {modality: len(found) for modality, found in arrived.items()} == {"SR": 1, "SEG": 1}
    assert {ds.StudyInstanceUID for found in arrived.values() for ds in found} == {study_uid(folder)}
    (study,) = arrived["SR"][0].CurrentRequestedProcedureEvidenceSequence
    listed = {element.value for element in study.iterall() if element.keyword == "ReferencedSOPInstanceUID"}
    assert listed == {source.SOPInstanceUID, arrived["SEG"][0].SOPInstanceUID}


def test_every_frame_of_the_segmentation_lies_on_the_frame_that_it_names(
    arrived: dict[str, list[Dataset]], source: Dataset
) -> None:
    frames = list(marked(arrived["SEG"][0]))
    assert frames
    for _, number, pixels, groups in frames:
        image = groups.DerivationImageSequence[0].SourceImageSequence[0]
        assert image.ReferencedSOPInstanceUID == source.SOPInstanceUID
        assert position(groups) == position(source.PerFrameFunctionalGroupsSequence[number - 1])
        assert np.median(frame_hu(source, number)[pixels]) > DENSE_HU


def test_every_outline_of_the_report_surrounds_what_is_dense_on_the_one_frame_that_it_names(
    arrived: dict[str, list[Dataset]], source: Dataset
) -> None:
    drawn = [item for item in items(arrived["SR"][0]) if "GraphicData" in item]
    assert drawn
    for item in drawn:
        image = item.ContentSequence[0].ReferencedSOPSequence[0]
        assert image.ReferencedSOPInstanceUID == source.SOPInstanceUID
        hu = frame_hu(source, int(image.ReferencedFrameNumber))
        # (0.5, 0.5) is the centre of the first pixel.
        line = np.reshape(item.GraphicData, (-1, 2))[:, ::-1] - 0.5
        assert np.median(hu[polygon2mask(hu.shape, line)]) > DENSE_HU


def test_the_drawn_nodules_are_where_the_segmentation_says(
    arrived: dict[str, list[Dataset]], source: Dataset, phantom: PhantomStudy
) -> None:
    segmentation = arrived["SEG"][0]
    shared = segmentation.SharedFunctionalGroupsSequence[0]
    down, across = (float(mm) for mm in shared.PixelMeasuresSequence[0].PixelSpacing)
    cosines = shared.PlaneOrientationSequence[0].ImageOrientationPatient
    row, column = np.reshape([float(value) for value in cosines], (2, 3))
    voxels: dict[int, list[NDArray[np.float64]]] = {}
    for number, _, pixels, groups in marked(segmentation):
        j, i = np.nonzero(pixels)
        voxels.setdefault(number, []).append(
            np.array(position(groups)) + np.outer(i * across, row) + np.outer(j * down, column)
        )
    centres = [np.concatenate(places).mean(axis=0) for places in voxels.values()]
    frames = source.PerFrameFunctionalGroupsSequence
    heights = sorted(position(groups)[2] for groups in frames)
    there = [nodule for nodule in phantom.truth["nodules"] if heights[0] < nodule["centre_lps_mm"][2] < heights[-1]]
    solid = [nodule for nodule in there if nodule["texture"] == "solid"]
    assert solid
    for nodule in solid:
        nearest = min(math.dist(centre, nodule["centre_lps_mm"]) for centre in centres)
        assert nearest <= nodule["diameter_mm"] / 2


def test_an_integrators_checks_find_no_fault(
    shared: Path, program: Callable[[str], Path], arrived: dict[str, list[Dataset]], folder: Path, tmp_path: Path
) -> None:
    program("dciodvfy")
    for modality, found in arrived.items():
        for number, ds in enumerate(found):
            ds.save_as(tmp_path / f"{modality}{number}.dcm")
    check = [sys.executable, str(shared / "tools" / "check-evidence"), str(tmp_path), "--sources", str(folder)]
    said = subprocess.run(check, capture_output=True, text=True, check=False)
    assert said.returncode == 0, said.stdout
