"""The hila of generated thoraces: each person's own, and joined to what they lead to."""

import numpy as np
import pytest

from training.anatomy import LOBES
from training.hila import ARTERY_ROOTS, ARTERY_TRUNKS, VEIN_ROOTS, VEIN_TRUNKS, Hila


@pytest.fixture(scope="module")
def people() -> list[Hila]:
    """Thirty of them."""
    return [Hila.random(np.random.default_rng(seed)) for seed in range(30)]


def test_no_two_people_have_the_same_hila(people: list[Hila]) -> None:
    assert len({hila.artery_roots for hila in people}) == len({hila.vein_roots for hila in people}) == len(people)
    assert np.ptp([hila.cuff_mm for hila in people]) > 1.0
    firsts = np.array([hila.vessels[0].radii[0] for hila in people])
    assert firsts.min() >= 5.0
    assert firsts.max() <= 8.0
    assert np.ptp(firsts) > 1.5


def test_the_same_generator_gives_the_same_hila() -> None:
    first, again = (Hila.random(np.random.default_rng(4)) for _ in range(2))
    assert first.artery_roots == again.artery_roots
    assert all(np.array_equal(a.points, b.points) for a, b in zip(first.vessels, again.vessels, strict=True))


@pytest.mark.parametrize("side", [0, 1])
def test_each_vessel_leads_from_its_trunk_to_its_lobe_s_root(people: list[Hila], side: int) -> None:
    for hila in people:
        ways = [(ARTERY_TRUNKS, hila.artery_roots), (VEIN_TRUNKS, hila.vein_roots)]
        vessels = [hila.vessels[: len(LOBES)], hila.vessels[len(LOBES) :]]
        for (trunks, roots), tubes in zip(ways, vessels, strict=True):
            for tube, root in zip(tubes, roots, strict=True):
                if (root[0] > 0) == side:
                    assert tube.points[0] == pytest.approx(trunks[side])
                    assert tube.points[-1] == pytest.approx(root)
                    assert tube.radii[-1] < tube.radii[0]


def test_a_root_stays_near_where_most_people_have_it_and_on_its_side(people: list[Hila]) -> None:
    usual = np.array([*ARTERY_ROOTS, *VEIN_ROOTS], dtype=float)
    for hila in people:
        roots = np.array([*hila.artery_roots, *hila.vein_roots])
        assert (np.sign(roots[:, 0]) == np.sign(usual[:, 0])).all()
        assert np.linalg.norm(roots - usual, axis=1).max() < 20.0
