"""Counting what was found and what was not there."""

import numpy as np
import pytest
from numpy.typing import NDArray

from training.dataset import synthetic
from training.evaluate import Evaluation, Truth, evaluate

Floats = NDArray[np.float32]


def truth(score: float, diameter: float = 8.0, kind: str = "solid") -> Truth:
    return Truth(diameter_mm=diameter, kind=kind, slice_thickness_mm=2.5, score=score)


EXAMPLE = Evaluation(
    truths=(truth(0.9), truth(0.5, diameter=5.0), truth(0.0, kind="ring")),
    false_scores=(0.8, 0.6, 0.6, 0.3),
    lung_ml=8000.0,
)


def test_false_positives_are_counted_by_four_litres_of_lung() -> None:
    assert EXAMPLE.false_positives(0.5) == pytest.approx(1.5)


def test_the_threshold_is_the_lowest_that_keeps_the_promise() -> None:
    threshold = EXAMPLE.threshold(0.5)
    assert EXAMPLE.false_positives(threshold) <= 0.5 < EXAMPLE.false_positives(threshold - 0.01)


def test_more_false_positives_never_find_fewer_nodules() -> None:
    found = [EXAMPLE.sensitivity(EXAMPLE.threshold(rate))[0] for rate in (0.1, 0.5, 1.0, 2.0, 4.0)]
    assert found == sorted(found)


def test_groups_name_how_many_of_how_many() -> None:
    groups = EXAMPLE.groups(0.5)
    assert groups["size under 6 mm"] == (1, 1)
    assert groups["size 6 to 10 mm"] == (1, 2)
    assert groups["kind ring"] == (0, 1)
    assert groups["slices of 2.5 mm"] == (2, 3)


def bright(values: Floats, _lungs: object) -> Floats:
    """A detector that takes everything denser than the toy lung for a nodule."""
    return (values > 0.4).astype(np.float32)


def test_a_blind_detector_finds_nothing_and_a_bright_one_something() -> None:
    backgrounds, shapes = synthetic()
    blind = evaluate(lambda values, _lungs: np.zeros_like(values), backgrounds, shapes, scans=2, seed=1, lowest=0.3)
    seeing = evaluate(bright, backgrounds, shapes, scans=2, seed=1, lowest=0.3)
    assert len(blind.truths) == len(seeing.truths) > 4
    assert blind.lung_ml == seeing.lung_ml > 10
    assert blind.sensitivity(0.3)[0] == 0 < seeing.sensitivity(0.3)[0]
    assert blind.false_scores == ()


def test_a_detector_that_marks_the_whole_lung_finds_nothing() -> None:
    """One region that holds every nodule points at none of them."""
    backgrounds, shapes = synthetic()
    everywhere = evaluate(
        lambda values, _lungs: np.full_like(values, 0.9), backgrounds, shapes, scans=2, seed=1, lowest=0.3
    )
    assert everywhere.sensitivity(0.3)[0] == 0


def test_only_held_out_shapes_judge() -> None:
    backgrounds, shapes = synthetic()
    teaching = [shape for shape in shapes if not shape.held_out]
    assert 0 < len(teaching) < len(shapes)
    with pytest.raises(ValueError, match="held-out"):
        evaluate(bright, backgrounds, teaching, scans=1, seed=1, lowest=0.3)
