"""Nodules drawn in, and the scanner that looks at them."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from training.augmentation import Slices, aerate, draw, insert, on_grid, scan, scanned, slice_profile
from training.shapes import Shape
from workers.preprocessing import GRID_MM

KINDS = ["solid", "part solid", "core", "ground glass", "calcified", "ring"]


def ball(diameter: float = 14.0) -> Shape:
    grid = np.linalg.norm(np.indices((25, 25, 25)) - 12, axis=0)
    probability = np.clip(diameter / 2 - grid + 0.5, 0, 1) * 255
    return Shape(patient="P", probability=probability.astype(np.uint8), texture=5.0, calcified=False)


def lung(shape: tuple[int, int, int] = (40, 48, 48)) -> tuple[np.ndarray, np.ndarray]:
    return np.full(shape, -860.0, dtype=np.float32), np.ones(shape, dtype=bool)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_brighter_than_the_lung_where_it_is_drawn(kind: str) -> None:
    hu, inside = lung()
    mask = insert(hu, inside, draw(ball(), np.random.default_rng(3), kind), np.array([20, 24, 24]))
    assert mask is not None
    edge = mask & (hu > -860)
    assert hu[edge].mean() > -800
    assert (hu[~mask] < -400).mean() > 0.95


def test_a_ring_is_dark_in_its_centre_and_its_mask_is_filled() -> None:
    hu, inside = lung()
    mask = insert(hu, inside, draw(ball(18.0), np.random.default_rng(0), "ring"), np.array([20, 24, 24]))
    assert mask is not None
    assert mask[20, 24, 24]
    assert hu[20, 24, 24] < -600 < hu[mask].max()


def test_outside_the_lung_nothing_is_drawn() -> None:
    hu, inside = lung()
    inside[:] = False
    before = hu.copy()
    assert insert(hu, inside, draw(ball(), np.random.default_rng(1)), np.array([20, 24, 24])) is None
    np.testing.assert_array_equal(hu, before)


def test_two_nodules_do_not_overlap() -> None:
    hu, inside = lung()
    first = insert(hu, inside, draw(ball(), np.random.default_rng(1)), np.array([20, 24, 24]))
    assert insert(hu, inside, draw(ball(), np.random.default_rng(2)), np.array([20, 26, 24]), first) is None


def test_at_the_border_of_the_volume_the_rest_is_cut_off() -> None:
    hu, inside = lung()
    mask = insert(hu, inside, draw(ball(), np.random.default_rng(1), "solid"), np.array([1, 24, 24]))
    assert mask is not None
    assert mask[0].any()


def in_slices(along: NDArray[np.float64], thickness: float, phase: float) -> Slices:
    """Levels of the grid averaged over thick slices."""
    there, first = slice_profile(len(along), thickness, phase)
    step = max(1.0, thickness / GRID_MM[0])
    return Slices(hu=(there @ along)[:, None, None].astype(np.float32), first=first, step=step)


@given(n=st.integers(8, 60), thickness=st.sampled_from([1.0, 1.5, 2.5, 3.0, 5.0]), phase=st.floats(0, 1))
@settings(max_examples=60, deadline=None)
def test_a_slice_profile_keeps_what_is_uniform(n: int, thickness: float, phase: float) -> None:
    even = on_grid(in_slices(np.full(n, 7.0), thickness, phase), n)
    np.testing.assert_allclose(even, 7.0, atol=1e-4)


@given(thickness=st.sampled_from([2.5, 3.0, 5.0]), phase=st.floats(0, 1))
@settings(max_examples=40, deadline=None)
def test_thick_slices_do_not_move_what_they_blur(thickness: float, phase: float) -> None:
    slices = in_slices(np.exp(-0.5 * ((np.arange(41) - 20) / 3.0) ** 2), thickness, phase)
    seen = on_grid(slices, 41).ravel()
    assert (seen * np.arange(41)).sum() / seen.sum() == pytest.approx(20.0, abs=0.35)
    # And the slices themselves lie where they say.
    given = slices.hu.ravel()
    places = slices.first + slices.step * np.arange(len(given))
    assert (given * places).sum() / given.sum() == pytest.approx(20.0, abs=0.35)


def test_the_same_generator_gives_the_same_scan() -> None:
    hu, _ = lung()
    first, second = (scan(aerate(hu, rng), rng) for rng in (np.random.default_rng(5), np.random.default_rng(5)))
    np.testing.assert_array_equal(first, second)


def test_a_scan_is_its_slices_read_on_the_grid() -> None:
    hu, _ = lung()
    slices = scanned(hu, np.random.default_rng(8), 3.0)
    assert len(slices.hu) == pytest.approx(len(hu) / 2, abs=1.5)
    np.testing.assert_array_equal(on_grid(slices, len(hu)), scan(hu, np.random.default_rng(8), 3.0))


def test_soft_tissue_is_not_aerated() -> None:
    hu = np.array([[[-900.0, -100.0, 40.0]]], dtype=np.float32)
    changed = aerate(hu, np.random.default_rng(0)) - hu
    assert changed[0, 0, 0] != 0
    np.testing.assert_array_equal(changed[0, 0, 1:], 0.0)
