"""Outlines against outlines: overlap, distance of their surfaces, and whether volumes agree.

Masks are [k, j, i] of one grid; lengths are mm.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from monai.metrics.hausdorff_distance import compute_hausdorff_distance
from numpy.typing import NDArray

from training.metrics.bootstrap import Estimate, bootstrap

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

#: Limits of agreement hold 95 % of differences that are spread normally (Bland and Altman 1986).
_DEVIATIONS = 1.96


def dice(ours: Mask, truth: Mask) -> float:
    """Twice the shared voxels by those of both; 1 where both are empty."""
    both = int(ours.sum()) + int(truth.sum())
    return 2 * int((ours & truth).sum()) / both if both else 1.0


def hausdorff_95(ours: Mask, truth: Mask, spacing_mm: Sequence[float]) -> float:
    """The larger of both 95th percentiles of distances from one surface to the other, mm.

    0 where both are empty, infinite where one is.
    """
    if not ours.any() or not truth.any():
        return 0.0 if ours.any() == truth.any() else float("inf")
    one, other = (torch.from_numpy(np.ascontiguousarray(mask))[None, None].float() for mask in (ours, truth))
    with warnings.catch_warnings():
        # MONAI 1.6 gives itself an argument that it warns of.
        warnings.filterwarnings("ignore", message=".*always_return_as_numpy", category=FutureWarning)
        found = compute_hausdorff_distance(
            one, other, include_background=True, percentile=95, spacing=[float(step) for step in spacing_mm]
        )
    return float(found[0, 0])


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """How measured volumes differ from true ones, as shares of the true ones (Bland-Altman)."""

    bias: Estimate
    #: Within these, 95 % of the differences lie if they are spread normally.
    lower_limit: Estimate
    upper_limit: Estimate
    differences: Array


def agreement(
    measured: Array, truth: Array, patients: Sequence[str], *, seed: int = 0, replicates: int = 1000
) -> Agreement:
    """Bias and limits of agreement of volumes, with intervals by patient."""
    if np.any(np.asarray(truth) <= 0):
        raise ValueError("a true volume of nothing has no relative difference: leave empty outlines out")
    differences = (np.asarray(measured, dtype=float) - truth) / truth

    def limit(sign: float) -> Estimate:
        def at(cases: NDArray[np.int_]) -> float:
            some = differences[cases]
            return float(some.mean() + sign * _DEVIATIONS * some.std(ddof=1)) if len(some) > 1 else float("nan")

        return bootstrap(at, patients, seed=seed, replicates=replicates)

    return Agreement(
        bias=bootstrap(lambda cases: float(differences[cases].mean()), patients, seed=seed, replicates=replicates),
        lower_limit=limit(-1.0),
        upper_limit=limit(+1.0),
        differences=differences,
    )
