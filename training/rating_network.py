"""A network against the shape features: `python -m training.rating_network` fits both to readers' ratings.

A small network sees each nodule of LIDC-IDRI as it is drawn into a lung: its shape, and the density, spicules and
surroundings that the drawing gives it by the readers' other ratings. It is asked what the reader-rating estimate is
asked: whether the mean rating of malignancy is above 3. Both are judged on the same nodules of patients that taught
neither.
"""

import argparse
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.random import Generator
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from torch import nn
from tqdm import tqdm

from training import networks
from training.augmentation import aerate, draw, insert, scan
from training.dataset import Background, Patches, load, site
from training.experiment import CACHE, DATA
from training.metrics import classification
from training.metrics.bootstrap import REPLICATES, Estimate, bootstrap
from training.shapes import Shape
from workers.preprocessing import normalise
from workers.reader_estimate import features
from workers.second_look import VIEWS, crop

Array = NDArray[np.float64]
Floats = NDArray[np.float32]

#: What the network is shown: 36 x 40 x 40 mm of the grid, which the largest shapes fill; drawn with more around.
SIZE = (24, 40, 40)
_AROUND = (36, 60, 60)
#: How often each nodule is drawn.
_DRAWN = 2
_BATCH, _RATE = 16, 2e-3
_TRIES = 12
_MIDDLE = 3.0
NETWORK = {
    "_target_": "Classifier",
    "in_shape": [1, *SIZE],
    "classes": 1,
    "channels": [12, 24, 48],
    "strides": [2, 2, 2],
    "num_res_units": 1,
    "norm": "batch",
    "dropout": 0.2,
}


class RatedCrops:
    """Nodules drawn into lungs, each in the middle of a box, in their own size."""

    def __init__(self, backgrounds: Sequence[Background], shapes: Sequence[Shape], seed: int) -> None:
        self._backgrounds, self._seed = backgrounds, seed
        self._patches = Patches(backgrounds, shapes, _AROUND, seed)

    def __call__(self, shape: Shape, number: int) -> Floats | None:
        """Values 0..1 of one nodule drawn for the number-th time; None where no place for it was found."""
        rng = np.random.default_rng((self._seed, *shape.patient.encode(), int(shape.probability.sum()), number))
        for _ in range(_TRIES):
            which, place = self._patches.place(rng)
            hu, lung, counts = self._patches.cut(self._backgrounds[which], place, rng)
            values = self._drawn(shape, aerate(hu, rng), lung & counts, rng)
            if values is not None:
                return values
        return None

    @staticmethod
    def _drawn(shape: Shape, hu: Floats, lung: NDArray[np.bool_], rng: Generator) -> Floats | None:
        inner = np.zeros_like(lung)
        box = tuple(slice(n // 3, n - n // 3) for n in lung.shape)
        inner[box] = lung[box]
        centre = site(hu, inner, rng)
        if centre is None:
            return None
        mask = insert(hu, lung, draw(shape, rng, _kind(shape), 1.0), centre)
        if mask is None:
            return None
        low, high = (end(np.argwhere(mask), axis=0) for end in (np.min, np.max))
        k, j, i = (int(value) for value in (low + high) // 2)
        return crop(normalise(scan(hu, rng)), (k, j, i), SIZE)


def compared(
    backgrounds: Sequence[Background],
    shapes: Sequence[Shape],
    minutes: float,
    kept: Path,
    seed: int = 0,
    replicates: int = REPLICATES,
) -> dict[str, Estimate]:
    """The area under the curve of network and features, on the same nodules; `minutes` of this process teach.

    Crops are drawn once and then read from the file `kept`.
    """
    rated = [shape for shape in shapes if shape.malignancy != _MIDDLE]
    measured = [features(shape.probability / 255) for shape in rated]
    owners, values = _crops(RatedCrops(backgrounds, shapes, seed), rated, [row is not None for row in measured], kept)
    above = np.array([float(shape.malignancy > _MIDDLE) for shape in rated])
    held = np.array([shape.held_out for shape in rated])
    teaches = ~held[owners]
    network = _taught(values[teaches], above[owners[teaches]], minutes, seed)
    teach, judge = (np.unique(owners[rows]) for rows in (teaches, ~teaches))
    x, z = (np.array([measured[n] for n in nodules]) for nodules in (teach, judge))
    centre, scale = x.mean(axis=0), np.maximum(x.std(axis=0), 1e-9)
    model = LogisticRegression(max_iter=500).fit((x - centre) / scale, above[teach])
    by_shape = model.decision_function((z - centre) / scale)
    by_network = np.array([_opinion(network, values[owners == n]) for n in judge])
    said = {
        "network": by_network,
        "shape features": by_shape,
        "both, their logits added": by_network + by_shape,
        "volume alone": z[:, 0],
    }
    return _figures(above[judge], said, [rated[n].patient for n in judge], replicates)


def _crops(
    crops: RatedCrops, shapes: Sequence[Shape], wanted: Sequence[bool], kept: Path
) -> tuple[NDArray[np.int_], Floats]:
    """Of each crop the number of its shape, and its values."""
    if not kept.exists():
        numbers = [n for n, is_wanted in enumerate(wanted) if is_wanted]
        rounds = tqdm([(n, look) for look in range(_DRAWN) for n in numbers], desc="draw")
        drawn = [(n, made) for n, look in rounds if (made := crops(shapes[n], look)) is not None]
        kept.parent.mkdir(parents=True, exist_ok=True)
        np.savez(kept, owners=[n for n, _ in drawn], values=np.stack([made for _, made in drawn]).astype(np.float16))
    with np.load(kept) as found:
        return found["owners"], found["values"].astype(np.float32)


def _figures(y: Array, said: Mapping[str, Array], patients: list[str], replicates: int) -> dict[str, Estimate]:
    def area(name: str, cases: NDArray[np.int_]) -> float:
        return classification.auc(y[cases], said[name][cases])

    def gain(cases: NDArray[np.int_]) -> float:
        return area("network", cases) - area("shape features", cases)

    figures = {name: bootstrap(partial(area, name), patients, replicates=replicates) for name in said}
    return figures | {"network less features": bootstrap(gain, patients, replicates=replicates)}


def _taught(values: Floats, target: Array, minutes: float, seed: int) -> nn.Module:
    """The network after so many minutes of this process's own time, over crops turned over at random."""
    torch.manual_seed(seed)
    rng, network = np.random.default_rng(seed), networks.built(NETWORK)
    optimiser = torch.optim.AdamW(network.parameters(), lr=_RATE, weight_decay=0.02)
    loss_of, until, steps = nn.BCEWithLogitsLoss(), time.process_time() + 60 * minutes, 0
    while (left := until - time.process_time()) > 0:
        for group in optimiser.param_groups:
            group["lr"] = _RATE * min(1.0, 0.02 + left / (60 * minutes))
        rows = rng.choice(len(values), _BATCH, replace=False)
        turned = torch.flip(torch.from_numpy(values[rows])[:, None], VIEWS[int(rng.integers(len(VIEWS)))])
        loss = loss_of(network(turned)[:, 0], torch.tensor(target[rows], dtype=torch.float32))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        steps += 1
    print(f"{steps} steps of {_BATCH} crops, {len(values)} crops in all", flush=True)
    return network.eval()


def _opinion(network: nn.Module, crops: Floats) -> float:
    """The mean logit over crops, each turned over every way."""
    with torch.inference_mode():
        looked = torch.from_numpy(crops)[:, None]
        return float(torch.stack([network(torch.flip(looked, axes))[:, 0] for axes in VIEWS]).mean())


def _kind(shape: Shape) -> str:
    """The density that readers' ratings ask for."""
    if shape.calcified:
        return "calcified"
    return "ground glass" if shape.texture <= 2 else "part solid" if shape.texture < 4 else "solid"


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m training.rating_network", description=__doc__)
    parser.add_argument("--minutes", type=float, default=8.0, help="of one core, that the network learns")
    chosen = parser.parse_args(arguments)
    torch.set_num_threads(1)
    figures = compared(*load(DATA, CACHE), chosen.minutes, CACHE / "rated-crops-1.npz")
    first = figures["network"]
    print(f"{first.cases} nodules of {first.patients} patients that taught nothing")
    print("\n".join(f"{name}: {estimate}" for name, estimate in figures.items()))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
