"""The matrix of reports that outside judges are shown: large enough, and written to the end."""

from pathlib import Path

import pytest
from pydicom import dcmread

from deploy.evidence_matrix import NODULES, ORIENTATIONS, SCRIPTS, cases, judge, write

CASES = {case.name: case for case in cases()}


def test_it_has_what_matters() -> None:
    assert len(CASES) >= 40
    assert {f"{name}-{count}" for name in ORIENTATIONS for count in NODULES} <= CASES.keys()
    assert len(SCRIPTS) >= 6


@pytest.mark.parametrize(
    ("name", "objects"),
    [
        ("oblique-3", ["REJECTION", "SEG", "SR", "SR-OHIF"]),
        ("axial-0", ["REJECTION", "SR", "SR-OHIF"]),
        ("with-ReferencedStudySequence", ["REJECTION", "SEG", "SR"]),
        ("with-ReferencedPatientSequence", ["REJECTION", "SEG", "SR"]),
        ("unread-InconsistentGeometry", ["REJECTION", "UNREAD"]),
    ],
)
def test_a_case_is_written_and_judged(tmp_path: Path, name: str, objects: list[str]) -> None:
    write(CASES[name], tmp_path)
    files = sorted((tmp_path / "result").iterdir())
    written = {file.stem[3:] for file in files}
    assert set(objects) <= written
    studies = {dcmread(file).StudyInstanceUID for file in (*files, *(tmp_path / "source").iterdir())}
    assert len(studies) == 1
    assert judge(tmp_path, None) == []


def test_a_judge_that_finds_something_is_heard(tmp_path: Path) -> None:
    write(CASES["unread-NotApplicable"], tmp_path)
    check = tmp_path / "check.py"
    check.write_text("print('UNREAD.dcm: rule: what is wrong')\nraise SystemExit(1)\n")
    assert judge(tmp_path, check) == ["UNREAD.dcm: rule: what is wrong"]
