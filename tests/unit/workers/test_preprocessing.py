"""The transforms that training and serving share."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from workers.preprocessing import (
    GRID_MM,
    candidates,
    grid_shape,
    lung_mask,
    normalise,
    resample,
    resample_onto,
)

Floats = NDArray[np.float32]
SPACINGS = st.tuples(*(st.floats(0.5, 5.0),) * 3)


def ramp(shape: tuple[int, int, int], spacing: tuple[float, float, float]) -> Floats:
    """A volume whose value at each voxel is a linear function of its place in mm."""
    k, j, i = np.meshgrid(*(np.arange(n) * s for n, s in zip(shape, spacing, strict=True)), indexing="ij")
    return (2.0 * k - 1.0 * j + 0.5 * i).astype(np.float32)


def chest(spacing_mm: float = 3.0) -> tuple[Floats, NDArray[np.bool_], NDArray[np.bool_]]:
    """A toy chest in HU with its lungs (vessels and a pleural nodule included) and its trachea."""
    k, j, i = np.meshgrid(*(np.arange(n) * spacing_mm for n in (90, 90, 120)), indexing="ij")
    hu = np.full(k.shape, -1000.0)
    hu[((j - 135) / 120) ** 2 + ((i - 180) / 165) ** 2 < 1] = 30.0
    lungs = np.zeros(k.shape, dtype=bool)
    for x in (105, 255):
        lungs |= ((k - 120) / 105) ** 2 + ((j - 135) / 80) ** 2 + ((i - x) / 52) ** 2 < 1
    hu[lungs] = -860.0
    hu[lungs & (np.hypot(j - 135, i - 105) < 4)] = 40.0
    hu[lungs & (np.linalg.norm([k - 120, j - 60, i - 105], axis=0) < 8)] = 0.0
    trachea = (np.hypot(j - 120, i - 180) < 9) & (k > 150)
    hu[trachea] = -1000.0
    return hu.astype(np.float32), lungs, trachea


@pytest.fixture(scope="module")
def toy() -> tuple[Floats, NDArray[np.bool_], NDArray[np.bool_]]:
    return chest()


@given(spacing=SPACINGS)
@settings(max_examples=25, deadline=None)
def test_the_first_voxel_centre_stays_and_places_in_mm_are_kept(spacing: tuple[float, float, float]) -> None:
    """Inside the borders a linear function of the place reads the same before and after."""
    shape = (14, 22, 24)
    out = resample(ramp(shape, spacing), spacing)
    expected = ramp(out.shape, GRID_MM)
    reach = [(n - 1) * s for n, s in zip(shape, spacing, strict=True)]
    width = [max(t, s) for t, s in zip(GRID_MM, spacing, strict=True)]
    inner = tuple(
        slice(int(np.ceil(w / t)), max(int((r - w) / t), 0) + 1) for r, w, t in zip(reach, width, GRID_MM, strict=True)
    )
    # An anti-aliasing tent over few unevenly placed voxels is off its centre by less than a voxel of the source.
    slack = sum(c * s for c, s, t in zip((2.0, 1.0, 0.5), spacing, GRID_MM, strict=True) if s < t)
    np.testing.assert_allclose(out[inner], expected[inner], atol=1e-3 + 0.5 * slack)


@given(spacing=SPACINGS, value=st.floats(-1000, 1000))
@settings(max_examples=25, deadline=None)
def test_a_constant_stays_that_constant_on_any_grid(spacing: tuple[float, float, float], value: float) -> None:
    out = resample(np.full((5, 6, 7), value, dtype=np.float32), spacing)
    assert out.shape == grid_shape((5, 6, 7), spacing)
    np.testing.assert_allclose(out, value, rtol=1e-5, atol=1e-4)


@given(spacing=SPACINGS)
@settings(max_examples=25, deadline=None)
def test_the_grid_reaches_the_last_voxel_centre_and_not_a_voxel_further(spacing: tuple[float, float, float]) -> None:
    for n, s, t, made in zip((5, 6, 7), spacing, GRID_MM, grid_shape((5, 6, 7), spacing), strict=True):
        assert (made - 1) * t >= (n - 1) * s - 1e-4
        assert (made - 2) * t < (n - 1) * s


def test_the_way_to_a_finer_grid_and_back_is_exact_at_the_slices() -> None:
    spacing = (3.0, 2.0, 2.0)
    voxels = np.random.default_rng(0).normal(size=(7, 8, 9)).astype(np.float32)
    back = resample_onto(resample(voxels, spacing), GRID_MM, spacing, (7, 8, 9), order=0)
    np.testing.assert_allclose(back, voxels, atol=1e-5)


def test_a_coarser_grid_averages_what_it_cannot_show() -> None:
    """A pattern of one-voxel stripes becomes its mean instead of a moire."""
    stripes = np.zeros((4, 64, 64), dtype=np.float32)
    stripes[:, :, ::2] = 100.0
    out = resample(stripes, (1.5, 0.5, 0.5))
    np.testing.assert_allclose(out[:, :, 2:-2], 50.0, atol=1e-3)


def test_nearest_keeps_labels_whole() -> None:
    labels = np.random.default_rng(1).integers(0, 4, size=(6, 20, 20)).astype(np.float32)
    assert set(np.unique(resample(labels, (2.0, 0.7, 0.7), order=0))) <= {0.0, 1.0, 2.0, 3.0}


def test_an_order_that_is_not_offered_is_named() -> None:
    with pytest.raises(ValueError, match="order 3"):
        resample(np.zeros((3, 3, 3), dtype=np.float32), (1.0, 1.0, 1.0), order=3)


def test_grey_values_are_clipped_and_mapped_to_one() -> None:
    hu = np.array([[[-3024.0, -1000.0, -350.0, 300.0, 3000.0]]], dtype=np.float32)
    np.testing.assert_allclose(normalise(hu)[0, 0], [0.0, 0.0, 0.5, 1.0, 1.0])


def test_the_lungs_are_found_with_vessels_and_pleural_nodules_inside(toy: tuple[Floats, ...]) -> None:
    hu, lungs, _ = toy
    found = lung_mask(hu, (3.0, 3.0, 3.0))
    overlap = 2 * (found & lungs).sum() / (found.sum() + lungs.sum())
    assert overlap > 0.95
    assert (found & lungs & (hu > -500)).sum() > 0.9 * (lungs & (hu > -500)).sum()


def test_trachea_and_room_air_are_no_lung(toy: tuple[Floats, ...]) -> None:
    hu, lungs, trachea = toy
    found = lung_mask(hu, (3.0, 3.0, 3.0))
    assert not (found & trachea.astype(bool)).any()
    assert not (found & (hu < -990) & ~lungs.astype(bool)).any()


def test_slices_may_run_either_way(toy: tuple[Floats, ...]) -> None:
    hu = toy[0]
    up, down = lung_mask(hu, (3.0, 3.0, 3.0)), lung_mask(np.ascontiguousarray(hu[::-1]), (3.0, 3.0, 3.0))[::-1]
    assert 2 * (up & down).sum() / (up.sum() + down.sum()) > 0.97


def test_a_head_has_no_lungs() -> None:
    """Sinuses and the air around a head are not taken for lungs."""
    k, j, i = np.meshgrid(*(np.arange(n) * 3.0 for n in (50, 70, 70)), indexing="ij")
    head = ((k - 75) / 75) ** 2 + ((j - 105) / 95) ** 2 + ((i - 105) / 75) ** 2 < 1
    sinus = np.linalg.norm([k - 60, j - 50, i - 105], axis=0) < 20
    hu = np.where(head, 35.0, -1000.0)
    hu[sinus] = -1000.0
    found = lung_mask(hu.astype(np.float32), (3.0, 3.0, 3.0))
    assert found.shape == hu.shape
    assert not found.any()


def test_candidates_come_by_falling_score_and_only_from_the_lungs() -> None:
    probability = np.zeros((20, 20, 20), dtype=np.float32)
    probability[2:5, 2:5, 2:5] = 0.6
    probability[10:14, 10:14, 10:14] = 0.9
    probability[2:5, 2:5, 15:18] = 0.99
    lung = np.ones(probability.shape, dtype=bool)
    lung[:, :, 15:] = False
    found = candidates(probability, lung, 0.3)
    assert [round(candidate.score, 3) for candidate in found] == [0.9, 0.6]
    assert found[0].mask.sum() == 64
    assert all(10 <= p < 14 for p in found[0].peak)


def test_a_speck_scores_lower_than_its_probability() -> None:
    probability = np.zeros((5, 5, 5), dtype=np.float32)
    probability[2, 2, 2] = 1.0
    (speck,) = candidates(probability, np.ones(probability.shape, dtype=bool), 0.3)
    assert speck.score == pytest.approx(1 / 8)
