"""Outlines against drawn bodies: what partial volume, thick slices, vessels and walls do to them."""

import math

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from workers.outline import outline
from workers.preprocessing import GRID_MM, resample
from workers.volume import Region

LUNG, TISSUE = -860.0, 30.0
#: Bodies are drawn on cubes of this size, then averaged into slices.
CUBE_MM = 0.5
EXTENT = (100, 100, 100)

Floats = NDArray[np.float32]


def place(k: float, j: float, i: float) -> list[NDArray[np.float64]]:
    """mm from a point, by axis, over the cubes."""
    return [(axis * CUBE_MM) - at for axis, at in zip(np.indices(EXTENT, dtype=float), (k, j, i), strict=True)]


def ball(radius_mm: float, at: tuple[float, float, float] = (25.0, 25.0, 25.0)) -> Floats:
    """How much of each cube a ball fills."""
    distance = np.sqrt(sum(axis**2 for axis in place(*at)))
    return np.clip((radius_mm - distance) / CUBE_MM + 0.5, 0, 1).astype(np.float32)


def tube(radius_mm: float, beside_mm: float = 0.0) -> Floats:
    """A vessel along the rows, through the middle or so far beside it."""
    k, j, _ = place(25.0, 25.0 + beside_mm, 25.0)
    return np.clip((radius_mm - np.hypot(k, j)) / CUBE_MM + 0.5, 0, 1).astype(np.float32)


def scanned(hu: Floats, thickness_mm: float, noise_hu: float = 15.0) -> tuple[Floats, tuple[float, float, float]]:
    """Slices of a thickness, and their spacing."""
    n = round(thickness_mm / CUBE_MM)
    slices = hu[: len(hu) // n * n].reshape(-1, n, *hu.shape[1:]).mean(axis=1)
    noisy = slices + np.random.default_rng(8).normal(0, noise_hu, slices.shape)
    return noisy.astype(np.float32), (thickness_mm, CUBE_MM, CUBE_MM)


def outlined(
    hu: Floats,
    body: Floats,
    thickness_mm: float,
    lung: NDArray[np.bool_] | None = None,
    marked: Floats | None = None,
) -> tuple[float, float]:
    """Volume in mm3, and Dice with the body's own voxels, of the outline that a blurred network leads to.

    The network marks the body, or something else.
    """
    voxels, spacing = scanned(hu, thickness_mm)
    share, _ = scanned(body, thickness_mm, noise_hu=0.0)
    mark, _ = scanned(body if marked is None else marked, thickness_mm, noise_hu=0.0)
    seen = ndimage.gaussian_filter(resample(mark, spacing), (0.8, 1.2, 1.2))
    probability = np.clip(seen / seen.max(), 0, 1) * 0.9
    labels, _ = ndimage.label(probability > 0.3)
    box = ndimage.find_objects(labels)[0]
    lungs = np.ones(probability.shape, dtype=bool)
    if lung is not None:
        lungs = resample(scanned(lung.astype(np.float32), thickness_mm, noise_hu=0.0)[0], spacing) > 0.5
    found = outline(voxels, spacing, probability, lungs, Region(box=box, mask=labels[box] == 1))
    whole = np.zeros(voxels.shape, dtype=bool)
    whole[found.box] = found.mask
    truth = share > 0.5
    return float(whole.sum() * np.prod(spacing)), 2 * float((whole & truth).sum()) / float(whole.sum() + truth.sum())


def ball_mm3(radius_mm: float) -> float:
    return 4 / 3 * math.pi * radius_mm**3


@pytest.mark.parametrize("thickness_mm", [1.0, 2.5, 5.0])
@pytest.mark.parametrize("radius_mm", [5.0, 8.0])
def test_a_solid_ball_has_its_volume_whatever_the_slices(radius_mm: float, thickness_mm: float) -> None:
    body = ball(radius_mm)
    volume, dice = outlined(LUNG + (TISSUE - LUNG) * body, body, thickness_mm)

    assert volume == pytest.approx(ball_mm3(radius_mm), rel=0.25)
    assert dice > 0.85


def test_a_ground_glass_ball_is_outlined_by_its_own_contrast() -> None:
    body = ball(7.0)
    volume, dice = outlined(LUNG + (-600 - LUNG) * body, body, 2.5)

    assert volume == pytest.approx(ball_mm3(7.0), rel=0.25)
    assert dice > 0.85


def test_ground_glass_around_a_solid_core_belongs_to_the_nodule() -> None:
    body, core = ball(8.0), ball(4.0)
    hu = LUNG + (-560 - LUNG) * body + (TISSUE + 560) * core
    # A network that has eyes for the core alone.
    volume, _ = outlined(hu, core, 2.5)

    assert volume == pytest.approx(ball_mm3(8.0), rel=0.3)


def test_the_air_in_a_ring_belongs_to_it() -> None:
    body = ball(7.0)
    hu = LUNG + (-100 - LUNG) * body + (-900 + 100) * ball(4.5)
    volume, dice = outlined(hu, body, 1.0)

    assert volume == pytest.approx(ball_mm3(7.0), rel=0.25)
    assert dice > 0.85


def test_a_vessel_through_a_nodule_is_cut_off() -> None:
    body = ball(7.0)
    together = np.maximum(body, tube(1.5))
    volume, dice = outlined(LUNG + (TISSUE - LUNG) * together, body, 1.0)

    assert volume == pytest.approx(ball_mm3(7.0), rel=0.25)
    assert dice > 0.85


def test_a_vessel_as_thick_as_the_nodule_on_it_is_left_where_it_goes_on() -> None:
    """Neither a neck nor attenuation parts them, and the network's mark holds a piece of the vessel."""
    body, vessel = ball(5.0), tube(3.5, beside_mm=5.0)
    hu = LUNG + (TISSUE - LUNG) * np.maximum(body, vessel)
    marked = np.maximum(body, vessel * ball(7.0)).astype(np.float32)
    volume, _ = outlined(hu, marked, 1.0)

    assert float(np.maximum(body, vessel).sum()) * CUBE_MM**3 > 3.5 * ball_mm3(5.0)
    assert ball_mm3(5.0) < volume < 1.45 * ball_mm3(5.0)


@pytest.mark.parametrize("share", [0.75, 0.85])
def test_the_rim_of_a_large_nodule_that_the_network_marks_too_small_is_no_vessel(share: float) -> None:
    body = ball(12.0)
    volume, _ = outlined(LUNG + (TISSUE - LUNG) * body, ball(share * 12.0), 1.0)

    # As far as the network's word reaches, and no farther.
    assert volume > 0.95 * min(ball_mm3(12.0), ball_mm3(share * 12.0 + 1.5))


def test_the_wall_that_a_nodule_touches_stays_outside() -> None:
    body = ball(6.0)
    wall = (np.indices(EXTENT)[1] * CUBE_MM) > 29.0
    hu = LUNG + (TISSUE - LUNG) * np.maximum(body, wall)
    inside = (body * ~wall).astype(np.float32)
    volume, dice = outlined(hu.astype(np.float32), inside, 2.5, lung=~wall)

    assert volume == pytest.approx(float(inside.sum()) * CUBE_MM**3, rel=0.3)
    assert dice > 0.8


@pytest.mark.parametrize("thickness_mm", [1.0, 2.5])
def test_a_nodule_broadly_on_the_pleura_is_whole_though_the_mask_of_the_lungs_leaves_out_its_base(
    thickness_mm: float,
) -> None:
    body, rows = ball(8.0), np.indices(EXTENT)[1] * CUBE_MM
    wall = rows > 29.0
    hu = LUNG + (TISSUE - LUNG) * np.maximum(body, wall)
    inside = (body * ~wall).astype(np.float32)
    lung = ~wall & ~((body > 0.5) & (rows > 23.0))
    volume, dice = outlined(hu.astype(np.float32), inside, thickness_mm, lung=lung)

    assert volume == pytest.approx(float(inside.sum()) * CUBE_MM**3, rel=0.2)
    assert dice > 0.85


@pytest.mark.parametrize("deep_mm", [2.0, 5.0, 10.0])
def test_what_the_network_marks_of_the_wall_is_the_wall(deep_mm: float) -> None:
    body, rows = ball(5.0), np.indices(EXTENT)[1] * CUBE_MM
    wall = rows > 28.0
    hu = (LUNG + (TISSUE - LUNG) * np.maximum(body, wall)).astype(np.float32)
    inside = (body * ~wall).astype(np.float32)
    k, _, i = place(25.0, 25.0, 25.0)
    spilt = np.maximum(inside, (np.hypot(k, i) < 4.0) & wall & (rows < 28.0 + deep_mm)).astype(np.float32)
    volume, dice = outlined(hu, inside, 1.0, lung=~wall, marked=spilt)

    assert volume < 1.3 * float(inside.sum()) * CUBE_MM**3
    assert dice > 0.8


def test_of_a_great_vessel_that_the_network_marks_with_a_nodule_only_what_lies_in_the_lungs_is_outlined() -> None:
    _, rows, columns = place(25.0, 36.0, 25.0)
    vessel = np.hypot(rows, columns) < 9.0
    body = ball(4.0, at=(25.0, 24.0, 25.0))
    hu = (LUNG + (TISSUE - LUNG) * np.maximum(body, vessel)).astype(np.float32)
    volume, dice = outlined(hu, body * ~vessel, 1.0, lung=~vessel, marked=np.maximum(body, vessel).astype(np.float32))

    assert volume == pytest.approx(float((body * ~vessel).sum()) * CUBE_MM**3, rel=0.2)
    assert dice > 0.85


def test_the_outline_lies_where_the_body_lies() -> None:
    body = ball(6.0, at=(21.0, 30.0, 18.0))
    voxels, spacing = scanned(LUNG + (TISSUE - LUNG) * body, 2.5)
    probability = np.clip(resample(scanned(body, 2.5, noise_hu=0.0)[0], spacing), 0, 1)
    box = ndimage.find_objects((probability > 0.3).astype(int))[0]
    found = outline(
        voxels,
        spacing,
        probability,
        np.ones(probability.shape, dtype=bool),
        Region(box=box, mask=probability[box] > 0.3),
    )
    centre = (np.argwhere(found.mask) + [part.start for part in found.box]).mean(axis=0) * spacing

    # The first slice's centre lies half a slice, less half a cube, above the first cube's.
    np.testing.assert_allclose(centre, (21.0 - (2.5 - CUBE_MM) / 2, 30.0, 18.0), atol=0.5)


def test_a_candidate_without_probability_keeps_its_own_voxels() -> None:
    voxels = np.full((20, 40, 40), LUNG, dtype=np.float32)
    seen = np.zeros((20, 40, 40), dtype=np.float32)
    box = (slice(8, 12), slice(15, 22), slice(15, 22))
    found = outline(voxels, GRID_MM, seen, seen == 0, Region(box=box, mask=np.ones((4, 7, 7), dtype=bool)))

    whole = np.zeros(voxels.shape, dtype=bool)
    whole[found.box] = found.mask
    assert whole[box].all()
    assert whole.sum() == whole[box].sum()
