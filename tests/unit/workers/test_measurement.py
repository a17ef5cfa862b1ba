"""Measurements against bodies whose measures are known."""

import math
from collections.abc import Sequence
from itertools import permutations
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from scipy.spatial.transform import Rotation

from tests.factories import OBLIQUE, ct_series
from workers.measurement import Measurements, measure
from workers.volume import Region, Volume, load_volume

SHAPE = (48, 56, 64)
CENTRE = (24.0, 28.0, 32.0)


def volume_of(
    spacing_mm: tuple[float, float, float],
    *,
    turn: NDArray[np.float64] | None = None,
    origin: tuple[float, ...] = (0, 0, 0),
) -> Volume:
    """An empty volume of the test's shape, whose axes are turned and whose first voxel lies at the origin."""
    affine = np.eye(4)
    affine[:3, :3] = (np.eye(3) if turn is None else turn) @ np.diag(spacing_mm[::-1])
    affine[:3, 3] = origin
    headers = []
    for k in range(SHAPE[0]):
        headers.append(Dataset())
        headers[-1].SOPInstanceUID = f"1.2.3.{k}"
    return Volume(
        voxels=np.zeros(SHAPE, dtype=np.float32), affine=affine, spacing_mm=spacing_mm, headers=tuple(headers)
    )


def ellipsoid(
    radii_mm: tuple[float, float, float],
    spacing_mm: tuple[float, float, float],
    degrees: float = 0.0,
    centre: Sequence[float] = CENTRE,
) -> Region:
    """An ellipsoid by its radii along k, j, i, turned in the plane, about a place in the test's shape."""
    k, j, i = (
        (axis - middle) * spacing
        for axis, middle, spacing in zip(np.indices(SHAPE, dtype=float), centre, spacing_mm, strict=True)
    )
    c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    along, across = c * i + s * j, c * j - s * i
    inside = (k / radii_mm[0]) ** 2 + (across / radii_mm[1]) ** 2 + (along / radii_mm[2]) ** 2 <= 1
    return Region(box=(slice(0, SHAPE[0]), slice(0, SHAPE[1]), slice(0, SHAPE[2])), mask=inside)


def lengths(found: Measurements) -> tuple[float, float, float]:
    return found.long_axis.length_mm, found.short_axis.length_mm, found.maximum_3d_diameter_mm


@pytest.mark.parametrize("spacing_mm", [(1.0, 0.7, 0.7), (2.5, 0.8, 0.8), (5.0, 0.6, 0.6)])
def test_a_sphere_has_its_diameter_every_way_and_its_volume(spacing_mm: tuple[float, float, float]) -> None:
    found = measure(ellipsoid((9.7, 9.7, 9.7), spacing_mm), volume_of(spacing_mm))

    assert found.long_axis.length_mm == pytest.approx(19.4, abs=0.8)
    assert found.short_axis.length_mm == pytest.approx(19.4, abs=0.8)
    # The mesh of thick slices has their steps for a surface, and five of them sample a ball coarsely.
    assert found.maximum_3d_diameter_mm == pytest.approx(19.4, abs=0.8 + spacing_mm[0] / 2)
    assert found.volume_mm3 == pytest.approx(4 / 3 * math.pi * 9.7**3, rel=0.03 + spacing_mm[0] / 100)


@pytest.mark.parametrize("degrees", [0, 20, 45, 77, 90])
def test_an_ellipsoid_keeps_its_axes_however_it_is_turned(degrees: float) -> None:
    spacing = (1.0, 0.7, 0.7)
    found = measure(ellipsoid((6.0, 5.0, 11.0), spacing, degrees), volume_of(spacing))

    assert found.long_axis.length_mm == pytest.approx(22.0, abs=0.9)
    assert found.short_axis.length_mm == pytest.approx(10.0, abs=0.9)
    way = np.subtract(found.long_axis.end, found.long_axis.start)
    angle = math.degrees(math.atan2(way[1], way[0])) % 180
    assert min(abs(angle - degrees), 180 - abs(angle - degrees)) < 8
    across = np.subtract(found.short_axis.end, found.short_axis.start)
    assert abs(way @ across) < 1e-6


def test_one_voxel_measures_its_own_extent() -> None:
    mask = np.zeros((1, 1, 1), dtype=bool)
    mask[0, 0, 0] = True
    region = Region(box=(slice(5, 6), slice(6, 7), slice(7, 8)), mask=mask)
    found = measure(region, volume_of((2.0, 0.5, 0.5)))

    assert lengths(found) == pytest.approx((0.5, 0.5, 2.0))
    assert found.volume_mm3 == pytest.approx(0.5)
    assert found.centre == pytest.approx((3.5, 3.0, 10.0))


def test_the_outline_is_closed_and_in_pixel_coordinates_of_its_own_slice() -> None:
    mask = np.ones((2, 3, 4), dtype=bool)
    mask[0, :, 2:] = False
    found = measure(Region(box=(slice(5, 7), slice(10, 13), slice(20, 24)), mask=mask), volume_of((1.0, 1.0, 1.0)))
    points = np.array(found.outline.points)

    assert found.outline.sop_instance_uid == "1.2.3.6"
    assert found.outline.points[0] == found.outline.points[-1]
    # Columns 20 to 23 reach from 20 to 24, rows 10 to 12 from 10 to 13 (PS3.3 Section C.18.6.1.1).
    assert points.min(axis=0).tolist() == [20.0, 10.0]
    assert points.max(axis=0).tolist() == [24.0, 13.0]


def errors(radii_mm: tuple[float, float, float], count: int = 24) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean and largest error in percent over ellipsoids turned and placed at random, at 1 mm slices of 0.7 mm pixels.

    Of long axis, short axis, their mean, largest diameter and volume.
    """
    spacing, random = (1.0, 0.7, 0.7), np.random.default_rng(7)
    across, along = sorted(radii_mm[1:])
    long, short, largest = 2 * along, 2 * across, 2 * max(radii_mm)
    truth = (long, short, (long + short) / 2, largest, 4 / 3 * math.pi * math.prod(radii_mm))
    found = []
    for _ in range(count):
        centre = CENTRE + random.uniform(-0.5, 0.5, 3)
        region = ellipsoid((radii_mm[0], across, along), spacing, random.uniform(0, 180), centre)
        one = measure(region, volume_of(spacing))
        a, b, c = lengths(one)
        found.append((a, b, (a + b) / 2, c, one.volume_mm3))
    percent = 100 * (np.array(found) / truth - 1)
    return percent.mean(axis=0), np.abs(percent).max(axis=0)


@pytest.mark.parametrize("diameter_mm", [6, 8, 10, 15, 20])
def test_of_balls_from_6_mm_on_diameters_and_volume_are_within_three_percent(diameter_mm: float) -> None:
    """Measured over 60 places each: on average at most 3.0 %, the mean diameter never more than 2.8 %.

    One axis alone strayed by 3.9 % at 6 mm and 2.6 % from 8 mm on, the largest diameter by 6.4 % and 4.6 %, and the
    number of voxels by 7.9 % and 2.6 %: that is what a grid of such voxels tells of so small a ball.
    """
    mean, most = errors((diameter_mm / 2,) * 3)
    assert np.abs(mean).max() <= 3.1
    assert most[2] <= 3.0
    bounds = (4.0, 4.0, 3.0, 6.5, 8.0) if diameter_mm < 8 else (3.0, 3.0, 3.0, 5.0, 3.0)
    assert (most <= bounds).all(), most


@pytest.mark.parametrize("radii_mm", [(4, 3, 5), (6, 5, 11), (8, 4, 6), (10, 7, 12)])
def test_of_ellipsoids_too_however_they_are_turned(radii_mm: tuple[float, float, float]) -> None:
    """Measured over 60 places each: on average at most 2.5 %, the mean diameter never more than 2.8 %."""
    mean, most = errors(radii_mm)
    assert np.abs(mean).max() <= 3.0
    assert (most <= (4.5, 5.5, 3.0, 4.5, 4.0)).all(), most


@pytest.mark.parametrize(("diameter_mm", "bound"), [(4, 12.5), (5, 8.0)])
def test_of_smaller_balls_a_mask_tells_less(diameter_mm: float, bound: float) -> None:
    """On average within 4.1 %, at worst 12.3 % at 4 mm and 7.9 % at 5 mm; below that a ball is a handful of voxels."""
    mean, most = errors((diameter_mm / 2,) * 3)
    assert np.abs(mean).max() <= 4.2
    assert most.max() <= bound


def test_attenuation_is_that_of_the_voxels_inside() -> None:
    volume = volume_of((1.0, 1.0, 1.0))
    region = ellipsoid((5.0, 5.0, 5.0), volume.spacing_mm)
    volume.voxels[:] = -850.0
    volume.voxels[region.mask] = np.random.default_rng(5).normal(30.0, 12.0, int(region.mask.sum()))
    found = measure(region, volume)

    assert found.mean_hu == pytest.approx(float(volume.voxels[region.mask].mean()), abs=1e-3)
    assert found.deviation_hu == pytest.approx(float(volume.voxels[region.mask].std()), abs=1e-3)


def test_a_region_without_voxels_is_an_error() -> None:
    empty = Region(box=(slice(0, 1), slice(0, 1), slice(0, 1)), mask=np.zeros((1, 1, 1), dtype=bool))

    with pytest.raises(ValueError, match="without voxels"):
        measure(empty, volume_of((1.0, 1.0, 1.0)))


def test_places_are_patient_coordinates_of_an_oblique_series(tmp_path: Path) -> None:
    hu = np.zeros((12, 20, 20), dtype=np.int16)
    volume = load_volume(ct_series(tmp_path, voxels=hu, directions=OBLIQUE))
    region = Region(box=(slice(4, 7), slice(8, 13), slice(6, 9)), mask=np.ones((3, 5, 3), dtype=bool))
    found = measure(region, volume)

    assert found.centre == pytest.approx(volume.to_patient(7, 10, 5))
    for axis in (found.long_axis, found.short_axis):
        on_slice = np.linalg.inv(volume.affine) @ (*axis.start, 1.0)
        assert on_slice[2] == pytest.approx(5.0), "of three alike it is the middle one"
        assert np.linalg.norm(np.subtract(axis.end, axis.start)) == pytest.approx(axis.length_mm)


bodies = st.tuples(*[st.floats(2.0, 9.0)] * 3)


@settings(max_examples=15)
@given(radii=bodies, shift=st.tuples(*[st.floats(-500, 500)] * 3), seed=st.integers(0, 999))
def test_moving_and_turning_the_patient_changes_no_length(
    radii: tuple[float, float, float], shift: tuple[float, ...], seed: int
) -> None:
    spacing = (1.5, 0.8, 0.8)
    region = ellipsoid(radii, spacing)
    turn = Rotation.random(rng=np.random.default_rng(seed)).as_matrix()
    still, moved = (measure(region, v) for v in (volume_of(spacing), volume_of(spacing, turn=turn, origin=shift)))

    assert lengths(moved) == pytest.approx(lengths(still))
    assert moved.volume_mm3 == pytest.approx(still.volume_mm3)
    np.testing.assert_allclose(moved.centre, turn @ still.centre + shift, atol=1e-6)


@settings(max_examples=15)
@given(radii=bodies, scale=st.floats(0.3, 3.0))
def test_lengths_grow_with_the_voxels_and_volumes_with_their_cube(
    radii: tuple[float, float, float], scale: float
) -> None:
    spacing = (1.5, 0.8, 0.7)
    region = ellipsoid(radii, spacing)
    larger = (spacing[0] * scale, spacing[1] * scale, spacing[2] * scale)
    before, after = measure(region, volume_of(spacing)), measure(region, volume_of(larger))

    assert lengths(after) == pytest.approx(tuple(length * scale for length in lengths(before)))
    assert after.volume_mm3 == pytest.approx(before.volume_mm3 * scale**3)


@settings(max_examples=15)
@given(radii=bodies, order=st.sampled_from(list(permutations(range(3)))))
def test_swapping_axes_keeps_volume_and_largest_diameter(
    radii: tuple[float, float, float], order: tuple[int, int, int]
) -> None:
    spacing = (1.0, 1.0, 1.0)
    region = ellipsoid(radii, spacing)
    swapped = Region(box=tuple(region.box[axis] for axis in order), mask=region.mask.transpose(order))  # type: ignore[arg-type]  # three axes stay three
    cut = Region(box=swapped.box, mask=swapped.mask)
    volume = Volume(
        voxels=np.zeros(cut.mask.shape, dtype=np.float32),
        affine=np.eye(4),
        spacing_mm=spacing,
        headers=volume_of(spacing).headers * 2,
    )
    before, after = measure(region, volume_of(spacing)), measure(cut, volume)

    assert after.volume_mm3 == before.volume_mm3
    assert after.maximum_3d_diameter_mm == pytest.approx(before.maximum_3d_diameter_mm)


@settings(max_examples=15)
@given(radii=bodies)
def test_the_short_axis_is_never_the_longer_one_nor_the_plane_longer_than_space(
    radii: tuple[float, float, float],
) -> None:
    long, short, largest = lengths(measure(ellipsoid(radii, (1.5, 0.8, 0.8)), volume_of((1.5, 0.8, 0.8))))

    assert 0 < short <= long + 1e-9
    assert long <= largest + 1e-9
