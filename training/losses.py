"""The loss of a detector whose targets fill a ten-thousandth of the lung."""

import torch
from torch import Tensor
from torch.nn import functional

#: A batch without a nodule is divided by this many voxels (a sphere of 9 mm on the grid).
_FEWEST_VOXELS = 250.0


def dice_focal(
    logits: Tensor, target: Tensor, counts: Tensor, *, focal_gamma: float = 2.0, focal_alpha: float = 0.75
) -> Tensor:
    """Soft Dice of the whole batch plus focal loss summed and divided by the nodule voxels; tensors [b, 1, k, j, i].

    Averaging the focal loss over all voxels instead lets the network settle on "nothing anywhere".
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
