"""A network in training run by what runs bundles: what is judged here is what will be served."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from monai.inferers.inferer import SlidingWindowInferer
from numpy.typing import NDArray
from torch import nn

from workers.classifier import Classifier
from workers.inference import Inference
from workers.network_run import NetworkRun

Floats = NDArray[np.float32]
Mask = NDArray[np.bool_]


def inferer(roi_size: Sequence[int], overlap: float) -> dict[str, Any]:
    """The inferer of a detector's inference.json: how windows are laid and blended."""
    return {
        "_target_": "SlidingWindowInferer",
        "roi_size": list(roi_size),
        "sw_batch_size": 1,
        "overlap": overlap,
        "mode": "gaussian",
    }


class Apprentice:
    """A network that is no bundle yet, with what its bundle will say of windows."""

    def __init__(self, network: nn.Module, roi_size: Sequence[int], overlap: float) -> None:
        self._network = network
        self._arguments = {key: value for key, value in inferer(roi_size, overlap).items() if key != "_target_"}
        self.metadata: Mapping[str, Any] = {}

    def network(self) -> nn.Module:
        """The network in evaluation mode, where it lies."""
        return self._network.eval()

    def inferer(self) -> SlidingWindowInferer:
        """Windows as the bundle will have them."""
        return SlidingWindowInferer(**self._arguments)


def probabilities(network: nn.Module, values: Floats, lungs: Mask, roi_size: Sequence[int], overlap: float) -> Floats:
    """The network's probability at each voxel of values 0..1 [k, j, i]; 0 far from the lungs, where it is not run.

    As in serving: windows are laid over the lungs and a margin, and probabilities are blended, not logits. Raises
    OutOfDeviceMemory.
    """
    device = next(network.parameters()).device
    try:
        return Inference(Apprentice(network, roi_size, overlap), str(device)).probability(values, lungs)
    finally:
        # For want of memory it may have been run elsewhere.
        network.to(device)


def picture_scores(network: nn.Module, pictures: Floats) -> NDArray[np.float64]:
    """What the network says of square pictures [n, j, i] of 0..1 for each class, not calibrated: [n, class]."""
    device = next(network.parameters()).device
    run = NetworkRun(network.eval(), str(device), threads=0, beat=lambda _step: None)
    classifier = Classifier(run, pictures.shape[-1])
    try:
        return classifier.scores(np.stack([classifier.prepared(picture) for picture in pictures]))
    finally:
        network.to(device)
