"""Backgrounds, their division, and patches by number."""

from pathlib import Path

import numpy as np
import pytest

from training.dataset import Background, Patches, background, load, site, synthetic
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
