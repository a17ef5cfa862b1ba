"""One reading of a little series, and the report on it; read-only, and so shared by the tests."""

import copy
import datetime
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from pydicom import Dataset

from dicom_node.core import codes
from dicom_node.core.algorithm import AlgorithmIdentification
from dicom_node.core.finding import Finding
from dicom_node.core.form import Form
from tests.factories import OBLIQUE, ct_series
from workers.lungs import LEFT_LUNG, LUNG_OF_UNKNOWN_SIDE, RIGHT_LUNG
from workers.measurement import measure
from workers.reporting.encapsulated_pdf import build_encapsulated_pdf
from workers.reporting.encoding import as_file
from workers.reporting.evidence import Evidence
from workers.reporting.forms import Part
from workers.reporting.key_object_selection import build_key_object_selection
from workers.reporting.presentation_state import build_presentation_states
from workers.reporting.report import Report, build_report
from workers.reporting.secondary_capture import build_secondary_captures
from workers.reporting.segmentation import build_lung_segmentation
from workers.volume import Region, Volume, load_volume

#: k, j, i of the centres of the balls that play nodules.
CENTRES = ((3, 8, 9), (6, 21, 20), (8, 10, 24))
RADIUS_MM = 4.0


@dataclass(frozen=True, kw_only=True)
class Reading:
    """All that a report is built from, and where the source images lie."""

    folder: Path
    evidence: Evidence
    findings: tuple[Finding, ...]
    labels: NDArray[np.uint8]

    def report(self) -> Report:
        """A report, built anew."""
        return build_report(self.evidence, self.findings, self.labels)


def algorithm(**changes: Any) -> AlgorithmIdentification:
    """An algorithm with every field filled."""
    fields = {
        "name": "lung_nodule",
        "version": "0.1.0",
        "manufacturer": "Test manufacturer",
        "device_uid": "2.25.4711",
        "checksum": "ab" * 32,
        "parameters": (("report_threshold", "0.5"),),
    }
    return AlgorithmIdentification(**(fields | changes))


def ball(volume: Volume, number: int, centre: tuple[int, int, int]) -> tuple[NDArray[np.bool_], Finding]:
    """A ball's voxels, which it makes dense, and a finding of them; three after each other differ in every number."""
    k, j, i = np.indices(volume.voxels.shape)
    dz, dy, dx = volume.spacing_mm
    ck, cj, ci = centre
    radius = RADIUS_MM + 0.6 * ((number - 1) % 3)
    inside = ((k - ck) * dz) ** 2 + ((j - cj) * dy) ** 2 + ((i - ci) * dx) ** 2 <= radius**2
    volume.voxels[inside] = -13.6 - number + (41.2 + number) * (-1.0) ** (i + j)[inside]
    measured = measure(Region(box=tuple(slice(0, n) for n in inside.shape), mask=inside), volume)  # type: ignore[arg-type]  # three axes
    return inside, Finding(
        number=number,
        concept=codes.NODULE,
        category=codes.MORPHOLOGICALLY_ABNORMAL_STRUCTURE,
        site=codes.LUNG,
        laterality=(codes.RIGHT, codes.LEFT, None)[(number - 1) % 3],
        score=0.937 - 0.1 * ((number - 1) % 9),
        **vars(measured),
    )


def reading_of(
    folder: Path,
    centres: tuple[tuple[int, int, int], ...] = CENTRES,
    *,
    source: Callable[..., list[Path]] = ct_series,
    **series: Any,
) -> Reading:
    """A series in a folder, read as if it held a nodule at every centre."""
    volume = load_volume(source(folder, **series))
    labels = np.zeros(volume.voxels.shape, dtype=np.uint8)
    findings = []
    for number, centre in enumerate(centres, start=1):
        inside, finding = ball(volume, number, centre)
        labels[inside] = number
        findings.append(finding)
    return Reading(folder=folder, evidence=evidence_of(volume), findings=tuple(findings), labels=labels)


def every_object(reading: Reading) -> dict[str, Dataset]:
    """Every object that a peer can be sent of a reading, by a name."""
    evidence, findings, labels = reading.evidence, reading.findings, reading.labels
    report = build_report(evidence, findings, labels)
    lungs = np.zeros_like(labels)
    lungs[:, 2:-2, 2:-2] = LUNG_OF_UNKNOWN_SIDE
    objects = {dataset.Modality: dataset for dataset in report.datasets}
    objects["lungs"] = build_lung_segmentation(evidence, lungs)
    objects["KO"] = build_key_object_selection(evidence, findings, report.datasets)
    objects |= {f"PR {n}": ds for n, ds in enumerate(build_presentation_states(evidence, findings, labels))}
    objects |= {f"SC {n}": ds for n, ds in enumerate(build_secondary_captures(evidence, findings, labels))}
    objects["PDF"] = build_encapsulated_pdf(evidence, findings, labels)
    return {name: dataset for name, dataset in objects.items() if dataset is not None}


def evidence_of(volume: Volume, **changes: Any) -> Evidence:
    """A volume as the evidence of a reading."""
    completed_at = datetime.datetime(2024, 3, 1, 9, 30, 15, 250, tzinfo=datetime.UTC)
    fields = {"volume": volume, "algorithm": algorithm(), "evidence": "cd" * 32, "completed_at": completed_at}
    return Evidence(**(fields | changes))


def in_every_form(reading: Reading) -> Report:
    """The report on a reading, in every form."""
    lungs = reading.labels * 0
    lungs[2:9, 4:28, 2:12], lungs[2:9, 4:28, 14:24] = RIGHT_LUNG, LEFT_LUNG
    return build_report(reading.evidence, reading.findings, reading.labels, forms=set(Form), lungs=lungs)


def breaking(report: Report, form: Form, break_it: Callable[[Dataset], None]) -> Report:
    """The report with another object in the place of its first one in this form: a copy, which is broken."""
    broken = copy.deepcopy(report.objects[Part(form)])
    break_it(broken)
    if form is Form.SEG:
        return replace(report, segmentation=broken)
    if form is report.form:
        return replace(report, structured_report=broken)
    return replace(report, others={**report.others, Part(form): broken})


SITUATIONS: dict[str, Callable[[Path], Reading]] = {
    "three findings": reading_of,
    "one finding": lambda folder: reading_of(folder, CENTRES[:1]),
    "no finding": lambda folder: reading_of(folder, ()),
    "three findings on oblique slices": lambda folder: reading_of(folder, directions=OBLIQUE),
}


@pytest.fixture(scope="session")
def reading(tmp_path_factory: pytest.TempPathFactory) -> Reading:
    """A series with three findings."""
    return reading_of(tmp_path_factory.mktemp("reading"))


@pytest.fixture(scope="session")
def report(reading: Reading) -> Report:
    """The report on it; a test that changes an object changes a copy."""
    return reading.report()


@pytest.fixture(scope="session")
def whole(reading: Reading) -> Report:
    """The report on it in every form; not to be changed, either."""
    return in_every_form(reading)


@pytest.fixture(scope="session")
def files(report: Report) -> tuple[bytes, ...]:
    """The report's files: segmentation and structured report."""
    return tuple(as_file(dataset) for dataset in report.datasets)


@pytest.fixture(scope="session", params=SITUATIONS)
def any_reading(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Reading:
    """Every situation in turn."""
    return SITUATIONS[request.param](tmp_path_factory.mktemp("situation"))


@pytest.fixture(scope="session")
def any_report(any_reading: Reading) -> Report:
    """The report on it, not to be changed."""
    return any_reading.report()


@pytest.fixture(scope="session")
def any_whole(any_reading: Reading) -> Report:
    """The report on it in every form, not to be changed."""
    return in_every_form(any_reading)
