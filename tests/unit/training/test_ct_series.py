"""A volume written as a DICOM series: every voxel keeps its value and its place."""

import subprocess
from collections.abc import Callable
from datetime import date, datetime
from pathlib import Path

import nrrd
import numpy as np
import pydicom
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from training.ct_series import Patient, Scan, UnwritableVolume, main, stored_values, write_ct_series
from training.nrrd_volume import UnusableVolume, read_nrrd

OBLIQUE = ((0.8, 0.6, 0.0), (-0.6, 0.8, 0.0))


def numbered(shape: tuple[int, int, int] = (4, 5, 6)) -> NDArray[np.int16]:
    """Voxels that all differ."""
    return (np.arange(np.prod(shape), dtype=np.int16) * 7 - 1000).reshape(shape)


def placed_values(paths: list[Path]) -> dict[tuple[float, ...], float]:
    """HU by patient position of every voxel, as PS3.3 C.7.6.2.1.1 tells to find it."""
    found = {}
    for path in paths:
        ds = pydicom.dcmread(path)
        row, column = np.reshape(np.array(ds.ImageOrientationPatient, dtype=float), (2, 3))
        slope, intercept = float(ds.get("RescaleSlope", 1)), float(ds.get("RescaleIntercept", 0))
        for j, i in np.ndindex(ds.Rows, ds.Columns):
            place = np.array(ds.ImagePositionPatient, dtype=float)
            place = place + row * i * float(ds.PixelSpacing[1]) + column * j * float(ds.PixelSpacing[0])
            found[tuple(np.round(place, 4).tolist())] = slope * int(ds.pixel_array[j, i]) + intercept
    return found


def expected_values(
    voxels: NDArray[np.int16], steps: NDArray[np.float64], origin: tuple[float, float, float]
) -> dict[tuple[float, ...], float]:
    """Values by position, from the steps [3, 3] of k, j and i."""
    return {
        tuple((np.round(np.array(origin) + np.array(kji) @ steps, 4) + 0.0).tolist()): float(voxels[kji])
        for kji in np.ndindex(*voxels.shape)
    }


def test_every_voxel_is_found_again_at_its_place_with_its_value(tmp_path: Path) -> None:
    voxels = numbered()
    paths = write_ct_series(
        voxels, spacing_mm=(2.5, 0.7, 0.9), origin_mm=(-10.5, 20.25, -300.125), directions=OBLIQUE, folder=tmp_path
    )
    steps = np.array([[0, 0, 2.5], [-0.42, 0.56, 0], [0.72, 0.54, 0]])
    assert placed_values(paths) == expected_values(voxels, steps, (-10.5, 20.25, -300.125))


@given(arrays(np.int16, (2, 3, 2), elements=st.integers(-1024, 32767)))
def test_every_hu_from_air_up_survives_storage(voxels: NDArray[np.int16]) -> None:
    stored, bits = stored_values(voxels, "CT")
    assert np.array_equal(stored.astype(int) - 1024, voxels)
    assert int(stored.max()) < 2**bits


def test_padding_below_air_becomes_air() -> None:
    stored, _ = stored_values(np.full((1, 1, 1), -3024, dtype=np.int16), "CT")
    assert int(stored[0, 0, 0]) == 0


def test_instances_are_numbered_from_head_to_feet(tmp_path: Path) -> None:
    paths = write_ct_series(numbered(), spacing_mm=(2, 1, 1), folder=tmp_path)
    images = [pydicom.dcmread(path) for path in paths]
    assert [image.InstanceNumber for image in images] == [1, 2, 3, 4]
    assert [float(image.ImagePositionPatient[2]) for image in images] == [6, 4, 2, 0]


def test_a_second_writing_is_a_new_study(tmp_path: Path) -> None:
    first, second = (
        pydicom.dcmread(write_ct_series(numbered(), spacing_mm=(2, 1, 1), folder=tmp_path / name)[0]) for name in "ab"
    )
    for keyword in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "FrameOfReferenceUID"):
        assert first[keyword].value != second[keyword].value


def test_the_same_seed_gives_the_same_uids_and_no_two_instances_share_one(tmp_path: Path) -> None:
    runs = [
        [
            pydicom.dcmread(path)
            for path in write_ct_series(numbered(), spacing_mm=(2, 1, 1), folder=tmp_path / name, uid_seed="s")
        ]
        for name in "ab"
    ]
    uids = [[image.SOPInstanceUID for image in run] for run in runs]
    assert uids[0] == uids[1]
    assert len(set(uids[0])) == 4
    assert runs[0][0].StudyInstanceUID == runs[1][0].StudyInstanceUID


def test_two_series_of_one_study_share_its_uid_and_no_instance(tmp_path: Path) -> None:
    images = [
        pydicom.dcmread(
            write_ct_series(
                numbered(),
                spacing_mm=(2, 1, 1),
                folder=tmp_path / name,
                uid_seed="s",
                study_uid="1.2.3",
                series_uid=f"1.2.3.{n}",
            )[0]
        )
        for n, name in enumerate("ab", start=4)
    ]
    assert {image.StudyInstanceUID for image in images} == {"1.2.3"}
    assert images[0].SOPInstanceUID != images[1].SOPInstanceUID


def test_a_shorter_series_leaves_no_slice_of_the_longer_one_before_it(tmp_path: Path) -> None:
    write_ct_series(numbered((6, 3, 3)), spacing_mm=(2, 1, 1), folder=tmp_path)
    (tmp_path / "notes.txt").write_text("kept")
    paths = write_ct_series(numbered((3, 3, 3)), spacing_mm=(2, 1, 1), folder=tmp_path)
    assert sorted(tmp_path.glob("*.dcm")) == paths
    assert (tmp_path / "notes.txt").exists()


def test_dates_and_age_follow_the_moment_of_acquisition(tmp_path: Path) -> None:
    patient = Patient(birth_date=date(1961, 4, 12))
    path = write_ct_series(
        numbered(), spacing_mm=(2, 1, 1), folder=tmp_path, patient=patient, acquired_at=datetime(2024, 4, 11, 9, 5)
    )[0]
    image = pydicom.dcmread(path)
    assert (image.StudyDate, image.StudyTime, image.PatientAge) == ("20240411", "090500", "062Y")


def test_directions_that_are_no_unit_axes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UnwritableVolume, match="unit"):
        write_ct_series(numbered(), spacing_mm=(2, 1, 1), directions=((1, 0, 0), (0.5, 1, 0)), folder=tmp_path)


def test_negative_mr_intensities_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UnwritableVolume, match="below 0"):
        write_ct_series(numbered(), spacing_mm=(2, 1, 1), folder=tmp_path, scan=Scan(modality="MR"))


@pytest.mark.parametrize("modality", ["CT", "MR"])
def test_dciodvfy_has_nothing_against_an_instance(
    modality: str, tmp_path: Path, program: Callable[[str], Path]
) -> None:
    path = write_ct_series(
        numbered() + np.int16(2000),
        spacing_mm=(2, 1, 1),
        folder=tmp_path,
        scan=Scan(modality=modality, body_part="CHEST"),
    )[0]
    verdict = subprocess.run([program("dciodvfy"), "-new", path], capture_output=True, text=True, check=False)
    said = (verdict.stdout + verdict.stderr).splitlines()
    assert [line for line in said if line.startswith(("Error", "Warning"))] == []
    assert f"{modality}Image" in said


def write_nrrd(path: Path, voxels: NDArray[np.int16], steps: NDArray[np.float64], **header: object) -> Path:
    """Voxels [k, j, i] as an NRRD whose axes are i, j, k with the given steps."""
    fields = {
        "space": "left-posterior-superior",
        "space directions": steps,
        "space origin": np.array([5.0, -7.5, 11.25]),
    }
    nrrd.write(str(path), np.transpose(voxels, (2, 1, 0)), fields | header)
    return path


@pytest.mark.parametrize("steps", [np.diag([0.7, 0.9, 2.5]), np.diag([0.7, -0.9, 2.5]), np.diag([0.7, 0.9, -2.5])])
def test_an_nrrd_keeps_every_position_whichever_way_its_axes_run(steps: NDArray[np.float64], tmp_path: Path) -> None:
    voxels = numbered()
    image = write_nrrd(tmp_path / "image.nrrd", voxels, steps)
    main([str(image), str(tmp_path / "series")])
    found = placed_values(sorted((tmp_path / "series").glob("*.dcm")))
    assert found == expected_values(voxels, steps[::-1], (5.0, -7.5, 11.25))


def test_an_nrrd_in_ras_is_turned_to_lps(tmp_path: Path) -> None:
    image = write_nrrd(tmp_path / "image.nrrd", numbered(), np.diag([1.0, 1.0, 2.0]), space="right-anterior-superior")
    volume = read_nrrd(image)
    assert volume.origin_mm == (-5.0, 7.5, 11.25)
    assert volume.directions == ((-1.0, 0.0, 0.0), (0.0, -1.0, 0.0))


def test_a_sheared_nrrd_is_refused(tmp_path: Path) -> None:
    steps = np.array([[1.0, 0, 0], [0, 1.0, 0], [0, 0.5, 2.0]])
    with pytest.raises(UnusableVolume, match="sheared"):
        read_nrrd(write_nrrd(tmp_path / "image.nrrd", numbered(), steps))


def test_an_nrrd_without_patient_space_is_refused(tmp_path: Path) -> None:
    nrrd.write(str(tmp_path / "image.nrrd"), numbered())
    with pytest.raises(UnusableVolume, match="space"):
        read_nrrd(tmp_path / "image.nrrd")


def test_a_real_ct_keeps_its_header_s_geometry(shared: Path, tmp_path: Path) -> None:
    source = shared / "data" / "chest-ct-lung1" / "lung1_image.nrrd"
    main([str(source), str(tmp_path)])
    images = [pydicom.dcmread(path) for path in sorted(tmp_path.glob("*.dcm"))]
    data, _ = nrrd.read(str(source))
    assert len(images) == 48
    assert [float(value) for value in images[-1].ImagePositionPatient] == [-146, -325, -777.5]
    assert [float(value) for value in images[0].ImagePositionPatient] == [-146, -325, -777.5 + 47 * 5]
    assert np.array_equal(images[0].pixel_array.astype(int) - 1024, data[:, :, 47].T)
