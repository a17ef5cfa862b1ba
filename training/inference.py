"""A network run over a whole volume, window by window."""

from collections.abc import Sequence

import numpy as np
import torch
from monai.inferers.utils import sliding_window_inference
from numpy.typing import NDArray
from torch import nn

Floats = NDArray[np.float32]


def probabilities(network: nn.Module, values: Floats, roi_size: Sequence[int], overlap: float) -> Floats:
    """The network's probability at each voxel of a volume [k, j, i] of values 0..1."""
    network.eval()
    device = next(network.parameters()).device
    with torch.inference_mode():
        window = torch.from_numpy(np.ascontiguousarray(values))[None, None]
        logits = sliding_window_inference(
            window,
            tuple(roi_size),
            1,
            lambda part: network(part.contiguous(memory_format=torch.channels_last_3d)),
            overlap=overlap,
            mode="gaussian",
            sw_device=device,
            device="cpu",
        )
    return np.asarray(torch.sigmoid(logits)[0, 0], dtype=np.float32)  # type: ignore[arg-type]  # one tensor in, one out
