"""The same study, algorithm and evidence give the same bytes, in whatever process they are written."""

import hashlib
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

from dicom_node.core.form import Form
from dicom_node.core.outcome import outcome_of_error
from tests.unit.workers.reporting.conftest import reading_of
from workers.reporting.passage import check_objects
from workers.reporting.report import build_report, build_unread_report


def digests(folder: Path) -> list[str]:
    """Of every object that can be written of one little series."""
    reading = reading_of(folder)
    evidence = reading.evidence
    reports = (
        (build_report(evidence, reading.findings, reading.labels, forms=set(Form)), evidence),
        (build_report(evidence, (), reading.labels * 0, forms=set(Form)), evidence),
    )
    unread = replace(evidence, was_read=False)
    failure = (build_unread_report(unread, outcome_of_error("NotApplicable", "no lungs were found"), set(Form)), unread)
    checked = [one for report, of in (*reports, failure) for one in check_objects(report, of)]
    assert not [one.fault for one in checked if one.fault]
    return [hashlib.sha256(one.file).hexdigest() for one in checked]


def test_another_process_in_another_place_writes_the_same_bytes(tmp_path: Path) -> None:
    """This process has another seed of its hashes, and what the machine is set to."""
    command = [sys.executable, "-m", "tests.unit.workers.reporting.test_deterministic", str(tmp_path / "there")]
    surroundings = os.environ | {"PYTHONHASHSEED": "20240229", "LC_ALL": "C"}
    run = subprocess.run(command, check=True, capture_output=True, text=True, env=surroundings, timeout=200)
    assert run.stdout.split() == digests(tmp_path / "here")


if __name__ == "__main__":
    print("\n".join(digests(Path(sys.argv[1]))))
