"""Hard negatives: places where a network sees a nodule in backgrounds that hold none."""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from scipy import ndimage
from torch import nn

from training.augmentation import aerate, scan
from training.dataset import Background
from training.experiment import Experiment
from training.inference import Apprentice, probabilities
from training.precision import Precision
from workers.inference import Inference, chosen_device
from workers.preprocessing import Candidate, candidates, normalise

Floats = NDArray[np.float32]
Mask = NDArray[np.bool_]
Box = tuple[slice, ...]

_MINED_ABOVE = 0.15


def mine(
    network: nn.Module,
    backgrounds: Sequence[Background],
    experiment: Experiment,
    round_: int,
    slices: int | None = None,
) -> NDArray[np.float64]:
    """Places [background, k, j, i, weight] where the network sees a nodule in backgrounds that hold none.

    `slices` is how many of each are searched, about a level that the round draws; None: all.
    """
    found = []
    precision = _precision(experiment, next(network.parameters()).device.type)
    for which, source in enumerate(backgrounds):
        rng = np.random.default_rng((experiment.seed, round_, which))
        where = _piece(ndimage.find_objects(source.lung.astype(np.int8))[0], slices, rng)
        hu = scan(aerate(source.hu[where].astype(np.float32), rng), rng)
        teaching = source.teaching[where] & source.lung[where]
        with precision.autocast():
            seen = probabilities(network, normalise(hu), teaching, experiment.bundle["roi_size"], 0.1) * teaching
        labels, count = ndimage.label(seen > _MINED_ABOVE)
        for place in ndimage.maximum_position(seen, labels, np.arange(1, count + 1)):
            found.append((which, *(p + s.start for p, s in zip(place, where, strict=True)), seen[place]))
    return np.array(found, dtype=np.float64).reshape(-1, 5)


def marks(
    network: nn.Module, experiment: Experiment, threshold: float
) -> Callable[[Floats, Mask], Sequence[Candidate]]:
    """What a network marks in a piece of values 0..1 [k, j, i] where lung is, the piece seen in one window."""
    roi_size, overlap = experiment.bundle["roi_size"], experiment.bundle["overlap"]
    device = next(network.parameters()).device
    inference = Inference(Apprentice(network, roi_size, overlap), str(device))
    precision = _precision(experiment, device.type)

    def marked(values: Floats, lung: Mask) -> Sequence[Candidate]:
        with precision.autocast():
            return candidates(inference.opinion(values), lung, threshold)

    return marked


def _precision(experiment: Experiment, kind: str) -> Precision:
    """That of the experiment; where the network lies on another device than what trains, whatever is fast there."""
    trains = chosen_device(experiment.training["device"]).type
    return Precision(experiment.training["precision"] if kind == trains else "auto", kind)


def _piece(box: Box, slices: int | None, rng: Generator) -> Box:
    height = box[0].stop - box[0].start
    if slices is None or slices >= height:
        return box
    first = box[0].start + int(rng.integers(height - slices + 1))
    return (slice(first, first + slices), *box[1:])
