"""Hard negatives: places where a network sees a nodule in backgrounds that hold none."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from torch import nn

from training.augmentation import aerate, scan
from training.dataset import Background
from training.experiment import Experiment
from training.inference import probabilities
from workers.preprocessing import normalise

_MINED_ABOVE = 0.15


def mine(
    network: nn.Module, backgrounds: Sequence[Background], experiment: Experiment, round_: int
) -> NDArray[np.float64]:
    """Places [background, k, j, i, weight] where the network sees a nodule in backgrounds that hold none."""
    found = []
    for which, source in enumerate(backgrounds):
        rng = np.random.default_rng((experiment.seed, round_, which))
        where = ndimage.find_objects(source.lung.astype(np.int8))[0]
        hu = scan(aerate(source.hu[where].astype(np.float32), rng), rng)
        teaching = source.teaching[where] & source.lung[where]
        seen = probabilities(network, normalise(hu), teaching, experiment.bundle["roi_size"], 0.1) * teaching
        labels, count = ndimage.label(seen > _MINED_ABOVE)
        for place in ndimage.maximum_position(seen, labels, np.arange(1, count + 1)):
            found.append((which, *(p + s.start for p, s in zip(place, where, strict=True)), seen[place]))
    return np.array(found, dtype=np.float64).reshape(-1, 5)
