"""A batch of radiographs changed at once: each as its own number says, whatever lies beside it."""

import numpy as np
import pytest
import torch

from training.pneumonia_mnist import synthetic
from training.radiograph_augmentation import CHANGING, MOVING, RadiographAugmentation, smoothed
from training.shifted_radiographs import SHIFTS, shifted

EVERYTHING = {
    "affine": {"prob": 0.9, "rotate_range": [0.2], "translate_range": [3.0, 3.0], "scale_range": [0.2, 0.2]},
    "elastic_2d": {"prob": 0.5, "magnitude": 1.0},
    "flip": {"prob": 0.5, "spatial_axis": 1},
    **{name: {"prob": 0.5} for name in CHANGING},
}


@pytest.fixture
def images() -> np.ndarray:
    return synthetic()["train"].images[:12]


def test_an_example_does_not_depend_on_the_batch_that_it_is_in(images: np.ndarray) -> None:
    change = RadiographAugmentation(EVERYTHING, seed=3)
    numbers = list(range(100, 112))
    together = change(numbers, images)
    alone = np.concatenate([change([number], image[None]) for number, image in zip(numbers, images, strict=True)])
    other = RadiographAugmentation(EVERYTHING, seed=4)(numbers, images)

    np.testing.assert_allclose(together, alone, atol=1e-5)
    assert np.abs(together - other).max() > 0.1
    assert len(np.unique(together.mean(axis=(1, 2)))) == 12


@pytest.mark.parametrize("name", sorted({*MOVING, *CHANGING}))
def test_each_transform_changes_pictures_and_keeps_them_within_0_and_1(name: str, images: np.ndarray) -> None:
    arguments = {"prob": 1.0} | ({"rotate_range": [0.3]} if name == "affine" else {})
    before = images.copy()
    changed = RadiographAugmentation({name: arguments}, seed=1)(range(12), images)

    assert changed.shape == images.shape
    assert changed.dtype == np.float32
    assert changed.min() >= 0
    assert changed.max() <= 1
    # A draw may be near nothing.
    assert (np.abs(changed - images).max(axis=(1, 2)) > 1e-3).sum() >= 9
    np.testing.assert_array_equal(images, before)
    never = RadiographAugmentation({name: {**arguments, "prob": 0.0}}, seed=1)
    np.testing.assert_allclose(never(range(12), images), images, atol=1e-5)


def test_without_transforms_and_with_a_mirror_it_is_exact(images: np.ndarray) -> None:
    np.testing.assert_array_equal(RadiographAugmentation({}, seed=1)(range(12), images), images)
    mirrored = RadiographAugmentation({"flip": {"prob": 1.0}}, seed=1)(range(12), images)
    np.testing.assert_allclose(mirrored, images[:, :, ::-1], atol=1e-5)


def test_an_unknown_transform_is_named_with_those_there_are() -> None:
    with pytest.raises(ValueError, match=r"unknown transform warp.*affine.*shift"):
        RadiographAugmentation({"warp": {}}, seed=1)


def test_a_blur_keeps_the_mean_of_what_is_far_from_the_border() -> None:
    picture = torch.zeros(2, 1, 28, 28)
    picture[:, 0, 14, 14] = 1.0
    narrow, wide = smoothed(picture, torch.tensor([0.5, 1.0])[:, None, None, None])[:, 0]
    assert float(narrow.sum()) == pytest.approx(1.0, abs=1e-5)
    assert float(wide.sum()) == pytest.approx(1.0, abs=1e-5)
    assert float(narrow[14, 14]) > 2 * float(wide[14, 14])


def test_shifted_images_hold_both_classes_alike_and_name_the_image_they_are_of() -> None:
    split = synthetic()["val"]
    given = shifted(split)

    assert len(given.images) == len(given.truth) == len(given.of)
    assert 0.3 < given.truth.mean() < 0.5
    assert {int(name) for name in given.of} == set(range(len(split)))
    np.testing.assert_array_equal(given.truth, split.pneumonia[[int(name) for name in given.of]])
    assert given.images.min() >= 0
    assert given.images.max() <= 1
    plain = int((~split.pneumonia | (np.arange(len(split)) % 3 == 0)).sum())
    np.testing.assert_array_equal(given.images[:plain], split.images[[int(name) for name in given.of[:plain]]])
    np.testing.assert_array_equal(shifted(split).images, given.images)


@pytest.mark.parametrize("name", [name for name in SHIFTS if name != "as they are"])
def test_each_shift_changes_every_picture(name: str) -> None:
    pictures = torch.from_numpy(synthetic()["val"].images[:, None])
    assert (SHIFTS[name](pictures) - pictures).abs().amax(dim=(1, 2, 3)).min() > 0.02
