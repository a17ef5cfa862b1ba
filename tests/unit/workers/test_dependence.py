"""What a score depended on is measured by taking parts away, and says no more than that."""

from collections.abc import Callable
from dataclasses import replace
from types import MappingProxyType

import numpy as np
import pytest
from numpy.typing import NDArray

from workers.dependence import NUMBERS, Box, Dependence, Part, dependence, digest, in_words
from workers.volume import Region

Floats = NDArray[np.float32]

SHAPE = (50, 70, 70)
#: HU of -850, 0 and 40 as the network is given them.
LUNG, DENSE, WALL = 0.115, 0.77, 0.80
CENTRE = (25, 35, 35)


def drawn() -> tuple[Floats, NDArray[np.bool_], Region]:
    """A nodule of 5 mm radius in lung, with a vessel that leads away from it and the chest wall 9 mm beside it."""
    values = np.full(SHAPE, LUNG, dtype=np.float32)
    lungs = np.ones(SHAPE, dtype=bool)
    lungs[:, :, 50:] = False
    values[~lungs] = WALL
    values[24:27, 34:37, 10:31] = DENSE
    k, j, i = (np.arange(n) - c for n, c in zip(SHAPE, CENTRE, strict=True))
    ball = (k[:, None, None] * 1.5) ** 2 + j[:, None] ** 2 + i**2 <= 25
    values[ball] = DENSE
    box = (slice(21, 30), slice(29, 42), slice(29, 42))
    return values, lungs, Region(box=box, mask=ball[box])


def told(score_of: Callable[[Floats, Box], float], slice_mm: float = 1.5) -> Dependence:
    values, lungs, nodule = drawn()
    return dependence(values, lungs, nodule, nodule.box, slice_mm, score_of)


def at(place: tuple[int, int, int]) -> Callable[[Floats, Box], float]:
    """A network that looks at one voxel of the grid alone."""
    return lambda piece, box: float(piece[tuple(p - b.start for p, b in zip(place, box, strict=True))] > 0.5)


@pytest.mark.parametrize(
    ("place", "part"),
    [
        (CENTRE, Part.OUTLINED),
        ((25, 35, 22), Part.ADJOINING),
        ((25, 35, 51), Part.WALL),
    ],
)
def test_a_score_that_looks_at_one_part_depends_on_that_part_alone(place: tuple[int, int, int], part: Part) -> None:
    found = told(at(place))

    assert found.score == 1.0
    assert found.most is part
    assert {other: score for other, score in found.without.items() if other is not part} == {
        other: 1.0 for other in found.without if other is not part
    }


def test_a_score_that_looks_at_nothing_depends_on_nothing() -> None:
    found = told(lambda piece, box: 0.7)

    assert found.most is None
    assert "hardly falls" in in_words("Nodule 1", 0.7, found)


def test_without_what_is_outlined_nothing_dense_is_left_at_its_place() -> None:
    """Its blurred edge goes with it: else the ghost of it would stay, and be scored."""
    seen: list[Floats] = []

    def looked(piece: Floats, box: Box) -> float:
        seen.append(piece.copy())
        return 0.0

    told(looked)
    values, _, nodule = drawn()
    # In the order of the parts, the piece as it is last.
    without, whole = seen[0], seen[-1]
    changed = without != whole
    assert changed.sum() >= nodule.mask.sum()
    assert np.unique(without[changed]) == pytest.approx([LUNG])
    assert whole.max() == values.max()


def test_across_thick_slices_the_edge_is_as_wide_as_they_are_apart() -> None:
    """A nodule's blur reaches the next slice of 5 mm: that must go, too."""
    values, lungs, nodule = drawn()
    # A blurred slice above the nodule, 4.5 mm away from its upper end.
    values[31, 32:39, 32:39] = DENSE

    def above(piece: Floats, box: Box) -> float:
        return float(piece[31 - box[0].start, 35 - box[1].start, 35 - box[2].start] > 0.5)

    assert dependence(values, lungs, nodule, nodule.box, 1.5, above).without[Part.OUTLINED] == 1.0
    assert dependence(values, lungs, nodule, nodule.box, 5.0, above).without[Part.OUTLINED] == 0.0


def test_parts_lie_where_they_are_said_to_and_never_over_each_other() -> None:
    found = told(at(CENTRE))
    k, j, i = found.start

    def part_at(place: tuple[int, int, int]) -> int:
        return int(found.parts[place[0] - k, place[1] - j, place[2] - i])

    assert part_at(CENTRE) == NUMBERS[Part.OUTLINED]
    assert part_at((25, 35, 22)) == NUMBERS[Part.ADJOINING]
    assert part_at((25, 35, 51)) == NUMBERS[Part.WALL]
    assert part_at((25, 42, 35)) == NUMBERS[Part.RIM]
    assert part_at((25, 46, 35)) == NUMBERS[Part.LUNG]
    assert part_at((25, 60, 35)) == 0


def test_what_is_not_there_is_not_named() -> None:
    """Far from vessels and walls there are neither."""
    values = np.full(SHAPE, LUNG, dtype=np.float32)
    _, _, nodule = drawn()
    values[nodule.box][nodule.mask] = DENSE
    found = dependence(values, np.ones(SHAPE, dtype=bool), nodule, nodule.box, 1.5, at(CENTRE))

    assert set(found.without) == {Part.OUTLINED, Part.RIM, Part.LUNG}


def test_the_same_is_told_every_time() -> None:
    one, two = told(at(CENTRE)), told(at(CENTRE))

    assert one.without == two.without
    np.testing.assert_array_equal(one.parts, two.parts)


def test_at_the_grids_corner_as_much_is_shown_as_there_is() -> None:
    values = np.full((12, 20, 20), LUNG, dtype=np.float32)
    nodule = Region(box=(slice(0, 3), slice(0, 4), slice(0, 4)), mask=np.ones((3, 4, 4), dtype=bool))
    values[nodule.box] = DENSE
    found = dependence(values, np.ones(values.shape, dtype=bool), nodule, nodule.box, 1.5, at((1, 1, 1)))

    assert found.start == (0, 0, 0)
    assert found.parts.shape == values.shape
    assert found.most is Part.OUTLINED


def test_the_words_name_the_scores_and_what_they_do_not_say() -> None:
    without = {Part.OUTLINED: 0.03, Part.RIM: 0.61, Part.WALL: 0.9}
    found = replace(told(at(CENTRE)), score=0.86, without=MappingProxyType(without))
    words = in_words("Nodule 2", 0.88, found)

    assert words == (
        "Nodule 2: Its score of 0.88 (0.86 with only 24 mm around it shown) depends most on what is outlined: 0.03 is "
        "left where that is replaced by even lung. Of the others: 0.61 without the 3 mm around it, 0.90 without what "
        "lies beyond the lung. This shows what the network's score depended on, not why something is a nodule."
    )


def test_another_number_is_another_identity() -> None:
    """What says otherwise must not be written under the same UID; what says nothing changes none."""
    found = told(at(CENTRE))
    other = replace(found, without=MappingProxyType(dict(found.without) | {Part.RIM: 0.5}))

    assert digest({}) == ""
    assert len({digest({1: found}), digest({2: found}), digest({1: other}), digest({1: found, 2: other})}) == 4
