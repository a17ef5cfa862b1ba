"""Calibration: what a score means, fitted on validation data; temperature or isotonic, whichever predicts better.

The choice is by negative log-likelihood on folds of patients that the fit did not see. It is kept in a bundle's
metadata.json as `calibration`, and is applied to the sigmoid of the network's logit.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from sklearn.isotonic import IsotonicRegression
from sklearn.model_selection import GroupKFold

Array = NDArray[np.float64]

METHODS = ("temperature", "isotonic")
#: No probability is nearer to 0 or 1: one wrong certainty would cost an infinite likelihood.
LEAST = 1e-4
_FOLDS = 5


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """A monotone map from a network's probability to a calibrated one."""

    method: str
    #: Temperature: what logits are divided by.
    temperature: float = 1.0
    #: Isotonic: probabilities, rising, and what they become; linear between them.
    x: tuple[float, ...] = ()
    y: tuple[float, ...] = ()
    #: Mean negative log-likelihood a case on folds that the fit did not see, by method and "none".
    likelihoods: Mapping[str, float] = field(default_factory=dict)
    #: How many cases of validation data it was fitted on.
    cases: int = 0

    def __call__(self, probability: Array) -> Array:
        """Calibrated probabilities of the network's."""
        given = np.asarray(probability, dtype=np.float64)
        if self.method == "isotonic":
            return np.asarray(np.interp(given, self.x, self.y))
        return _sigmoid(_logit(given) / self.temperature)

    def as_json(self) -> dict[str, Any]:
        """The entry of metadata.json."""
        how: dict[str, Any] = (
            {"x": list(self.x), "y": list(self.y)} if self.method == "isotonic" else {"temperature": self.temperature}
        )
        return {
            "method": self.method,
            **how,
            "applies_to": "the sigmoid of the network's logit",
            "negative_log_likelihood_by_fold": dict(self.likelihoods),
            "validation_cases": self.cases,
        }

    @classmethod
    def from_json(cls, entry: Mapping[str, Any]) -> "Calibration":
        """The calibration of a metadata.json."""
        if entry.get("method") not in METHODS:
            raise ValueError(f"calibration method {entry.get('method')!r} is not known: {', '.join(METHODS)}")
        return cls(
            method=str(entry["method"]),
            temperature=float(entry.get("temperature", 1.0)),
            x=tuple(map(float, entry.get("x", ()))),
            y=tuple(map(float, entry.get("y", ()))),
            likelihoods=dict(entry.get("negative_log_likelihood_by_fold", {})),
            cases=int(entry.get("validation_cases", 0)),
        )


def fit(probability: Array, truth: Array, patients: Sequence[str]) -> Calibration:
    """The better of temperature and isotonic, fitted on all cases and judged on folds by patient."""
    held = {method: np.empty(len(truth)) for method in METHODS}
    folds = GroupKFold(n_splits=min(_FOLDS, len(set(patients))))
    for learning, judged in folds.split(probability, truth, groups=list(patients)):
        for method in METHODS:
            held[method][judged] = _FITS[method](probability[learning], truth[learning])(probability[judged])
    likelihoods = {"none": negative_log_likelihood(probability, truth)}
    likelihoods |= {method: negative_log_likelihood(said, truth) for method, said in held.items()}
    best = min(METHODS, key=likelihoods.__getitem__)
    chosen = _FITS[best](probability, truth)
    rounded = {name: round(value, 5) for name, value in likelihoods.items()}
    return Calibration(
        method=best,
        temperature=chosen.temperature,
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
    logits = _logit(probability)
    found = minimize_scalar(
        lambda log: negative_log_likelihood(_sigmoid(logits / np.exp(log)), truth), bounds=(-3.0, 3.0), method="bounded"
    )
    return Calibration(method="temperature", temperature=float(np.exp(found.x)))


def _isotonic(probability: Array, truth: Array) -> Calibration:
    fitted = IsotonicRegression(y_min=LEAST, y_max=1 - LEAST, out_of_bounds="clip").fit(probability, truth)
    return Calibration(
        method="isotonic", x=tuple(map(float, fitted.X_thresholds_)), y=tuple(map(float, fitted.y_thresholds_))
    )


_FITS = {"temperature": _temperature, "isotonic": _isotonic}


def _logit(probability: Array) -> Array:
    p = np.clip(np.asarray(probability, dtype=np.float64), 1e-7, 1 - 1e-7)
    return np.asarray(np.log(p) - np.log1p(-p))


def _sigmoid(logits: Array) -> Array:
    return np.asarray(1.0 / (1.0 + np.exp(-np.clip(logits, -60.0, 60.0))))
