"""Backgrounds, their division, and patches by number."""

from pathlib import Path

import numpy as np
import pytest

from training.augmentation import Drawn
from training.dataset import Background, Insertion, Patches, background, insert_seen, load, site, synthetic
from training.shapes import Shape


@pytest.fixture(scope="module")
def toy() -> tuple[list[Background], list[Shape]]:
    return synthetic()


def test_a_missing_folder_is_named_with_the_mend(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="--data"):
        load(tmp_path, tmp_path / "cache")


def test_what_judges_does_not_teach(toy: tuple[list[Background], list[Shape]]) -> None:
    (source,) = toy[0]
    assert not (source.teaching & source.judging).any()
    assert 0.1 < (source.judging & source.lung).sum() / source.lung.sum() < 0.4


def test_the_tumour_of_a_background_neither_teaches_nor_judges() -> None:
    voxels = np.full((40, 60, 60), -1000, dtype=np.int16)
    made = background("4dlung-113", voxels, (3.0, 3.0, 3.0))
    half = made.hu.shape[2] // 2
    assert not (made.teaching | made.judging)[:, :, half:].any()
    assert made.teaching[:, :, : half - 1].any()


def test_the_same_number_gives_the_same_patch(toy: tuple[list[Background], list[Shape]]) -> None:
    first, again, other = (Patches(*toy, (16, 32, 32), seed=4)[n] for n in (7, 7, 8))
    np.testing.assert_array_equal(first.values, again.values)
    np.testing.assert_array_equal(first.nodules, again.nodules)
    assert (first.values != other.values).any()


def test_patches_have_the_wanted_size_and_most_hold_nodules(toy: tuple[list[Background], list[Shape]]) -> None:
    made = [Patches(*toy, (16, 32, 32), seed=4)[n] for n in range(24)]
    assert {patch.values.shape for patch in made} == {(16, 32, 32)}
    assert all(patch.values.min() >= 0 and patch.values.max() <= 1 for patch in made)
    assert 0.3 < np.mean([patch.nodules.any() for patch in made]) < 0.95


def test_hard_negatives_are_shown_again(toy: tuple[list[Background], list[Shape]]) -> None:
    """With one place mined, four patches in ten lie about it."""
    patches = Patches(*toy, (16, 32, 32), seed=4)
    usual = np.stack([patches[n].counts for n in range(40)])
    patches.hard_negatives = np.array([[0, 30.0, 48.0, 30.0, 0.9]])
    changed = [bool((patches[n].counts != usual[n]).any()) for n in range(40)]
    assert any(changed)
    assert not all(changed)


def test_a_nodule_is_placed_in_the_lung_or_nowhere() -> None:
    hu = np.full((10, 10, 10), -850.0, dtype=np.float32)
    lung = np.zeros(hu.shape, dtype=bool)
    assert site(hu, lung, np.random.default_rng(0)) is None
    lung[3:7, 3:7, 3:7] = True
    places = [site(hu, lung, np.random.default_rng(seed)) for seed in range(20)]
    assert all(place is not None and lung[tuple(place)] for place in places)


def test_a_nodule_is_set_against_a_thick_vessel_and_not_into_it() -> None:
    hu = np.full((20, 40, 40), -850.0, dtype=np.float32)
    hu[:, 14:22, 14:22] = 40.0
    places = [site(hu, np.ones(hu.shape, dtype=bool), np.random.default_rng(seed), 3) for seed in range(20)]
    assert all(place is not None and hu[tuple(place)] < -800.0 for place in places)
    assert all(place is not None and 10 <= place[1] <= 25 and 10 <= place[2] <= 25 for place in places)


@pytest.mark.parametrize(("at", "is_seen"), [((10, 20, 20), False), ((10, 20, 32), True)])
def test_a_nodule_that_a_vessel_hides_is_not_drawn(at: tuple[int, int, int], is_seen: bool) -> None:
    hu = np.full((20, 40, 48), -850.0, dtype=np.float32)
    hu[:, 14:27, 14:27] = 40.0
    before, share = hu.copy(), np.ones((3, 5, 5), dtype=np.float32)
    drawn = Drawn(share=share, hu=np.full(share.shape, 30.0, dtype=np.float32), kind="solid", body=share)
    mask = insert_seen(hu, np.ones(hu.shape, dtype=bool), drawn, np.array(at), 0.5)
    assert (mask is not None) == is_seen
    assert (hu != before).any() == is_seen


def test_without_harder_nodules_patches_are_as_they_were(toy: tuple[list[Background], list[Shape]]) -> None:
    usual, harder = (Patches(*toy, (16, 32, 32), 4, Insertion(least_seen=least)) for least in (0.0, 1e-9))
    for number in range(6):
        np.testing.assert_array_equal(usual[number].values, harder[number].values)


def test_large_nodules_are_drawn_as_often_as_it_is_asked_for() -> None:
    def shape(radius: float) -> Shape:
        grid = np.linalg.norm(np.indices((25, 25, 25)) - 12, axis=0)
        probability = (np.clip(radius - grid, 0, 1) * 255).astype(np.uint8)
        return Shape(patient="P-1", probability=probability, texture=5.0, calcified=False)

    shapes = [shape(3.0)] * 98 + [shape(9.0)] * 2
    backgrounds, _ = synthetic()
    plain, more = (
        Patches(backgrounds, shapes, (16, 32, 32), 1, Insertion(large=large)).share[98:].sum() for large in (0.0, 0.4)
    )
    assert plain < 0.06
    assert more == pytest.approx(0.4 + 0.6 * plain)
