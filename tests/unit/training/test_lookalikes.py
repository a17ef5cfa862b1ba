"""What looks like a nodule and is none: where it is drawn, and that it is what it claims to be."""

import numpy as np
import pytest

from training.augmentation import tether
from training.dataset import add_lookalike, site
from training.lookalikes import LOOKALIKES, PLEURAL, draw_lookalike
from training.strokes import plate, stroke
from workers.preprocessing import GRID_MM

SHAPE = (48, 64, 64)


def lung() -> tuple[np.ndarray, np.ndarray]:
    """Lung with a wall of muscle behind it."""
    hu = np.full(SHAPE, -860.0, dtype=np.float32)
    inside = np.ones(SHAPE, dtype=bool)
    hu[:, 50:] = 50.0
    inside[:, 50:] = False
    return hu, inside


@pytest.mark.parametrize("name", LOOKALIKES)
def test_each_brightens_the_lung_about_its_place_and_darkens_nothing(name: str) -> None:
    rng = np.random.default_rng(4)
    hu, inside = lung()
    before = hu.copy()
    at = site(hu, inside, rng, where=2 if name in PLEURAL else 0)
    assert at is not None
    if name in PLEURAL:
        at[1] = 48
    draw_lookalike(name, hu, inside, at, rng)
    assert (hu >= before - 1e-3).all()
    changed = np.argwhere(hu - before > 50)
    assert len(changed) > 10
    assert (np.abs(changed - at) <= (22, 32, 32)).all()


def test_a_pleural_cap_leaves_no_gap_to_the_wall() -> None:
    hu, inside = lung()
    draw_lookalike("pleural cap", hu, inside, np.array([24, 49, 32]), np.random.default_rng(1))
    assert hu[24, 49, 32] > -200


def test_where_there_is_no_lung_nothing_is_drawn() -> None:
    hu, inside = lung()
    inside[:] = False
    before = hu.copy()
    assert add_lookalike(hu, inside, np.random.default_rng(0)) is None
    np.testing.assert_array_equal(hu, before)


def test_a_stroke_has_the_volume_of_its_cylinder() -> None:
    points = np.array([[36.0, 10.0, 32.0], [36.0, 50.0, 32.0]])
    share = stroke(SHAPE, points, np.array([4.0, 4.0]))
    cylinder = np.pi * 16 * 40 + 4 / 3 * np.pi * 64
    assert share.sum() * np.prod(GRID_MM) == pytest.approx(cylinder, rel=0.08)


def test_a_thin_stroke_keeps_its_cross_section() -> None:
    points = np.array([[36.0, 10.0, 32.0], [36.0, 50.0, 32.0]])
    thin, thinner = (stroke(SHAPE, points, np.full(2, r)).sum() for r in (0.5, 0.25))
    assert 2.0 < thin / thinner < 5.0


def test_a_plate_is_filled_in_its_middle_too() -> None:
    share = plate(SHAPE, np.array([36.0, 32.0, 32.0]), np.eye(3), np.array([3.0, 15.0, 10.0]))
    assert share[24, 32, 32] == 1.0
    ellipsoid = 4 / 3 * np.pi * 3 * 15 * 10
    assert share.sum() * np.prod(GRID_MM) == pytest.approx(ellipsoid, rel=0.12)


def test_a_nodule_hangs_on_what_is_near() -> None:
    hu, inside = lung()
    hu[20:28, 20:24, 20:24] = 40.0
    before = hu.copy()
    centre = np.array([24, 38, 32])
    tether(hu, inside, centre, np.random.default_rng(2))
    assert (hu - before > 100).sum() > 8
    assert not (hu - before > 1)[~inside].any()
