"""PneumoniaMNIST: chest radiographs of children as 28 x 28 grey pixels, pneumonia or not (MedMNIST v2, CC BY 4.0).

Yang J et al., Scientific Data 2023, doi 10.1038/s41597-022-01721-8; from Kermany DS et al., Cell 2018,
doi 10.1016/j.cell.2018.02.010. The file names no patients: its splits are by image.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

SPLITS = ("train", "val", "test")


@dataclass(frozen=True, kw_only=True)
class Split:
    """Images of one split and what they show."""

    images: Floats  #: [n, row, column], 0..1, air dark
    pneumonia: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.pneumonia)


def load(data: Path) -> Mapping[str, Split]:
    """The three splits; images of training that are also in another split are left out of training."""
    path = _file(data)
    with np.load(path) as arrays:
        missing = [key for split in SPLITS for key in (f"{split}_images", f"{split}_labels") if key not in arrays]
        if missing:
            raise ValueError(f"{path.name} has no {', '.join(missing)}: it is no file of MedMNIST; fetch it again")
        splits = {
            split: Split(
                images=arrays[f"{split}_images"].astype(np.float32) / 255.0,
                pneumonia=arrays[f"{split}_labels"].reshape(-1) > 0,
            )
            for split in SPLITS
        }
    judging = {image.tobytes() for split in SPLITS[1:] for image in splits[split].images}
    own = np.array([image.tobytes() not in judging for image in splits["train"].images])
    teaching = splits["train"]
    return {**splits, "train": Split(images=teaching.images[own], pneumonia=teaching.pneumonia[own])}


def synthetic(seed: int = 0) -> Mapping[str, Split]:
    """A toy for tests: a bright patch is pneumonia."""
    rng = np.random.default_rng(seed)
    made = {}
    for split, n in zip(SPLITS, (96, 48, 48), strict=True):
        pneumonia = np.arange(n) % 3 > 0
        images = rng.uniform(0.2, 0.5, (n, 28, 28))
        images[pneumonia, 10:18, 6:14] += 0.3
        made[split] = Split(images=images.astype(np.float32), pneumonia=pneumonia)
    return made


def _file(data: Path) -> Path:
    found = [*sorted(data.glob("pneumoniamnist*.npz")), *sorted((data / "pneumonia-mnist").glob("*.npz"))]
    if not found:
        raise FileNotFoundError(f"no pneumoniamnist.npz in {data}: give its folder with --data (medmnist.com has it)")
    return found[0]
