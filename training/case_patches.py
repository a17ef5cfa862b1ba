"""Scans with findings, as they come, made ready to learn from and to be judged on: the shared grid, lungs, masks.

A fifth of the patients judges and never teaches, by the hash that stands for the patient. What was made ready is kept
on the disk and read from there, since hundreds of scans do not fit into memory.
"""

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from training.augmentation import aerate, scan
from training.cases.case import Affine, Annotation, Case, Point
from training.cases.layouts import read_cases
from training.dataset import Patch
from training.dataset import synthetic as drawn
from training.metrics.detection import IRRELEVANT_DIAMETER_MM, Target
from workers.preprocessing import (
    GRID_MM,
    Mask,
    Volume,
    grid_shape,
    interpolation_weights,
    lung_mask,
    normalise,
    resample,
    resample_onto,
)

#: Counts up with each change of what a case is made ready to.
_MADE = 2
_ARRAYS = ("hu", "lung", "nodules", "counts")
#: A patch looks for a nodule so often; else it lies anywhere in the lungs.
_AT_NODULE = 0.5
_JITTER = 12  #: voxels that a patch may lie off its nodule's centre


@dataclass(frozen=True, kw_only=True)
class GridCase:
    """A case on the shared grid."""

    name: str
    patient: str
    affine: Affine  #: 4x4: (i, j, k, 1) of the grid to LPS mm
    hu: NDArray[np.int16]
    lung: Mask
    nodules: Mask
    counts: Mask  #: voxels that carry loss: not those of irrelevant findings
    findings: tuple[Target, ...]
    irrelevant: tuple[Target, ...]

    @property
    def held_out(self) -> bool:
        """Whether it judges; the same for all scans of a patient."""
        return int(self.patient, 16) % 5 == 0

    def to_patient(self, i: float, j: float, k: float) -> Point:
        """LPS mm of a place on the grid."""
        x, y, z = (float(value) for value in (self.affine @ (i, j, k, 1.0))[:3])
        return x, y, z


def on_grid(case: Case) -> GridCase:
    """A case made ready: resampled as serving resamples, lungs found, findings as masks."""
    hu = resample(case.voxels, case.spacing_mm)
    affine = case.affine.copy()
    affine[:3, :3] = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0) * np.array(GRID_MM[::-1])
    nodules = np.zeros(hu.shape, dtype=bool)
    for finding in case.findings:
        nodules |= _mask(finding, case, affine, hu.shape)
    ignored = np.zeros(hu.shape, dtype=bool)
    for finding in case.irrelevant:
        ignored |= _ball(finding.centre_mm, finding.diameter_mm or IRRELEVANT_DIAMETER_MM, affine, hu.shape)
    return GridCase(
        name=case.name,
        patient=case.patient,
        affine=affine,
        hu=np.round(hu).astype(np.int16),
        lung=lung_mask(hu, GRID_MM),
        nodules=nodules,
        counts=~ignored | nodules,
        findings=tuple(_target(finding) for finding in case.findings),
        irrelevant=tuple(_target(finding) for finding in case.irrelevant),
    )


def load_cases(data: Path, layout: str, cache: Path) -> list[GridCase]:
    """The cases of a data set, made ready once; their arrays stay on the disk until they are looked at.

    A file more, less, or written again makes another data set of it: nothing is read from what was made of the old one.
    """
    folder = cache / "cases" / identity(data, layout)
    if not (folder / "complete").is_file():
        for number, case in enumerate(read_cases(data, layout)):
            _keep(on_grid(case), folder / f"{number:05d}")
        (folder / "complete").touch()
    return [_kept(path.parent) for path in sorted(folder.glob("*/case.json"))]


def identity(data: Path, layout: str) -> str:
    """What a data set is told by: how it is read, and path, size and time of change of each of its files."""
    told = hashlib.sha256(f"{_MADE} {layout} {data.resolve()}\n".encode())
    for path in sorted(path for path in data.rglob("*") if path.is_file()):
        found = path.stat()
        told.update(f"{path.relative_to(data).as_posix()} {found.st_size} {found.st_mtime_ns}\n".encode())
    return told.hexdigest()[:16]


def synthetic(seed: int) -> list[GridCase]:
    """Toy scans with two balls each, of patients who teach and who judge, for a run of seconds without outside data."""
    made = []
    for number, patient in enumerate(("1", "2", "a", "f")):
        (toy,), _ = drawn(seed + number)
        affine = np.diag([*GRID_MM[::-1], 1.0])
        nodules = np.zeros(toy.hu.shape, dtype=bool)
        centres: tuple[Point, ...] = ((30.0, 50.0, 40.0), (92.0, 40.0 + 4 * number, 60.0))
        for centre in centres:
            nodules |= _ball(centre, 10.0, affine, toy.hu.shape)
        made.append(
            GridCase(
                name=f"toy {number}",
                patient=patient,
                affine=affine,
                hu=np.where(nodules, np.int16(40), toy.hu),
                lung=toy.lung | nodules,
                nodules=nodules,
                counts=np.ones(toy.hu.shape, dtype=bool),
                findings=tuple(Target(centre_mm=centre, diameter_mm=10.0) for centre in centres),
                irrelevant=(),
            )
        )
    return made


class CasePatches:
    """Patches of scans by number: the same seed and number give the same patch."""

    def __init__(self, cases: Sequence[GridCase], size: tuple[int, int, int], seed: int) -> None:
        self._cases = [case for case in cases if not case.held_out]
        if not self._cases:
            raise ValueError(f"of {len(cases)} scans none may teach: all belong to patients who judge; add more scans")
        self._size = np.array(size)
        self._seed = seed

    def __getitem__(self, number: int) -> Patch:
        rng = np.random.default_rng((self._seed, number))
        case = self._cases[int(rng.integers(len(self._cases)))]
        hu, nodules, counts = self._cut(case, self._place(case, rng), rng)
        return Patch(values=normalise(scan(aerate(hu, rng), rng)), nodules=nodules, counts=counts)

    def _place(self, case: GridCase, rng: Generator) -> NDArray[np.int_]:
        """The voxel [k, j, i] at a patch's middle."""
        if case.findings and rng.random() < _AT_NODULE:
            finding = case.findings[int(rng.integers(len(case.findings)))]
            middle = (np.linalg.inv(case.affine) @ (*finding.centre_mm, 1.0))[2::-1]
            return np.round(middle).astype(int) + rng.integers(-_JITTER, _JITTER + 1, size=3)
        voxels = np.flatnonzero(case.lung)
        if not len(voxels):
            return np.array(case.hu.shape) // 2
        return np.array(np.unravel_index(voxels[rng.integers(len(voxels))], case.hu.shape))

    def _cut(self, case: GridCase, centre: NDArray[np.int_], rng: Generator) -> tuple[Volume, Mask, Mask]:
        """The patch about a place, scaled and flipped; what lies outside of the scan repeats its border."""
        scales = rng.uniform(0.85, 1.15, size=3)
        flips = rng.random(3) < 0.5
        reads, weights = [], []
        for axis in range(3):
            target = int(self._size[axis])
            source = int(np.ceil((target - 1) * scales[axis])) + 2
            start = int(centre[axis]) - source // 2
            reads.append(np.clip(np.arange(start, start + source), 0, case.hu.shape[axis] - 1))
            matrix = interpolation_weights(source, target, float(scales[axis]), offset=float(rng.random()))
            weights.append(matrix[::-1] if flips[axis] else matrix)
        nearest = np.ix_(*(read[weight.argmax(axis=1)] for read, weight in zip(reads, weights, strict=True)))
        hu = case.hu[np.ix_(*reads)].astype(np.float32)
        for axis, weight in enumerate(weights):
            hu = np.moveaxis(np.tensordot(weight, hu, axes=(1, axis)), 0, axis)
        return np.ascontiguousarray(hu, dtype=np.float32), case.nodules[nearest], case.counts[nearest]


def _mask(finding: Annotation, case: Case, affine: Affine, shape: tuple[int, ...]) -> Mask:
    """A finding on the grid: its outline, or where there is none, the ball of its diameter."""
    if finding.region is None:
        return _ball(finding.centre_mm, finding.diameter_mm, affine, shape)
    whole = np.zeros(case.voxels.shape, dtype=np.float32)
    whole[finding.region.box] = finding.region.mask
    k, j, i = grid_shape(case.voxels.shape, case.spacing_mm)
    return np.asarray(resample_onto(whole, case.spacing_mm, GRID_MM, (k, j, i)) >= 0.5)


def _ball(centre_mm: Point, diameter_mm: float, affine: Affine, shape: tuple[int, ...]) -> Mask:
    """The voxels whose centres are within the radius; axes are at right angles, so distances are those of the grid."""
    centre = (np.linalg.inv(affine) @ (*centre_mm, 1.0))[2::-1]
    away = [((np.arange(n) - c) * step) ** 2 for n, c, step in zip(shape, centre, GRID_MM, strict=True)]
    return np.asarray(
        away[0][:, None, None] + away[1][None, :, None] + away[2][None, None, :] <= (diameter_mm / 2) ** 2
    )


def _target(finding: Annotation) -> Target:
    return Target(centre_mm=finding.centre_mm, diameter_mm=finding.diameter_mm)


def _keep(case: GridCase, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name in _ARRAYS:
        np.save(folder / f"{name}.npy", getattr(case, name))
    described = {
        "name": case.name,
        "patient": case.patient,
        "affine": case.affine.tolist(),
        "findings": [[*target.centre_mm, target.diameter_mm] for target in case.findings],
        "irrelevant": [[*target.centre_mm, target.diameter_mm] for target in case.irrelevant],
    }
    (folder / "case.json").write_text(json.dumps(described))


def _kept(folder: Path) -> GridCase:
    described = json.loads((folder / "case.json").read_text())
    return GridCase(
        name=described["name"],
        patient=described["patient"],
        affine=np.array(described["affine"]),
        findings=tuple(_targets(described["findings"])),
        irrelevant=tuple(_targets(described["irrelevant"])),
        **{name: np.load(folder / f"{name}.npy", mmap_mode="r") for name in _ARRAYS},
    )


def _targets(rows: Sequence[Sequence[float]]) -> Iterator[Target]:
    for x, y, z, diameter in rows:
        yield Target(centre_mm=(x, y, z), diameter_mm=diameter)
