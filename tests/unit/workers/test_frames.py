"""An Enhanced CT instance is the volume that its frames make, as if each were a slice of its own."""

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom import Dataset
from pydicom.uid import LegacyConvertedEnhancedCTImageStorage, RLELossless

from dicom_node.core.errors import InconsistentGeometry, NotApplicable, UnreadableInstance
from dicom_node.core.finding import Outline
from tests.factories import OBLIQUE, ct_series, enhanced_ct
from tests.strategies import orientations
from workers.volume import load_volume

RAMP = np.arange(5 * 6 * 7).reshape(5, 6, 7) - 900


def changed(path: Path, **attributes: Any) -> list[Path]:
    """The instance with other attributes; None removes one."""
    ds = pydicom.dcmread(path)
    for keyword, value in attributes.items():
        if value is None:
            del ds[keyword]
        else:
            setattr(ds, keyword, value)
    ds.save_as(path)
    return [path]


def with_frame(path: Path, number: int, group: str, **attributes: Any) -> list[Path]:
    """The instance with other attributes in a functional group of one frame; without any, it lacks the group."""
    ds = pydicom.dcmread(path)
    groups = ds.PerFrameFunctionalGroupsSequence[number - 1]
    if not attributes:
        del groups[group]
    for keyword, value in attributes.items():
        setattr(groups[group][0], keyword, value)
    ds.save_as(path)
    return [path]


@settings(max_examples=15)
@given(cosines=orientations(), shared=st.booleans(), spacing=st.tuples(*[st.floats(0.4, 5.0)] * 3))
def test_frames_make_the_volume_that_single_slices_make(
    tmp_path_factory: pytest.TempPathFactory,
    cosines: tuple[float, ...],
    shared: bool,
    spacing: tuple[float, float, float],
) -> None:
    """Law: in any orientation, and wherever the functional groups stand."""
    folder = tmp_path_factory.mktemp("enhanced")
    how: dict[str, Any] = {"voxels": RAMP, "spacing": spacing, "directions": (cosines[:3], cosines[3:])}
    single = load_volume(ct_series(folder / "single", **how))
    multi = load_volume(enhanced_ct(folder / "multi", shared=shared, **how))

    np.testing.assert_array_equal(multi.voxels, single.voxels)
    np.testing.assert_allclose(multi.affine, single.affine, atol=1e-9)
    assert multi.spacing_mm == single.spacing_mm
    for ours, theirs in zip(multi.headers, single.headers, strict=True):
        for keyword in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "RescaleSlope"):
            assert ours[keyword] == theirs[keyword]


def test_each_slice_knows_its_frame(tmp_path: Path) -> None:
    volume = load_volume(enhanced_ct(tmp_path, voxels=RAMP))

    assert volume.frame_numbers == (5, 4, 3, 2, 1)
    assert len(set(volume.sop_instance_uids)) == 1
    (uid, *_) = volume.sop_instance_uids
    assert volume.slice_of(Outline(sop_instance_uid=uid, points=(), frame_number=4)) == 1
    assert volume.slice_of(Outline(sop_instance_uid=uid, points=())) is None


def test_a_slice_of_its_own_has_no_frame_number(tmp_path: Path) -> None:
    volume = load_volume(ct_series(tmp_path, voxels=RAMP))

    assert volume.frame_number(2) is None
    assert volume.slice_of(Outline(sop_instance_uid=volume.sop_instance_uids[2], points=())) == 2


def test_each_frame_is_rescaled_by_its_own_slope_and_intercept(tmp_path: Path) -> None:
    (path,) = enhanced_ct(tmp_path, voxels=np.zeros((3, 4, 4)), shared=False)
    paths = with_frame(path, 1, "PixelValueTransformationSequence", RescaleSlope="2", RescaleIntercept="-1000")

    assert [float(plane[0, 0]) for plane in load_volume(paths).voxels] == [0.0, 0.0, 1048.0]


def test_a_frames_own_group_goes_before_the_shared_one(tmp_path: Path) -> None:
    (path,) = enhanced_ct(tmp_path, voxels=np.zeros((3, 4, 4)))
    ds = pydicom.dcmread(path)
    own = copy.deepcopy(ds.SharedFunctionalGroupsSequence[0].PixelValueTransformationSequence)
    own[0].RescaleIntercept = "-1000"
    ds.PerFrameFunctionalGroupsSequence[2].PixelValueTransformationSequence = own
    ds.save_as(path)

    assert [float(plane[0, 0]) for plane in load_volume([path]).voxels] == [24.0, 0.0, 0.0]


def test_headers_hold_no_pixels_and_no_functional_groups(tmp_path: Path) -> None:
    volume = load_volume(enhanced_ct(tmp_path, PatientName="Müller^Jürgen"))

    for header in volume.headers:
        assert header.PatientName == "Müller^Jürgen"
        assert not {"PixelData", "PerFrameFunctionalGroupsSequence", "SharedFunctionalGroupsSequence"} & set(
            header.dir()
        )


def test_a_compressed_instance_gives_the_same_voxels(tmp_path: Path) -> None:
    (path,) = enhanced_ct(tmp_path, voxels=RAMP, directions=OBLIQUE)
    ds = pydicom.dcmread(path)
    ds.compress(RLELossless, generate_instance_uid=False)
    ds.save_as(path)

    np.testing.assert_array_equal(load_volume([path]).voxels, RAMP)


def test_a_legacy_converted_instance_is_read_alike(tmp_path: Path) -> None:
    paths = enhanced_ct(tmp_path, voxels=RAMP, SOPClassUID=LegacyConvertedEnhancedCTImageStorage)

    np.testing.assert_array_equal(load_volume(paths).voxels, RAMP)


def test_two_multi_frame_instances_are_refused_by_name(tmp_path: Path) -> None:
    paths = enhanced_ct(tmp_path / "a", seed="a") + enhanced_ct(tmp_path / "b", seed="b")

    with pytest.raises(NotApplicable, match="2 of 2 instances are multi-frame"):
        load_volume(paths)


def test_single_slices_beside_a_multi_frame_instance_are_refused_by_name(tmp_path: Path) -> None:
    paths = enhanced_ct(tmp_path / "a") + ct_series(tmp_path / "b")

    with pytest.raises(NotApplicable, match="1 of 13 instances are multi-frame"):
        load_volume(paths)


@pytest.mark.parametrize(
    ("group", "word"),
    [
        ("PlanePositionSequence", "ImagePositionPatient"),
        ("PlaneOrientationSequence", "ImageOrientationPatient"),
        ("PixelMeasuresSequence", "PixelSpacing"),
    ],
)
def test_a_frame_without_its_place_is_named(tmp_path: Path, group: str, word: str) -> None:
    (path,) = enhanced_ct(tmp_path, shared=False)

    with pytest.raises(InconsistentGeometry, match=f"frame 3 of instance .* has no {word}"):
        load_volume(with_frame(path, 3, group))


def test_a_frame_without_rescale_is_named(tmp_path: Path) -> None:
    (path,) = enhanced_ct(tmp_path, shared=False)

    with pytest.raises(UnreadableInstance, match=r"frame 3 of instance .* has no Rescale"):
        load_volume(with_frame(path, 3, "PixelValueTransformationSequence"))


def test_frames_at_one_place_at_several_times_are_refused(tmp_path: Path) -> None:
    (path,) = enhanced_ct(tmp_path)
    ds = pydicom.dcmread(path)
    frames = ds.PerFrameFunctionalGroupsSequence
    for number in range(6, 12):
        frames[number] = copy.deepcopy(frames[number - 6])
    ds.save_as(path)

    with pytest.raises(InconsistentGeometry, match="lie where another one lies"):
        load_volume([path])


def test_a_missing_frame_is_named_by_its_place(tmp_path: Path) -> None:
    (path,) = enhanced_ct(tmp_path)
    ds = pydicom.dcmread(path)
    del ds.PerFrameFunctionalGroupsSequence[5]
    ds.NumberOfFrames, ds.PixelData = 11, ds.PixelData[: 11 * 32 * 32 * 2]
    ds.save_as(path)

    with pytest.raises(InconsistentGeometry, match="slices are missing between"):
        load_volume([path])


def test_more_frames_than_are_described_are_refused(tmp_path: Path) -> None:
    (path,) = enhanced_ct(tmp_path)

    with pytest.raises(UnreadableInstance, match="13 frames and describes 12"):
        load_volume(changed(path, NumberOfFrames=13))


def test_a_cut_off_instance_is_named_by_its_first_lost_frame(tmp_path: Path) -> None:
    (path,) = enhanced_ct(tmp_path)
    path.write_bytes(path.read_bytes()[:-700])

    with pytest.raises(UnreadableInstance, match="pixel data of frame"):
        load_volume([path])


@pytest.mark.parametrize(
    ("attributes", "words"), [({"Modality": "MR"}, "modality MR"), ({"SamplesPerPixel": 3}, "colour")]
)
def test_a_multi_frame_instance_that_is_no_grey_ct_is_not_read(
    tmp_path: Path, attributes: dict[str, object], words: str
) -> None:
    with pytest.raises(NotApplicable, match=words):
        load_volume(enhanced_ct(tmp_path, **attributes))


def test_frames_in_other_units_are_refused(tmp_path: Path) -> None:
    (path,) = enhanced_ct(tmp_path, shared=False)

    with pytest.raises(NotApplicable, match="not in HU"):
        load_volume(with_frame(path, 2, "PixelValueTransformationSequence", RescaleType="US"))


def test_an_instance_without_functional_groups_is_refused(tmp_path: Path) -> None:
    (path,) = enhanced_ct(tmp_path)

    with pytest.raises(UnreadableInstance, match="12 frames and describes 0"):
        load_volume(changed(path, PerFrameFunctionalGroupsSequence=None))


def test_a_shared_group_that_is_there_and_empty_is_no_place(tmp_path: Path) -> None:
    (path,) = enhanced_ct(tmp_path)

    with pytest.raises(InconsistentGeometry, match=r"frame 1 of instance .* has no PixelSpacing"):
        load_volume(changed(path, SharedFunctionalGroupsSequence=[Dataset()]))
