"""The loss falls with better answers and looks only where it may."""

import pytest
import torch

from training.losses import LOSSES, dice_focal, weighted_sum


def case() -> tuple[torch.Tensor, torch.Tensor]:
    target = torch.zeros(1, 1, 8, 8, 8)
    target[..., 3:5, 3:5, 3:5] = 1
    return target, torch.ones_like(target)


def test_the_right_answer_costs_next_to_nothing() -> None:
    target, counts = case()
    assert dice_focal(target * 40 - 20, target, counts) < 0.01


def test_seeing_nothing_costs_more_than_seeing_too_much_of_the_right_thing() -> None:
    target, counts = case()
    nothing = torch.full_like(target, -6.0)
    fat = nothing.clone()
    fat[..., 2:6, 3:5, 3:5] = 6.0
    assert dice_focal(fat, target, counts) < dice_focal(nothing, target, counts)


def test_voxels_that_do_not_count_have_no_gradient() -> None:
    target, counts = case()
    counts[..., :4] = 0
    logits = torch.zeros_like(target, requires_grad=True)
    dice_focal(logits, target, counts).backward()
    assert logits.grad is not None
    assert not logits.grad[..., :4].any()
    assert logits.grad[..., 4:].any()


def test_a_batch_without_nodules_still_teaches_silence() -> None:
    target, counts = case()
    target.zero_()
    loud, quiet = torch.full_like(target, 2.0), torch.full_like(target, -8.0)
    assert dice_focal(quiet, target, counts) < dice_focal(loud, target, counts)


LOGITS = torch.tensor([[2.0, -1.0, 0.5, 4.0]])
TARGET = torch.tensor([[1.0, 0.0, 1.0, 0.0]])


@pytest.mark.parametrize("name", LOSSES)
def test_no_loss_learns_from_what_does_not_count(name: str) -> None:
    logits, target = LOGITS[:, :, None, None], TARGET[:, :, None, None]
    counts = torch.tensor([1.0, 1.0, 1.0, 0.0])[None, :, None, None]
    changed = logits.clone()
    changed[0, 3] = -9.0
    assert LOSSES[name](logits, target, counts) == pytest.approx(LOSSES[name](changed, target, counts).item())
    assert LOSSES[name](logits, target, torch.ones_like(counts)) != LOSSES[name](changed, target, counts)


@pytest.mark.parametrize("name", LOSSES)
def test_every_loss_falls_along_its_gradient(name: str) -> None:
    logits = LOGITS[:, :, None, None].clone().requires_grad_()
    target = TARGET[:, :, None, None]
    before = LOSSES[name](logits, target, torch.ones_like(target))
    before.backward()
    assert logits.grad is not None
    after = LOSSES[name](logits - 0.1 * logits.grad, target, torch.ones_like(target))
    assert after < before


def test_losses_add_up_with_their_weights() -> None:
    counts = torch.ones_like(TARGET)
    both = weighted_sum({"cross_entropy": 0.25, "focal": 2.0})(LOGITS, TARGET, counts)
    apart = 0.25 * LOSSES["cross_entropy"](LOGITS, TARGET, counts) + 2.0 * LOSSES["focal"](LOGITS, TARGET, counts)
    assert both == pytest.approx(apart.item())
