"""What a score means: fitted on validation data, kept in the metadata, the same when read again."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.calibration import FOR_CLASSIFIERS, FOR_DETECTORS, fit, negative_log_likelihood
from workers.calibration import Calibration


def sigmoid(logits: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-logits))


def overconfident(n: int, factor: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities whose logits are a factor too large, and what came."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0.0, 2.0, n)
    return sigmoid(factor * logits), (rng.random(n) < sigmoid(logits)).astype(float)


def names(n: int) -> list[str]:
    return [str(i) for i in range(n)]


def test_a_temperature_is_found_again() -> None:
    said, came = overconfident(4000, 3.0)
    found = fit(said, came, names(4000))
    assert found.method == "temperature"
    assert found.temperature == pytest.approx(3.0, rel=0.1)
    assert negative_log_likelihood(found(said), came) < negative_log_likelihood(said, came)


def test_what_no_temperature_mends_is_mended_by_steps() -> None:
    """Low scores that come half of the time and high ones that always do."""
    rng = np.random.default_rng(1)
    said = rng.random(3000)
    came = ((said > 0.6) | (rng.random(3000) < 0.5)).astype(float)
    found = fit(said, came, names(3000))
    assert found.method == "isotonic"
    assert found(np.array([0.2]))[0] == pytest.approx(0.5, abs=0.06)
    assert found(np.array([0.9]))[0] > 0.99


def test_what_is_said_too_often_is_mended_by_a_shift() -> None:
    """Logits that are all 2 too high."""
    rng = np.random.default_rng(3)
    logits = rng.normal(0.0, 2.0, 4000)
    came = (rng.random(4000) < sigmoid(logits)).astype(float)
    found = fit(sigmoid(logits + 2), came, names(4000), methods=FOR_CLASSIFIERS)
    assert found.method == "platt"
    assert found.temperature == pytest.approx(1.0, rel=0.1)
    assert found.shift == pytest.approx(-2.0, rel=0.1)
    again = Calibration.from_json(json.loads(json.dumps(found.as_json())))
    np.testing.assert_array_equal(found(sigmoid(logits)), again(sigmoid(logits)))


def test_the_choice_is_that_of_the_folds() -> None:
    said, came = overconfident(600, 2.0)
    found = fit(said, came, names(600))
    assert set(found.likelihoods) == {"none", *FOR_DETECTORS}
    assert found.method == min(FOR_DETECTORS, key=found.likelihoods.__getitem__)
    assert found.cases == 600


@pytest.mark.parametrize("shape", [lambda p: p, lambda p: np.where(p > 0.5, p, 0.5)])
def test_a_calibration_read_again_says_the_same(shape: object) -> None:
    rng = np.random.default_rng(2)
    said = rng.random(500)
    came = (rng.random(500) < shape(said)).astype(float)  # type: ignore[operator]
    found = fit(said, came, names(500))
    again = Calibration.from_json(json.loads(json.dumps(found.as_json())))
    np.testing.assert_array_equal(found(said), again(said))
    assert again.method == found.method


@given(st.lists(st.floats(0, 1), min_size=2, max_size=20), st.floats(0.1, 10))
def test_a_temperature_changes_no_order_and_keeps_a_half(scores: list[float], temperature: float) -> None:
    given_ = np.sort(np.array(scores))
    said = Calibration(method="temperature", temperature=temperature)(given_)
    assert (np.diff(said) >= 0).all()
    assert ((said >= 0) & (said <= 1)).all()
    assert Calibration(method="temperature", temperature=temperature)(np.array([0.5]))[0] == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ({"method": "histogram"}, "histogram"),
        ({"method": "temperature"}, "has no temperature"),
        ({"method": "temperature", "temperature": 0}, "above 0"),
        ({"method": "platt", "temperature": 1}, "has no shift"),
        ({"method": "platt", "temperature": 1, "shift": float("inf")}, "no number"),
        ({"method": "temperature", "temperature": float("nan")}, "above 0"),
        ({"method": "isotonic", "x": [0.1, 0.9]}, "has no y"),
        ({"method": "isotonic", "x": [], "y": []}, "as many"),
        ({"method": "isotonic", "x": [0.1, 0.9], "y": [0.5]}, "as many"),
        ({"method": "isotonic", "x": [0.9, 0.1], "y": [0.1, 0.9]}, "rise"),
        ({"method": "isotonic", "x": [0.1, 0.9], "y": [0.9, 0.1]}, "rise"),
        ({"method": "isotonic", "x": [0.1, 0.9], "y": [0.1, 1.9]}, "within 0 and 1"),
    ],
)
def test_what_is_no_rising_map_within_0_and_1_is_refused(entry: dict[str, object], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Calibration.from_json(entry)
