"""A series on disk becomes a volume in patient coordinates, or is refused by name."""

import errno
from pathlib import Path

import numpy as np
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.uid import RLELossless

from dicom_node.core.errors import InconsistentGeometry, NotApplicable, UnreadableInstance
from tests.factories import HEADFIRST_SUPINE, OBLIQUE, ct_series
from workers.volume import LOWEST_HU, load_volume

RAMP = np.arange(4 * 6 * 5).reshape(4, 6, 5) * 10 - 900


def changed(path: Path, **attributes: object) -> Path:
    """The instance at a path with some attributes replaced, or removed where None."""
    ds = pydicom.dcmread(path)
    for keyword, value in attributes.items():
        if value is None:
            del ds[keyword]
        else:
            setattr(ds, keyword, value)
    ds.save_as(path)
    return path


def test_voxels_are_hu_by_slice_row_and_column(tmp_path: Path) -> None:
    volume = load_volume(ct_series(tmp_path, voxels=RAMP))

    assert volume.voxels.dtype == np.float32
    np.testing.assert_array_equal(volume.voxels, RAMP)


@settings(max_examples=20)
@given(order=st.permutations(range(6)))
def test_any_order_of_the_files_gives_the_same_volume(
    tmp_path_factory: pytest.TempPathFactory, order: list[int]
) -> None:
    folder = tmp_path_factory.mktemp("series")
    paths = ct_series(folder, slices=6, rows=4)
    volume, reference = load_volume([paths[index] for index in order]), load_volume(paths)

    assert volume.sop_instance_uids == reference.sop_instance_uids
    np.testing.assert_array_equal(volume.affine, reference.affine)


def test_slices_are_ordered_by_position_and_not_by_instance_number(tmp_path: Path) -> None:
    paths = ct_series(tmp_path, voxels=RAMP)
    for number, path in enumerate((paths[2], paths[0], paths[3], paths[1]), start=1):
        changed(path, InstanceNumber=number)

    np.testing.assert_array_equal(load_volume(paths).voxels, RAMP)


@pytest.mark.parametrize("directions", [HEADFIRST_SUPINE, OBLIQUE])
def test_every_slice_lies_where_its_header_says(
    tmp_path: Path, directions: tuple[tuple[float, float, float], ...]
) -> None:
    volume = load_volume(ct_series(tmp_path, directions=directions, spacing=(2.5, 0.8, 0.7)))

    for k, header in enumerate(volume.headers):
        np.testing.assert_allclose(volume.to_patient(0, 0, k), header.ImagePositionPatient, atol=1e-6)
    # PS3.3 Equation C.7.6.2.1-1: columns advance along the first three cosines, rows along the last three.
    step = np.subtract(volume.to_patient(1, 0, 0), volume.to_patient(0, 0, 0))
    np.testing.assert_allclose(step, np.multiply(directions[0], 0.7), atol=1e-6)
    step = np.subtract(volume.to_patient(0, 1, 0), volume.to_patient(0, 0, 0))
    np.testing.assert_allclose(step, np.multiply(directions[1], 0.8), atol=1e-6)
    assert volume.spacing_mm == pytest.approx((2.5, 0.8, 0.7))


@pytest.mark.parametrize("keyword", ["PatientID", "IssuerOfPatientID"])
def test_slices_of_two_patients_are_read_for_neither(tmp_path: Path, keyword: str) -> None:
    """The report would name the patient of the first slice; who that is, is said to nobody."""
    paths = ct_series(tmp_path, voxels=RAMP)
    for number, path in enumerate(paths):
        changed(path, **{keyword: "Smith" if number == 2 else "Jones"})
    with pytest.raises(InconsistentGeometry, match="the instances name 2 different patients") as refused:
        load_volume(paths)
    assert "Smith" not in str(refused.value)
    assert "Jones" not in str(refused.value)


@pytest.mark.parametrize("first", [0, 1])
def test_slices_of_two_acquisitions_between_one_another_are_read_for_no_volume(first: int, tmp_path: Path) -> None:
    paths = ct_series(tmp_path, slices=12, rows=4)
    for k, path in enumerate(paths):
        changed(path, AcquisitionNumber=str(first + k % 2))
    with pytest.raises(InconsistentGeometry, match="slices of 2 acquisitions"):
        load_volume(paths)


def test_a_slice_that_does_not_name_its_patient_or_pads_the_name_is_read_with_the_others(tmp_path: Path) -> None:
    paths = ct_series(tmp_path, voxels=RAMP)
    for path, name in zip(paths, ("A", "A ", "", "A"), strict=True):
        changed(path, PatientID=name)
    assert len(load_volume(paths).headers) == 4


@pytest.mark.parametrize("spacing", [["0", "0"], ["-1", "1"], ["1", "0"], ["1e400", "1"]])
def test_a_pixel_without_a_size_is_measured_by_nobody(tmp_path: Path, spacing: list[str]) -> None:
    paths = [changed(path, PixelSpacing=spacing) for path in ct_series(tmp_path, voxels=RAMP)]
    with pytest.raises(InconsistentGeometry, match="pixel spacing"):
        load_volume(paths)


@pytest.mark.parametrize(("slope", "intercept"), [("0", "-1024"), ("1e400", "0"), ("1", "-1e400")])
def test_a_rescaling_that_gives_no_hu_is_no_empty_chest(tmp_path: Path, slope: str, intercept: str) -> None:
    paths = ct_series(tmp_path, voxels=RAMP)
    changed(paths[1], RescaleSlope=slope, RescaleIntercept=intercept)
    with pytest.raises(UnreadableInstance, match="HU are unknown"):
        load_volume(paths)


@pytest.mark.parametrize(
    ("padding", "expected"),
    [((3071,), [LOWEST_HU, 3069, 40]), ((3069, 3071), [LOWEST_HU, LOWEST_HU, 40]), ((40,), [3071, 3069, 40])],
)
def test_padding_that_is_brighter_than_anything_in_a_body_is_air_and_other_padding_is_what_it_says(
    tmp_path: Path, padding: tuple[int, ...], expected: list[float]
) -> None:
    """Writers that name a value which real pixels have, too, must not turn those into air."""
    voxels = RAMP.copy()
    voxels[:, 0, :3] = (3071, 3069, 40)
    paths = ct_series(tmp_path, voxels=voxels)
    for path in paths:
        ds = pydicom.dcmread(path)
        # Pixel Padding Value, and its Range Limit.
        for tag, hu in zip((0x00280120, 0x00280121), padding, strict=False):
            ds.add_new(tag, "US", hu - int(ds.RescaleIntercept))
        ds.save_as(path)
    np.testing.assert_array_equal(load_volume(paths).voxels[1, 0, :3], expected)


def test_each_slice_is_rescaled_by_its_own_slope_and_intercept(tmp_path: Path) -> None:
    paths = ct_series(tmp_path, voxels=np.zeros((3, 4, 4)))
    changed(paths[1], RescaleSlope="2", RescaleIntercept="-1000")

    assert [float(plane[0, 0]) for plane in load_volume(paths).voxels] == [0.0, 1048.0, 0.0]


def test_padding_below_air_counts_as_air(tmp_path: Path) -> None:
    paths = ct_series(tmp_path, voxels=np.zeros((3, 4, 4)), RescaleIntercept="-4000")

    assert load_volume(paths).voxels.min() == LOWEST_HU


def test_headers_hold_everything_but_the_pixels(tmp_path: Path) -> None:
    volume = load_volume(ct_series(tmp_path))

    assert all("PixelData" not in header and header.PatientID == "TEST-1" for header in volume.headers)
    assert volume.study_instance_uid == volume.headers[0].StudyInstanceUID
    assert volume.series_instance_uid == volume.headers[0].SeriesInstanceUID
    assert volume.frame_of_reference_uid == volume.headers[0].FrameOfReferenceUID


def test_a_compressed_series_gives_the_same_voxels(tmp_path: Path) -> None:
    paths = ct_series(tmp_path, voxels=RAMP)
    for path in paths:
        ds = pydicom.dcmread(path)
        ds.compress(RLELossless, generate_instance_uid=False)
        ds.save_as(path)

    np.testing.assert_array_equal(load_volume(paths).voxels, RAMP)


@pytest.mark.parametrize(
    ("attributes", "words"),
    [
        ({"Modality": "MR"}, "modality MR"),
        ({"NumberOfFrames": 2}, "multi-frame"),
        ({"SamplesPerPixel": 3}, "colour"),
        ({"RescaleType": "US"}, "not in HU"),
    ],
)
def test_what_is_no_grey_single_frame_ct_is_not_read(tmp_path: Path, attributes: dict[str, object], words: str) -> None:
    with pytest.raises(NotApplicable, match=words):
        load_volume(ct_series(tmp_path, **attributes))


@pytest.mark.parametrize(
    ("attributes", "words"),
    [
        ({"ImageOrientationPatient": [0.8, 0.6, 0, -0.6, 0.8, 0]}, "orientations"),
        ({"FrameOfReferenceUID": "1.2.3"}, "frames of reference"),
        ({"SeriesInstanceUID": "1.2.3"}, "different series"),
        ({"PixelSpacing": ["0.5", "0.5"]}, "pixel spacing"),
        ({"PixelSpacing": None}, "no PixelSpacing"),
        ({"ImagePositionPatient": None}, "no ImagePositionPatient"),
        ({"Rows": 16}, "rows"),
    ],
)
def test_one_odd_slice_is_named(tmp_path: Path, attributes: dict[str, object], words: str) -> None:
    paths = ct_series(tmp_path)
    changed(paths[4], **attributes)

    with pytest.raises(InconsistentGeometry, match=words):
        load_volume(paths)


def test_a_missing_slice_is_named_by_its_place(tmp_path: Path) -> None:
    paths = ct_series(tmp_path, slices=12, spacing=(2.5, 0.8, 0.8), origin=(0.0, 0.0, 33.0), missing=(5,))

    with pytest.raises(InconsistentGeometry, match=r"missing between 43\.0 mm and 48\.0 mm"):
        load_volume(paths)


def test_two_slices_at_one_position_are_refused(tmp_path: Path) -> None:
    paths = ct_series(tmp_path)
    changed(paths[3], ImagePositionPatient=pydicom.dcmread(paths[4]).ImagePositionPatient)

    with pytest.raises(InconsistentGeometry, match="lie where another one lies"):
        load_volume(paths)


def test_a_tilted_gantry_is_refused(tmp_path: Path) -> None:
    paths = ct_series(tmp_path)
    for k, path in enumerate(paths):
        x, y, z = pydicom.dcmread(path).ImagePositionPatient
        changed(path, ImagePositionPatient=[x, y + 0.8 * k, z])

    with pytest.raises(InconsistentGeometry, match="gantry"):
        load_volume(paths)


def test_two_slices_make_no_volume(tmp_path: Path) -> None:
    with pytest.raises(InconsistentGeometry, match="2 slices"):
        load_volume(ct_series(tmp_path, slices=2))


def uid_of(path: Path) -> str:
    return str(pydicom.dcmread(path, stop_before_pixels=True).SOPInstanceUID)


def test_a_truncated_instance_is_named_by_its_uid(tmp_path: Path) -> None:
    paths = ct_series(tmp_path)
    uid = uid_of(paths[3])
    paths[3].write_bytes(paths[3].read_bytes()[:-700])

    with pytest.raises(UnreadableInstance, match=uid):
        load_volume(paths)


def test_an_instance_without_pixel_data_is_named_by_its_uid(tmp_path: Path) -> None:
    paths = ct_series(tmp_path)
    changed(paths[3], PixelData=None)

    with pytest.raises(UnreadableInstance, match=uid_of(paths[3])):
        load_volume(paths)


def test_an_instance_without_rescale_is_named_by_its_uid(tmp_path: Path) -> None:
    paths = ct_series(tmp_path)
    changed(paths[3], RescaleIntercept=None)

    with pytest.raises(UnreadableInstance, match=uid_of(paths[3])):
        load_volume(paths)


def test_compressed_rubbish_is_named_by_its_uid(tmp_path: Path) -> None:
    paths = ct_series(tmp_path)
    ds = pydicom.dcmread(paths[3])
    ds.compress(RLELossless, generate_instance_uid=False)
    ds.PixelData = ds.PixelData[:-40] + bytes(40)
    ds.save_as(paths[3])

    with pytest.raises(UnreadableInstance, match=uid_of(paths[3])):
        load_volume(paths)


def test_a_file_that_is_gone_or_no_dicom_is_refused_without_its_path(tmp_path: Path) -> None:
    paths = ct_series(tmp_path)
    note = tmp_path / "Doe^Jane.dcm"
    note.write_text("no DICOM")

    with pytest.raises(UnreadableInstance, match="not in the archive") as gone:
        load_volume([*paths, tmp_path / "Doe^John.dcm"])
    with pytest.raises(UnreadableInstance, match="no readable DICOM") as rubbish:
        load_volume([*paths, note])
    assert "Doe" not in str(gone.value) + str(rubbish.value)


def test_a_head_ct_with_a_tilted_gantry_is_refused(shared: Path) -> None:
    with pytest.raises(InconsistentGeometry):
        load_volume(sorted((shared / "data" / "head-ct-ge").rglob("*.dcm")))


def test_every_transfer_syntax_of_one_image_decodes_alike(shared: Path, tmp_path: Path) -> None:
    folder = shared / "data" / "transfer-syntaxes"
    lossless = ("1.2.840.10008.1.2", "1.2.1", "1.2.2", "1.2.1.99", "4.57", "4.70", "4.80", "4.90", "1.2.5")
    reference = pydicom.dcmread(folder / "CTImage.dcm").pixel_array
    seen = 0
    for path in sorted(folder.glob("CTImage.dcm_*.dcm")):
        if path.stem.endswith(lossless):
            volume = load_volume(stacked(pydicom.dcmread(path), tmp_path / path.stem))
            stored = (volume.voxels[1] - float(volume.headers[1].RescaleIntercept)) / float(
                volume.headers[1].RescaleSlope
            )
            kept = reference > LOWEST_HU - float(volume.headers[1].RescaleIntercept)
            np.testing.assert_allclose(stored[kept], reference[kept], atol=1e-3)
            seen += 1
    assert seen == 9


def stacked(ds: Dataset, folder: Path) -> list[Path]:
    """Three copies of an image, one above the other."""
    folder.mkdir()
    ds.Modality, ds.RescaleType = "CT", "HU"
    paths = []
    for k in range(3):
        ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = f"1.2.3.{k + 1}"
        ds.ImageOrientationPatient, ds.ImagePositionPatient = [1, 0, 0, 0, 1, 0], [0, 0, k]
        paths.append(folder / f"1.2.3.{k + 1}.dcm")
        ds.save_as(paths[-1])
    return paths


@pytest.mark.parametrize("kind", ["HU", "hu", "Hu "])
def test_hu_is_hu_however_it_is_written(tmp_path: Path, kind: str) -> None:
    paths = [changed(path, RescaleType=kind) for path in ct_series(tmp_path)]
    assert load_volume(paths).voxels.any()


def test_another_rescale_type_is_refused_and_not_quoted(tmp_path: Path) -> None:
    paths = [changed(path, RescaleType="Tess") for path in ct_series(tmp_path)]
    with pytest.raises(NotApplicable, match="not in HU") as refused:
        load_volume(paths)
    assert "Tess" not in str(refused.value)


def test_a_disk_that_fails_while_a_slice_is_read_is_no_fault_of_the_slice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_path: Path) -> None:
        raise OSError(errno.EMFILE, "too many open files")

    paths = ct_series(tmp_path)
    monkeypatch.setattr(pydicom, "dcmread", full)
    with pytest.raises(OSError, match="too many open files"):
        load_volume(paths)
