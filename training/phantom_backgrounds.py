"""Generated lungs to draw nodules into: whole thoraces without any, on the grid that training and serving share.

Seeds say what a thorax is for: those that teach, those on which thresholds are set, and those that judge never mix.
"""

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from training import anatomy, ct_physics, hila, lung_trees, phantom_drawing, phantoms, skeleton, strokes, surfaces
from training.anatomy import Thorax
from training.ct_physics import as_scanned
from training.dataset import Background, load_data
from training.edition import edition
from training.experiment import CACHE, Experiment, ExperimentInvalid
from training.phantom_drawing import Drawing
from training.phantoms import SCAN_Z, THORAX_LPS_MM, LungMap, lung_tubes
from training.shapes import Shape
from training.skeleton import Skeleton
from training.surfaces import Array, axes_of
from workers import preprocessing
from workers.preprocessing import GRID_MM, lung_mask

#: Seeds of generated thoraces by what they are for. Those from 301 on judged up to 0.4.0: how that did there is known,
#: so they validate now. The test's other lungs, slabs of the two real ones, and its shapes are those of then.
TEACHING_SEEDS = tuple(range(101, 161))
VALIDATION_SEEDS = (*range(201, 205), *range(301, 311))
TEST_SEEDS = tuple(range(311, 321))

#: What draws a thorax.
DRAWING = (
    anatomy, ct_physics, hila, lung_trees, phantom_drawing, phantoms, skeleton, strokes, surfaces, preprocessing,
    sys.modules[__name__],
)  # fmt: skip

#: First voxel (x, y) in the thorax's own mm, and rows and columns: both lungs with the chest wall around them.
_CORNER_XY = (-148.0, -102.0)
_ROWS, _COLUMNS = 216, 297
#: Slices that are drawn at a time.
_SLAB = 12
#: Vessels are drawn down to those that pixels of this width show.
_SHOWN_MM = 1.25


def load_teaching(experiment: Experiment, data: Path) -> tuple[list[Background], list[Shape]]:
    """Backgrounds and shapes of the experiment's source, with the generated thoraces that teach beside real lungs."""
    backgrounds, shapes = load_data(experiment, data)
    if experiment.data["source"] == "backgrounds":
        wanted = int(experiment.data["thoraces"])
        if wanted > len(TEACHING_SEEDS):
            raise ExperimentInvalid(f"data.thoraces = {wanted}: there are seeds for {len(TEACHING_SEEDS)} that teach")
        backgrounds = [*backgrounds, *thoraces(TEACHING_SEEDS[:wanted], CACHE)]
    return backgrounds, shapes


def thoraces(seeds: Sequence[int], cache: Path) -> Iterator[Background]:
    """The thoraces of the seeds, drawn once (a quarter of a minute each) and then read from the cache."""
    cache.mkdir(parents=True, exist_ok=True)
    for seed in seeds:
        kept = kept_at(cache, seed)
        if not kept.exists():
            made = drawn(seed)
            partial = kept.with_suffix(".partial.npz")
            np.savez_compressed(partial, hu=made.hu, lung=made.lung)
            partial.replace(kept)
        with np.load(kept) as arrays:
            yield _whole(seed, arrays["hu"], arrays["lung"])


def kept_at(cache: Path, seed: int) -> Path:
    """The file in the cache of a seed's thorax, as this edition draws it."""
    return cache / f"phantom-{seed}-{edition(DRAWING)}.npz"


def drawn(seed: int) -> Background:
    """The thorax of a seed, as a scanner gives it: vessels, airways and fissures, and no nodule."""
    rng = np.random.default_rng(seed)
    thorax = Thorax.random(rng)
    vessels, airways = lung_tubes(thorax.hila, LungMap.of(thorax), (), rng, _SHOWN_MM)
    drawing = Drawing(
        thorax=thorax, skeleton=Skeleton.whole(), vessels=vessels, airways=airways, nodules=(), offset_mm=THORAX_LPS_MM
    )
    ideal, share = _planes(drawing)
    hu = as_scanned(ideal, share, GRID_MM, rng)
    return _whole(seed, hu, lung_mask(hu.astype(np.float32), GRID_MM))


def _planes(drawing: Drawing) -> tuple[Array, Array]:
    """Ideal HU and share of parenchyma on the shared grid, one plane a slice: thick slices are made of several."""
    dz, dy, dx = GRID_MM
    slices = int((SCAN_Z[1] - SCAN_Z[0]) / dz)
    hu, share = (np.empty((slices, _ROWS, _COLUMNS), dtype=np.float32) for _ in range(2))
    for first in range(0, slices, _SLAB):
        count = min(_SLAB, slices - first)
        corner = np.array([*_CORNER_XY, SCAN_Z[0] + first * dz])
        grid = axes_of(corner, (dx, dy, dz), (count, _ROWS, _COLUMNS))
        hu[first : first + count], share[first : first + count] = drawing.planes(grid, 1.15 * dx)
    return hu, share


def _whole(seed: int, hu: NDArray[np.int16], lung: NDArray[np.bool_]) -> Background:
    teaching = np.full(hu.shape, seed in TEACHING_SEEDS)
    return Background(name=f"phantom-{seed}", hu=hu, lung=lung, teaching=teaching, judging=~teaching, generated=True)
