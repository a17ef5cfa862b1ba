"""Branching arteries, veins and airways of a generated lung."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training.surfaces import Points

#: Exponent of Murray's law: r_parent^e = sum of r_child^e.
MURRAY_EXPONENT = 2.6
#: How much a long way from the hilum counts against a short last step: the balancing factor of Cuntz et al. 2010,
#: doi 10.1371/journal.pcbi.1000877.
BALANCE = 0.35
#: Curve pieces between two branching points.
PIECES = 4


@dataclass(frozen=True, kw_only=True)
class Segments:
    """Straight pieces of tube, each a round cone from one end to the other."""

    #: [n, 3] mm.
    starts: Points
    ends: Points
    #: [n] mm.
    start_radii: Points
    end_radii: Points

    def __len__(self) -> int:
        return len(self.starts)


def joined(parts: list[Segments]) -> Segments:
    """All pieces of several trees."""
    return Segments(
        starts=np.concatenate([part.starts for part in parts]),
        ends=np.concatenate([part.ends for part in parts]),
        start_radii=np.concatenate([part.start_radii for part in parts]),
        end_radii=np.concatenate([part.end_radii for part in parts]),
    )


def chained(points: Points, radii: Points) -> Segments:
    """The pieces of one chain of points."""
    return Segments(starts=points[:-1], ends=points[1:], start_radii=radii[:-1], end_radii=radii[1:])


@dataclass(frozen=True, kw_only=True)
class Tree:
    """Branching points with their parents; point 0 is the root, and a parent comes before its children."""

    points: Points
    #: [n]; -1 at the root.
    parents: NDArray[np.intp]

    def leaves_beyond(self) -> NDArray[np.float64]:
        """How many ends each point feeds, itself included where it is one."""
        count = np.zeros(len(self.points))
        is_leaf = np.ones(len(self.points), dtype=bool)
        is_leaf[self.parents[1:]] = False
        count[is_leaf] = 1
        for node in range(len(self.points) - 1, 0, -1):
            count[self.parents[node]] += count[node]
        return count

    def heirs(self, leaves: NDArray[np.float64]) -> NDArray[np.intp]:
        """The child that continues each point's course: the one that feeds most; -1 at an end."""
        heir = np.full(len(self.points), -1, dtype=np.intp)
        for node in range(1, len(self.points)):
            parent = self.parents[node]
            if heir[parent] < 0 or leaves[node] > leaves[heir[parent]]:
                heir[parent] = node
        return heir


def grow(root: Points, targets: Points, toll: Callable[[Points, Points], Points]) -> Tree:
    """A tree from the root through all targets: each joins where the way to it and the way from the root are short.

    `toll(start, ends)` gives the extra cost in mm of straight steps from a point to several others.
    """
    points = np.vstack([root, targets])
    parents, way = np.full(len(points), -1, dtype=np.intp), np.zeros(len(points))
    order, best_parent = [0], np.zeros(len(points), dtype=np.intp)
    best = np.full(len(points), np.inf)
    waiting = np.arange(1, len(points))
    latest = 0
    while len(waiting):
        steps = np.linalg.norm(points[waiting] - points[latest], axis=1)
        cost = steps + BALANCE * (way[latest] + steps) + toll(points[latest], points[waiting])
        better = cost < best[waiting]
        best[waiting[better]], best_parent[waiting[better]] = cost[better], latest
        chosen = int(np.argmin(best[waiting]))
        latest = int(waiting[chosen])
        parents[latest] = best_parent[latest]
        way[latest] = way[parents[latest]] + np.linalg.norm(points[latest] - points[parents[latest]])
        order.append(latest)
        waiting = np.delete(waiting, chosen)
    return reordered(points, parents, order)


def reordered(points: Points, parents: NDArray[np.intp], order: list[int]) -> Tree:
    """The tree with its points in the given order."""
    rank = np.empty(len(points), dtype=np.intp)
    rank[order] = np.arange(len(points))
    moved = parents[order]
    return Tree(points=points[order], parents=np.where(moved < 0, -1, rank[moved]))


def relaxed(tree: Tree, rounds: int = 3) -> Tree:
    """The tree with each inner point drawn towards the line from its parent to its heir: vessels run straight."""
    heir = tree.heirs(tree.leaves_beyond())
    inner = np.flatnonzero((heir >= 0) & (tree.parents >= 0))
    points = tree.points.copy()
    for _ in range(rounds):
        middle = 0.5 * (points[tree.parents[inner]] + points[heir[inner]])
        points[inner] = 0.5 * points[inner] + 0.5 * middle
    return Tree(points=points, parents=tree.parents)


def pruned(tree: Tree, forbidden: Callable[[Points], NDArray[np.bool_]]) -> Tree:
    """The tree without any branch that passes, or hangs on one that passes, through a forbidden place."""
    along = np.linspace(0, 1, 7)[None, :, None]
    starts = tree.points[np.maximum(tree.parents, 0)]
    samples = starts[:, None] + (tree.points - starts)[:, None] * along
    cut: NDArray[np.bool_] = np.any(forbidden(samples.reshape(-1, 3)).reshape(len(tree.points), -1), axis=1)
    cut[0] = False
    for node in range(1, len(tree.points)):
        cut[node] |= cut[tree.parents[node]]
    kept = np.flatnonzero(~cut)
    rank = np.cumsum(~cut) - 1
    parents = tree.parents[kept]
    return Tree(points=tree.points[kept], parents=np.where(parents < 0, -1, rank[parents]))


def radii_of(leaves: NDArray[np.float64], tip_radius: float) -> NDArray[np.float64]:
    """Radius at each branching point by Murray's law."""
    return np.asarray(tip_radius * leaves ** (1 / MURRAY_EXPONENT))


def tubes_of(tree: Tree, tip_radius: float) -> Segments:
    """The tree as smoothly bent, tapering tubes."""
    leaves = tree.leaves_beyond()
    heir, radii = tree.heirs(leaves), radii_of(leaves, tip_radius)
    child = np.arange(1, len(tree.points))
    parent = tree.parents[child]
    tangents = course(tree, heir)
    chord = tree.points[child] - tree.points[parent]
    length = np.linalg.norm(chord, axis=1, keepdims=True)
    continues = heir[parent] == child
    leaving = np.where(continues[:, None], tangents[parent], unit(0.45 * tangents[parent] + unit(chord)))
    begin = np.where(continues, np.minimum(radii[parent], radii[child] * 1.35), radii[child])
    end = np.where(heir[child] < 0, 0.35 * radii[child], radii[child])
    curve = hermite(tree.points[parent], tree.points[child], leaving * length, tangents[child] * length)
    taper = begin[:, None] + (end - begin)[:, None] * np.linspace(0, 1, PIECES + 1)[None, :]
    return Segments(
        starts=curve[:, :-1].reshape(-1, 3),
        ends=curve[:, 1:].reshape(-1, 3),
        start_radii=taper[:, :-1].ravel(),
        end_radii=taper[:, 1:].ravel(),
    )


def course(tree: Tree, heir: NDArray[np.intp]) -> Points:
    """The unit direction in which the vessel passes each point."""
    before = tree.points[np.where(tree.parents < 0, 0, tree.parents)]
    after = np.where((heir < 0)[:, None], tree.points, tree.points[np.maximum(heir, 0)])
    return unit(after - before)


def hermite(starts: Points, ends: Points, leaving: Points, arriving: Points) -> Points:
    """Cubic curves [n, PIECES + 1, 3] with given ends and tangents."""
    t = np.linspace(0, 1, PIECES + 1)[None, :, None]
    return np.asarray(
        (2 * t**3 - 3 * t**2 + 1) * starts[:, None]
        + (t**3 - 2 * t**2 + t) * leaving[:, None]
        + (3 * t**2 - 2 * t**3) * ends[:, None]
        + (t**3 - t**2) * arriving[:, None]
    )


def unit(vectors: Points) -> Points:
    """Vectors of length 1; a null vector stays null."""
    return np.asarray(vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-9))


def accompanying_airways(tree: Tree, tip_radius: float, least_radius: float) -> Segments:
    """Airways beside the arteries of a tree as far out as their lumen is at least a radius (mm) wide."""
    leaves = tree.leaves_beyond()
    tubes = tubes_of(tree, tip_radius)
    lumen = 0.78 * radii_of(leaves, tip_radius)
    wide = np.repeat(lumen[1:] >= least_radius, PIECES)
    aside = unit(np.cross(tubes.ends - tubes.starts, np.array([0.25, 0.35, 0.9])))
    start, end = 0.78 * tubes.start_radii, 0.78 * tubes.end_radii
    return Segments(
        starts=(tubes.starts + aside * (tubes.start_radii + start + 0.9)[:, None])[wide],
        ends=(tubes.ends + aside * (tubes.end_radii + end + 0.9)[:, None])[wide],
        start_radii=start[wide],
        end_radii=end[wide],
    )
