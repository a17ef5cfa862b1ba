"""Yes or no, against the truth: counts at a threshold, and curves over all thresholds.

Truth and scores are arrays [case]; truth is 1 or 0, a score of at least the threshold is a yes. A figure that no case
defines, such as the sensitivity without a single positive, is nan.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import precision_recall_curve, roc_curve

from training.metrics.bootstrap import Estimate, bootstrap

Array = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Counts:
    """The four cells of a two-by-two table."""

    true_positives: int
    false_positives: int
    true_negatives: int
    false_negatives: int

    @classmethod
    def at(cls, threshold: float, truth: Array, score: Array) -> "Counts":
        """The cells at a threshold."""
        said, there = np.asarray(score) >= threshold, np.asarray(truth) > 0.5
        return cls(
            true_positives=int((said & there).sum()),
            false_positives=int((said & ~there).sum()),
            true_negatives=int((~said & ~there).sum()),
            false_negatives=int((~said & there).sum()),
        )

    @property
    def accuracy(self) -> float:
        """Share of cases that are said rightly."""
        right = self.true_positives + self.true_negatives
        return _share(right, right + self.false_positives + self.false_negatives)

    @property
    def sensitivity(self) -> float:
        """Share of what is there that is said to be; also called recall."""
        return _share(self.true_positives, self.true_positives + self.false_negatives)

    @property
    def specificity(self) -> float:
        """Share of what is not there that is said not to be."""
        return _share(self.true_negatives, self.true_negatives + self.false_positives)

    @property
    def precision(self) -> float:
        """Share of what is said to be there that is; also called positive predictive value."""
        return _share(self.true_positives, self.true_positives + self.false_positives)

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and sensitivity."""
        return _share(2 * self.true_positives, 2 * self.true_positives + self.false_positives + self.false_negatives)

    @property
    def balanced_accuracy(self) -> float:
        """Mean of sensitivity and specificity."""
        return (self.sensitivity + self.specificity) / 2


#: Figures at a threshold by the name that a report gives them.
AT_THRESHOLD: Mapping[str, Callable[[Counts], float]] = {
    "accuracy": lambda counts: counts.accuracy,
    "balanced accuracy": lambda counts: counts.balanced_accuracy,
    "sensitivity": lambda counts: counts.sensitivity,
    "specificity": lambda counts: counts.specificity,
    "precision": lambda counts: counts.precision,
    "F1": lambda counts: counts.f1,
}


def auc(truth: Array, score: Array) -> float:
    """Area under the ROC curve; nan unless both classes are there.

    The share of pairs of a positive and a negative that are in order, of equal ones the half.
    """
    there, said = _by_score(truth, score)
    not_there = said - there
    pairs = there.sum() * not_there.sum()
    below = not_there.sum() - not_there.cumsum()
    return float((there * (below + 0.5 * not_there)).sum() / pairs) if pairs else float("nan")


def average_precision(truth: Array, score: Array) -> float:
    """Area under the precision-recall curve as a sum of steps; nan without positives."""
    there, said = _by_score(truth, score)
    if not there.any():
        return float("nan")
    return float((there * there.cumsum() / said.cumsum()).sum() / there.sum())


#: Figures over all thresholds.
OVER_THRESHOLDS: Mapping[str, Callable[[Array, Array], float]] = {"AUC": auc, "average precision": average_precision}


def roc(truth: Array, score: Array) -> tuple[Array, Array]:
    """False positive and true positive rates, both rising from 0 to 1; empty unless both classes are there."""
    if not _both(truth):
        return np.zeros(0), np.zeros(0)
    false, true, _ = roc_curve(truth, score)
    return np.asarray(false), np.asarray(true)


def precision_recall(truth: Array, score: Array) -> tuple[Array, Array]:
    """Recall, rising, and the precision at it; empty without positives."""
    if not np.any(np.asarray(truth) > 0.5):
        return np.zeros(0), np.zeros(0)
    precision, recall, _ = precision_recall_curve(truth, score)
    return np.asarray(recall[::-1]), np.asarray(precision[::-1])


def estimates(
    truth: Array,
    score: Array,
    threshold: float,
    patients: Sequence[str],
    *,
    ranked: Array | None = None,
    seed: int = 0,
    replicates: int = 1000,
) -> dict[str, Estimate]:
    """Every figure of this module with its interval by patient.

    `ranked` is what figures over all thresholds are of, where that is not the score: a calibration by steps makes
    different scores equal, and the order that the network saw is lost.
    """
    order = score if ranked is None else ranked

    def at(figure: Callable[[Counts], float]) -> Callable[[NDArray[np.int_]], float]:
        return lambda cases: figure(Counts.at(threshold, truth[cases], score[cases]))

    def over(figure: Callable[[Array, Array], float]) -> Callable[[NDArray[np.int_]], float]:
        return lambda cases: figure(truth[cases], order[cases])

    statistics = {name: over(figure) for name, figure in OVER_THRESHOLDS.items()}
    statistics |= {name: at(figure) for name, figure in AT_THRESHOLD.items()}
    return {
        name: bootstrap(statistic, patients, seed=seed, replicates=replicates) for name, statistic in statistics.items()
    }


def threshold_for_sensitivity(truth: Array, score: Array, wanted: float) -> float:
    """The highest threshold at which at least this share of the positives is found."""
    positives = np.sort(np.asarray(score)[np.asarray(truth) > 0.5])[::-1]
    if not len(positives):
        raise ValueError("no threshold can be set on data without a single positive")
    needed = max(1, int(np.ceil(wanted * len(positives) - 1e-9)))
    return float(positives[needed - 1])


def threshold_of_both(truth: Array, score: Array) -> float:
    """The threshold at which sensitivity and specificity add up to the most; between two scores, halfway."""
    if not _both(truth):
        raise ValueError("no threshold can be set on data of one class")
    false, true, thresholds = roc_curve(truth, score, drop_intermediate=False)
    best = int(np.argmax(true - false))
    below = score[score < thresholds[best]]
    return float((thresholds[best] + below.max()) / 2) if below.size else float(thresholds[best])


def _by_score(truth: Array, score: Array) -> tuple[Array, Array]:
    """Of each score, from the highest on: how many positives have it, and how many cases.

    In plain sums: a bootstrap asks for these areas thousands of times.
    """
    _, place = np.unique(-np.asarray(score), return_inverse=True)
    positive = np.asarray(truth) > 0.5
    return np.bincount(place, weights=positive).astype(np.float64), np.bincount(place).astype(np.float64)


def _share(part: int, whole: int) -> float:
    return part / whole if whole else float("nan")


def _both(truth: Array) -> bool:
    there = np.asarray(truth) > 0.5
    return bool(there.any() and not there.all())
