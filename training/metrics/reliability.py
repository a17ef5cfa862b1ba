"""Whether a probability means what it says: expected calibration error, and the curve behind it."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training.metrics.bootstrap import Estimate, bootstrap

Array = NDArray[np.float64]

BINS = 10


@dataclass(frozen=True, kw_only=True)
class Reliability:
    """By bin of equal width, of those that hold a case: what was said, what was so, and of how many."""

    said: Array
    observed: Array
    cases: NDArray[np.int_]

    @property
    def error(self) -> float:
        """Expected calibration error: the mean difference of said and observed, weighted by cases."""
        return float((np.abs(self.said - self.observed) * self.cases).sum() / self.cases.sum())


def reliability(truth: Array, probability: Array, bins: int = BINS) -> Reliability:
    """The curve of probabilities 0..1 against truth 1 or 0."""
    p, t = np.asarray(probability, dtype=float), np.asarray(truth, dtype=float)
    if not len(p) or p.min() < 0 or p.max() > 1:
        raise ValueError("a reliability curve takes probabilities of 0 to 1, and at least one")
    which = np.minimum((p * bins).astype(int), bins - 1)
    cases = np.bincount(which, minlength=bins)
    held = cases > 0
    return Reliability(
        said=np.bincount(which, weights=p, minlength=bins)[held] / cases[held],
        observed=np.bincount(which, weights=t, minlength=bins)[held] / cases[held],
        cases=cases[held],
    )


def calibration_error(
    truth: Array, probability: Array, patients: Sequence[str], *, seed: int = 0, replicates: int = 1000
) -> Estimate:
    """Expected calibration error with its interval by patient; it is never below 0, and few cases raise it."""
    return bootstrap(
        lambda cases: reliability(truth[cases], probability[cases]).error, patients, seed=seed, replicates=replicates
    )
