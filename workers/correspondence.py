"""Correspondence: which finding of an earlier scan each of a later one is, as far as that is sure.

Both are laid into lungs of average size (`workers.alignment`), and paired so that all pairs together lie nearest. A
pair counts only where it lies within reach, on the same side, is of a plausible size, and where neither of the two has
another candidate that is about as near: of two that may be it none is said to be. What is near is doubtful, whatever
its size: only the other lung excludes, for what grows fastest is what no size may hide. Nothing here depends on the
order of findings, nor on which scan is called the earlier one.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

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
#: One of the mean diameters is at most so many times the other, unless both are alone at one place.
MOST_TIMES = 3.0
#: So near lie two of which size says nothing, where nothing else is within reach of either and a margin more. That one
#: nodule went and another came just there is rarer than that it grew, and growth that is not told harms more.
SAME_PLACE_MM = REACH_MM / 2
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
    #: Those of the later and of the earlier scan near which, by a margin more than the reach, the other has anything
    #: on that side: they may be one of them, without being surely it.
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
    compared = lungs_compared(earlier_lungs, later_lungs)
    for name in compared:
        mine = later_lungs[name].in_average_lung(_centres(later))
        theirs = earlier_lungs[name].in_average_lung(_centres(earlier))
        apart = np.linalg.norm(mine[:, None] - theirs[None], axis=2)
        # Of a side that is not told, the lung by which both lie nearer counts.
        fits = _each(later, earlier, partial(_may_be, lung=name))
        away = np.where(fits, np.minimum(apart, away), away)
    told = _each(later, earlier, lambda one, other: compared == (BOTH,) or bool(one.side and other.side))
    return _sure(away, told, _each(later, earlier, _is_as_large))


def _centres(places: Sequence[Place]) -> Floats:
    return np.array([place.centre for place in places], dtype=np.float64).reshape(-1, 3)


def _each(later: Sequence[Place], earlier: Sequence[Place], is_so: Callable[[Place, Place], bool]) -> NDArray[np.bool_]:
    """Of each two [later, earlier], whether it is so."""
    found = [[is_so(one, other) for other in earlier] for one in later]
    return np.array(found, dtype=bool).reshape(len(later), len(earlier))


def _may_be(one: Place, other: Place, *, lung: str) -> bool:
    """Whether two findings can be one by this lung, wherever they lie and however large they are."""
    sides = {side for side in (one.side, other.side) if side}
    return len(sides) < 2 if lung == BOTH else sides <= {lung}


def _is_as_large(one: Place, other: Place) -> bool:
    """Whether two findings are of a plausible size to be one."""
    least, most = sorted((one.diameter_mm, other.diameter_mm))
    return most <= least * MOST_TIMES


def _sure(away: Floats, told: NDArray[np.bool_], as_large: NDArray[np.bool_]) -> Correspondence:
    """By distances [later, earlier], infinite where two cannot be one, and what speaks for each two."""
    within = away <= REACH_MM
    # What is out of reach costs more than any other choice, so that as many as possible find a partner.
    rows, columns = linear_sum_assignment(np.where(within, away, _NEVER))
    chosen = {(int(row), int(column)) for row, column in zip(rows, columns, strict=True) if within[row, column]}
    pairs = {
        row: column
        for row, column in chosen
        if told[row, column]
        and not _has_rival(away, row, column, away[row, column] + MARGIN_MM)
        and (as_large[row, column] or _is_alone(away, row, column))
    }
    likely = {(int(row), int(column)) for row, column in np.argwhere(away <= REACH_MM + MARGIN_MM)}
    return Correspondence(
        pairs=pairs,
        doubtful_later=frozenset(row for row, _ in likely) - pairs.keys(),
        doubtful_earlier=frozenset(column for _, column in likely) - frozenset(pairs.values()),
    )


def _is_alone(away: Floats, row: int, column: int) -> bool:
    """Whether a pair lies at one place, and nothing else near it."""
    is_there = bool(away[row, column] <= SAME_PLACE_MM)
    return is_there and not _has_rival(away, row, column, REACH_MM + MARGIN_MM)


def _has_rival(away: Floats, row: int, column: int, within_mm: float) -> bool:
    """Whether one of a pair has another candidate that is nearer than so, of whatever size."""
    others = np.concatenate([np.delete(away[row], column), np.delete(away[:, column], row)])
    return bool((others < within_mm).any())
