"""What those who did not write the objects say of them: dciodvfy, DCMTK, and the integrator's checks."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.unit.workers.reporting.conftest import Reading
from workers.reporting.gate import check_report
from workers.reporting.report import Report

DSRDUMP = Path("/usr/bin/dsrdump")


@pytest.fixture
def results(any_reading: Reading, any_report: Report, tmp_path: Path) -> Path:
    """The files of a report, in a folder."""
    for dataset, file in zip(any_report.datasets, check_report(any_report, any_reading.evidence), strict=True):
        (tmp_path / f"{dataset.Modality}.dcm").write_bytes(file)
    return tmp_path


def test_the_integrators_checks_find_no_fault(any_reading: Reading, results: Path, shared: Path) -> None:
    if shutil.which("dciodvfy") is None:
        pytest.skip("dciodvfy is not installed (Debian: dicom3tools)")
    command = [
        sys.executable,
        str(shared / "tools" / "check-evidence"),
        str(results),
        "--sources",
        str(any_reading.folder),
    ]
    run = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert run.returncode == 0, run.stdout
    assert run.stdout.strip().endswith(" 0 fault(s)")


@pytest.mark.skipif(not DSRDUMP.exists(), reason="dsrdump is not installed (Debian: dcmtk)")
def test_a_reader_without_our_software_can_read_the_report(any_reading: Reading, results: Path) -> None:
    command = [str(DSRDUMP), "+Pl", str(results / "SR.dcm")]
    run = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert run.returncode == 0, run.stderr
    assert "AI result, not for diagnostic use" in run.stdout
    assert run.stdout.count('"Long axis")') == len(any_reading.findings)
    assert run.stdout.count("POLYLINE") == len(any_reading.findings)
