"""A second look: a small network sees each candidate alone, turned over every way, and says whether it is a nodule.

The network that searches the lungs marks much that its windows show only in part; this one is shown a candidate whole
and centred. Both opinions make the score, weighted as was fitted on validation data.
"""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from workers.precision import BFLOAT16, is_lowered, served
from workers.preprocessing import Candidate

Floats = NDArray[np.float32]

#: No opinion is nearer to 0 or 1 than this when it is weighed.
_LEAST = 1e-4
_CPU = torch.device("cpu")
#: Candidates that are looked at together.
_TOGETHER = 8


@dataclass(frozen=True, kw_only=True)
class Weights:
    """How both opinions become one score: a logistic function of their logits."""

    first: float
    second: float
    constant: float

    def __call__(self, first: NDArray[np.floating], second: NDArray[np.floating]) -> NDArray[np.float64]:
        """Scores 0..1 of the opinions of the searching network and of the second look."""
        both = self.first * logit(first) + self.second * logit(second) + self.constant
        return np.asarray(1 / (1 + np.exp(-both)))


class SecondLook:
    """The second network of a bundle, on the CPU: what it sees is small."""

    def __init__(
        self,
        network: torch.nn.Module,
        size: Sequence[int],
        weights: Weights,
        beat: Callable[[str], None] = lambda _step: None,
        *,
        lower_precision: bool = False,
    ) -> None:
        """`beat` is called before each few candidates that are looked at; what it raises ends the look.

        `lower_precision` allows bfloat16.
        """
        self._network, self._weights, self._beat = network.eval(), weights, beat
        self._lower_precision = lower_precision
        #: Voxels [k, j, i] of what is shown.
        self.size = (int(size[0]), int(size[1]), int(size[2]))

    @property
    def number_format(self) -> str:
        """bfloat16 where it computes in that; empty for full precision."""
        return BFLOAT16 if is_lowered(_CPU, self._lower_precision) else ""

    def __call__(self, values: Floats, found: Sequence[Candidate]) -> list[Candidate]:
        """The candidates with their scores made of both opinions, the highest first; values 0..1 on the grid."""
        if not found:
            return []
        second = self.opinions(np.stack([crop(values, centre_of(each), self.size) for each in found]))
        scores = self._weights(np.array([each.score for each in found]), second)
        scored = [replace(each, score=float(score)) for each, score in zip(found, scores, strict=True)]
        return sorted(scored, key=lambda candidate: -candidate.score)

    def opinions(self, crops: Floats) -> NDArray[np.float64]:
        """The mean opinion 0..1 over the eight ways to turn each crop [n, k, j, i] over."""
        said = [np.zeros(0)]
        with torch.inference_mode():
            for start in range(0, len(crops), _TOGETHER):
                self._beat("second look")
                part = torch.from_numpy(crops[start : start + _TOGETHER])[:, None]
                with served(_CPU, self._lower_precision):
                    logits = [self._network(torch.flip(part, axes))[:, 0].float() for axes in VIEWS]
                said.append(torch.sigmoid(torch.stack(logits).mean(dim=0)).double().numpy())
        return np.concatenate(said)


#: Axes of [n, channel, k, j, i] that are turned over.
VIEWS = tuple(axes for count in range(4) for axes in itertools.combinations((2, 3, 4), count))


def centre_of(candidate: Candidate) -> tuple[int, int, int]:
    """The middle of a candidate's box, as a voxel [k, j, i]."""
    k, j, i = ((part.start + part.stop - 1) // 2 for part in candidate.region)
    return k, j, i


def crop(values: Floats, centre: tuple[int, int, int], size: tuple[int, int, int]) -> Floats:
    """The voxels of a box about a voxel; beyond the volume its edges are held."""
    indices = [
        np.clip(np.arange(at - n // 2, at - n // 2 + n), 0, length - 1)
        for at, n, length in zip(centre, size, values.shape, strict=True)
    ]
    return np.ascontiguousarray(values[np.ix_(*indices)], dtype=np.float32)


def logit(probability: NDArray[np.floating]) -> NDArray[np.float64]:
    """The logit of an opinion, held off certainty."""
    p = np.clip(np.asarray(probability, dtype=np.float64), _LEAST, 1 - _LEAST)
    return np.asarray(np.log(p / (1 - p)))
