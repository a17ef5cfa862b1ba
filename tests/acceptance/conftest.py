"""A whole node beside a real PACS, as people start them, for all tests of this floor."""

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from copy import copy
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from pydicom import Dataset, dcmread
from pydicom.uid import generate_uid

from deploy.rig import ORTHANC, LittlePacs, Orthanc, RunningNode
from dicom_node.archive.studies import StudyRow
from dicom_node.core.lifecycle import StudyState

#: Long enough for a reading on a busy machine without a GPU.
PATIENCE_SECONDS = 280.0
ENDS = (StudyState.DELIVERED, StudyState.FAILED, StudyState.NOT_ROUTED)

#: So that a study that lacks slices is judged before a test's patience ends.
_SHORTER_WAITS = """
[completeness]
quiet_seconds_when_whole = 1.0
quiet_seconds_otherwise = 4.0

[queue]
lease_seconds = 6.0
"""


@dataclass(frozen=True)
class Site:
    """A node and the PACS that its results go to."""

    node: RunningNode
    pacs: LittlePacs

    def end_of(self, study_instance_uid: str) -> StudyRow:
        """The study's row once nothing more will happen to it."""
        return self.node.wait_for(study_instance_uid, ENDS, PATIENCE_SECONDS)

    def at_pacs(self, study_instance_uid: str, modality: str) -> list[Dataset]:
        """The study's objects of this modality at the PACS, once there are any."""
        until = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < until:
            found = [dcmread(BytesIO(data)) for data in self.pacs.files(study_instance_uid)]
            if wanted := [ds for ds in found if ds.Modality == modality]:
                return wanted
            time.sleep(0.5)
        raise AssertionError(f"no {modality} of study {study_instance_uid} came to the PACS")

    def send_with_dcmtk(self, folder: Path) -> str:
        """Send a folder's series by DCMTK's storescu, and return its Study Instance UID."""
        command = ["/usr/bin/storescu", "-aet", "SCANNER", "-aec", "TRIAGE", "+sd", "+r", "-R"]
        where = ["127.0.0.1", str(self.node.port), str(folder)]
        sent = subprocess.run([*command, *where], capture_output=True, text=True, check=False)
        assert sent.returncode == 0, sent.stderr
        return study_uid(folder)


def study_uid(folder: Path) -> str:
    """The study that a folder's first file belongs to."""
    first = next(path for path in sorted(folder.rglob("*")) if path.is_file())
    return str(dcmread(first, stop_before_pixels=True, force=True).StudyInstanceUID)


def by_modality(datasets: list[Dataset]) -> dict[str, list[Dataset]]:
    """Data sets by their Modality."""
    found: dict[str, list[Dataset]] = {}
    for ds in datasets:
        found.setdefault(str(ds.Modality), []).append(ds)
    return found


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory, program: Callable[[str], Path]) -> Iterator[Site]:
    """Orthanc and a node that delivers to it; DCMTK is there to send."""
    assert program("Orthanc") == Path(ORTHANC)
    program("storescu")
    folder = tmp_path_factory.mktemp("site")
    pacs = Orthanc(folder / "pacs")
    node = RunningNode(folder / "node", pacs.peer, further_settings=_SHORTER_WAITS)
    pacs.start()
    try:
        node.start()
        yield Site(node, pacs)
    finally:
        node.stop()
        pacs.stop()


@dataclass(frozen=True)
class PhantomStudy:
    """A drawn chest on disk, and what is known to be in it."""

    series: Path
    truth: dict[str, Any]


@pytest.fixture(scope="session")
def phantom(tmp_path_factory: pytest.TempPathFactory) -> PhantomStudy:
    """The chest that is drawn for all tests of this floor; coarse, so that it is read quickly."""
    folder = tmp_path_factory.mktemp("phantom")
    options = {"seed": 1, "nodules": 3, "slices": 75, "matrix": 320}
    words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    subprocess.run([sys.executable, "-m", "training.phantoms", str(folder), *words], check=True)
    return PhantomStudy(folder / "series", json.loads((folder / "truth.json").read_text()))


#: Slices of the phantom by rising position: two of its nodules lie in the one part, none in the other.
WITH_NODULES, WITHOUT_NODULES = slice(42, 69), slice(1, 26)


@pytest.fixture(scope="session")
def part_of_phantom(phantom: PhantomStudy, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Writes a part of the phantom as a study of its own, where the way matters and not the whole chest."""
    images = [dcmread(path) for path in phantom.series.iterdir()]
    images.sort(key=lambda ds: float(ds.ImagePositionPatient[2]))

    def write(part: slice = WITH_NODULES) -> Path:
        folder = tmp_path_factory.mktemp("part")
        fresh = {name: generate_uid() for name in ("StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID")}
        for number, image in enumerate(images[part], start=1):
            ds = copy(image)
            ds.file_meta = copy(image.file_meta)
            ds.update(fresh)
            # Else it would be an earlier or later study of the phantom's patient.
            ds.PatientID = "PART"
            ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = generate_uid()
            ds.InstanceNumber = number
            ds.save_as(folder / f"{number:03}.dcm")
        return folder

    return write
