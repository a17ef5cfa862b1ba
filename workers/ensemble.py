"""An ensemble: several networks of one kind that look at one picture, and at its mirror image, and vote."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

#: Probabilities of 0 and 1 have no logit.
_LEAST = 1e-6


class Ensemble(nn.Module):
    """Networks that give one logit [n, class] of pictures [n, channel, row, column]; so does the ensemble.

    In training each member learns from its own share of a batch, as if it were alone. In evaluation all members see
    every picture, and the logit is that of their mean probability.
    """

    def __init__(
        self, member: Callable[[], nn.Module], count: int, *, standardised: bool = False, mirrored: bool = False
    ) -> None:
        """`member` makes one network, `standardised` gives each picture mean 0 and deviation 1 first.

        `mirrored` has every member look at the picture and at its mirror image: for what may lie on either side.
        """
        super().__init__()
        if count < 1:
            raise ValueError(f"an ensemble of {count} networks says nothing: give it one or more")
        self.members = nn.ModuleList([member() for _ in range(count)])
        self.standard = nn.InstanceNorm2d(1) if standardised else nn.Identity()
        self._mirrored = mirrored

    def forward(self, pictures: Tensor) -> Tensor:
        """One logit for each class of each picture."""
        pictures = self.standard(pictures)
        if self.training:
            shares = pictures.tensor_split(len(self.members))
            return torch.cat([member(share) for member, share in zip(self.members, shares, strict=True)])
        views = [pictures, pictures.flip(-1)] if self._mirrored else [pictures]
        said = [torch.sigmoid(member(view)) for member in self.members for view in views]
        return torch.stack(said).mean(dim=0).logit(eps=_LEAST)
