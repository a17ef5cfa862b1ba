"""Studies that no algorithm can read end in a clear state and reason, and hold up nothing behind them."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from dicom_node.core.lifecycle import StudyState
from tests.acceptance.conftest import Site
from tests.factories import ct_series
from tests.unit.workers.reporting.test_structured_report import name_of, value_of, walk


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
    site: Site, part_of_phantom: Callable[..., Path]
) -> None:
    series = part_of_phantom()
    sorted(series.iterdir())[12].unlink()
    row = site.end_of(site.send_with_dcmtk(series))
    assert row.state is StudyState.FAILED
    assert "missing between" in row.reason


def test_a_ct_without_lungs_is_answered_in_words(site: Site, tmp_path: Path) -> None:
    ct_series(tmp_path, slices=40, rows=256, spacing=(2.5, 0.8, 0.8), seed="no lungs", voxels=None)
    uid = site.send_with_dcmtk(tmp_path)
    row = site.end_of(uid)
    assert row.state is StudyState.NOT_ROUTED
    assert "lung" in row.reason
    (report,) = site.at_pacs(uid, "SR")
    (summary,) = (item for item in walk(report) if name_of(item) == "111017")
    assert value_of(summary) == "111245"
    assert any("No lungs were found" in str(item.get("TextValue", "")) for item in walk(report))
    assert site.node.index.studies.rows(uid)[0].state is StudyState.NOT_ROUTED


def test_a_result_that_was_withdrawn_is_followed_by_a_rejection_note(
    site: Site, part_of_phantom: Callable[..., Path]
) -> None:
    # A study of its own: sent again, one that was withdrawn stays so.
    uid = site.send_with_dcmtk(part_of_phantom())
    assert site.end_of(uid).state is StudyState.DELIVERED
    results = {row.sop_instance_uid for row in site.node.index.deliveries.of_study(uid)}
    words = ["withdraw", uid, "--reason", "outlines beside the nodules", "--config", str(site.node.config)]
    subprocess.run([sys.executable, "-m", "dicom_node", *words], check=True)
    (note,) = site.at_pacs(uid, "KO")
    assert note.ConceptNameCodeSequence[0].CodeValue == "113001"
    (study,) = note.CurrentRequestedProcedureEvidenceSequence
    series = study.ReferencedSeriesSequence
    assert {ref.ReferencedSOPInstanceUID for each in series for ref in each.ReferencedSOPSequence} == results
    assert site.node.index.studies.rows(uid)[0].state is StudyState.WITHDRAWN


def test_what_is_no_dicom_is_refused_by_name(site: Site, tmp_path: Path) -> None:
    broken = tmp_path / "broken.dcm"
    broken.write_bytes(b"\0" * 128 + b"DICM" + b"this is no data set")
    command = [sys.executable, "-m", "dicom_node", "send", "pacs", str(broken), "--config", str(site.node.config)]
    said = subprocess.run(command, capture_output=True, text=True, check=False)
    assert said.returncode == 1
    assert "broken.dcm" in said.stderr
    assert "Traceback" not in said.stderr


def test_the_next_study_still_works(site: Site, part_of_phantom: Callable[..., Path]) -> None:
    row = site.end_of(site.send_with_dcmtk(part_of_phantom()))
    assert row.state is StudyState.DELIVERED


@pytest.mark.parametrize("path", ["/login", "/healthz"])
def test_the_node_still_answers(site: Site, path: str) -> None:
    import urllib.request

    with urllib.request.urlopen(f"http://127.0.0.1:{site.node.web_port}{path}", timeout=60) as answer:
        assert answer.status == 200
