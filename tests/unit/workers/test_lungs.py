"""The mask of both lungs comes apart into right and left, on the series' own grid."""

import numpy as np
import pytest
from numpy.typing import NDArray
from pydicom import Dataset

from workers.lungs import LEFT_LUNG, LUNG_OF_UNKNOWN_SIDE, RIGHT_LUNG, Sides, lung_sides
from workers.preprocessing import GRID_MM, grid_shape
from workers.volume import Volume

SHAPE = (40, 40, 40)
SPACING = (5.0, 5.0, 5.0)
#: mm from the middle of a lung to its ends.
LUNG = (34.0, 34.0, 44.0)


def volume_of(row: tuple[float, ...] = (1.0, 0.0, 0.0), column: tuple[float, ...] = (0.0, 1.0, 0.0)) -> Volume:
    """An empty volume whose axes run in these directions."""
    affine = np.eye(4)
    affine[:3, :3] = np.column_stack([row, column, np.cross(row, column)]) @ np.diag(SPACING[::-1])
    return Volume(
        voxels=np.zeros(SHAPE, dtype=np.float32),
        affine=affine,
        spacing_mm=SPACING,
        headers=tuple(Dataset() for _ in range(SHAPE[0])),
    )


def grid_places(volume: Volume) -> NDArray[np.float64]:
    """Patient mm of the centres of the network's grid, the volume's middle being 0."""
    shape = grid_shape(volume.voxels.shape, volume.spacing_mm)
    k, j, i = (
        (np.arange(n) * mm / s - (m - 1) / 2)
        for n, mm, s, m in zip(shape, GRID_MM, volume.spacing_mm, volume.voxels.shape, strict=True)
    )
    columns = volume.affine[:3, :3]
    return k[:, None, None, None] * columns[:, 2] + j[:, None, None] * columns[:, 1] + i[:, None] * columns[:, 0]


def ellipsoid(places: NDArray[np.float64], x: float, radii: tuple[float, float, float]) -> NDArray[np.bool_]:
    return (((places - (x, 0, 0)) / radii) ** 2).sum(axis=-1) <= 1


def both(places: NDArray[np.float64]) -> NDArray[np.bool_]:
    return ellipsoid(places, 52, LUNG) | ellipsoid(places, -52, LUNG)


@pytest.mark.parametrize(
    "cosines", [(1, 0, 0, 0, 1, 0), (-1, 0, 0, 0, 1, 0), (0, 1, 0, 0, 0, -1), (0, 0.6, -0.8, 1, 0, 0)]
)
def test_left_is_where_the_patients_left_is(cosines: tuple[float, ...]) -> None:
    """Law: however the slices run, x grows to the left."""
    volume = volume_of(cosines[:3], cosines[3:])
    places = grid_places(volume)
    lungs = both(places)
    sides = lung_sides(lungs, volume)

    middle = volume.to_patient(*((n - 1) / 2 for n in SHAPE[::-1]))
    for value, sign in ((LEFT_LUNG, 1), (RIGHT_LUNG, -1)):
        voxels = np.argwhere(sides == value)[:, ::-1] @ volume.affine[:3, :3].T + volume.affine[:3, 3] - middle
        assert (voxels[:, 0] * sign > 0).all()
        assert len(voxels) > 0


def test_volumes_are_kept() -> None:
    volume = volume_of()
    places = grid_places(volume)
    sides = lung_sides(both(places), volume)
    for value in (RIGHT_LUNG, LEFT_LUNG):
        found = (sides == value).sum() * np.prod(SPACING)
        assert found == pytest.approx(4 / 3 * np.pi * np.prod(LUNG), rel=0.02)


def test_lungs_that_touch_come_apart_at_the_bridge() -> None:
    volume = volume_of()
    places = grid_places(volume)
    bridge = (np.abs(places[..., 0]) < 30) & (np.abs(places[..., 1]) < 3) & (np.abs(places[..., 2]) < 12)
    sides = lung_sides(both(places) | bridge, volume)

    x = (np.arange(SHAPE[2]) - (SHAPE[2] - 1) / 2) * SPACING[2]
    assert (sides[:, :, x > 10] != RIGHT_LUNG).all()
    assert (sides[:, :, x < -10] != LEFT_LUNG).all()
    assert LUNG_OF_UNKNOWN_SIDE not in sides


def test_one_lung_alone_has_no_side() -> None:
    volume = volume_of()
    sides = lung_sides(ellipsoid(grid_places(volume), 52, LUNG), volume)

    assert set(np.unique(sides)) == {0, LUNG_OF_UNKNOWN_SIDE}


def test_one_wide_lung_alone_has_no_side() -> None:
    """What is left after a lung was taken out grows, and may be wider than many a pair."""
    volume = volume_of()
    sides = lung_sides(ellipsoid(grid_places(volume), 0, (88.0, 60.0, 88.0)), volume)

    assert set(np.unique(sides)) == {0, LUNG_OF_UNKNOWN_SIDE}


@pytest.mark.parametrize(
    "cosines", [(1, 0, 0, 0, 1, 0), (-1, 0, 0, 0, 1, 0), (0, 1, 0, 0, 0, -1), (0, 0.6, -0.8, 1, 0, 0)]
)
def test_the_side_of_a_place_is_that_of_the_lung_it_lies_in(cosines: tuple[float, ...]) -> None:
    """Law: for places and for voxels the lungs tell the same, however the slices run and wherever they lie."""
    volume = volume_of(cosines[:3], cosines[3:])
    volume.affine[:3, 3] = (-31.0, 47.0, 12.0)
    lungs = both(grid_places(volume))
    voxels, sides = lung_sides(lungs, volume), Sides(lungs, volume)

    for k, j, i in np.argwhere(voxels)[::97]:
        assert sides.of(volume.to_patient(i, j, k)) == voxels[k, j, i]


def test_two_parts_of_one_lung_are_no_two_lungs() -> None:
    volume = volume_of()
    places = grid_places(volume)
    parts = ellipsoid(places, 52, LUNG) & (np.abs(places[..., 2]) > 8)

    assert set(np.unique(lung_sides(parts, volume))) == {0, LUNG_OF_UNKNOWN_SIDE}


def test_without_lungs_nothing_is_marked() -> None:
    volume = volume_of()
    shape = grid_shape(volume.voxels.shape, volume.spacing_mm)

    assert not lung_sides(np.zeros(shape, dtype=bool), volume).any()
