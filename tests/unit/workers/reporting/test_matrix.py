"""Every object over a matrix of studies, before judges that did not write them: dciodvfy, DCMTK, check-evidence.

Sources in every plane, with gaps, overlaps and frames; names in six scripts; 0 to 30 nodules; headers that lack what
they may lack; texts as long as they may be. Each script meets single-frame and multi-frame sources, which are read and
referred to by ways of their own; what else has nothing to do with each other is not multiplied.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom import Dataset, dcmread

from tests.factories import OBLIQUE, ct_series, enhanced_ct, uid_for
from tests.unit.workers.reporting.conftest import Reading, algorithm, every_object, reading_of
from workers.reporting.encoding import as_file

SHAPE = (10, 40, 48)
SPACING = (3.0, 1.6, 1.5)
#: k, j, i of places on four slices that are 10 voxels and more apart in the plane, or two slices.
PLACES = tuple((2 + 2 * (n % 4), 6 + 10 * (n // 4 % 4), 6 + 10 * (n // 16) + 20 * (n % 2)) for n in range(30))

SINGLE_FRAME: dict[str, dict[str, Any]] = {
    "axial": {},
    "prone": {"directions": ((-1.0, 0.0, 0.0), (0.0, -1.0, 0.0))},
    "coronal": {"directions": ((1.0, 0.0, 0.0), (0.0, 0.0, -1.0))},
    "oblique": {"directions": OBLIQUE},
    "with gaps": {"SliceThickness": "1.0"},
}
MULTI_FRAME: dict[str, dict[str, Any]] = {
    "enhanced": {"source": enhanced_ct},
    "enhanced, oblique": {"source": enhanced_ct, "directions": OBLIQUE, "shared": False},
}
#: Names after PS3.5 Annexes H to K, each in the character sets that they are written in there.
NAMES: dict[str, dict[str, Any]] = {
    "Japanese": {
        "SpecificCharacterSet": ["", "ISO 2022 IR 87"],
        "PatientName": "Yamada^Tarou=山田^太郎=やまだ^たろう",
    },
    "Korean": {"SpecificCharacterSet": ["", "ISO 2022 IR 149"], "PatientName": "Hong^Gildong=洪^吉洞=홍^길동"},
    "Chinese": {"SpecificCharacterSet": "GB18030", "PatientName": "Wang^XiaoDong=王^小东"},
    "Arabic": {"SpecificCharacterSet": "ISO_IR 127", "PatientName": "قباني^لنزار"},
    "Greek": {"SpecificCharacterSet": "ISO_IR 126", "PatientName": "Διονυσιος"},
    "Cyrillic": {"SpecificCharacterSet": "ISO_IR 144", "PatientName": "Люксембург"},
}
#: Each is checked by a process of its own, at once.
HALVES = ("even", "odd")
#: The most nodules of a multi-frame source: pages and pictures of more are made alike for a single-frame one.
MANY_IN_FRAMES = 9
#: Of nodules, for each script: in a single-frame source, and in a multi-frame one.
COUNTS = ((30, 3), (3, 1), (1, 0), (3, MANY_IN_FRAMES), (1, 1), (0, 3))
#: What a header may lack or say at length, by turns.
HEADERS: tuple[dict[str, Any], ...] = (
    {},
    dict.fromkeys(
        ("PatientBirthDate", "PatientSex", "AccessionNumber", "StudyID", "StudyTime", "ReferringPhysicianName"), None
    ),
    {"StudyDescription": "D" * 64, "PatientID": "P" * 64, "AccessionNumber": "A" * 16, "StudyID": "S" * 16},
    dict.fromkeys(("SeriesNumber", "InstanceNumber", "SoftwareVersions", "StationName", "InstitutionName"), None),
    # Overlapping slices, too.
    {"TimezoneOffsetFromUTC": "-0330", "PatientSex": "O", "SliceThickness": "5.0"},
)


@dataclass(frozen=True, kw_only=True)
class Study:
    """A study of the matrix, what was read in it, and the objects on it."""

    reading: Reading
    name: str
    files: dict[str, Path]


@pytest.fixture(scope="module")
def studies(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Study]]:
    """All of them, written below one folder: sources and results apart."""
    folder = tmp_path_factory.mktemp("matrix")
    found = []
    for row, (script, name) in enumerate(NAMES.items()):
        for column, sources in enumerate((SINGLE_FRAME, MULTI_FRAME)):
            source, how = list(sources.items())[row % len(sources)]
            number, count = 2 * row + column, COUNTS[row][column]
            found.append(_study(folder / HALVES[row % 2], f"{source} {script} {count}", number, count, how | name))
    return folder, found


def _study(folder: Path, name: str, number: int, count: int, how: dict[str, Any]) -> Study:
    header = HEADERS[number % len(HEADERS)]
    reading = reading_of(
        folder / "sources" / str(number),
        PLACES[:count],
        voxels=np.full(SHAPE, -850),
        spacing=SPACING,
        seed=f"matrix {number}",
        **(header | how),
    )
    if number // 2 % 3 == 1:
        long = algorithm(name="N" * 64, version="V" * 64, manufacturer="M" * 64, parameters=(("p" * 60, "v" * 900),))
        reading = replace(reading, evidence=replace(reading.evidence, algorithm=long))
    files = {}
    for kind, dataset in every_object(reading).items():
        files[kind] = folder / "results" / f"{number}-{kind}.dcm"
        files[kind].parent.mkdir(parents=True, exist_ok=True)
        files[kind].write_bytes(as_file(dataset))
    return Study(reading=reading, name=name, files=files)


def files_of(studies: tuple[Path, list[Study]], *kinds: str) -> list[Path]:
    return [file for study in studies[1] for kind, file in study.files.items() if kind.split()[0] in kinds]


def test_nothing_is_left_out(studies: tuple[Path, list[Study]]) -> None:
    for is_multi_frame in (False, True):
        alike = [study for study in studies[1] if bool(study.reading.evidence.volume.frame_numbers) is is_multi_frame]
        assert {len(study.reading.findings) for study in alike} == {0, 1, 3, MANY_IN_FRAMES if is_multi_frame else 30}
        assert len({str(study.reading.evidence.header.PatientName) for study in alike}) == len(NAMES)
    names = [study.name for study in studies[1]]
    assert all(any(name.startswith(f"{source} ") for name in names) for source in (*SINGLE_FRAME, *MULTI_FRAME))
    assert {kind.split()[0] for study in studies[1] for kind in study.files} == {
        "SR",
        "SEG",
        "lungs",
        "KO",
        "PR",
        "SC",
        "PDF",
    }


def test_the_integrators_checks_and_dciodvfy_find_no_fault(studies: tuple[Path, list[Study]], shared: Path) -> None:
    dciodvfy = shutil.which("dciodvfy")
    if dciodvfy is None:
        pytest.skip("dciodvfy is not installed (Debian: dicom3tools)")
    folder, _ = studies
    path = f"{_in_ascii(folder / 'programs', Path(dciodvfy))}{os.pathsep}{os.environ['PATH']}"

    def check(half: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, str(shared / "tools" / "check-evidence"), str(folder / half / "results")]
        command += ["--sources", str(folder / half / "sources")]
        environment = os.environ | {"PATH": path}
        return subprocess.run(command, capture_output=True, text=True, timeout=280, check=False, env=environment)

    with ThreadPoolExecutor() as pool:
        for run in pool.map(check, HALVES):
            assert run.returncode == 0, run.stdout
            assert run.stdout.strip().endswith(" 0 fault(s)")


def test_dcmdump_reads_every_object(studies: tuple[Path, list[Study]], program: Callable[[str], Path]) -> None:
    files = files_of(studies, "SR", "SEG", "lungs", "KO", "PR", "SC", "PDF")
    command = [str(program("dcmdump")), "-q", "+P", "SOPClassUID", *map(str, files)]
    run = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert run.returncode == 0, run.stderr
    assert run.stdout.count("(0008,0016)") == len(files)


def test_dsrdump_reads_every_document(studies: tuple[Path, list[Study]], program: Callable[[str], Path]) -> None:
    for kind, title in (("SR", "Comprehensive 3D SR"), ("KO", "Key Object Selection Document")):
        files = files_of(studies, kind)
        command = [str(program("dsrdump")), "-Ee", *map(str, files)]
        run = subprocess.run(command, capture_output=True, timeout=120, check=False)
        assert run.returncode == 0, run.stderr.decode(errors="replace")
        assert run.stdout.decode(errors="replace").count(title) >= len(files)


def test_dcmtk_finds_every_presentation_state_sound(
    studies: tuple[Path, list[Study]], program: Callable[[str], Path]
) -> None:
    for file in files_of(studies, "PR"):
        run = subprocess.run([str(program("dcmpschk")), str(file)], capture_output=True, text=True, check=False)
        assert "Test passed" in run.stdout + run.stderr, run.stdout + run.stderr


def test_every_object_names_the_patient_as_the_source_does(studies: tuple[Path, list[Study]]) -> None:
    for study in studies[1]:
        for file in study.files.values():
            ds = dcmread(file, stop_before_pixels=True)
            assert ds.PatientName == study.reading.evidence.header.PatientName, study.name
            assert ds.get("PatientID") == study.reading.evidence.header.get("PatientID")


def test_what_one_peer_is_sent_shares_no_uid_and_no_series(studies: tuple[Path, list[Study]]) -> None:
    for study in studies[1]:
        read = {kind: dcmread(file, stop_before_pixels=True) for kind, file in study.files.items()}
        assert len({ds.SOPInstanceUID for ds in read.values()}) == len(read)
        kinds = {kind.split()[0] for kind in read}
        assert len({ds.SeriesInstanceUID for ds in read.values()}) == len(kinds)
        assert len({ds.SeriesNumber for ds in read.values()}) == len(kinds)


@pytest.mark.parametrize("source", [ct_series, enhanced_ct])
def test_the_same_reading_writes_the_same_objects(tmp_path: Path, source: Callable[..., list[Path]]) -> None:
    one, two = (
        {kind: as_file(ds) for kind, ds in every_object(reading_of(tmp_path / name, source=source)).items()}
        for name in ("one", "two")
    )
    assert one == two


def test_nothing_of_the_clock_stands_in_any_object(reading: Reading) -> None:
    header = reading.evidence.header
    completed = reading.evidence.completed_locally
    known = {str(element.value) for element in header if element.VR in ("DA", "TM", "DT")}
    known |= {completed.strftime(form) for form in ("%Y%m%d", "%H%M%S", "%Y%m%d%H%M%S")}
    for kind, ds in every_object(reading).items():
        assert _times(dcmread(BytesIO(as_file(ds)))) - {"", "None"} <= known, kind


def test_every_object_names_its_algorithm_whole(reading: Reading) -> None:
    """IHE AI Results: whatever the object, the algorithm is its one processing equipment."""
    for kind, ds in every_object(reading).items():
        items = [
            i for i in ds.ContributingEquipmentSequence if i.PurposeOfReferenceCodeSequence[0].CodeValue == "109102"
        ]
        assert [item.DeviceUID for item in items] == [reading.evidence.algorithm.device_uid], kind


def test_the_seed_gives_each_study_uids_of_its_own() -> None:
    assert uid_for("matrix 1", "study") != uid_for("matrix 2", "study")


def _in_ascii(folder: Path, program: Path) -> Path:
    """A folder with a program of the same name that leaves out what names say in other character sets than UTF-8."""
    folder.mkdir()
    script = folder / program.name
    script.write_text(f"#!/bin/sh\n{program} \"$@\" 2>&1 | LC_ALL=C tr -cd '\\11\\12\\40-\\176'\n")
    script.chmod(0o755)
    return folder


def _times(ds: Dataset) -> set[str]:
    return {str(element.value) for element in ds.iterall() if element.VR in ("DA", "TM", "DT")}
