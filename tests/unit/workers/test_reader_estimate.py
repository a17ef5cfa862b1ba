"""What shapes measure, and what becomes of it."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.bundles import CONFIGURATION, SHIPPED_BUNDLES
from workers.reader_estimate import FEATURES, Estimate, ReaderEstimate, features, features_of, in_words
from workers.volume import Region

NAMES = list(FEATURES)


def ball(radius: float, squash: float = 1.0, bumps: float = 0.0, step: float = 1.0) -> np.ndarray:
    """The share of each cube that a ball fills, flattened or covered with spikes."""
    axis = np.arange(-20, 20 + step, step)
    k, j, i = np.meshgrid(axis * squash, axis, axis, indexing="ij")
    away = np.sqrt(k**2 + j**2 + i**2)
    angle = np.cos(4 * np.arctan2(j, i)) * np.cos(4 * np.arctan2(k, np.hypot(i, j)))
    return np.clip((radius * (1 + bumps * angle) - away) / step + 0.5, 0, 1)


def of(share: np.ndarray) -> dict[str, float]:
    found = features(share)
    assert found is not None
    return dict(zip(NAMES, found.tolist(), strict=True))


def test_a_ball_is_round_and_has_its_volume() -> None:
    said = of(ball(8.0))
    assert said["log volume"] == pytest.approx(np.log(4 / 3 * np.pi * 512), abs=0.06)
    assert said["sphericity"] == pytest.approx(1.0, abs=0.06)
    assert said["dents"] < 0.08
    assert said["flatness"] == pytest.approx(1.0, abs=0.05)


def test_flat_and_spiked_bodies_are_told_from_a_ball() -> None:
    round_, flat, spiked = of(ball(8.0)), of(ball(8.0, squash=2.0)), of(ball(8.0, bumps=0.35))
    assert flat["flatness"] < 0.6 < round_["flatness"]
    assert spiked["unevenness"] > 2 * round_["unevenness"]
    assert spiked["dents"] > round_["dents"] + 0.05
    assert spiked["sphericity"] < round_["sphericity"]


def test_a_speck_has_no_shape() -> None:
    assert features(ball(1.0)) is None
    assert features(np.zeros((9, 9, 9))) is None


def test_a_series_of_other_spacing_measures_alike() -> None:
    """What teaches is on cubes of 1 mm, what is read on the series' own voxels."""
    fine = ball(8.0, step=0.5) > 0.5
    found = features_of(Region(box=(slice(0, 81),) * 3, mask=fine), (0.5, 0.5, 0.5))
    assert found is not None
    np.testing.assert_allclose(found, features(ball(8.0)), atol=0.08)


@given(values=st.lists(st.floats(-3, 3), min_size=len(NAMES), max_size=len(NAMES)))
def test_an_estimate_lies_in_its_interval(values: list[float]) -> None:
    rng = np.random.default_rng(1)
    members = rng.normal(size=(12, len(NAMES) + 1))
    entry = {"features": NAMES, "centre": [0.0] * len(NAMES), "scale": [1.0] * len(NAMES), "members": members.tolist()}
    said = ReaderEstimate.from_json(entry)(np.array(values))
    assert 0.0 <= said.low <= said.value <= said.high <= 1.0


def test_on_slices_thicker_than_its_readers_had_a_nodule_has_no_shape() -> None:
    mask = ball(8.0)[::5] > 0.5
    region = Region(box=(slice(0, len(mask)), slice(0, 41), slice(0, 41)), mask=mask)
    assert features_of(region, (5.0, 1.0, 1.0)) is None
    assert features_of(region, (3.0, 1.0, 1.0)) is not None


def test_what_is_unlike_all_that_it_was_fitted_to_is_not_known() -> None:
    section = json.loads((SHIPPED_BUNDLES / "lung_nodule" / CONFIGURATION).read_text())["reader_estimate"]
    estimate = ReaderEstimate.from_json(section)
    for radius in (3.0, 5.0, 8.0, 12.0):
        found = features(ball(radius))
        assert found is not None
        assert estimate.knows(found)
    # Noise that was outlined: mostly dents.
    noise = features(ball(8.0) * (np.random.default_rng(1).random((41, 41, 41)) > 0.35))
    assert noise is not None
    assert not estimate.knows(noise)


def test_other_features_than_ours_are_refused() -> None:
    with pytest.raises(ValueError, match="features"):
        ReaderEstimate.from_json({"features": ["colour"], "centre": [0], "scale": [1], "members": [[0, 0]]})


def test_the_words_claim_no_cancer() -> None:
    words = in_words([(2, Estimate(value=0.31, low=0.2, high=0.45))])
    assert "not a probability of cancer" in words
    assert "nodule 2 0.31 (0.20 to 0.45)" in words
    assert in_words([]) == ""
