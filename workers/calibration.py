"""Calibration: what a network's score means as a probability, as metadata.json keeps it under `calibration`.

A monotone map, fitted on validation data by training and applied in serving: of a classifier to what its activation
gives, of a detector to a candidate's score.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

#: The methods there are, and the numbers of metadata.json that each needs.
METHODS: Mapping[str, tuple[str, ...]] = {
    "temperature": ("temperature",),
    "platt": ("temperature", "shift"),
    "isotonic": ("x", "y"),
}
#: Probabilities of 0 and 1 have no logit.
_LEAST = 1e-7
_MOST_LOGIT = 60.0


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """A monotone map from a network's score 0..1 to a probability."""

    method: str
    #: Temperature and Platt: what logits are divided by.
    temperature: float = 1.0
    #: Platt: what is then added to them.
    shift: float = 0.0
    #: Isotonic: scores, rising, and what they become; linear between them.
    x: tuple[float, ...] = ()
    y: tuple[float, ...] = ()
    #: Mean negative log-likelihood a case on folds that the fit did not see, by method and "none".
    likelihoods: Mapping[str, float] = field(default_factory=dict)
    #: How many cases of validation data it was fitted on.
    cases: int = 0

    def __call__(self, score: Array) -> Array:
        """Probabilities of scores."""
        given = np.asarray(score, dtype=np.float64)
        if self.method == "isotonic":
            return np.asarray(np.interp(given, self.x, self.y))
        return sigmoid(logit(given) / self.temperature + self.shift)

    def as_json(self) -> dict[str, Any]:
        """The entry of metadata.json."""
        numbers = {"temperature": self.temperature, "shift": self.shift, "x": list(self.x), "y": list(self.y)}
        return {
            "method": self.method,
            **{key: numbers[key] for key in METHODS[self.method]},
            "applies_to": "the network's score: of a classifier its activation, of a detector a candidate's score",
            "negative_log_likelihood_by_fold": dict(self.likelihoods),
            "validation_cases": self.cases,
        }

    @classmethod
    def from_json(cls, entry: Mapping[str, Any]) -> "Calibration":
        """The calibration of a metadata.json; ValueError where it says none that can be applied."""
        method = str(entry.get("method"))
        if method not in METHODS:
            raise ValueError(f"calibration method {method!r} is not known: {', '.join(METHODS)}")
        missing = [key for key in METHODS[method] if key not in entry]
        if missing:
            raise ValueError(f"calibration by {method} has no {', '.join(missing)}")
        found = cls(
            method=method,
            temperature=float(entry.get("temperature", 1.0)),
            shift=float(entry.get("shift", 0.0)),
            x=tuple(map(float, entry.get("x", ()))),
            y=tuple(map(float, entry.get("y", ()))),
            likelihoods=dict(entry.get("negative_log_likelihood_by_fold", {})),
            cases=int(entry.get("validation_cases", 0)),
        )
        found._check()
        return found

    def _check(self) -> None:
        """Raise ValueError for what is no monotone map from 0..1 to 0..1."""
        if not 0.0 < self.temperature < np.inf:
            raise ValueError(f"a temperature of {self.temperature:g} is none: it is above 0")
        if not np.isfinite(self.shift):
            raise ValueError(f"a shift of {self.shift:g} is no number")
        if self.method != "isotonic":
            return
        rising = all((np.diff(axis) >= 0).all() and 0 <= axis[0] <= axis[-1] <= 1 for axis in (self.x, self.y) if axis)
        if not self.x or len(self.x) != len(self.y) or not rising:
            raise ValueError("x and y of an isotonic calibration are as many, rise, and stay within 0 and 1")


def logit(probability: Array) -> Array:
    """The logit, finite at 0 and 1."""
    p = np.clip(np.asarray(probability, dtype=np.float64), _LEAST, 1 - _LEAST)
    return np.asarray(np.log(p) - np.log1p(-p))


def sigmoid(logits: Array) -> Array:
    """The way back."""
    return np.asarray(1.0 / (1.0 + np.exp(-np.clip(logits, -_MOST_LOGIT, _MOST_LOGIT))))
