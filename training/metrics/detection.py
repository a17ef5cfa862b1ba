"""Free-response: how many nodules are found at how many false positives a scan, as LUNA16 counts.

A mark finds a nodule when its place is nearer to the nodule's centre than the nodule's radius. Of several marks on one
nodule the highest score counts, and none of them is false. Marks on irrelevant findings count as nothing. CPM is the
mean sensitivity at 1/8, 1/4, 1/2, 1, 2, 4 and 8 false positives a scan (Setio et al. 2017, doi
10.1016/j.media.2017.06.015). All places are patient mm.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training.metrics.bootstrap import Estimate, bootstrap

Array = NDArray[np.float64]
Point = tuple[float, float, float]

RATES = (0.125, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0)
#: What LUNA16 takes for the diameter of an irrelevant finding that has none.
IRRELEVANT_DIAMETER_MM = 10.0
MISSED = float("-inf")


@dataclass(frozen=True, kw_only=True)
class Mark:
    """A place that an algorithm points at."""

    centre_mm: Point
    score: float


@dataclass(frozen=True, kw_only=True)
class Target:
    """A finding of the truth."""

    centre_mm: Point
    #: Not above 0: not known.
    diameter_mm: float


@dataclass(frozen=True, kw_only=True)
class Scan:
    """What is in one scan and what was marked in it."""

    name: str
    patient: str
    marks: tuple[Mark, ...]
    nodules: tuple[Target, ...]
    #: Findings that are neither to be found nor false.
    irrelevant: tuple[Target, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Matched:
    """One scan counted."""

    patient: str
    #: The highest score on each nodule, MISSED where no mark is on it.
    nodule_scores: tuple[float, ...]
    false_scores: tuple[float, ...]
    #: Of the marks, which are false: their indices.
    false_marks: tuple[int, ...] = ()
    #: How much of a scan was looked at, where it was not all.
    share: float = 1.0


def match(scan: Scan) -> Matched:
    """Count a scan's marks."""
    places = np.array([mark.centre_mm for mark in scan.marks], dtype=float).reshape(-1, 3)
    scores = np.array([mark.score for mark in scan.marks], dtype=float)
    on_nodules = [_on(places, nodule.centre_mm, nodule.diameter_mm) for nodule in scan.nodules]
    found = tuple(float(scores[on].max()) if on.any() else MISSED for on in on_nodules)
    used = np.zeros(len(scores), dtype=bool)
    for on in on_nodules:
        used |= on
    for finding in scan.irrelevant:
        diameter = finding.diameter_mm if finding.diameter_mm > 0 else IRRELEVANT_DIAMETER_MM
        used |= _on(places, finding.centre_mm, diameter)
    false = np.flatnonzero(~used)
    return Matched(
        patient=scan.patient,
        nodule_scores=found,
        false_scores=tuple(float(score) for score in scores[false]),
        false_marks=tuple(int(n) for n in false),
    )


@dataclass(frozen=True, kw_only=True)
class Froc:
    """Operating points from the strictest threshold to the loosest."""

    false_positives: Array  #: a scan, rising from 0
    sensitivity: Array  #: rising
    nodules: int
    scans: float

    def sensitivity_at(self, rate: float) -> float:
        """Sensitivity at a rate of false positives a scan, linear between operating points; nan without nodules."""
        if not self.nodules:
            return float("nan")
        return float(np.interp(rate, self.false_positives, self.sensitivity))

    @property
    def cpm(self) -> float:
        """The mean sensitivity at the seven rates."""
        return float(np.mean([self.sensitivity_at(rate) for rate in RATES]))


def froc(scans: Sequence[Matched]) -> Froc:
    """The curve over scans."""
    if not scans:
        raise ValueError("no scan was read: there is no curve to draw")
    return _froc(
        np.array([score for scan in scans for score in scan.nodule_scores], dtype=float),
        np.array([score for scan in scans for score in scan.false_scores], dtype=float),
        sum(scan.share for scan in scans),
    )


def _froc(nodules: Array, false: Array, scans: float) -> Froc:
    thresholds = np.unique(np.concatenate([nodules[nodules > MISSED], false]))[::-1]
    # How many scores are at least the threshold: of the negated ones, sorted, those up to its negative.
    found = np.searchsorted(np.sort(-nodules), -thresholds, side="right")
    wrong = np.searchsorted(np.sort(-false), -thresholds, side="right")
    return Froc(
        false_positives=np.concatenate([[0.0], wrong / scans]),
        sensitivity=np.concatenate([[0.0], found / max(len(nodules), 1)]),
        nodules=len(nodules),
        scans=scans,
    )


def estimates(scans: Sequence[Matched], *, seed: int = 0, replicates: int = 1000) -> dict[str, Estimate]:
    """CPM and the sensitivity at each of its rates, with intervals by patient."""
    nodules = [np.array(scan.nodule_scores, dtype=float) for scan in scans]
    false = [np.array(scan.false_scores, dtype=float) for scan in scans]
    patients = [scan.patient for scan in scans]
    shares = np.array([scan.share for scan in scans])

    def curve(cases: NDArray[np.int_]) -> Froc:
        some, wrong = (np.concatenate([scores[n] for n in cases]) for scores in (nodules, false))
        return _froc(some, wrong, float(shares[cases].sum()))

    def at(rate: float) -> Callable[[NDArray[np.int_]], float]:
        return lambda cases: curve(cases).sensitivity_at(rate)

    found = {"CPM": bootstrap(lambda cases: curve(cases).cpm, patients, seed=seed, replicates=replicates)}
    for rate in RATES:
        found[f"sensitivity at {rate:g} false positives a scan"] = bootstrap(
            at(rate), patients, seed=seed, replicates=replicates
        )
    return found


def _on(places: Array, centre: Point, diameter_mm: float) -> NDArray[np.bool_]:
    return np.asarray(np.linalg.norm(places - np.asarray(centre), axis=1) < diameter_mm / 2)
