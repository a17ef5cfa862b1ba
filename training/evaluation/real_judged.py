"""A real scan read as the node reads it, and its findings counted against what readers outlined."""

from dataclasses import dataclass

import numpy as np

from dicom_node.core.finding import Finding
from training.evaluation.judged import Read, Sight, sight
from training.evaluation.real_scans import READERS_WANTED, RealNodule, RealScan
from training.evaluation.report import RealFound
from training.metrics.detection import MISSED, Mark, Matched, Scan, Target, match
from training.metrics.outlines import dice
from workers.algorithms import Reading
from workers.preprocessing import GRID_MM, normalise, resample

#: An outline's centre may lie so far off in a slice of 5 mm: nodules of readers are found within their radius, or this.
_LEAST_DIAMETER_MM = 6.0


@dataclass(frozen=True, kw_only=True)
class RealJudged:
    """A real scan counted."""

    name: str
    nodules: tuple[RealFound, ...]
    #: At the report threshold; marks on what one or two readers outlined are not among them.
    false_positives: int
    sights: tuple[Sight, ...]


def judge_real(scan: RealScan, read: Read, threshold: float) -> RealJudged:
    """Read a real scan; sights are those at the report threshold."""
    reading = read(scan.volume)
    marks = tuple(Mark(centre_mm=finding.centre, score=finding.score) for finding in reading.findings)
    targets = tuple(
        Target(centre_mm=n.centre_mm, diameter_mm=max(n.diameter_mm, _LEAST_DIAMETER_MM)) for n in scan.nodules
    )
    matched = match(Scan(name=scan.name, patient=scan.name, marks=marks, nodules=targets))
    found = tuple(_found(scan, n, s, reading) for n, s in zip(scan.nodules, matched.nodule_scores, strict=True))
    return RealJudged(
        name=scan.name,
        nodules=found,
        false_positives=sum(score >= threshold for score in matched.false_scores),
        sights=tuple(_sights(scan, reading, matched, threshold)),
    )


def _found(scan: RealScan, nodule: RealNodule, score: float, reading: Reading) -> RealFound:
    overlap = float("nan")
    if nodule.mask is not None and score > MISSED:
        number = next(finding.number for finding in reading.findings if finding.score == score)
        overlap = dice(reading.labels == number, nodule.mask)
    return RealFound(
        scan=scan.name,
        name=nodule.name,
        readers=nodule.readers,
        diameter_mm=nodule.diameter_mm,
        score=score,
        dice=overlap,
    )


def _sights(scan: RealScan, reading: Reading, matched: Matched, threshold: float) -> list[Sight]:
    values = normalise(resample(scan.volume.voxels, scan.volume.spacing_mm))
    kept = [finding.number for finding in reading.findings if finding.score >= threshold]
    ours = resample(np.isin(reading.labels, kept).astype(np.float32), scan.volume.spacing_mm) > 0.5
    truth = np.zeros(values.shape, dtype=bool)
    seen = []
    for nodule, score in zip(scan.nodules, matched.nodule_scores, strict=True):
        if score < threshold and nodule.readers >= READERS_WANTED:
            words = f"{scan.name}: missed, {nodule.name}, {nodule.readers} readers, {nodule.diameter_mm:.1f} mm"
            place = _on_grid(scan, nodule.centre_mm)
            seen.append(sight(words, scan.name, max(score, 0.0), True, place, values, truth, ours))
    for n in matched.false_marks:
        finding: Finding = reading.findings[n]
        if finding.score >= threshold:
            words = f"{scan.name}: false positive, score {finding.score:.2f}"
            place = _on_grid(scan, finding.centre)
            seen.append(sight(words, scan.name, finding.score, False, place, values, truth, ours))
    return seen


def _on_grid(scan: RealScan, place: tuple[float, float, float]) -> tuple[int, int, int]:
    index = np.linalg.solve(scan.volume.affine, (*place, 1.0))[2::-1]
    k, j, i = (round(float(at)) for at in index * scan.volume.spacing_mm / GRID_MM)
    return k, j, i
