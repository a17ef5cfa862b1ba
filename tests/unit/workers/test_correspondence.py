"""Which finding is which: the laws of it, over lungs that move and breathe, and findings that come and go."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from workers.alignment import LungShape
from workers.correspondence import (
    BOTH,
    LEFT,
    MARGIN_MM,
    MOST_TIMES,
    REACH_MM,
    RIGHT,
    SAME_PLACE_MM,
    Place,
    correspondence,
    lungs_compared,
)

MIDDLES = {RIGHT: -60.0, LEFT: 60.0}
AXES = np.array([45.0, 75.0, 95.0])


def lung(side: str) -> NDArray[np.float64]:
    """Places that fill an ellipsoid evenly."""
    unit = np.stack(np.meshgrid(*[np.linspace(-1, 1, 21)] * 3), axis=-1).reshape(-1, 3)
    return unit[(unit**2).sum(axis=1) <= 1] * AXES + (MIDDLES[side], 0, 0)


VOXELS = {side: lung(side) for side in MIDDLES}
LUNGS = {side: LungShape.of(voxels) for side, voxels in VOXELS.items()}
LUNGS[BOTH] = LungShape.of(np.concatenate(list(VOXELS.values())), is_pair=True)


def test_lungs_that_do_not_come_apart_are_alike_though_one_takes_in_less_air() -> None:
    """Some places move across the gap between them."""
    right = VOXELS[RIGHT]
    less = right[np.arange(len(right)) % 25 != 0]
    fuller = LungShape.of(np.concatenate([right, VOXELS[LEFT]]), is_pair=True)
    assert fuller.is_like(LungShape.of(np.concatenate([less, VOXELS[LEFT]]), is_pair=True))


def place(side: str, x: float = 0.0, y: float = 0.0, z: float = 0.0, diameter_mm: float = 8.0) -> Place:
    return Place(centre=(MIDDLES[side] + x, y, z), side=side, diameter_mm=diameter_mm)


places = st.builds(
    place,
    st.sampled_from([RIGHT, LEFT]),
    *(st.floats(-half, half) for half in (25, 45, 55)),
    diameter_mm=st.floats(3, 30),
)
#: One for each axis: how much wider everything is, and how far it is moved.
breaths = st.tuples(*[st.floats(0.85, 1.18)] * 3), st.tuples(*[st.floats(-80, 80)] * 3)


def moved(one: Any, times: tuple[float, ...], by: tuple[float, ...]) -> Any:
    """A place, or the shape of a lung, of a patient who lies and breathes otherwise."""
    if isinstance(one, Place):
        x, y, z = np.array(one.centre) * times + by
        return replace(one, centre=(float(x), float(y), float(z)))
    return replace(one, quantiles=one.quantiles * np.array(times)[:, None] + np.array(by)[:, None])


@given(st.lists(places, max_size=8))
def test_a_scan_corresponds_to_itself_and_to_nothing_else(found: list[Place]) -> None:
    result = correspondence(found, found, LUNGS, LUNGS)
    assert all(later == earlier for later, earlier in result.pairs.items())
    for number, one in enumerate(found):
        others = [other for other in found[:number] + found[number + 1 :] if other.side == one.side]
        if all(np.linalg.norm(np.subtract(one.centre, other.centre)) > 4 * MARGIN_MM for other in others):
            assert result.pairs[number] == number


@given(st.lists(places, max_size=6), st.lists(places, max_size=6))
def test_it_is_the_same_from_either_side(earlier: list[Place], later: list[Place]) -> None:
    there, back = correspondence(earlier, later, LUNGS, LUNGS), correspondence(later, earlier, LUNGS, LUNGS)
    assert {(a, b) for a, b in there.pairs.items()} == {(b, a) for a, b in back.pairs.items()}
    assert there.doubtful_later == back.doubtful_earlier


@given(st.lists(places, max_size=6), st.lists(places, max_size=6), st.randoms())
def test_the_order_of_findings_says_nothing(earlier: list[Place], later: list[Place], random: Any) -> None:
    order = list(range(len(later)))
    random.shuffle(order)
    straight = correspondence(earlier, later, LUNGS, LUNGS)
    shuffled = correspondence(earlier, [later[number] for number in order], LUNGS, LUNGS)
    assert {order[at]: found for at, found in shuffled.pairs.items()} == dict(straight.pairs)


@given(st.lists(places, max_size=6), st.lists(places, max_size=6), *breaths)
def test_how_the_patient_lies_and_breathes_says_nothing(
    earlier: list[Place], later: list[Place], times: tuple[float, ...], by: tuple[float, ...]
) -> None:
    here = correspondence(earlier, later, LUNGS, LUNGS)
    lungs = {name: moved(shape, times, by) for name, shape in LUNGS.items()}
    there = correspondence(earlier, [moved(one, times, by) for one in later], LUNGS, lungs)
    assert dict(there.pairs) == dict(here.pairs) or _is_at_a_border(earlier, later)


def _is_at_a_border(earlier: list[Place], later: list[Place]) -> bool:
    """Whether a rounding decides: a distance is just the reach, or two just differ by the margin."""
    away = [
        float(
            np.linalg.norm(
                LUNGS[a.side].in_average_lung(np.array(a.centre)) - LUNGS[b.side].in_average_lung(np.array(b.centre))
            )
        )
        for a in earlier
        for b in later
        if a.side == b.side
    ]
    borders = (SAME_PLACE_MM, REACH_MM, REACH_MM + MARGIN_MM)
    near_reach = any(abs(one - border) < 1e-6 for one in away for border in borders)
    return near_reach or any(abs(abs(one - other) - MARGIN_MM) < 1e-6 for one in away for other in away)


@given(places, places)
def test_a_finding_on_the_other_side_is_never_it(one: Place, other: Place) -> None:
    if one.side != other.side:
        found = correspondence([one], [other], LUNGS, LUNGS)
        assert not found.pairs
        assert not found.doubtful_later


def test_of_two_that_may_be_it_none_is_said_to_be() -> None:
    earlier = [place(RIGHT)]
    later = [place(RIGHT, x=2.0), place(RIGHT, x=-3.0)]
    found = correspondence(earlier, later, LUNGS, LUNGS)
    assert not found.pairs
    assert found.doubtful_later == {0, 1}
    assert found.doubtful_earlier == {0}


def test_what_is_out_of_reach_is_something_else() -> None:
    far = correspondence([place(RIGHT)], [place(RIGHT, z=40.0)], LUNGS, LUNGS)
    assert not far.pairs
    assert not far.doubtful_later
    assert not far.doubtful_earlier


MANY_TIMES = 8.0 * MOST_TIMES * 1.01


def test_what_grew_more_than_any_size_explains_is_itself_where_it_is_alone_at_its_place() -> None:
    grown = place(RIGHT, x=2.0, diameter_mm=MANY_TIMES)
    assert correspondence([place(RIGHT)], [grown], LUNGS, LUNGS).pairs == {0: 0}
    assert correspondence([grown], [place(RIGHT)], LUNGS, LUNGS).pairs == {0: 0}


@pytest.mark.parametrize("beside", [place(RIGHT, y=12.0), place(RIGHT, y=-9.0, diameter_mm=3.0)])
def test_of_what_grew_so_beside_others_nothing_is_sure_nor_new(beside: Place) -> None:
    found = correspondence([place(RIGHT)], [place(RIGHT, diameter_mm=MANY_TIMES), beside], LUNGS, LUNGS)
    assert found.pairs == {}
    assert found.doubtful_later == {0, 1}
    assert found.doubtful_earlier == {0}


def test_of_what_is_of_another_size_and_not_just_there_nothing_is_sure_nor_new() -> None:
    found = correspondence([place(RIGHT)], [place(RIGHT, y=9.0, diameter_mm=MANY_TIMES)], LUNGS, LUNGS)
    assert found.pairs == {}
    assert (found.doubtful_later, found.doubtful_earlier) == ({0}, {0})


def test_a_candidate_of_another_size_is_a_rival_all_the_same() -> None:
    later = [place(RIGHT, x=2.0, diameter_mm=MANY_TIMES), place(RIGHT, x=-4.0)]
    found = correspondence([place(RIGHT)], later, LUNGS, LUNGS)
    assert found.pairs == {}, "the small one beside it may hide how it grew"


@pytest.mark.parametrize("side", [RIGHT, LEFT])
def test_a_side_that_is_not_told_prevents_what_is_sure_and_excludes_nothing(side: str) -> None:
    untold = replace(place(side, x=3.0), side="")
    for earlier, later in ((place(side), untold), (untold, place(side)), (untold, untold)):
        found = correspondence([earlier], [later], LUNGS, LUNGS)
        assert found.pairs == {}
        assert (found.doubtful_later, found.doubtful_earlier) == ({0}, {0})


@given(places, places)
def test_only_far_from_everything_on_its_side_is_a_finding_neither_it_nor_doubtful(one: Place, other: Place) -> None:
    found = correspondence([one], [other], LUNGS, LUNGS)
    if one.side == other.side and found.pairs == {} and not found.doubtful_later:
        away = LUNGS[one.side].in_average_lung(np.array([one.centre, other.centre]))
        assert np.linalg.norm(away[0] - away[1]) > REACH_MM + MARGIN_MM


def test_a_lung_of_which_a_third_was_not_scanned_is_not_compared() -> None:
    part = VOXELS[RIGHT][VOXELS[RIGHT][:, 2] > -30]
    assert lungs_compared(LUNGS, LUNGS) == (RIGHT, LEFT)
    assert lungs_compared(LUNGS, {**LUNGS, RIGHT: LungShape.of(part)}) == (LEFT,)


def test_lungs_that_do_not_come_apart_are_compared_as_one() -> None:
    together = {BOTH: LUNGS[BOTH]}
    assert lungs_compared(together, LUNGS) == (BOTH,)
    without_side = replace(place(LEFT), side="")
    assert correspondence([place(LEFT)], [without_side], LUNGS, together).pairs == {0: 0}
    assert correspondence([place(LEFT)], [replace(place(LEFT), side=RIGHT)], LUNGS, together).pairs == {}


@pytest.mark.parametrize("away", [{"x": 25.0}, {"y": 25.0}, {"z": 25.0}])
def test_in_lungs_that_do_not_come_apart_what_lies_far_apart_is_no_pair_along_any_axis(away: dict[str, float]) -> None:
    """Two lungs are together wide, and neither is wider for that."""
    together = {BOTH: LUNGS[BOTH]}
    there, here = (replace(place(LEFT, **by), side="") for by in ({}, away))
    assert correspondence([there], [here], together, together).pairs == {}


@pytest.mark.parametrize("found", [([], []), ([place(LEFT)], []), ([], [place(LEFT)])])
def test_where_nothing_is_there_is_nothing_to_pair(found: tuple[list[Place], list[Place]]) -> None:
    assert correspondence(*found, LUNGS, LUNGS).pairs == {}
