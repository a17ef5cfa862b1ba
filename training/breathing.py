"""Breathing: drawn lungs at two breaths, and how rightly findings are followed from one to the other.

`python -m training.breathing` lays findings at random into the lungs of drawn chests, lets the patient breathe, turn
and lie otherwise, lets some findings go and others come, and counts what `workers.correspondence` makes of them. Only
places are played, no images: what a network overlooks or outlines wrongly comes on top.
"""

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from training.anatomy import Thorax
from training.phantoms import THORAX_LPS_MM, LungMap
from workers.alignment import LungShape
from workers.correspondence import BOTH, LEFT, RIGHT, Place, correspondence

Points = NDArray[np.float64]

#: The diaphragm rises or falls by so much, the chest gets flatter or deeper by such a share, and narrower or wider.
DIAPHRAGM_MM, DEPTH, WIDTH = 25.0, 0.10, 0.05
#: The patient is turned by so much about each axis, and lies elsewhere by so much along it.
TURNED_DEGREES, ELSEWHERE_MM = 4.0, 30.0
#: What else moves, by waves through the lung.
WAVES_MM = 1.5
#: Middles of two outlines of one finding differ by so much along each axis (standard deviation).
OUTLINED_MM = 0.7
#: Steps of the grid of places.
STEP_MM = 4.0


@dataclass(kw_only=True)
class Count:
    """What became of findings, over all pairs of scans."""

    #: In both scans: followed rightly, followed as another one, said to be unclear, and taken for gone and new.
    right: int = 0
    wrong: int = 0
    unclear: int = 0
    missed: int = 0
    #: In one scan only: said to be so, or unclear, or taken for another.
    alone_right: int = 0
    alone_unclear: int = 0
    alone_wrong: int = 0
    #: How far places lay apart after alignment, in mm of an average lung.
    errors_mm: list[float] = field(default_factory=list)

    def in_words(self) -> str:
        """All counts, and the alignment's error."""
        both = self.right + self.wrong + self.unclear + self.missed
        alone = self.alone_right + self.alone_unclear + self.alone_wrong
        median, most = np.percentile(self.errors_mm, [50, 95]) if self.errors_mm else (0.0, 0.0)
        return (
            f"{both} findings in both scans: {self.right} followed, {self.wrong} followed as another, "
            f"{self.unclear} unclear, {self.missed} not followed; {alone} in the later one alone: "
            f"{self.alone_right} rightly, {self.alone_unclear} unclear, {self.alone_wrong} taken for another; "
            f"places {median:.1f} mm apart after alignment in the median, {most:.1f} mm in 95 %"
        )


def drawn_lungs(seed: int) -> dict[str, Points]:
    """Places that fill both lungs of a drawn chest, LPS mm, by side."""
    places = LungMap.of(Thorax.random(np.random.default_rng(seed)), STEP_MM).places(0.1) + THORAX_LPS_MM
    middle = (places[:, 0].min() + places[:, 0].max()) / 2
    return {RIGHT: places[places[:, 0] < middle], LEFT: places[places[:, 0] >= middle]}


def breath(lungs: Points, rng: np.random.Generator) -> Callable[[Points], Points]:
    """Where places of a chest whose lungs fill these are at another breath, of a patient who lies otherwise."""
    least, most = lungs.min(axis=0), lungs.max(axis=0)
    middle = (least + most) / 2
    rises, deeper, wider = (float(rng.uniform(-by, by)) for by in (DIAPHRAGM_MM, DEPTH, WIDTH))
    turn = _turned(np.radians(rng.uniform(-TURNED_DEGREES, TURNED_DEGREES, 3)))
    elsewhere = rng.uniform(-ELSEWHERE_MM, ELSEWHERE_MM, 3)
    heights, phases = rng.uniform(0, WAVES_MM, 3), rng.uniform(0, 2 * np.pi, 3)

    def moved(places: Points) -> Points:
        down = 1 - np.clip((places[:, 2] - least[2]) / (most[2] - least[2]), 0, 1)
        x = middle[0] + (places[:, 0] - middle[0]) * (1 + wider)
        # The back lies on the table; ribs move the front, more so below.
        y = most[1] - (most[1] - places[:, 1]) * (1 + deeper * (0.5 + 0.5 * down))
        z = places[:, 2] + rises * down**1.5
        waves = heights * np.sin((places @ np.array([1 / 40, 1 / 35, 1 / 45]))[:, None] + phases)
        return np.asarray((np.stack([x, y, z], axis=1) + waves - middle) @ turn.T + middle + elsewhere)

    return moved


def follow(lungs: dict[str, Points], findings: int, rng: np.random.Generator, count: Count) -> None:
    """One patient twice: a fifth of the findings is gone the second time, and as many are new."""
    moved = breath(np.concatenate(list(lungs.values())), rng)
    shapes = [_shapes(lungs), _shapes({side: moved(places) for side, places in lungs.items()})]
    sides = [str(side) for side in rng.choice([RIGHT, LEFT], findings + findings // 5)]
    middles = np.array([lungs[side][rng.integers(len(lungs[side]))] for side in sides])
    sizes = rng.uniform(4, 20, len(sides))
    grown = sizes * rng.choice([1.0, 1.0, 1.3, 1.6], len(sides))
    gone, new = set(range(findings // 5)), set(range(findings, len(sides)))
    first = [number for number in range(len(sides)) if number not in new]
    second = [int(number) for number in rng.permutation(len(sides)) if number not in gone]
    places = [_places(middles, sides, sizes, rng), _places(moved(middles), sides, grown, rng)]
    earlier, later = [places[0][n] for n in first], [places[1][n] for n in second]
    found = correspondence(earlier, later, *shapes)
    for at, number in enumerate(second):
        pair = found.pairs.get(at)
        is_unclear = at in found.doubtful_later
        if number in new:
            count.alone_wrong += pair is not None
            count.alone_unclear += pair is None and is_unclear
            count.alone_right += pair is None and not is_unclear
            continue
        count.right += pair is not None and first[pair] == number
        count.wrong += pair is not None and first[pair] != number
        count.unclear += pair is None and is_unclear
        count.missed += pair is None and not is_unclear
        count.errors_mm.append(_apart(places[0][number], places[1][number], *shapes))


def main(arguments: Sequence[str] | None = None) -> None:
    """Count how rightly findings are followed in drawn chests."""
    parser = argparse.ArgumentParser(prog="python -m training.breathing", description=main.__doc__)
    parser.add_argument("--chests", type=int, default=12)
    parser.add_argument("--pairs", type=int, default=50, help="of scans, for each chest and number of findings")
    parser.add_argument("--findings", type=int, nargs="+", default=[5, 10, 20])
    chosen = parser.parse_args(arguments)
    lungs = [drawn_lungs(seed) for seed in range(chosen.chests)]
    for findings in chosen.findings:
        rng, count = np.random.default_rng(findings), Count()
        for number in range(chosen.chests * chosen.pairs):
            follow(lungs[number % len(lungs)], findings, rng, count)
        print(f"{findings} a scan, {chosen.chests * chosen.pairs} pairs: {count.in_words()}")


def _shapes(lungs: dict[str, Points]) -> dict[str, LungShape]:
    shapes = {side: LungShape.of(places) for side, places in lungs.items()}
    return {**shapes, BOTH: LungShape.of(np.concatenate(list(lungs.values())), is_pair=True)}


def _places(middles: Points, sides: Sequence[str], sizes: Points, rng: np.random.Generator) -> list[Place]:
    outlined = middles + rng.normal(0, OUTLINED_MM, middles.shape)
    return [
        Place(centre=(float(x), float(y), float(z)), side=str(side), diameter_mm=float(size))
        for (x, y, z), side, size in zip(outlined, sides, sizes, strict=True)
    ]


def _apart(one: Place, other: Place, earlier: dict[str, LungShape], later: dict[str, LungShape]) -> float:
    there = earlier[one.side].in_average_lung(np.array(one.centre))
    return float(np.linalg.norm(there - later[other.side].in_average_lung(np.array(other.centre))))


def _turned(angles: Points) -> Points:
    (cx, cy, cz), (sx, sy, sz) = np.cos(angles), np.sin(angles)
    about_x = np.array([[1, 0, 0], [0, cx, -sx], [0, sx, cx]])
    about_y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    about_z = np.array([[cz, -sz, 0], [sz, cz, 0], [0, 0, 1]])
    return np.asarray(about_x @ about_y @ about_z)


if __name__ == "__main__":
    main()
