"""Correspondence: which finding of an earlier scan each of a later one is, as far as that is sure.

Both are laid into lungs of average size (`workers.alignment`), and paired so that all pairs together lie nearest. A
pair counts only where it lies within reach, on the same side, is of a plausible size, and where neither of the two has
another candidate that is about as near: of two that may be it none is said to be. Nothing here depends on the order
of findings, nor on which scan is called the earlier one.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import log

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from dicom_node.core.finding import Point
from workers.alignment import LungShape

Floats = NDArray[np.float64]

#: How lungs are called: a side as findings say it, or both where they do not come apart.
RIGHT, LEFT, BOTH = "Right", "Left", "Both"

#: What lies farther apart after alignment, in mm of an average lung, is something else.
REACH_MM = 12.0
#: A second candidate that is not farther than the first by so much may as well be it.
MARGIN_MM = 6.0
#: One of the mean diameters is at most so many times the other.
MOST_TIMES = 3.0
#: More than any pair costs.
_NEVER = 1e6


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a finding lies, and how large it is."""

    centre: Point
    #: RIGHT or LEFT; empty: not told.
    side: str
    diameter_mm: float


@dataclass(frozen=True, kw_only=True)
class Correspondence:
    """What was found out, by places in both lists."""

    #: Later to earlier.
    pairs: Mapping[int, int]
    #: Those of the later and of the earlier scan that may be one of the other, without being surely it.
    doubtful_later: frozenset[int]
    doubtful_earlier: frozenset[int]


def lungs_compared(earlier: Mapping[str, LungShape], later: Mapping[str, LungShape]) -> tuple[str, ...]:
    """The lungs that can be compared: each side where both scans tell them apart, else both as one.

    None of those that are not alike.
    """
    names = (RIGHT, LEFT) if all({RIGHT, LEFT} <= shapes.keys() for shapes in (earlier, later)) else (BOTH,)
    return tuple(n for n in names if n in earlier and n in later and earlier[n].is_like(later[n]))


def correspondence(
    earlier: Sequence[Place],
    later: Sequence[Place],
    earlier_lungs: Mapping[str, LungShape],
    later_lungs: Mapping[str, LungShape],
) -> Correspondence:
    """Pair the findings of two scans of one patient."""
    away = np.full((len(later), len(earlier)), np.inf)
    for name in lungs_compared(earlier_lungs, later_lungs):
        mine = later_lungs[name].in_average_lung(_centres(later))
        theirs = earlier_lungs[name].in_average_lung(_centres(earlier))
        apart = np.linalg.norm(mine[:, None] - theirs[None], axis=2)
        fits = np.array([[_may_be(one, other, name) for other in earlier] for one in later], dtype=bool)
        away = np.where(fits.reshape(away.shape), apart, away)
    return _sure(away)


def _centres(places: Sequence[Place]) -> Floats:
    return np.array([place.centre for place in places], dtype=np.float64).reshape(-1, 3)


def _may_be(one: Place, other: Place, lung: str) -> bool:
    """Whether two findings that are compared by this lung can be one, wherever they lie."""
    if lung == BOTH:
        on_a_side = not (one.side and other.side) or one.side == other.side
    else:
        on_a_side = one.side == lung == other.side
    return on_a_side and abs(log(one.diameter_mm / other.diameter_mm)) <= log(MOST_TIMES)


def _sure(away: Floats) -> Correspondence:
    """By distances [later, earlier], infinite where two cannot be one."""
    within = away <= REACH_MM
    # What is out of reach costs more than any other choice, so that as many as possible find a partner.
    rows, columns = linear_sum_assignment(np.where(within, away, _NEVER))
    chosen = {(int(row), int(column)) for row, column in zip(rows, columns, strict=True) if within[row, column]}
    pairs = {row: column for row, column in chosen if not _has_rival(away, row, column)}
    likely = {(int(row), int(column)) for row, column in np.argwhere(within)}
    return Correspondence(
        pairs=pairs,
        doubtful_later=frozenset(row for row, _ in likely) - pairs.keys(),
        doubtful_earlier=frozenset(column for _, column in likely) - frozenset(pairs.values()),
    )


def _has_rival(away: Floats, row: int, column: int) -> bool:
    """Whether one of a pair has another candidate that is about as near."""
    others = np.concatenate([np.delete(away[row], column), np.delete(away[:, column], row)])
    return bool((others < away[row, column] + MARGIN_MM).any())
