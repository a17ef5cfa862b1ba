"""Studies that no algorithm can read end in a clear state and reason, and hold up nothing behind them."""

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from dicom_node.core.lifecycle import StudyState
from tests.acceptance.conftest import PhantomStudy, Site
from tests.factories import ct_series


def test_a_head_ct_with_gantry_tilt_is_not_routed(site: Site, shared: Path) -> None:
    row = site.end_of(site.send_with_dcmtk(shared / "data" / "head-ct-ge" / "GE"))
    assert row.state is StudyState.NOT_ROUTED
    assert "SliceThickness" in row.reason or "axial" in row.reason


def test_an_mr_is_not_routed(site: Site, shared: Path, tmp_path: Path) -> None:
    image = shared / "data" / "mr-brain" / "brain1_image.nrrd"
    write = [sys.executable, "-m", "training.ct_series", str(image), str(tmp_path / "mr"), "--modality", "MR"]
    subprocess.run(write, check=True)
    row = site.end_of(site.send_with_dcmtk(tmp_path / "mr"))
    assert row.state is StudyState.NOT_ROUTED
    assert 'Modality is "MR"' in row.reason


def test_a_localizer_alone_is_not_routed(site: Site, tmp_path: Path) -> None:
    ct_series(tmp_path, slices=2, seed="localizer alone", ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    row = site.end_of(site.send_with_dcmtk(tmp_path))
    assert row.state is StudyState.NOT_ROUTED
    assert "localizer" in row.reason


def test_a_chest_that_lacks_a_slice_fails_and_the_place_is_named(
    site: Site, draw_phantom: Callable[..., PhantomStudy]
) -> None:
    phantom = draw_phantom(seed=5, slices=60, matrix=256)
    sorted(phantom.series.iterdir())[30].unlink()
    row = site.end_of(site.send_with_dcmtk(phantom.series))
    assert row.state is StudyState.FAILED
    assert "missing between" in row.reason


def test_a_ct_without_lungs_is_answered_in_words(site: Site, tmp_path: Path) -> None:
    ct_series(tmp_path, slices=40, rows=256, spacing=(2.5, 0.8, 0.8), seed="no lungs", voxels=None)
    row = site.end_of(site.send_with_dcmtk(tmp_path))
    assert row.state is StudyState.NOT_ROUTED
    assert "lung" in row.reason


def test_what_is_no_dicom_is_refused_by_name(site: Site, tmp_path: Path) -> None:
    broken = tmp_path / "broken.dcm"
    broken.write_bytes(b"\0" * 128 + b"DICM" + b"this is no data set")
    command = [sys.executable, "-m", "dicom_node", "send", "pacs", str(broken), "--config", str(site.node.config)]
    said = subprocess.run(command, capture_output=True, text=True, check=False)
    assert said.returncode == 1
    assert "broken.dcm" in said.stderr
    assert "Traceback" not in said.stderr


def test_the_next_study_still_works(site: Site, phantom: PhantomStudy, tmp_path: Path) -> None:
    shutil.copytree(phantom.series, tmp_path / "again")
    row = site.end_of(site.send_with_dcmtk(tmp_path / "again"))
    assert row.state is StudyState.DELIVERED


@pytest.mark.parametrize("path", ["/", "/healthz"])
def test_the_node_still_answers(site: Site, path: str) -> None:
    import urllib.request

    with urllib.request.urlopen(f"http://127.0.0.1:{site.node.web_port}{path}", timeout=10) as answer:
        assert answer.status == 200
