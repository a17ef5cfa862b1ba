"""What a CT tells of a finding beyond its mask: bodies drawn as a scanner averages them, against their truth."""

import math
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from pydicom import Dataset
from scipy import ndimage
from scipy.spatial.transform import Rotation

from dicom_node.core.finding import Border
from workers.measurement import Measurements, measure
from workers.volume import Region, Volume

Vector = tuple[float, float, float]

LUNG_HU, NODULE_HU = -850.0, 30.0
SPACING_MM = (1.0, 0.7, 0.7)
#: A voxel that a border crosses is drawn from so many places along each axis.
PLACES = 5


@dataclass(frozen=True, kw_only=True)
class Body:
    """An ellipsoid: its radii, how it is turned, and where in a voxel its centre lies (k, j, i)."""

    radii_mm: Vector
    turn: NDArray[np.float64]
    shift: Vector = (0.0, 0.0, 0.0)

    @property
    def form(self) -> NDArray[np.float64]:
        """The matrix of its quadratic form."""
        return np.asarray(self.turn @ np.diag(1 / np.square(self.radii_mm)) @ self.turn.T)

    def at(self, places: NDArray[np.float64]) -> NDArray[np.float64]:
        """At places [..., 3] in mm from its centre below 1 within it, and 1 on its surface."""
        return np.asarray(((places @ self.form) * places).sum(axis=-1))

    @property
    def truth(self) -> NDArray[np.float64]:
        """Long and short axis in the plane of its largest extent, their mean, largest diameter, volume."""
        short, long = 2 / np.sqrt(np.linalg.eigvalsh(self.form[1:, 1:])[::-1])
        volume = 4 / 3 * math.pi * math.prod(self.radii_mm)
        return np.array([long, short, (long + short) / 2, 2 * max(self.radii_mm), volume])


def ball(radius_mm: float, shift: Vector = (0.0, 0.0, 0.0)) -> Body:
    return Body(radii_mm=(radius_mm,) * 3, turn=np.eye(3), shift=shift)


def drawn(
    body: Body,
    spacing_mm: Vector = SPACING_MM,
    *,
    hu: float = NODULE_HU,
    noise_hu: float = 0.0,
    blur_mm: float = 0.0,
    seed: int = 0,
) -> tuple[Region, Volume]:
    """A body in lung as a CT shows it, each voxel the mean over its extent, and the mask of what it fills by half."""
    steps = np.array(spacing_mm)
    shape = tuple(2 * math.ceil((max(body.radii_mm) + 4 * max(spacing_mm)) / step) + 1 for step in spacing_mm)
    away = np.stack(np.indices(shape), axis=-1) * steps - (np.array(shape) // 2 + body.shift) * steps
    value = body.at(away)
    share = (value <= 1).astype(float)
    # Farther from the surface than a voxel's corner there is nothing to average.
    slope = 2 * np.linalg.norm(away @ body.form, axis=-1) + 1e-9
    near = np.abs(value - 1) / slope < 2 * np.linalg.norm(steps)
    offsets = (np.stack(np.meshgrid(*[np.arange(PLACES)] * 3), axis=-1).reshape(-1, 3) + 0.5) / PLACES - 0.5
    places = away[near][:, None] + offsets * steps
    share[near] = (body.at(places) <= 1).mean(axis=1)
    voxels = LUNG_HU + (hu - LUNG_HU) * share
    if blur_mm:
        voxels = ndimage.gaussian_filter(voxels, blur_mm / steps)
    voxels = voxels + np.random.default_rng(seed).normal(0.0, noise_hu, shape)
    labels, _ = ndimage.label(voxels >= (hu + LUNG_HU) / 2)
    mask = labels == labels[tuple(size // 2 for size in shape)]
    return Region(box=tuple(slice(0, size) for size in shape), mask=mask), volume_of(voxels, spacing_mm)  # type: ignore[arg-type]  # three axes


def volume_of(voxels: NDArray[np.float64], spacing_mm: Vector) -> Volume:
    headers = []
    for k in range(len(voxels)):
        headers.append(Dataset())
        headers[-1].SOPInstanceUID = f"1.2.3.{k}"
    affine = np.diag([*spacing_mm[::-1], 1.0])
    return Volume(voxels=voxels.astype(np.float32), affine=affine, spacing_mm=spacing_mm, headers=tuple(headers))


def errors(found: Measurements, body: Body) -> NDArray[np.float64]:
    """In percent, of what `Body.truth` lists."""
    long, short = found.long_axis.length_mm, found.short_axis.length_mm
    measured = (long, short, (long + short) / 2, found.maximum_3d_diameter_mm, found.volume_mm3)
    return np.asarray(100 * (np.array(measured) / body.truth - 1))


shifts = st.tuples(*[st.floats(-0.5, 0.5)] * 3)
turns = st.integers(0, 10**6).map(lambda seed: Rotation.random(rng=np.random.default_rng(seed)).as_matrix())
bodies = st.one_of(
    st.builds(ball, st.floats(3.0, 15.0), shifts),
    st.builds(Body, radii_mm=st.tuples(*[st.floats(3.0, 8.0)] * 3), turn=turns, shift=shifts),
    st.builds(Body, radii_mm=st.tuples(*[st.floats(3.0, 15.0)] * 3), turn=turns, shift=shifts),
)


@settings(max_examples=40, deadline=None)
@given(body=bodies)
def test_every_single_body_from_6_mm_on_is_measured_within_three_percent(body: Body) -> None:
    """1 mm slices of 0.7 mm pixels, wherever its centre lies in a voxel, and however it is turned."""
    region, volume = drawn(body)
    found = measure(region, volume, by_attenuation=True)

    assert found.border is Border.ATTENUATION
    assert np.abs(errors(found, body)).max() <= 3.0, errors(found, body)
    assert abs(errors(found, body)[-1]) <= 0.5, "the volume is what is filled, and nearly exact"


@settings(max_examples=15, deadline=None)
@given(radius_mm=st.floats(2.0, 3.0), shift=shifts)
def test_smaller_balls_too_but_for_what_slices_leave_out(radius_mm: float, shift: Vector) -> None:
    """Of a ball of 4 mm the slice nearest to its centre may lie half a millimetre beside it, where it is narrower."""
    body = ball(radius_mm, shift)
    region, volume = drawn(body)
    found = measure(region, volume, by_attenuation=True)

    assert (np.abs(errors(found, body)) <= (5.0, 5.0, 5.0, 5.0, 1.0)).all(), errors(found, body)


@settings(max_examples=15, deadline=None)
@given(radius_mm=st.floats(3.0, 6.0), shift=shifts, seed=st.integers(0, 999))
def test_noise_and_blur_are_borne(radius_mm: float, shift: Vector, seed: int) -> None:
    body = ball(radius_mm, shift)
    region, volume = drawn(body, noise_hu=30.0, blur_mm=0.4, seed=seed)
    found = measure(region, volume, by_attenuation=True)

    assert found.border is Border.ATTENUATION
    assert (np.abs(errors(found, body)) <= (5.0, 4.0, 4.0, 6.0, 5.0)).all(), errors(found, body)


def test_where_the_mask_is_coarse_the_attenuation_tells_more() -> None:
    random = np.random.default_rng(4)
    by_mask, by_attenuation = [], []
    for _ in range(12):
        body = ball(3.0, tuple(random.uniform(-0.5, 0.5, 3)))
        region, volume = drawn(body)
        by_mask.append(errors(measure(region, volume), body))
        by_attenuation.append(errors(measure(region, volume, by_attenuation=True), body))

    assert np.abs(by_mask).max(axis=0)[-1] > 4.0
    assert np.abs(by_attenuation).max(axis=0)[-1] < 0.5


def fallen_back(region: Region, volume: Volume) -> bool:
    """Whether the mask alone was measured."""
    return measure(region, volume, by_attenuation=True) == measure(region, volume)


def changed(region: Region, volume: Volume, how: str) -> tuple[Region, Volume]:
    """A body of 10 mm of which the attenuation says nothing, or something else than its mask."""
    hu, mask = volume.voxels.copy(), region.mask
    depth = ndimage.distance_transform_edt(mask)
    half = np.arange(hu.shape[2]) > hu.shape[2] // 2
    if how == "it has a ground-glass half":
        hu[mask & half] = -500.0
    elif how == "its surroundings are of two kinds":
        hu[~mask & half] = 30.0
    elif how == "it is as dense as its surroundings":
        hu[:] = 30.0
    elif how == "the mask is larger than what is seen":
        mask = ndimage.binary_dilation(mask, np.ones((3, 3, 3)))
    elif how == "the mask is smaller":
        mask = depth > 2
    elif how == "the volume ends in it":
        hu, mask = hu[len(hu) // 2 :], mask[len(mask) // 2 :]
    elif how == "noise is as large as the contrast":
        hu += np.random.default_rng(1).normal(0.0, 300.0, hu.shape).astype(np.float32)
    return Region(box=tuple(slice(0, size) for size in mask.shape), mask=mask), volume_of(hu, volume.spacing_mm)  # type: ignore[arg-type]  # three axes


@pytest.mark.parametrize(
    "how",
    [
        "it has a ground-glass half",
        "its surroundings are of two kinds",
        "it is as dense as its surroundings",
        "the mask is larger than what is seen",
        "the mask is smaller",
        "the volume ends in it",
        "noise is as large as the contrast",
    ],
)
def test_where_the_attenuation_does_not_tell_the_mask_alone_is_measured(how: str) -> None:
    region, volume = drawn(ball(5.0))
    assert not fallen_back(region, volume)
    assert fallen_back(*changed(region, volume, how))


def test_a_vessel_that_the_mask_leaves_out_adds_nothing() -> None:
    region, volume = drawn(ball(4.0))
    alone = measure(region, volume, by_attenuation=True)
    j, i = (np.arange(size) - size // 2 for size in volume.voxels.shape[1:])
    beside = (np.abs(j)[:, None] <= 1) & (i > 0)
    vessel = np.zeros(volume.voxels.shape, dtype=bool)
    middle = len(vessel) // 2
    vessel[middle - 1 : middle + 2] = beside
    volume.voxels[vessel & ~region.mask] = NODULE_HU
    found = measure(region, volume, by_attenuation=True)

    assert found.border is Border.ATTENUATION
    # Where it leaves, a voxel of the mask is taken for its stump.
    assert found.volume_mm3 == pytest.approx(alone.volume_mm3, rel=0.03)
    assert found.long_axis.length_mm == pytest.approx(alone.long_axis.length_mm, abs=0.5)


@pytest.mark.parametrize(("diameter_mm", "vessel_mm"), [(8.0, 2.0), (12.0, 2.0), (10.0, 3.0)])
def test_a_vessel_through_a_nodule_makes_it_less_long_than_its_mask(diameter_mm: float, vessel_mm: float) -> None:
    """A straight vessel along a row, drawn as a scanner averages it, of which the mask ends a pixel from the ball."""
    shape, places = (29, 41, 41), 4
    steps = (np.arange(places) + 0.5) / places - 0.5
    k, j, i = (
        (np.add.outer(np.arange(n) - n // 2, steps).ravel() * mm).astype(np.float32)
        for n, mm in zip(shape, SPACING_MM, strict=True)
    )
    across = np.add.outer(k**2, j**2)[..., None]
    there = (across + i**2 <= (diameter_mm / 2) ** 2) | (across <= (vessel_mm / 2) ** 2)
    share = there.reshape(shape[0], places, shape[1], places, shape[2], places).mean(axis=(1, 3, 5))
    voxels = ndimage.gaussian_filter(LUNG_HU + (NODULE_HU - LUNG_HU) * share, 0.5 / np.array(SPACING_MM))
    voxels += np.random.default_rng(3).normal(0.0, 20.0, shape)
    k, j, i = (np.arange(n) - n // 2 for n in shape)
    k, j, i = (np.asarray(at * mm) for at, mm in zip((k, j, i), SPACING_MM, strict=True))
    within = np.sqrt(np.add.outer(np.add.outer(k**2, j**2), i**2)) <= diameter_mm / 2 + 0.7
    region = Region(
        box=(slice(0, shape[0]), slice(0, shape[1]), slice(0, shape[2])),
        mask=within & (voxels >= (LUNG_HU + NODULE_HU) / 2),
    )
    volume = volume_of(voxels, SPACING_MM)

    found, by_mask = measure(region, volume, by_attenuation=True), measure(region, volume)
    assert found.border is Border.ATTENUATION
    assert abs(found.long_axis.length_mm - diameter_mm) <= min(1.0, by_mask.long_axis.length_mm - diameter_mm)
    assert found.short_axis.length_mm == pytest.approx(diameter_mm, abs=0.3)
    assert found.volume_mm3 == pytest.approx(math.pi / 6 * diameter_mm**3, rel=0.03)


def ending_in(
    diameter_mm: float, vessel_mm: float, axis: int, slice_mm: float, shifts: tuple[float, float, float]
) -> tuple[Region, Volume]:
    """A ball, in which a vessel along an axis ends, and whose mask is the ball alone."""
    spacing_mm = (slice_mm, 0.7, 0.7)
    shape = tuple(2 * math.ceil((diameter_mm / 2 + 8) / size) + 1 for size in spacing_mm)
    places = (np.arange(4) + 0.5) / 4 - 0.5
    at = [
        (np.add.outer(np.arange(n) - n // 2 - shift, places).ravel() * size).astype(np.float32)
        for n, shift, size in zip(shape, shifts, spacing_mm, strict=True)
    ]
    square = [(along**2).reshape([-1 if n == own else 1 for n in range(3)]) for own, along in enumerate(at)]
    body = square[0] + square[1] + square[2] <= (diameter_mm / 2) ** 2
    along = at[axis].reshape([-1 if n == axis else 1 for n in range(3)])
    beside = sum(part for own, part in enumerate(square) if own != axis)
    vessel = (beside <= (vessel_mm / 2) ** 2) & (along > 0)
    fine = (shape[0], 4, shape[1], 4, shape[2], 4)
    alone, share = (np.asarray(there).reshape(fine).mean(axis=(1, 3, 5)) for there in (body, body | vessel))
    voxels = LUNG_HU + (NODULE_HU - LUNG_HU) * share + np.random.default_rng(1).normal(0.0, 10.0, shape)
    mask = (alone >= 0.5) & (voxels > (LUNG_HU + NODULE_HU) / 2)
    box = (slice(0, shape[0]), slice(0, shape[1]), slice(0, shape[2]))
    return Region(box=box, mask=mask), volume_of(voxels, spacing_mm)


@pytest.mark.parametrize("axis", [0, 2], ids=["across the slices", "along a row"])
@pytest.mark.parametrize(
    ("slice_mm", "diameter_mm", "vessel_mm"), [(1.0, 6.0, 1.5), (2.0, 8.0, 1.5), (1.0, 10.0, 2.0), (2.5, 10.0, 2.0)]
)
@pytest.mark.parametrize("shifts", [(0.2, -0.1, 0.3), (-0.4, 0.3, 0.1), (0.45, 0.0, -0.2)])
def test_a_vessel_that_ends_in_a_nodule_takes_hardly_any_volume_from_it(
    shifts: tuple[float, float, float], slice_mm: float, diameter_mm: float, vessel_mm: float, axis: int
) -> None:
    found = measure(*ending_in(diameter_mm, vessel_mm, axis, slice_mm, shifts), by_attenuation=True)
    assert found.border is Border.ATTENUATION
    assert found.volume_mm3 == pytest.approx(math.pi / 6 * diameter_mm**3, rel=0.04)


@pytest.mark.parametrize("axis", [0, 2], ids=["across the slices", "along a row"])
@pytest.mark.parametrize(("diameter_mm", "vessel_mm"), [(6.0, 1.5), (10.0, 2.0)])
@pytest.mark.parametrize("slice_mm", [1.0, 2.0])
def test_beside_a_vessel_that_ends_in_a_nodule_its_border_is_as_full_as_elsewhere(
    slice_mm: float, diameter_mm: float, vessel_mm: float, axis: int
) -> None:
    scene = ending_in(diameter_mm, vessel_mm, axis, slice_mm, (0.2, -0.1, 0.3))
    found = measure(*scene, by_attenuation=True)
    assert found.border is Border.ATTENUATION
    assert found.long_axis.length_mm == pytest.approx(diameter_mm, abs=0.15)
    assert found.short_axis.length_mm == pytest.approx(diameter_mm, abs=0.15)


@pytest.mark.parametrize("diameter_mm", [12.0, 16.0])
def test_a_coarse_grids_mask_that_is_a_little_small_leaves_the_volume_right(diameter_mm: float) -> None:
    """What it lacks is a thin shell all round, and nothing that goes on."""
    body = ball(diameter_mm / 2, (0.2, -0.3, 0.1))
    region, volume = drawn(body, (3.0, 2.0, 2.0), noise_hu=10.0, blur_mm=0.6)
    small = Region(box=region.box, mask=region.mask & (volume.voxels > -250.0))
    assert errors(measure(small, volume), body)[-1] < -8.0

    found = measure(small, volume, by_attenuation=True)
    assert found.border is Border.ATTENUATION
    assert abs(errors(found, body)[-1]) <= 5.0


@pytest.mark.parametrize("share", [0.5, 0.62], ids=["its mask", "a mask that is a little small"])
@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("end", [0, -1])
def test_a_nodule_one_voxel_from_the_side_of_its_volume_is_measured_as_elsewhere(
    axis: int, end: int, share: float
) -> None:
    region, volume = drawn(ball(4.0, (0.2, 0.1, -0.3)))
    full = volume.voxels > LUNG_HU + share * (NODULE_HU - LUNG_HU)
    region = Region(box=region.box, mask=region.mask & full[region.box])
    there = np.flatnonzero(region.mask.any(axis=tuple(other for other in range(3) if other != axis)))
    kept = [slice(None)] * 3
    kept[axis] = slice(there[0] - 1, None) if end == 0 else slice(None, there[-1] + 2)
    hu, mask = volume.voxels[tuple(kept)], region.mask[tuple(kept)]
    box = tuple(slice(0, size) for size in mask.shape)
    found = measure(Region(box=box, mask=mask), volume_of(hu, SPACING_MM), by_attenuation=True)  # type: ignore[arg-type]  # three axes
    whole = measure(region, volume, by_attenuation=True)

    assert found.border is Border.ATTENUATION
    assert found.volume_mm3 == pytest.approx(whole.volume_mm3, rel=0.005)
    assert found.long_axis.length_mm == pytest.approx(whole.long_axis.length_mm, abs=0.05)
    assert found.maximum_3d_diameter_mm == pytest.approx(whole.maximum_3d_diameter_mm, abs=0.05)


@pytest.mark.parametrize("seed", range(4))
def test_a_noisy_ground_glass_nodule_is_read_no_longer(seed: int) -> None:
    body = ball(5.0, (0.3, -0.2, 0.1))
    region, volume = drawn(body, hu=-600.0, noise_hu=20.0, blur_mm=0.4, seed=seed)
    found = measure(Region(box=region.box, mask=ndimage.binary_fill_holes(region.mask)), volume, by_attenuation=True)

    assert found.border is Border.ATTENUATION
    assert found.long_axis.length_mm == pytest.approx(10.0, abs=0.3)
    assert abs(errors(found, body)[-1]) <= 3.0


def test_a_wall_at_one_side_is_no_surroundings() -> None:
    """Where there is lung on most sides, the nodule's own border there tells."""
    body = ball(5.0)
    region, volume = drawn(body)
    middle = volume.voxels.shape[2] // 2
    volume.voxels[:, :, middle + 10 :] = NODULE_HU
    found = measure(region, volume, by_attenuation=True)

    assert found.border is Border.ATTENUATION
    assert np.abs(errors(found, body)).max() <= 3.0


def test_only_who_outlined_by_attenuation_measures_by_it() -> None:
    region, volume = drawn(ball(5.0))

    assert measure(region, volume).border is Border.SMOOTHED
    assert measure(region, volume, by_attenuation=True).border is Border.ATTENUATION


@pytest.mark.parametrize(("size", "border"), [(3, Border.VOXELS), (4, Border.SMOOTHED), (70, Border.VOXELS)])
def test_a_mask_says_how_it_was_measured(size: int, border: Border) -> None:
    """Of fewer than 16 pixels it is all steps, and of more than 200,000 voxels steps are no part worth smoothing."""
    mask = np.ones((size, size, size), dtype=bool)
    volume = volume_of(np.zeros(mask.shape), (1.0, 1.0, 1.0))

    assert measure(Region(box=tuple(slice(0, size) for _ in "kji"), mask=mask), volume).border is border  # type: ignore[arg-type]  # three axes


def test_thick_slices_are_borne() -> None:
    body = ball(8.0, (0.2, 0.3, -0.1))
    region, volume = drawn(body, (2.5, 0.8, 0.8))
    found = measure(region, volume, by_attenuation=True)

    assert found.border is Border.ATTENUATION
    assert np.abs(errors(found, body)).max() <= 4.0
