"""Solid, part solid or ground glass, of balls whose attenuation is known."""

import numpy as np
import pytest
from numpy.typing import NDArray
from pydicom import Dataset

from dicom_node.core.lung_rads import Composition
from workers.composition import Consistence, consistence, in_words
from workers.volume import Region, Volume

SPACING = (1.0, 0.7, 0.7)
SHAPE = (31, 41, 41)


def distance() -> NDArray[np.float64]:
    centre = (np.array(SHAPE) - 1) / 2
    offsets = [(axis - c) * mm for axis, c, mm in zip(np.indices(SHAPE), centre, SPACING, strict=True)]
    return np.asarray(np.sqrt(sum(offset**2 for offset in offsets)))


def volume(hu: NDArray[np.float64]) -> Volume:
    headers = []
    for k in range(len(hu)):
        header = Dataset()
        header.SOPInstanceUID = f"2.25.{k + 1}"
        headers.append(header)
    return Volume(
        voxels=hu.astype(np.float32), affine=np.diag([0.7, 0.7, 1.0, 1.0]), spacing_mm=SPACING, headers=tuple(headers)
    )


def ball(radius: float, hu: float, core: float = 0.0, core_hu: float = 30.0) -> tuple[Region, Volume]:
    """A ball in lung, with another in its middle, both blurred by about a voxel."""
    away = distance()
    values = -860.0 + np.clip((radius - away) / 1.2 + 0.5, 0, 1) * (hu + 860.0)
    if core:
        values += np.clip((core - away) / 1.2 + 0.5, 0, 1) * (core_hu - hu)
    return Region(box=(slice(0, 31), slice(0, 41), slice(0, 41)), mask=away <= radius), volume(values)


@pytest.mark.parametrize(
    ("hu", "core", "said"),
    [
        (20.0, 0.0, Composition.SOLID),
        (-600.0, 0.0, Composition.NON_SOLID),
        (-600.0, 4.5, Composition.PART_SOLID),
    ],
)
def test_a_ball_consists_of_what_it_was_drawn_with(hu: float, core: float, said: Composition) -> None:
    assert consistence(*ball(8.0, hu, core)).composition is said


def test_the_edge_of_a_solid_nodule_is_no_ground_glass() -> None:
    """Half of a small ball's voxels are shared with the lung around it."""
    assert consistence(*ball(3.5, 20.0)).composition is Composition.SOLID


def test_the_solid_part_has_its_own_diameter() -> None:
    found = consistence(*ball(9.0, -600.0, core=4.0))
    assert found.solid_diameter_mm == pytest.approx(8.0, rel=0.15)
    assert consistence(*ball(9.0, -600.0)).solid_diameter_mm is None


def test_a_solid_part_counts_however_large_the_ground_glass_around_it_is() -> None:
    assert consistence(*ball(11.0, -600.0, core=3.0)).composition is Composition.PART_SOLID


def test_of_a_ring_or_a_speck_nothing_is_said() -> None:
    assert consistence(*ball(8.0, 20.0, core=5.0, core_hu=-940.0)).composition is None
    assert consistence(*ball(1.2, 20.0)).composition is None


def test_a_report_says_by_which_rule_composition_is_told_and_how_large_solid_parts_are() -> None:
    nothing = Consistence(composition=None)
    mixed = Consistence(composition=Composition.PART_SOLID, solid_diameter_mm=6.26)
    assert in_words([(1, nothing), (2, mixed)]) == (
        "Composition is told by a rule over attenuation that was set on drawn nodules, not on real ones; "
        "the solid part of nodule 2 measures 6.3 mm in mean diameter."
    )
    assert in_words([(1, nothing)]) == in_words([]) == ""
