"""Calibration fitted on validation data: by whichever method predicts better.

The choice is by negative log-likelihood on folds of patients that the fit did not see. How it is applied, and kept in
metadata.json, `workers.calibration` says for training and serving alike.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize, minimize_scalar
from sklearn.isotonic import IsotonicRegression
from sklearn.model_selection import GroupKFold

from workers.calibration import Calibration, logit, sigmoid

Array = NDArray[np.float64]

#: No probability is nearer to 0 or 1: one wrong certainty would cost an infinite likelihood.
LEAST = 1e-4
_FOLDS = 5
#: Where candidates are ranked before they are calibrated; steps are then no loss.
FOR_DETECTORS = ("temperature", "isotonic")
#: Where what is said is the calibrated probability itself, no step may make two scores one.
FOR_CLASSIFIERS = ("temperature", "platt")


def fit(
    probability: Array, truth: Array, patients: Sequence[str], *, methods: Sequence[str] = FOR_DETECTORS
) -> Calibration:
    """The best of some methods, fitted on all cases and judged on folds by patient."""
    held = {method: np.empty(len(truth)) for method in methods}
    folds = GroupKFold(n_splits=min(_FOLDS, len(set(patients))))
    for learning, judged in folds.split(probability, truth, groups=list(patients)):
        for method in methods:
            held[method][judged] = _FITS[method](probability[learning], truth[learning])(probability[judged])
    likelihoods = {"none": negative_log_likelihood(probability, truth)}
    likelihoods |= {method: negative_log_likelihood(said, truth) for method, said in held.items()}
    best = min(methods, key=likelihoods.__getitem__)
    chosen = _FITS[best](probability, truth)
    rounded = {name: round(value, 5) for name, value in likelihoods.items()}
    return Calibration(
        method=best,
        temperature=chosen.temperature,
        shift=chosen.shift,
        x=chosen.x,
        y=chosen.y,
        likelihoods=rounded,
        cases=len(truth),
    )


def negative_log_likelihood(probability: Array, truth: Array) -> float:
    """Mean over cases, in nats; probabilities are held off 0 and 1 by `LEAST`."""
    p = np.clip(probability, LEAST, 1 - LEAST)
    return float(-np.mean(truth * np.log(p) + (1 - truth) * np.log1p(-p)))


def _temperature(probability: Array, truth: Array) -> Calibration:
    logits = logit(probability)
    found = minimize_scalar(
        lambda log: negative_log_likelihood(sigmoid(logits / np.exp(log)), truth), bounds=(-3.0, 3.0), method="bounded"
    )
    return Calibration(method="temperature", temperature=float(np.exp(found.x)))


def _platt(probability: Array, truth: Array) -> Calibration:
    logits = logit(probability)

    def likelihood(parameters: Array) -> float:
        return negative_log_likelihood(sigmoid(logits / np.exp(parameters[0]) + parameters[1]), truth)

    found = minimize(likelihood, x0=(0.0, 0.0), method="Nelder-Mead")
    return Calibration(method="platt", temperature=float(np.exp(found.x[0])), shift=float(found.x[1]))


def _isotonic(probability: Array, truth: Array) -> Calibration:
    fitted = IsotonicRegression(y_min=LEAST, y_max=1 - LEAST, out_of_bounds="clip").fit(probability, truth)
    return Calibration(
        method="isotonic", x=tuple(map(float, fitted.X_thresholds_)), y=tuple(map(float, fitted.y_thresholds_))
    )


_FITS = {"temperature": _temperature, "platt": _platt, "isotonic": _isotonic}
