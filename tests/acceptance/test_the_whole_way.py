"""A chest CT in by C-STORE, a structured report and a segmentation back in the PACS."""

import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from pydicom import Dataset, dcmread

from dicom_node.core.lifecycle import JobState, StudyState
from tests.acceptance.conftest import (
    PATIENCE_SECONDS,
    WITHOUT_NODULES,
    PhantomStudy,
    Site,
    by_modality,
    study_uid,
)
from tests.visitors import Person, session
from training.ct_series import read_nrrd


@pytest.fixture(scope="module")
def arrived(site: Site, phantom: PhantomStudy) -> dict[str, list[Dataset]]:
    """What Orthanc holds after DCMTK sent a phantom to the node."""
    uid = site.send_with_dcmtk(phantom.series)
    row = site.end_of(uid)
    assert row.state is StudyState.DELIVERED, row.reason
    return by_modality([dcmread(BytesIO(data)) for data in site.pacs.files(uid)])


def test_a_report_and_a_segmentation_come_back_in_the_same_study(
    arrived: dict[str, list[Dataset]], phantom: PhantomStudy
) -> None:
    assert {modality: len(found) for modality, found in arrived.items()} == {"SR": 1, "SEG": 1}
    assert {ds.StudyInstanceUID for found in arrived.values() for ds in found} == {study_uid(phantom.series)}
    assert arrived["SR"][0].VerificationFlag == "UNVERIFIED"


def test_the_drawn_solid_nodules_are_found_where_they_were_drawn(
    site: Site, arrived: dict[str, list[Dataset]], phantom: PhantomStudy
) -> None:
    rows = site.node.index.jobs.of_study(study_uid(phantom.series))[-1].summary["rows"]
    for nodule in phantom.truth["nodules"]:
        if nodule["texture"] == "solid":
            nearest = min(math.dist(row["centre_mm"], nodule["centre_lps_mm"]) for row in rows)
            assert nearest <= nodule["diameter_mm"] / 2


def test_an_integrators_checks_find_no_fault(
    shared: Path,
    program: Callable[[str], Path],
    arrived: dict[str, list[Dataset]],
    phantom: PhantomStudy,
    tmp_path: Path,
) -> None:
    program("dciodvfy")
    for modality, found in arrived.items():
        for number, ds in enumerate(found):
            ds.save_as(tmp_path / f"{modality}{number}.dcm")
    check = [sys.executable, str(shared / "tools" / "check-evidence"), str(tmp_path), "--sources", str(phantom.series)]
    said = subprocess.run(check, capture_output=True, text=True, check=False)
    assert said.returncode == 0, said.stdout


def test_dsrdump_reads_the_report_as_a_radiologist_would(
    program: Callable[[str], Path], arrived: dict[str, list[Dataset]], tmp_path: Path
) -> None:
    arrived["SR"][0].save_as(tmp_path / "sr.dcm")
    read = [str(program("dsrdump")), "+Pl", str(tmp_path / "sr.dcm")]
    text = subprocess.run(read, capture_output=True, text=True, check=True).stdout
    for words in ("Imaging Measurement Report", "Nodule 1", "Long axis", "Volume", "not for diagnostic use"):
        assert words in text


def test_the_same_study_sent_again_changes_nothing(
    site: Site, arrived: dict[str, list[Dataset]], phantom: PhantomStudy
) -> None:
    uid = site.send_with_dcmtk(phantom.series)
    before = site.node.index.studies.history(uid)
    time.sleep(3.0)
    assert site.node.index.studies.history(uid) == before
    assert site.node.index.studies.rows(uid)[0].state is StudyState.DELIVERED
    assert len(site.pacs.files(uid)) == 2


def test_a_requeued_study_is_read_again_and_writes_the_same_objects(
    site: Site, arrived: dict[str, list[Dataset]], phantom: PhantomStudy
) -> None:
    uid = study_uid(phantom.series)
    reports = list((site.node.data_dir / "archive" / "results").glob(f"*/{uid}/*/*.dcm"))
    before = {path.name: path.read_bytes() for path in reports}
    command = [sys.executable, "-m", "dicom_node", "requeue", uid, "--config", str(site.node.config)]
    subprocess.run(command, check=True)
    site.node.wait_for(uid, (StudyState.READING,), PATIENCE_SECONDS)
    assert site.end_of(uid).state is StudyState.DELIVERED
    assert {path.name: path.read_bytes() for path in reports} == before
    assert len(before) == 2
    uids = {ds.SOPInstanceUID for found in arrived.values() for ds in found}
    assert {dcmread(BytesIO(data)).SOPInstanceUID for data in site.pacs.files(uid)} == uids


def test_a_worker_that_is_killed_while_it_reads_is_replaced_and_the_study_is_reported_once(
    site: Site, part_of_phantom: Callable[..., Path]
) -> None:
    uid = site.send_with_dcmtk(part_of_phantom())
    site.node.wait_for(uid, (StudyState.READING,), PATIENCE_SECONDS)
    (job,) = site.node.index.jobs.of_study(uid)
    killed = job.worker or ""
    os.kill(int(killed.rpartition(":")[2]), signal.SIGKILL)
    assert site.end_of(uid).state is StudyState.DELIVERED
    (job,) = site.node.index.jobs.of_study(uid)
    assert (job.job.state, job.job.attempts) == (JobState.REPORTED, 2)
    assert job.worker != killed
    arrived = by_modality([dcmread(BytesIO(data)) for data in site.pacs.files(uid)])
    assert len(arrived["SR"]) == 1


def test_a_real_ct_that_was_never_trained_on_has_its_nodule_found_and_measured(
    site: Site, shared: Path, tmp_path: Path
) -> None:
    """lung1 (PyPI pyradiomics 3.0.1): volume and diameters within 30 % of the label, its place in mm right."""
    folder = shared / "data" / "chest-ct-lung1"
    write = [sys.executable, "-m", "training.ct_series", str(folder / "lung1_image.nrrd"), str(tmp_path / "lung1")]
    subprocess.run(write, check=True)
    uid = site.send_with_dcmtk(tmp_path / "lung1")
    row = site.end_of(uid)
    assert row.state is StudyState.DELIVERED, row.reason
    label = read_nrrd(folder / "lung1_label.nrrd")
    mask = label.voxels > 0
    dz, dy, dx = label.spacing_mm
    centre = np.array(label.origin_mm) + np.argwhere(mask).mean(axis=0)[::-1] * (dx, dy, dz)
    rows = site.node.index.jobs.of_study(uid)[-1].summary["rows"]
    found = min(rows, key=lambda finding: math.dist(finding["centre_mm"], centre))
    assert math.dist(found["centre_mm"], centre) < 5.0
    assert found["volume_mm3"] == pytest.approx(mask.sum() * dx * dy * dz, rel=0.3)
    long_axis, short_axis = _axes(mask, dy, dx)
    assert found["long_axis_mm"] == pytest.approx(long_axis, rel=0.3)
    assert found["short_axis_mm"] == pytest.approx(short_axis, rel=0.3)


def _axes(mask: np.ndarray, dy: float, dx: float) -> tuple[float, float]:
    """Longest diameter of the largest slice and the longest across it, by the plain definition, over pixel centres."""
    points = np.argwhere(mask[mask.sum(axis=(1, 2)).argmax()]) * (dy, dx)
    apart = points[:, None] - points[None]
    first, second = np.unravel_index((apart**2).sum(axis=-1).argmax(), apart.shape[:2])
    along = apart[first, second] / np.linalg.norm(apart[first, second])
    across = points @ np.array([-along[1], along[0]])
    # A pixel is as wide as its spacing: its centre alone would lose half of it at each end.
    return float(np.linalg.norm(apart[first, second])) + dx, float(np.ptp(across)) + dx


def test_a_chest_without_nodules_is_answered_by_a_report_without_a_segmentation(
    site: Site, part_of_phantom: Callable[..., Path]
) -> None:
    """The summary says whether findings are in it; one false positive is the network's, not the pipeline's."""
    uid = site.send_with_dcmtk(part_of_phantom(WITHOUT_NODULES))
    assert site.end_of(uid).state is StudyState.DELIVERED
    arrived = by_modality([dcmread(BytesIO(data)) for data in site.pacs.files(uid)])
    findings = site.node.index.jobs.of_study(uid)[-1].summary["findings"]
    assert len(arrived["SR"]) == 1
    assert ("SEG" in arrived) == (findings > 0)


def test_the_page_metrics_and_health_tell_of_the_studies(site: Site, arrived: dict[str, list[Dataset]]) -> None:
    person = Person(site.node.web_port, session(site.node.index, at=time.time()))

    def get(path: str) -> str:
        return person.get(path).text

    assert str(arrived["SR"][0].StudyInstanceUID) in get("/")
    assert 'state="DELIVERED"' in get("/metrics")
    assert "true" in get("/healthz")


def test_no_patients_data_is_in_the_log(site: Site, arrived: dict[str, list[Dataset]]) -> None:
    log = site.node.program.log.read_text()
    ds = arrived["SR"][0]
    assert str(ds.PatientName)
    assert str(ds.PatientName) not in log
    assert str(ds.PatientID) not in log


def test_a_damaged_slice_of_a_study_is_named(site: Site, part_of_phantom: Callable[..., Path]) -> None:
    damaged = sorted(part_of_phantom().iterdir())
    ds = dcmread(damaged[10])
    ds.PixelData = ds.PixelData[: len(ds.PixelData) // 3 // 2 * 2]
    ds.save_as(damaged[10])
    row = site.end_of(site.send_with_dcmtk(damaged[0].parent))
    assert row.state is StudyState.FAILED
    assert str(ds.SOPInstanceUID) in row.reason
