"""A margin is reported where readers agree on it and outlines tell it, and otherwise not."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import cohen_kappa_score

from training.margin_ratings import Told, judged, kappa
from training.shapes import Ratings, Shape


def shape(number: int, rng: np.random.Generator, *, spiky: bool, spiculation: tuple[int, ...]) -> Shape:
    """A ball of some size, with spikes or without, and what its readers said of it."""
    radius = rng.uniform(3.0, 6.0)
    places = (np.indices((33, 33, 33)) - 16.0) / rng.uniform(0.8, 1.2, 3)[:, None, None, None]
    inside = (places**2).sum(axis=0) <= radius**2
    if spiky:
        near = np.abs(places) <= radius + 6
        for axis in range(3):
            thin = [np.abs(places[other]) <= 1 for other in range(3) if other != axis]
            inside |= thin[0] & thin[1] & near[axis]
    ratings = tuple(
        Ratings(texture=5, calcification=6, spiculation=said, malignancy=3, lobulation=1, margin=5)
        for said in spiculation
    )
    return Shape(
        patient=f"P{number}",
        probability=(255 * inside).astype(np.uint8),
        texture=5.0,
        calcified=False,
        ratings=ratings,
    )


def spiculated(*, agree: bool) -> Told:
    rng = np.random.default_rng(5)
    shapes = []
    for number in range(160):
        spiky = bool(rng.random() < 0.5)
        said = [5 if spiky else 1] * 4 if agree else [int(rating) for rating in rng.choice([1, 5], 4)]
        shapes.append(shape(number, rng, spiky=spiky, spiculation=tuple(said)))
    return judged(shapes)[0]


@pytest.fixture(scope="module")
def agreed() -> Told:
    """What is told of nodules whose readers all see the same."""
    return spiculated(agree=True)


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=2, max_size=30))
def test_agreement_beyond_chance_is_cohens_kappa(said: list[tuple[bool, bool]]) -> None:
    one, two = np.array(said, dtype=float).T
    if one.min() == one.max() == two.min() == two.max():
        assert math.isnan(kappa(one, two))
    else:
        assert kappa(one, two) == pytest.approx(cohen_kappa_score(one, two), abs=1e-9)


def test_what_readers_agree_on_and_outlines_show_is_reported(agreed: Told) -> None:
    assert (agreed.kappa.value, agreed.reader.value) == (1.0, 1.0)
    assert agreed.shape.value > 0.95
    assert agreed.is_reported


def test_what_readers_say_at_random_is_not_reported_however_it_looks() -> None:
    told = spiculated(agree=False)

    assert abs(told.kappa.value) < 0.3
    assert not told.is_reported
    assert "reported: no" in str(told)


def test_the_judged_patients_are_those_who_teach_nothing(agreed: Told) -> None:
    held_out = sum(shape(n, np.random.default_rng(0), spiky=False, spiculation=()).held_out for n in range(160))

    assert agreed.shape.patients == held_out
    assert agreed.shape.patients == pytest.approx(32, abs=14)
