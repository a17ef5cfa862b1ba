"""Where a network that is being trained sees what is not there, and what it marks in a piece of lung."""

from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from training.dataset import Background, synthetic
from training.experiment import EXPERIMENTS, read_experiment
from training.mining import marks, mine

EXPERIMENT = read_experiment(EXPERIMENTS / "smoke.toml")
#: Of the toy's left lung.
SPOT = (slice(28, 33), slice(46, 52), slice(30, 36))


class Dense(nn.Module):
    """Takes for a nodule whatever is denser than half of the window."""

    def __init__(self) -> None:
        super().__init__()
        self.slope = nn.Parameter(torch.tensor(40.0))

    def forward(self, values: Tensor) -> Tensor:
        """Logits."""
        return self.slope * (values - 0.5)


def spotted() -> Background:
    """A lung that holds something dense, of which nobody says that it is a nodule."""
    lung = synthetic()[0][0]
    hu: NDArray[np.int16] = lung.hu.copy()
    hu[SPOT] = 100
    return replace(lung, hu=hu)


def test_what_is_dense_in_a_lung_that_holds_no_nodule_is_where_such_a_network_is_wrong() -> None:
    mined = mine(Dense(), [spotted()], EXPERIMENT, 0)
    inside = [all(part.start <= v < part.stop for part, v in zip(SPOT, row[1:4], strict=True)) for row in mined]
    assert any(inside)
    assert mined[inside.index(True)][4] > 0.9
    plain = mine(Dense(), [synthetic()[0][0]], EXPERIMENT, 0)
    assert all(row[4] < 0.5 for row in plain), "noise at the edges of the lungs alone"


def test_of_a_piece_of_any_size_it_marks_what_is_dense_and_lies_in_the_lung() -> None:
    values = np.full((21, 27, 30), 0.1, dtype=np.float32)
    values[8:12, 10:14, 10:14] = values[8:12, 10:14, 20:24] = 0.9
    lung = np.zeros(values.shape, dtype=bool)
    lung[:, :, :17] = True
    (found,) = marks(Dense(), EXPERIMENT, 0.2)(values, lung)
    assert found.region == (slice(8, 12), slice(10, 14), slice(10, 14))
    assert found.score > 0.9
