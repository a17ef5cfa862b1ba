"""A classifier of pictures at work: from a grey picture to what is said of it, the same in training and in serving."""

import numpy as np
import torch
from numpy.typing import NDArray

from workers.calibration import Calibration
from workers.network_run import NetworkRun
from workers.radiograph import square

Floats = NDArray[np.float32]
Scores = NDArray[np.float64]

#: Pictures that are in the network at a time.
_AT_A_TIME = 256


class Classifier:
    """A network of small square pictures, its activation and its calibration."""

    def __init__(
        self, run: NetworkRun, side: int, *, softmax: bool = False, calibration: Calibration | None = None
    ) -> None:
        """`side` is that of the pictures, in pixels; classes that do not exclude each other have no softmax."""
        self._run = run
        self._side = side
        self._softmax = softmax
        self._calibration = calibration

    def prepared(self, grey: Floats) -> Floats:
        """A radiograph [j, i] of 0..1, air dark, as the network takes it: its middle square, reduced."""
        return square(grey, self._side)

    def scores(self, pictures: Floats) -> Scores:
        """What the network says of prepared pictures [n, j, i] for each class, 0..1, not calibrated: [n, class]."""
        return self._run(lambda device: self._activated(torch.from_numpy(np.ascontiguousarray(pictures)), device))

    def probabilities(self, pictures: Floats) -> Scores:
        """The same, calibrated where there is a calibration."""
        said = self.scores(pictures)
        return said if self._calibration is None else self._calibration(said)

    def _activated(self, pictures: torch.Tensor, device: torch.device) -> Scores:
        parts = [self._run.network(part[:, None].to(device)) for part in pictures.split(_AT_A_TIME)]
        logits = torch.cat(parts).float().flatten(1)
        said = logits.softmax(dim=1) if self._softmax else logits.sigmoid()
        return np.asarray(said.cpu().numpy(), dtype=np.float64)
