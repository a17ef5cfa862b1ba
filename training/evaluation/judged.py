"""One volume read as the node reads it, and its findings counted against the truth."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset
from scipy import ndimage

from dicom_node.core.finding import Finding
from training.augmentation import Slices
from training.evaluation.drawn_scans import DrawnScan
from training.metrics.detection import MISSED, Mark, Matched, Scan, Target, match
from workers.algorithms import Reading
from workers.preprocessing import GRID_MM, normalise
from workers.volume import Region, Volume

Floats = NDArray[np.float32]
Mask = NDArray[np.bool_]
#: The algorithm at work: a series in, findings with scores from the candidate threshold upwards out.
Read = Callable[[Volume], Reading]

#: A scan is counted as so much lung: volumes hold less or more.
SCAN_ML = 4000.0
_SEEN = 26  #: voxels shown to every side


@dataclass(frozen=True, kw_only=True)
class Sight:
    """A miss or a false positive in three planes."""

    words: str
    scan: str
    score: float
    is_miss: bool
    #: [row, column] 0..1 with both outlines: axial, coronal, sagittal side by side.
    values: Floats
    truth: Mask
    ours: Mask


@dataclass(frozen=True, kw_only=True)
class Nodule:
    """A nodule of the truth, and what was said of it."""

    scan: str
    background: str
    kind: str
    diameter_mm: float
    volume_mm3: float
    slice_thickness_mm: float
    score: float
    #: nan where it was not found.
    dice: float
    measured_mm3: float
    #: What the finding was said to consist of; empty where nothing was said.
    composition: str


@dataclass(frozen=True, kw_only=True)
class Judged:
    """A volume counted."""

    matched: Matched
    nodules: tuple[Nodule, ...]
    sights: tuple[Sight, ...]
    lung_ml: float


def as_volume(hu: Floats) -> Volume:
    """HU on the shared grid as the algorithm takes a series: axial, head upwards."""
    return as_series(Slices(hu=hu, first=0.0, step=1.0))


def as_series(slices: Slices) -> Volume:
    """Slices as the algorithm takes a series, in the mm of the grid that they were taken from."""
    dz, dy, dx = GRID_MM
    headers = []
    for k in range(len(slices.hu)):
        header = Dataset()
        header.SOPInstanceUID = f"2.25.{k + 1}"
        headers.append(header)
    affine = np.diag([dx, dy, dz * slices.step, 1.0])
    affine[2, 3] = slices.first * dz
    return Volume(voxels=slices.hu, affine=affine, spacing_mm=(dz * slices.step, dy, dx), headers=tuple(headers))


def judge(drawn: DrawnScan, read: Read, report_threshold: float) -> Judged:
    """Read a drawn volume; sights are those at the report threshold."""
    reading = _on_grid(read(as_series(drawn.slices)), drawn)
    findings = reading.findings
    scan = Scan(
        name=drawn.name,
        patient=drawn.background,
        marks=tuple(Mark(centre_mm=finding.centre, score=finding.score) for finding in findings),
        nodules=tuple(Target(centre_mm=_centre(n.region), diameter_mm=n.diameter_mm) for n in drawn.nodules),
    )
    searched = reading.searched if reading.searched is not None else drawn.judged
    lung_ml = float((searched & drawn.judged).sum() * np.prod(GRID_MM) / 1000)
    matched = _counted(match(scan), findings, drawn.judged, lung_ml)
    return Judged(
        matched=matched,
        nodules=tuple(_nodules(drawn, findings, reading, matched)),
        sights=tuple(_sights(drawn, findings, reading, matched, report_threshold)),
        lung_ml=lung_ml,
    )


def _on_grid(reading: Reading, drawn: DrawnScan) -> Reading:
    """The reading with what it outlined and where it searched on the grid of the truth: each level has the nearest."""
    levels, first, step = np.arange(len(drawn.judged)), drawn.slices.first, drawn.slices.step
    of_slices = np.round((levels - first) / step).astype(int).clip(0, len(reading.labels) - 1)
    searched = None if reading.searched is None else searched_of(drawn, reading.searched)
    return replace(reading, labels=reading.labels[of_slices], searched=searched)


def searched_of(drawn: DrawnScan, searched: Mask) -> Mask:
    """A mask over the algorithm's own grid, which begins at the first slice, on the grid of the truth."""
    levels = np.round(np.arange(len(drawn.judged)) - drawn.slices.first).astype(int)
    return searched[levels.clip(0, len(searched) - 1)]


def _counted(matched: Matched, findings: Sequence[Finding], judged: Mask, lung_ml: float) -> Matched:
    """What lies elsewhere is not false, but is right where it is on a nodule: those at the edge reach beyond it."""
    false = tuple(n for n in matched.false_marks if _within(findings[n], judged))
    scores = tuple(findings[n].score for n in false)
    return replace(matched, false_marks=false, false_scores=scores, share=lung_ml / SCAN_ML)


def _within(finding: Finding, judged: Mask) -> bool:
    k, j, i = (int(np.clip(at, 0, n - 1)) for at, n in zip(_voxel(finding.centre), judged.shape, strict=True))
    return bool(judged[k, j, i])


def _voxel(place: tuple[float, float, float]) -> tuple[int, int, int]:
    k, j, i = (round(at / mm) for at, mm in zip(place[::-1], GRID_MM, strict=True))
    return k, j, i


def _centre(region: Region) -> tuple[float, float, float]:
    k, j, i = (np.argwhere(region.mask).mean(axis=0) + [part.start for part in region.box]) * GRID_MM
    return float(i), float(j), float(k)


def _nodules(drawn: DrawnScan, findings: Sequence[Finding], reading: Reading, matched: Matched) -> list[Nodule]:
    """Each nodule with the finding that covers most of it."""
    rows = []
    for nodule, score in zip(drawn.nodules, matched.nodule_scores, strict=True):
        volume = float(nodule.region.mask.sum() * np.prod(GRID_MM))
        numbers = reading.labels[nodule.region.box][nodule.region.mask]
        number = int(np.bincount(numbers[numbers > 0]).argmax()) if (numbers > 0).any() else 0
        found = next((finding for finding in findings if finding.number == number), None) if score > MISSED else None
        shared = int((numbers == number).sum())
        ours = int((reading.labels == number).sum()) if found else 0
        rows.append(
            Nodule(
                scan=drawn.name,
                background=drawn.background,
                kind=nodule.kind,
                diameter_mm=nodule.diameter_mm,
                volume_mm3=volume,
                slice_thickness_mm=drawn.slice_thickness_mm,
                score=score,
                dice=2 * shared / (ours + int(nodule.region.mask.sum())) if found else float("nan"),
                measured_mm3=found.volume_mm3 if found else float("nan"),
                composition=found.composition.value if found and found.composition else "",
            )
        )
    return rows


def _sights(
    drawn: DrawnScan, findings: Sequence[Finding], reading: Reading, matched: Matched, threshold: float
) -> list[Sight]:
    values, truth = normalise(drawn.hu), np.zeros(drawn.hu.shape, dtype=bool)
    for nodule in drawn.nodules:
        truth[nodule.region.box] |= nodule.region.mask
    kept = [0, *(finding.number for finding in findings if finding.score >= threshold)]
    ours = np.isin(reading.labels, kept[1:])
    seen = []
    for nodule, score in zip(drawn.nodules, matched.nodule_scores, strict=True):
        if score < threshold:
            said = "not marked" if score == MISSED else f"score {score:.2f}"
            words = f"{drawn.name}: missed, {nodule.kind}, {nodule.diameter_mm:.1f} mm, {said}"
            place = _voxel(_centre(nodule.region))
            seen.append(sight(words, drawn.name, max(score, 0.0), True, place, values, truth, ours))
    for n in matched.false_marks:
        finding = findings[n]
        if finding.score >= threshold:
            words = f"{drawn.name} ({drawn.background}): false positive, score {finding.score:.2f}"
            seen.append(sight(words, drawn.name, finding.score, False, _voxel(finding.centre), values, truth, ours))
    return seen


def sight(
    words: str, scan: str, score: float, is_miss: bool, centre: tuple[int, int, int], values: Floats, truth: Mask,
    ours: Mask,
) -> Sight:  # fmt: skip
    """What lies around a voxel, in three planes."""
    return Sight(
        words=words,
        scan=scan,
        score=score,
        is_miss=is_miss,
        values=_planes(values, centre).astype(np.float32),
        truth=_planes(truth, centre) > 0.5,
        ours=_planes(ours, centre) > 0.5,
    )


def _planes(values: NDArray[np.generic], centre: tuple[int, int, int]) -> Floats:
    """Axial, coronal and sagittal slices through a voxel of the grid, each a square of as many mm."""
    padded = np.pad(values, _SEEN)
    k, j, i = (int(np.clip(at, 0, n - 1)) + _SEEN for at, n in zip(centre, values.shape, strict=True))
    rows, columns = slice(j - _SEEN, j + _SEEN), slice(i - _SEEN, i + _SEEN)
    reach = round(_SEEN * GRID_MM[1] / GRID_MM[0])
    levels = slice(k + reach, k - reach, -1)
    upright = [
        ndimage.zoom(plane.astype(np.float32), (2 * _SEEN / plane.shape[0], 1), order=1, grid_mode=True, mode="nearest")
        for plane in (padded[levels, j, columns], padded[levels, rows, i])
    ]
    return np.hstack([padded[k, rows, columns].astype(np.float32), *upright])
