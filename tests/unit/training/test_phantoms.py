"""A generated chest: what its truth says is what was drawn."""

import json
from pathlib import Path

import numpy as np
import pydicom
import pytest
from numpy.typing import NDArray
from scipy.ndimage import label

from training.anatomy import LOBES, Thorax
from training.hila import Hila
from training.lung_trees import Segments
from training.phantom_drawing import Drawing, Slab
from training.phantom_nodules import (
    KINDS,
    MEASURING_STEP_MM,
    NoduleShape,
    PhantomNodule,
    measured,
    random_nodule,
    random_shape,
)
from training.phantoms import THORAX_LPS_MM, LungMap, Phantom, lung_tubes, make_phantom, placed_nodules, write_phantom
from training.skeleton import Skeleton
from training.surfaces import axes_of

LOBE_SIDE = {name: name.split()[0] for name in LOBES}


@pytest.fixture(scope="module")
def phantom() -> Phantom:
    """A coarse chest with a nodule of each kind."""
    return make_phantom(5, small=True, nodules=4)


@pytest.fixture(scope="module")
def lungs() -> LungMap:
    """The depths of one person's lungs."""
    return LungMap.of(Thorax.random(np.random.default_rng(3)), step_mm=4.0)


@pytest.fixture(scope="module")
def placed(lungs: LungMap) -> tuple[PhantomNodule, ...]:
    """A nodule of each kind in them."""
    return placed_nodules(KINDS, lungs, np.random.default_rng(9))


def hu_at(phantom: Phantom, place: tuple[float, float, float]) -> float:
    """Mean HU of the voxels around a place (LPS mm)."""
    i, j, k = (
        round((value - start) / step)
        for value, start, step in zip(place, phantom.origin_mm, phantom.spacing_mm[::-1], strict=True)
    )
    return float(phantom.hu[k, j, i])


def test_the_same_seed_gives_the_same_voxels_and_another_seed_others() -> None:
    first, again, other = (make_phantom(seed, shape=(8, 32, 32), nodules=1) for seed in (7, 7, 8))
    assert np.array_equal(first.hu, again.hu)
    assert first.nodules == again.nodules
    assert not np.array_equal(first.hu, other.hu)
    assert first.nodules != other.nodules


def test_every_nodule_stands_out_of_the_lung_at_the_place_that_its_truth_says(phantom: Phantom) -> None:
    assert len(phantom.nodules) == 4
    for nodule in phantom.nodules:
        assert hu_at(phantom, nodule.centre_lps_mm) > -500, nodule.location


def test_a_nodule_s_location_is_on_the_side_where_it_lies(phantom: Phantom) -> None:
    for nodule in phantom.nodules:
        on_the_left = nodule.centre_lps_mm[0] > THORAX_LPS_MM[0]
        assert LOBE_SIDE[nodule.location] == ("left" if on_the_left else "right")


def test_the_kinds_come_in_their_order_each_in_a_lobe_of_its_own(phantom: Phantom) -> None:
    assert [(nodule.texture, nodule.margin) for nodule in phantom.nodules] == [
        (kind.texture, kind.margin) for kind in KINDS
    ]
    assert len({nodule.location for nodule in phantom.nodules}) == 4


def test_a_negative_phantom_has_two_lungs_of_plausible_size_and_no_truth() -> None:
    phantom = make_phantom(2, small=True, nodules=0)
    assert phantom.nodules == ()
    air, count = label(phantom.hu < -600)
    litres = np.bincount(air.ravel(), minlength=count + 1)[1:] * np.prod(phantom.spacing_mm) / 1e6
    outside = air[0, 0, 0]
    inside = [size for number, size in enumerate(litres, start=1) if number != outside]
    assert 3.0 < sum(inside) < 8.0


def test_the_body_has_the_tissues_of_a_chest(phantom: Phantom) -> None:
    body = phantom.hu[:, 20:110, :]
    for low, high, least in ((-950, -780, 0.1), (-130, -70, 0.02), (20, 80, 0.05), (150, 1500, 0.01)):
        assert np.mean((body > low) & (body < high)) > least, (low, high)


def test_a_ball_is_measured_as_a_ball() -> None:
    volume, long_axis, short_axis = measured(NoduleShape(radius_mm=5.0))
    assert volume == pytest.approx(4 / 3 * np.pi * 125, rel=0.005)
    assert long_axis == pytest.approx(10.0, abs=0.3)
    assert short_axis == pytest.approx(10.0, abs=0.3)


def test_bumps_and_spicules_add_to_a_ball_s_volume_but_only_bumps_to_its_axes() -> None:
    ball = NoduleShape(radius_mm=5.0)
    bumpy = NoduleShape(radius_mm=5.0, bumps=((0.5, (1.0, 0.0, 0.0)),))
    spiky = NoduleShape(radius_mm=5.0, spicules=(((1.0, 0.0, 0.0), 5.0, 1.5),))
    assert measured(bumpy)[0] > measured(ball)[0]
    assert measured(bumpy)[1] == pytest.approx(12.5, abs=0.3)
    assert measured(spiky)[0] > measured(ball)[0]
    assert measured(spiky)[1:] == pytest.approx(measured(ball)[1:], abs=MEASURING_STEP_MM)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: f"{kind.texture} {kind.margin}")
def test_nothing_of_a_nodule_lies_beyond_its_reach(kind: object) -> None:
    assert isinstance(kind, type(KINDS[0]))
    shape = random_shape(kind.margin, kind.largest_diameter_mm, np.random.default_rng(11))
    axis = np.linspace(-30, 30, 121, dtype=np.float32)
    x, y, z = axis[None, None, :], axis[None, :, None], axis[:, None, None]
    inside = shape.whole(x, y, z) < 0
    assert inside.any()
    assert np.sqrt(x * x + y * y + z * z)[inside].max() <= shape.reach_mm


@pytest.mark.parametrize("kind", KINDS[:3], ids=lambda kind: kind.margin)
def test_the_drawn_voxels_hold_the_volume_that_the_truth_says(kind: object) -> None:
    assert isinstance(kind, type(KINDS[0]))
    rng = np.random.default_rng(4)
    nodule = random_nodule(kind, random_shape(kind.margin, 12.0, rng), (0.3, -0.2, 0.4), "left upper lobe", rng)
    share = (drawn_alone(nodule) + 860) / (nodule.hu + 860)
    assert share.sum() * 0.78 * 0.78 * 1.0 == pytest.approx(nodule.volume_mm3, rel=0.03)


def drawn_alone(nodule: PhantomNodule) -> NDArray[np.float32]:
    """The nodule in even parenchyma of -860 HU, in voxels of 0.78 x 0.78 x 1 mm."""
    shape = (60, 80, 80)
    grid = axes_of(np.array([-31.0, -31.0, -30.0]), (0.78, 0.78, 1.0), shape)
    even = np.zeros(shape, dtype=np.float32)
    slab = Slab(grid=grid, hu=even - 860, rough=even, fine=even, edge_mm=0.9)
    empty = Thorax.random(np.random.default_rng(0))
    nothing = lung_tubes_of_nothing()
    drawing = Drawing(
        thorax=empty, skeleton=Skeleton.whole(), vessels=nothing, airways=nothing, nodules=(), offset_mm=np.zeros(3)
    )
    drawing.draw_nodule(slab, nodule)
    return slab.hu


def lung_tubes_of_nothing() -> Segments:
    """No tubes at all."""
    return Segments(starts=np.empty((0, 3)), ends=np.empty((0, 3)), start_radii=np.empty(0), end_radii=np.empty(0))


def test_vessels_and_airways_keep_clear_of_every_nodule(lungs: LungMap, placed: tuple[PhantomNodule, ...]) -> None:
    hila = Hila.random(np.random.default_rng(9))
    for tubes in lung_tubes(hila, lungs, placed, np.random.default_rng(9), voxel_mm=2.0):
        for nodule in placed:
            centre = np.array(nodule.centre_lps_mm) - THORAX_LPS_MM
            for points, radii in ((tubes.starts, tubes.start_radii), (tubes.ends, tubes.end_radii)):
                assert (np.linalg.norm(points - centre, axis=1) - radii).min() > nodule.shape.reach_mm, nodule.margin


def test_nodules_lie_within_the_parenchyma(lungs: LungMap, placed: tuple[PhantomNodule, ...]) -> None:
    for nodule in placed:
        centre = np.array([nodule.centre_lps_mm]) - THORAX_LPS_MM
        assert lungs.depth(centre)[0] > nodule.shape.reach_mm


def test_the_written_truth_is_that_of_the_phantom_and_lies_beside_the_series(phantom: Phantom, tmp_path: Path) -> None:
    paths = write_phantom(phantom, tmp_path, uid_seed="truth")
    truth = json.loads((tmp_path / "truth.json").read_text())
    assert len(paths) == len(phantom.hu) == len(list((tmp_path / "series").iterdir()))
    assert [fact["volume_mm3"] for fact in truth["nodules"]] == [round(n.volume_mm3, 1) for n in phantom.nodules]
    lowest, highest = (float(pydicom.dcmread(paths[n]).ImagePositionPatient[2]) for n in (-1, 0))
    for fact in truth["nodules"]:
        assert lowest < fact["centre_lps_mm"][2] < highest
        assert fact["short_axis_mm"] <= fact["long_axis_mm"]
        assert fact["location"] in LOBES
