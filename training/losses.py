"""Losses by name: what an experiment may add up, each with its weight.

All take logits, targets 0..1 and the voxels that count (1 or 0), of one shape [b, channel, ...], and give one number.
Only what counts is learnt from.
"""

from collections.abc import Callable, Mapping

import torch
from monai.losses.dice import DiceLoss
from monai.losses.focal_loss import FocalLoss
from torch import Tensor
from torch.nn import functional

Loss = Callable[[Tensor, Tensor, Tensor], Tensor]

#: A batch without a nodule is divided by this many voxels (a sphere of 9 mm on the grid).
_FEWEST_VOXELS = 250.0


def cross_entropy(logits: Tensor, target: Tensor, counts: Tensor) -> Tensor:
    """Binary cross-entropy, averaged over what counts."""
    return _mean(functional.binary_cross_entropy_with_logits(logits, target, reduction="none"), counts)


def dice(logits: Tensor, target: Tensor, counts: Tensor) -> Tensor:
    """One minus the soft Dice coefficient of the whole batch."""
    soft = DiceLoss(batch=True, smooth_nr=1.0, smooth_dr=1.0)
    return soft(torch.sigmoid(logits) * counts, target * counts)


def focal(logits: Tensor, target: Tensor, counts: Tensor) -> Tensor:
    """Focal loss (gamma 2), averaged over what counts."""
    return _mean(FocalLoss(gamma=2.0, reduction="none")(logits, target), counts)


def dice_focal(
    logits: Tensor, target: Tensor, counts: Tensor, *, focal_gamma: float = 2.0, focal_alpha: float = 0.75
) -> Tensor:
    """Soft Dice of the whole batch plus focal loss summed and divided by the nodule voxels; tensors [b, 1, k, j, i].

    For a detector whose targets fill a ten-thousandth of the lung: averaging the focal loss over all voxels instead
    lets the network settle on "nothing anywhere".
    """
    probability = torch.sigmoid(logits) * counts
    target = target * counts
    overlap = (probability * target).sum()
    dice = 1 - (2 * overlap + 1) / (probability.sum() + target.sum() + 1)
    entropy = functional.binary_cross_entropy_with_logits(logits, target, reduction="none")
    right = torch.where(target > 0.5, torch.sigmoid(logits), 1 - torch.sigmoid(logits))
    balance = torch.where(target > 0.5, focal_alpha, 1 - focal_alpha)
    focal = (balance * (1 - right) ** focal_gamma * entropy * counts).sum()
    return dice + focal / target.sum().clamp(min=_FEWEST_VOXELS)


LOSSES: Mapping[str, Loss] = {
    "cross_entropy": cross_entropy,
    "dice": dice,
    "focal": focal,
    "dice_focal": dice_focal,
}


def weighted_sum(weights: Mapping[str, float]) -> Loss:
    """The losses of an experiment's [loss] table, added up with their weights."""
    unknown = sorted(set(weights) - set(LOSSES))
    if unknown or not weights:
        said = f"unknown loss {', '.join(unknown)}" if unknown else "no loss"
        raise ValueError(f"{said}: [loss] takes {', '.join(LOSSES)}, each with its weight")

    def summed(logits: Tensor, target: Tensor, counts: Tensor) -> Tensor:
        terms = [weight * LOSSES[name](logits, target, counts) for name, weight in weights.items()]
        return torch.stack(terms).sum()

    return summed


def _mean(each: Tensor, counts: Tensor) -> Tensor:
    return (each * counts).sum() / counts.sum().clamp(min=1.0)
