"""Number formats: bfloat16 only where a bundle allows it and the processor has units for it."""

from collections.abc import Mapping

import numpy as np
import pytest
import torch

from workers.precision import BFLOAT16, PRECISION, allows_bfloat16, has_bfloat16_units, is_lowered, served
from workers.second_look import SecondLook, Weights

ALLOWED: Mapping[str, str] = {PRECISION: BFLOAT16}


@pytest.fixture
def units(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """A processor with units for bfloat16, or without."""
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"amx_bf16": request.param})
    return bool(request.param)


both = pytest.mark.parametrize("units", [True, False], indirect=True)


def multiplied(allowed: bool) -> torch.dtype:
    with served(torch.device("cpu"), allowed):
        return torch.nn.functional.linear(torch.ones(1, 2), torch.ones(3, 2)).dtype


@both
def test_a_bundle_that_allows_it_is_computed_in_bfloat16_where_there_are_units(units: bool) -> None:
    assert multiplied(allowed=True) == (torch.bfloat16 if units else torch.float32)
    assert is_lowered(torch.device("cpu"), allows_bfloat16(ALLOWED)) == has_bfloat16_units("cpu") == units
    assert not is_lowered(torch.device("cuda"), allows_bfloat16(ALLOWED))


@both
@pytest.mark.parametrize("metadata", [{}, {PRECISION: "fp16"}, {"amp": True}], ids=str)
def test_a_bundle_that_does_not_say_so_is_computed_in_full_precision(
    units: bool, metadata: Mapping[str, object]
) -> None:
    assert not allows_bfloat16(metadata)
    assert multiplied(allowed=False) == torch.float32


@both
def test_a_second_look_is_lowered_only_where_it_may_be(units: bool) -> None:
    torch.manual_seed(3)
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 1))
    crops = np.random.default_rng(1).random((3, 4, 4, 4), dtype=np.float32)
    weights = Weights(first=1.0, second=1.0, constant=0.0)
    full, lowered = (
        SecondLook(network, (4, 4, 4), weights, lower_precision=may).opinions(crops) for may in (False, True)
    )
    assert np.array_equal(full, lowered) != units
    np.testing.assert_allclose(full, lowered, atol=0.01)
