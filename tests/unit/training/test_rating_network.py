"""What is compared with the shape features is shown nodules as they are, and judged on the same ones."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from training.augmentation import draw
from training.dataset import Background, synthetic
from training.rating_network import SIZE, RatedCrops, compared
from training.shapes import Shape
from workers.preprocessing import GRID_MM


def ball(number: int, radius: float) -> Shape:
    """A ball whose readers go by its size."""
    stretch = 1 + 0.2 * np.random.default_rng(number).random(3)
    inside = ((np.indices((31, 31, 31)) - 15.0) / stretch[:, None, None, None]) ** 2
    return Shape(
        patient=f"P{number}",
        probability=(255 * (inside.sum(axis=0) <= radius**2)).astype(np.uint8),
        texture=5.0,
        calcified=False,
        malignancy=4.5 if radius > 5 else 1.5,
    )


@pytest.fixture(scope="module")
def backgrounds() -> list[Background]:
    return synthetic()[0]


def test_a_nodule_lies_in_the_middle_of_its_crop(backgrounds: list[Background]) -> None:
    shape = ball(1, 6.0)
    values = RatedCrops(backgrounds, [shape], 0)(shape, 0)

    assert values is not None
    assert values.shape == SIZE
    # Denser than -400 HU.
    assert values[11:13, 19:21, 19:21].mean() > 0.46


@pytest.mark.parametrize("radius", [3.5, 5.0, 8.0])
def test_a_nodule_keeps_its_size_where_that_is_asked_for(radius: float) -> None:
    """What is asked of the network goes by size most of all."""
    shape = ball(1, radius)
    drawn = draw(shape, np.random.default_rng(4), "solid", 1.0)
    wanted = float((shape.probability > 127).sum())

    assert (drawn.body > 0.5).sum() * np.prod(GRID_MM) == pytest.approx(wanted, rel=0.12)


def test_the_same_number_gives_the_same_crop_and_another_another(backgrounds: list[Background]) -> None:
    shape = ball(1, 5.0)
    crops = RatedCrops(backgrounds, [shape], 0)
    one, again, other = (crops(shape, number) for number in (0, 0, 1))

    assert one is not None
    np.testing.assert_array_equal(one, again)
    assert not np.array_equal(one, other)


def test_both_are_judged_on_the_same_nodules_of_patients_that_taught_neither(
    backgrounds: list[Background], tmp_path: Path
) -> None:
    rng = np.random.default_rng(3)
    shapes = [ball(number, float(rng.uniform(3.0, 8.0))) for number in range(60)]
    shapes.append(replace(ball(61, 5.0), malignancy=3.0))
    figures = compared(backgrounds, shapes, 0.01, tmp_path / "crops.npz", replicates=30)
    held_out = [shape for shape in shapes if shape.held_out and shape.malignancy != 3.0]

    assert {estimate.cases for estimate in figures.values()} == {len(held_out)}
    # The readers went by size, and by nothing else.
    assert figures["volume alone"].value > 0.9
    again = compared(backgrounds, shapes, 0.01, tmp_path / "crops.npz", replicates=30)
    assert again["shape features"] == figures["shape features"]
