"""A second look by networks that are known: what it is shown, and what becomes of the score."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from workers.preprocessing import Candidate
from workers.second_look import VIEWS, SecondLook, Weights, centre_of, crop

SIZE = (8, 10, 10)
ALIKE = Weights(first=0.5, second=0.5, constant=0.0)
ONLY_SECOND = Weights(first=0.0, second=1.0, constant=0.0)


class MiddleIsBright(nn.Module):
    """Sure of a nodule where the middle of a crop is bright, and of none where it is dark."""

    def forward(self, crops: torch.Tensor) -> torch.Tensor:
        k, j, i = (n // 2 for n in crops.shape[2:])
        middle = crops[:, :, k - 1 : k + 1, j - 1 : j + 1, i - 1 : i + 1]
        return 20.0 * (middle.flatten(1).mean(dim=1, keepdim=True) - 0.5)


class FirstCorner(nn.Module):
    """What is in one corner of a crop."""

    def forward(self, crops: torch.Tensor) -> torch.Tensor:
        return crops[:, :, 0, 0, 0]


def candidate(centre: tuple[int, int, int], score: float) -> Candidate:
    k, j, i = (slice(at - 1, at + 2) for at in centre)
    return Candidate(score=score, peak=centre, region=(k, j, i), mask=np.ones((3, 3, 3), dtype=bool))


def test_what_the_second_look_denies_falls_behind() -> None:
    values = np.zeros((40, 50, 50), dtype=np.float32)
    values[8:13, 8:13, 8:13] = 1.0
    dark, bright = candidate((30, 30, 30), 0.9), candidate((10, 10, 10), 0.6)
    found = SecondLook(MiddleIsBright(), SIZE, ALIKE)(values, [dark, bright])
    assert [each.peak for each in found] == [(10, 10, 10), (30, 30, 30)]
    assert found[0].score > 0.6 > 0.1 > found[1].score


def test_without_candidates_there_is_nothing_to_look_at() -> None:
    assert SecondLook(MiddleIsBright(), SIZE, ALIKE)(np.zeros((9, 9, 9), dtype=np.float32), []) == []


def test_a_crop_turned_over_is_seen_alike() -> None:
    look = SecondLook(FirstCorner(), SIZE, ONLY_SECOND)
    crops = np.random.default_rng(1).random((2, *SIZE)).astype(np.float32)
    said = look.opinions(crops)
    for axis in (1, 2, 3):
        np.testing.assert_allclose(look.opinions(np.ascontiguousarray(np.flip(crops, axis))), said, atol=1e-6)
    assert len(VIEWS) == 8


@given(first=st.floats(0.01, 0.99), second=st.floats(0.01, 0.99), more=st.floats(0.0, 0.5))
def test_more_certainty_of_either_never_lowers_the_score(first: float, second: float, more: float) -> None:
    def score(a: float, b: float) -> float:
        return float(ALIKE(np.array([min(a, 1.0)]), np.array([min(b, 1.0)]))[0])

    assert 0.0 <= score(first, second) <= min(score(first + more, second), score(first, second + more)) <= 1.0


def test_a_crop_holds_its_place_in_the_middle_and_the_edges_beyond() -> None:
    values = np.zeros((12, 12, 12), dtype=np.float32)
    values[0, 6, 6] = 1.0
    seen = crop(values, (0, 6, 6), SIZE)
    assert seen.shape == SIZE
    assert seen[4, 5, 5] == 1.0
    # What lies before the first slice is that slice again.
    assert seen[:5, 5, 5].tolist() == [1.0] * 5


def test_the_middle_of_a_candidate_is_that_of_its_box() -> None:
    assert centre_of(candidate((10, 20, 30), 0.5)) == (10, 20, 30)


def test_many_candidates_are_not_looked_at_in_silence() -> None:
    """A worker ends a reading that says nothing for long: on a slow CPU a look at many takes that long."""
    beats: list[str] = []
    look = SecondLook(FirstCorner(), SIZE, ONLY_SECOND, beats.append)
    look.opinions(np.zeros((20, *SIZE), dtype=np.float32))
    assert beats == ["second look"] * 3


def test_a_reading_that_was_withdrawn_ends_within_the_second_look() -> None:
    def withdrawn(_step: str) -> None:
        raise InterruptedError

    look = SecondLook(FirstCorner(), SIZE, ONLY_SECOND, withdrawn)
    with pytest.raises(InterruptedError):
        look(np.zeros((40, 50, 50), dtype=np.float32), [candidate((10, 10, 10), 0.6)])


@pytest.mark.parametrize("count", [0, 1, 8, 9, 17])
def test_many_candidates_are_looked_at_in_parts(count: int) -> None:
    crops = np.random.default_rng(2).random((count, *SIZE)).astype(np.float32)
    look = SecondLook(FirstCorner(), SIZE, ONLY_SECOND)
    assert look.opinions(crops).shape == (count,)
    np.testing.assert_allclose(look.opinions(crops)[-1:], look.opinions(crops[-1:]), atol=1e-6)
