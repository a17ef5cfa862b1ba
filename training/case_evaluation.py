"""A detector judged on whole scans of patients who never taught: where it points, what it outlines."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from tqdm import tqdm

from training.case_patches import GridCase
from training.evaluate import Detector, Sight, sight
from training.metrics.detection import Mark, Matched, Scan, match
from training.metrics.outlines import dice
from workers.preprocessing import Candidate, Mask, candidates, normalise


@dataclass(frozen=True, kw_only=True)
class CaseResult:
    """What a detector said of one scan."""

    scan: Scan
    matched: Matched
    #: Dice coefficient of each nodule that was found, with its outline on the grid.
    dice: tuple[float, ...]


def judge(
    detect: Detector,
    cases: Sequence[GridCase],
    lowest: float,
    see: Callable[[Sight], None] = lambda _sight: None,
) -> tuple[CaseResult, ...]:
    """Each scan of a held-out patient; lowest is the candidate threshold, `see` is shown misses and false positives."""
    judging = [case for case in cases if case.held_out]
    if not judging:
        raise ValueError(f"of {len(cases)} scans none may judge: all belong to patients who teach; add more scans")
    return tuple(_judged(detect, case, lowest, see) for case in tqdm(judging, desc="evaluate"))


def _judged(detect: Detector, case: GridCase, lowest: float, see: Callable[[Sight], None]) -> CaseResult:
    values = normalise(np.asarray(case.hu, dtype=np.float32))
    lungs = np.asarray(case.lung)
    probability = detect(values, lungs)
    regions = candidates(probability, lungs, lowest)
    scan = Scan(
        name=case.name,
        patient=case.patient,
        marks=tuple(Mark(centre_mm=_centre(region, case), score=region.score) for region in regions),
        nodules=case.findings,
        irrelevant=case.irrelevant,
    )
    matched = match(scan)
    truth, ours = np.asarray(case.nodules), probability > lowest
    for n in matched.false_marks:
        see(
            sight(
                f"false positive, score {regions[n].score:.2f}", regions[n].score, regions[n].peak, values, truth, ours
            )
        )
    for finding, score in zip(case.findings, matched.nodule_scores, strict=True):
        if not np.isfinite(score):
            k, j, i = (round(at) for at in (np.linalg.inv(case.affine) @ (*finding.centre_mm, 1.0))[2::-1])
            see(sight(f"missed: {finding.diameter_mm:.1f} mm", 1.0, (k, j, i), values, truth, ours))
    return CaseResult(scan=scan, matched=matched, dice=tuple(_overlaps(regions, truth)))


def _centre(region: Candidate, case: GridCase) -> tuple[float, float, float]:
    place = np.argwhere(region.mask).mean(axis=0) + [s.start for s in region.region]
    return case.to_patient(*place[::-1])


def _overlaps(regions: Sequence[Candidate], truth: Mask) -> list[float]:
    """Of each nodule of the truth that a candidate touches, the best Dice coefficient with one."""
    labels, count = ndimage.label(truth, structure=np.ones((3, 3, 3)))
    sizes = np.bincount(labels.ravel(), minlength=count + 1)
    best: dict[int, float] = {}
    for region in regions:
        inside = labels[region.region]
        for number in np.unique(inside[region.mask]):
            if number:
                part = dice(region.mask, inside == number)
                # What of the nodule lies outside of the candidate's box counts, too.
                both = region.mask.sum() + (inside == number).sum()
                whole = part * both / (region.mask.sum() + sizes[number])
                best[int(number)] = max(best.get(int(number), 0.0), float(whole))
    return list(best.values())


def scores(results: Sequence[CaseResult]) -> tuple[NDArray[np.float64], NDArray[np.float64], list[str]]:
    """Of every candidate that counts: its score, whether it is a nodule, and its patient."""
    rows = [
        (score, truth, result.scan.patient)
        for result in results
        for found, truth in ((result.matched.nodule_scores, 1.0), (result.matched.false_scores, 0.0))
        for score in found
        if np.isfinite(score)
    ]
    return np.array([row[0] for row in rows]), np.array([row[1] for row in rows]), [row[2] for row in rows]
