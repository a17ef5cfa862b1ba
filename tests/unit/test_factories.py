"""The factory's series are what it says they are."""

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread

from tests.factories import OBLIQUE, ct_series


@pytest.mark.skipif(shutil.which("dciodvfy") is None, reason="dciodvfy is not installed (Debian: dicom3tools)")
def test_an_image_is_a_conformant_ct_image(tmp_path: Path) -> None:
    path = ct_series(tmp_path, slices=1, directions=OBLIQUE)[0]
    run = subprocess.run(["dciodvfy", "-new", str(path)], capture_output=True, text=True, timeout=60, check=False)
    assert "Error" not in run.stdout + run.stderr


def test_voxels_and_places_are_those_asked_for(tmp_path: Path) -> None:
    hu = np.arange(3 * 4 * 5).reshape(3, 4, 5) - 30
    paths = ct_series(tmp_path, voxels=hu, spacing=(2, 0.8, 0.7), origin=(1, 2, 3), directions=OBLIQUE)
    for k, path in enumerate(paths):
        ds = dcmread(path)
        np.testing.assert_array_equal(ds.pixel_array.astype(int) + int(ds.RescaleIntercept), hu[k])
        np.testing.assert_allclose(ds.ImagePositionPatient, np.array([1, 2, 3]) + k * 2 * np.cross(*OBLIQUE))


def test_missing_slices_leave_a_gap_and_the_others_as_they_were(tmp_path: Path) -> None:
    whole = ct_series(tmp_path / "whole", slices=4)
    gap = ct_series(tmp_path / "gap", slices=4, missing=(1, 2))
    assert [path.read_bytes() for path in gap] == [whole[0].read_bytes(), whole[3].read_bytes()]


def test_an_attribute_is_replaced_or_taken_away(tmp_path: Path) -> None:
    ds = dcmread(ct_series(tmp_path, slices=1, Modality="MR", PatientSex=None)[0])
    assert ds.Modality == "MR"
    assert "PatientSex" not in ds
