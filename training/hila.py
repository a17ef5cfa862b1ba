"""The hila of a generated thorax: the vessels of the lobes from their trunks to where they begin to branch.

No two people's are alike: they bend, branch sooner or later, are thin or thick, and lie in more or less fat.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from training.strokes import across
from training.surfaces import Point, Points, Tube, tube

#: Where each lobe's arteries and veins begin to branch, in the order of LOBES, and the ends of their trunks, right and
#: left: the middle of what is drawn.
ARTERY_ROOTS = ((-50, 4, 188), (-54, -8, 164), (-50, 14, 162), (60, -2, 195), (55, 20, 172))
VEIN_ROOTS = ((-42, -14, 172), (-44, -18, 158), (-36, 14, 138), (44, -14, 168), (36, 18, 142))
ARTERY_TRUNKS = ((-40, 3, 175), (46, 14, 191))
VEIN_TRUNKS = ((-26, 8, 146), (30, 10, 147))

#: Share of the way to a lobe's root at which its vessel begins to branch, and how far aside that may lie, mm.
_WAY, _ASIDE_MM = (0.7, 1.2), 4.0
#: How far off the straight line a vessel bends in its middle, mm.
_BEND_MM = 5.0
#: Radii at trunk and root, mm.
_TRUNK_MM, _ROOT_MM = (5.0, 8.0), (2.8, 4.6)
#: Fat around the vessels, mm.
_CUFF_MM = (0.3, 2.5)


@dataclass(frozen=True, kw_only=True)
class Hila:
    """Both hila of one person; roots are where the trees of the lobes begin, in the order of LOBES."""

    vessels: tuple[Tube, ...]
    artery_roots: tuple[Point, ...]
    vein_roots: tuple[Point, ...]
    cuff_mm: float

    @classmethod
    def random(cls, rng: np.random.Generator) -> "Hila":
        """One person's."""
        arteries = [_moved(root, ARTERY_TRUNKS[root[0] > 0], rng) for root in ARTERY_ROOTS]
        veins = [_moved(root, VEIN_TRUNKS[root[0] > 0], rng) for root in VEIN_ROOTS]
        return cls(
            vessels=(
                *(_vessel(ARTERY_TRUNKS[root[0] > 0], root, rng) for root in arteries),
                *(_vessel(VEIN_TRUNKS[root[0] > 0], root, rng) for root in veins),
            ),
            artery_roots=tuple(arteries),
            vein_roots=tuple(veins),
            cuff_mm=float(rng.uniform(*_CUFF_MM)),
        )


def _moved(root: Sequence[float], trunk: Sequence[float], rng: np.random.Generator) -> Point:
    """A root somewhere near where most are, never on the other side."""
    way = np.array(root, dtype=float) - trunk
    x, y, z = trunk + way * rng.uniform(*_WAY) + rng.uniform(-_ASIDE_MM, _ASIDE_MM, size=3)
    return float(x), float(y), float(z)


def _vessel(trunk: Sequence[float], root: Point, rng: np.random.Generator) -> Tube:
    """A bent, tapering tube from a trunk to a root."""
    start, end = np.array(trunk, dtype=float), np.array(root)
    first, last = rng.uniform(*_TRUNK_MM), rng.uniform(*_ROOT_MM)
    middle = 0.5 * (start + end) + across(_unit(end - start), rng) * rng.uniform(0.0, _BEND_MM)
    return tube([(*start, first), (*middle, 0.5 * (first + last)), (*end, last)])


def _unit(way: Points) -> Points:
    return np.asarray(way / max(float(np.linalg.norm(way)), 1e-9))
