"""Intervals by patient: what a figure would be had other patients of the same kind come."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

#: A figure of the cases with these indices; nan where they do not define it.
Statistic = Callable[[NDArray[np.int_]], float]

REPLICATES = 1000
LEVEL = 0.95
#: With fewer defined replicates than this share, the interval would speak of those alone.
_LEAST_DEFINED = 0.9


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A figure and its interval."""

    value: float
    #: Ends of the interval; nan where there are too few patients to say.
    low: float
    high: float
    #: How many cases, and of how many patients.
    cases: int
    patients: int

    def __str__(self) -> str:
        if np.isnan(self.value):
            return "not defined"
        if np.isnan(self.low):
            return f"{self.value:.3f} (no interval)"
        return f"{self.value:.3f} ({self.low:.3f} to {self.high:.3f})"


def bootstrap(
    statistic: Statistic,
    patients: Sequence[str],
    *,
    seed: int = 0,
    replicates: int = REPLICATES,
    level: float = LEVEL,
) -> Estimate:
    """The figure of all cases with its percentile interval: patients are drawn with replacement, with all their cases.

    `patients` names the patient of each case. The same seed gives the same interval.
    """
    names, owner = np.unique(np.asarray(patients), return_inverse=True)
    by_patient, counts = np.argsort(owner, kind="stable"), np.bincount(owner)
    starts = counts.cumsum() - counts
    value = float(statistic(np.arange(len(owner))))
    rng = np.random.default_rng(seed)
    said = np.full(replicates, np.nan)
    if len(names) > 1:
        for n in range(replicates):
            drawn = rng.integers(len(names), size=len(names))
            ends = counts[drawn].cumsum()
            # Patient after patient, the places of each one's cases.
            places = np.arange(ends[-1]) + np.repeat(starts[drawn] - (ends - counts[drawn]), counts[drawn])
            said[n] = statistic(by_patient[places])
    defined = said[~np.isnan(said)]
    interval = (np.nan, np.nan)
    if len(defined) >= max(1.0, _LEAST_DEFINED * replicates):
        tail = (1 - level) / 2
        interval = (float(np.quantile(defined, tail)), float(np.quantile(defined, 1 - tail)))
    return Estimate(value=value, low=interval[0], high=interval[1], cases=len(owner), patients=len(names))
