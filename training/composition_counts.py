"""Count how rightly composition is told: `python -m training.composition_counts [--each N]`.

Nodules of validation patients are drawn into lungs that are for validation and scanned; the rule sees their true
outlines on the shared grid. Neither the test set nor a real scan's own nodules are looked at.
"""

import argparse
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from scipy import ndimage
from tqdm import tqdm

from dicom_node.core.lung_rads import Composition
from training.augmentation import aerate, draw, insert, scan
from training.dataset import Background, load, site
from training.evaluation.judged import as_volume
from training.experiment import CACHE, DATA
from training.phantom_backgrounds import VALIDATION_SEEDS, thoraces
from training.shapes import Shape
from workers.composition import consistence
from workers.volume import Region

Floats = NDArray[np.float32]
Mask = NDArray[np.bool_]

#: By the kind that is drawn: what is right to say; None: of what has air inside nothing is to be said.
RIGHT: Mapping[str, Composition | None] = {
    "solid": Composition.SOLID,
    "calcified": Composition.SOLID,
    "core": Composition.PART_SOLID,
    "ground glass": Composition.NON_SOLID,
    "ring": None,
    "cavity": None,
}
#: Smaller nodules are mostly edge.
LEAST_MM = 5.0
SEED = 23
_THICKNESSES_MM = (1.5, 2.5, 3.0, 5.0)
#: Voxels to every side of a place that are drawn.
_AROUND = (20, 32, 32)


@dataclass(frozen=True, kw_only=True)
class Counts:
    """What was said of the nodules of a kind."""

    drawn: int
    #: Of how many something was said, and of how many of those what is right.
    told: int
    right: int


def counted(
    backgrounds: Sequence[Background], shapes: Sequence[Shape], each: int, seed: int = SEED
) -> dict[str, Counts]:
    """So many nodules of each kind, drawn and told."""
    rows = {}
    for number, (kind, wanted) in enumerate(tqdm(RIGHT.items(), desc="kinds")):
        said = list(_said(backgrounds, shapes, kind, each, (seed, number)))
        told = [composition for composition in said if composition is not None]
        rows[kind] = Counts(drawn=len(said), told=len(told), right=sum(composition is wanted for composition in told))
    return rows


def _said(
    backgrounds: Sequence[Background], shapes: Sequence[Shape], kind: str, each: int, seed: tuple[int, int]
) -> Iterator[Composition | None]:
    large = [shape for shape in shapes if shape.use == "validation" and shape.diameter_mm >= LEAST_MM]
    made = 0
    for n in range(100 * each):
        rng = np.random.default_rng((*seed, n))
        hu, lung = _piece(backgrounds[n % len(backgrounds)], rng)
        centre = site(hu, _inner(lung), rng)
        nodule = draw(large[int(rng.integers(len(large)))], rng, kind)
        mask = None if centre is None else insert(hu, lung, nodule, centre)
        if mask is None:
            continue
        box = ndimage.find_objects(mask.astype(np.int8))[0]
        volume = as_volume(scan(hu, rng, _THICKNESSES_MM[made % len(_THICKNESSES_MM)]))
        yield consistence(Region(box=box, mask=mask[box]), volume).composition
        made += 1
        if made == each:
            return


def _piece(source: Background, rng: Generator) -> tuple[Floats, Mask]:
    """HU and lung about a place that is for validation: of a real lung its lower held-out slab."""
    labels, _ = ndimage.label(source.judging.any(axis=(1, 2)))
    places = np.flatnonzero(source.lung & source.judging & (labels == 1)[:, None, None])
    at = np.unravel_index(places[rng.integers(places.size)], source.lung.shape)
    box = tuple(
        slice(max(int(a) - r, 0), min(int(a) + r, n)) for a, r, n in zip(at, _AROUND, source.lung.shape, strict=True)
    )
    return aerate(source.hu[box].astype(np.float32), rng), source.lung[box] & source.judging[box]


def _inner(lung: Mask) -> Mask:
    inner = np.zeros_like(lung)
    box = tuple(slice(n // 4, n - n // 4) for n in lung.shape)
    inner[box] = lung[box]
    return inner


def in_words(rows: Mapping[str, Counts]) -> str:
    """The counts as a table in Markdown."""
    lines = [
        f"| {kind} | {row.drawn} | {row.told} | {row.right if RIGHT[kind] else 'none is right'} |"
        for kind, row in rows.items()
    ]
    return "\n".join(["| drawn as | nodules | something was said of | rightly |", "|---|---|---|---|", *lines])


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m training.composition_counts", description=__doc__)
    parser.add_argument("--data", type=Path, default=DATA, help="folder that holds lung-backgrounds/")
    parser.add_argument("--each", type=int, default=60, help="nodules of each kind")
    chosen = parser.parse_args(arguments)
    real, shapes = load(chosen.data, CACHE)
    print(in_words(counted([*real, *thoraces(VALIDATION_SEEDS[:1], CACHE)], shapes, chosen.each)))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
