"""The shipped detector of nodules on a drawn one: in lower precision, turned over and again it says the same."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from workers.bundles import SHIPPED_BUNDLES, load_bundle
from workers.inference import Inference
from workers.precision import PRECISION
from workers.preprocessing import Candidate, candidates

Floats = NDArray[np.float32]

SHAPE = (32, 48, 48)
CENTRE = (14, 27, 20)
THRESHOLD = 0.3


@pytest.fixture(scope="module")
def inference() -> Inference:
    """In full precision, whatever this processor is fast in."""
    bundle = load_bundle(SHIPPED_BUNDLES / "lung_nodule")
    full = {key: value for key, value in bundle.metadata.items() if key != PRECISION}
    return Inference(replace(bundle, metadata=full), "cpu")


@pytest.fixture(scope="module")
def piece() -> Floats:
    """A solid nodule of 10 mm in even lung with a little noise, as the network is given it."""
    k, j, i = (np.arange(n, dtype=float) - c for n, c in zip(SHAPE, CENTRE, strict=True))
    distance = np.sqrt((k[:, None, None] * 1.5) ** 2 + j[:, None] ** 2 + i**2)
    hu = -860 + np.clip((5.0 - distance) / 1.5 + 0.5, 0, 1) * 890
    hu += np.random.default_rng(2).normal(0, 12, SHAPE)
    return ((hu + 1000) / 1300).clip(0, 1).astype(np.float32)


def best(probability: Floats) -> Candidate:
    return candidates(probability, np.ones(SHAPE, dtype=bool), THRESHOLD)[0]


def middle(candidate: Candidate) -> NDArray[np.float64]:
    return np.argwhere(candidate.mask).mean(axis=0) + [part.start for part in candidate.region]


def test_it_finds_the_nodule_where_it_was_drawn_and_the_same_on_every_run(inference: Inference, piece: Floats) -> None:
    first, again = inference.opinion(piece), inference.opinion(piece)

    np.testing.assert_array_equal(first, again)
    assert best(first).score > 0.8
    assert np.abs(middle(best(first)) - CENTRE).max() < 1.5


def test_in_bfloat16_the_score_stays_within_three_hundredths_and_the_place_within_a_voxel(
    inference: Inference, piece: Floats
) -> None:
    full = inference.opinion(piece)
    with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16):
        network = inference._network
        half = torch.sigmoid(network(torch.from_numpy(piece)[None, None]).float())[0, 0].numpy()

    assert not np.array_equal(full, half)
    assert best(half).score == pytest.approx(best(full).score, abs=0.03)
    assert np.abs(middle(best(half)) - middle(best(full))).max() < 1.0


@pytest.mark.parametrize("axes", [axes for n in (1, 2, 3) for axes in itertools.combinations((0, 1, 2), n)])
def test_turned_over_it_finds_the_nodule_at_the_same_place(
    inference: Inference, piece: Floats, axes: tuple[int, ...]
) -> None:
    """No network is quite alike in a mirror: within two voxels, and above the threshold of reports."""
    turned = np.flip(inference.opinion(np.ascontiguousarray(np.flip(piece, axes))), axes)

    assert best(turned).score > 0.8
    assert np.abs(middle(best(turned)) - CENTRE).max() < 2.0
