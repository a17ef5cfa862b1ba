"""Semi-synthetic chest CT: real lungs of two patients, real nodule shapes drawn into them, cut into patches on the fly.

Backgrounds: NSCLC Radiogenomics R01-001 and 4D-Lung 113_HM10395 (TCIA, CC BY 3.0; doi 10.7937/K9/TCIA.2017.7hs46erv and
10.7937/K9/TCIA.2016.ELN8YGLE). Their own tumours, and the slabs kept for validation, carry no loss.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from scipy import ndimage

from training.augmentation import Drawn, aerate, draw, insert, scan, tether
from training.experiment import CACHE, Experiment
from training.lookalikes import LOOKALIKES, PLEURAL, draw_lookalike
from training.nrrd_volume import read_nrrd
from training.shapes import Shape, annotation_database, read_shapes
from workers.preprocessing import GRID_MM, Spacing, grid_shape, interpolation_weights, lung_mask, normalise, resample

Floats = NDArray[np.float32]
Mask = NDArray[np.bool_]

#: Slabs kept for validation, as shares of the lungs' height: one about the lower lobes, one about the hila.
HELD_OUT_SLABS = ((0.20, 0.30), (0.58, 0.67))

#: Of nodules: how many hang on a vessel or have a tail to the pleura, beside those that lie there anyway.
TETHERED_SHARE = 0.4

#: From how much on a voxel's HU is seen to differ, and what is a vessel or as dense as one.
_SEEN_HU, _DENSE_HU = 100.0, -400.0
#: A box [k, j, i] about a place, and the share of it that is dense beside a vessel of 5 mm and more.
_ABOUT, _MOSTLY_VESSEL = (5, 9, 9), 0.3

#: From this diameter on a nodule is large.
_LARGE_MM = 15.0

#: Of patches, how many lie in generated lungs where there are real ones, too.
GENERATED_SHARE = 0.5

#: Known disease in the backgrounds, as boxes of shares of the volume (k, j, i): nothing is drawn or learnt there.
TUMOURS = {
    "r01-001": (((0.68, 0.88), (0.36, 0.62), (0.16, 0.33)),),
    "4dlung-113": (((0.0, 1.0), (0.0, 1.0), (0.50, 1.0)),),
}


@dataclass(frozen=True, kw_only=True)
class Background:
    """A chest CT on the shared grid with its lungs, and where it may teach and where it may judge."""

    name: str
    hu: NDArray[np.int16]
    lung: Mask
    teaching: Mask  #: voxels that carry loss
    judging: Mask  #: voxels of the held-out slabs; neither holds the background's own tumour
    generated: bool = False


@dataclass(frozen=True, kw_only=True)
class Patch:
    """A training example: values 0..1, the nodules' mask, and the voxels that count."""

    values: Floats
    nodules: Mask
    counts: Mask


def background(name: str, voxels: NDArray[np.int16], spacing_mm: Spacing) -> Background:
    """A CT in HU made ready: on the grid, lungs found, tumours and held-out slabs set apart."""
    hu = resample(voxels.astype(np.float32), spacing_mm)
    lung = lung_mask(hu, GRID_MM)
    allowed = np.ones(hu.shape, dtype=bool)
    for box in TUMOURS.get(name, ()):
        allowed[tuple(slice(int(a * n), int(b * n)) for (a, b), n in zip(box, hu.shape, strict=True))] = False
    return _divided(name, hu, lung, allowed)


def _divided(name: str, hu: Floats, lung: Mask, allowed: Mask) -> Background:
    levels = np.flatnonzero(lung.any(axis=(1, 2)))
    bottom, height = (int(levels[0]), int(np.ptp(levels))) if levels.size else (0, 0)
    held_out = np.zeros(hu.shape[0], dtype=bool)
    for low, high in HELD_OUT_SLABS:
        held_out[bottom + int(low * height) : bottom + int(high * height)] = True
    judging = allowed & held_out[:, None, None]
    return Background(
        name=name, hu=np.round(hu).astype(np.int16), lung=lung, teaching=allowed & ~judging, judging=judging
    )


def load(data: Path, cache: Path) -> tuple[list[Background], list[Shape]]:
    """Backgrounds of a data folder and the shapes of LIDC-IDRI, computed once and then read from the cache."""
    cache.mkdir(parents=True, exist_ok=True)
    backgrounds = []
    for path in sorted((data / "lung-backgrounds").glob("*.nrrd")):
        kept = cache / f"{path.stem}.npz"
        if not kept.exists():
            volume = read_nrrd(path)
            made = background(path.stem, volume.voxels, volume.spacing_mm)
            np.savez(kept, hu=made.hu, lung=made.lung, teaching=made.teaching, judging=made.judging)
        with np.load(kept) as arrays:
            backgrounds.append(Background(name=path.stem, **{key: arrays[key] for key in arrays.files}))
    if not backgrounds:
        raise FileNotFoundError(f"no backgrounds in {data / 'lung-backgrounds'}: give the data folder with --data")
    return backgrounds, _cached_shapes(cache / "shapes-3.npz")


def load_data(experiment: Experiment, data: Path) -> tuple[list[Background], list[Shape]]:
    """Backgrounds and shapes of the experiment's source."""
    if experiment.data["source"] == "synthetic":
        return synthetic(experiment.seed)
    return load(data, CACHE)


def _cached_shapes(kept: Path) -> list[Shape]:
    if not kept.exists():
        shapes = read_shapes(annotation_database())
        partial = kept.with_suffix(".partial.npz")
        np.savez_compressed(
            partial,
            patients=np.array([s.patient for s in shapes]),
            textures=np.array([s.texture for s in shapes]),
            calcified=np.array([s.calcified for s in shapes]),
            spiculations=np.array([s.spiculation for s in shapes]),
            malignancies=np.array([s.malignancy for s in shapes]),
            sizes=np.array([s.probability.shape for s in shapes]),
            voxels=np.concatenate([s.probability.ravel() for s in shapes]),
        )
        partial.replace(kept)
    with np.load(kept) as found:
        sizes, voxels = found["sizes"], found["voxels"]
        ends = np.cumsum(sizes.prod(axis=1))
        columns = [found[name] for name in ("patients", "textures", "calcified", "spiculations", "malignancies")]
        rows = zip(*columns, sizes, ends, strict=True)
        return [
            Shape(
                patient=str(patient),
                probability=voxels[end - size.prod() : end].reshape(size),
                texture=float(texture),
                calcified=bool(calcified),
                spiculation=float(spiculation),
                malignancy=float(malignancy),
            )
            for patient, texture, calcified, spiculation, malignancy, size, end in rows
        ]


def synthetic(seed: int = 0) -> tuple[list[Background], list[Shape]]:
    """A toy chest and round shapes, for a run of seconds without outside data."""
    rng = np.random.default_rng(seed)
    shape = grid_shape((64, 96, 128), (1.5, 1.0, 1.0))
    k, j, i = np.meshgrid(*(np.linspace(-1, 1, n) for n in shape), indexing="ij")
    lung = ((np.abs(i) - 0.45) / 0.35) ** 2 + (j / 0.7) ** 2 + (k / 0.9) ** 2 < 1
    hu = np.where(lung, -850.0, 40.0) + rng.normal(0.0, 20.0, shape)
    grid = np.indices((17, 17, 17)) - 8
    ball = np.clip(5.0 - np.linalg.norm(grid, axis=0), 0.0, 1.0)
    shapes = [
        Shape(patient=f"toy-{n}", probability=(ball * 255).astype(np.uint8), texture=5.0, calcified=False)
        for n in range(20)
    ]
    everywhere = np.ones(shape, dtype=bool)
    return [_divided("toy", hu.astype(np.float32), lung, everywhere)], shapes


@dataclass(frozen=True, kw_only=True)
class Insertion:
    """Where nodules are drawn, beyond a third each in free lung, at vessels and at the pleura."""

    #: Of nodules, how many are drawn against a thick vessel.
    beside_vessels: float = 0.0
    #: The share of a nodule that must differ from what was there: inside a vessel nothing is to be learnt of it.
    least_seen: float = 0.0
    #: Of nodules, how many are drawn from the shapes of 15 mm and more, beyond those that are drawn anyway.
    large: float = 0.0


class Patches:
    """Patches drawn by number: the same seed and number give the same patch, so that a run can stop and go on."""

    def __init__(
        self,
        backgrounds: Sequence[Background],
        shapes: Sequence[Shape],
        size: tuple[int, int, int],
        seed: int,
        insertion: Insertion | None = None,
    ) -> None:
        self._backgrounds = backgrounds
        self._shapes = [shape for shape in shapes if not shape.held_out]
        self._size = np.array(size)
        self._seed = seed
        self._insertion = insertion or Insertion()
        #: How often each of the shapes is drawn.
        self.share = _drawn_shares(self._shapes, self._insertion.large)
        self._lung = [np.flatnonzero(b.lung & b.teaching) for b in backgrounds]
        self._background_share = _shares(backgrounds, np.array([voxels.size for voxels in self._lung], dtype=float))
        #: Places [background, k, j, i, weight] where the network saw what is not there.
        self.hard_negatives: NDArray[np.float64] = np.zeros((0, 5))

    def __getitem__(self, number: int) -> Patch:
        rng = np.random.default_rng((self._seed, number))
        which, centre = self.place(rng)
        hu, lung, counts = self.cut(self._backgrounds[which], centre, rng)
        hu = aerate(hu, rng)
        nodules = np.zeros(hu.shape, dtype=bool)
        for _ in range(int(rng.integers(0, 3))):
            add_lookalike(hu, lung, rng)
        for _ in range(int(rng.integers(0, 4))):
            self._insert_one(hu, lung & counts, nodules, rng)
        return Patch(values=normalise(scan(hu, rng)), nodules=nodules, counts=counts)

    def place(self, rng: Generator) -> tuple[int, NDArray[np.int_]]:
        """A background's number and a voxel of its lungs: often one where the network saw what is not there."""
        if len(self.hard_negatives) and rng.random() < 0.4:
            weights = self.hard_negatives[:, 4]
            row = self.hard_negatives[rng.choice(len(weights), p=weights / weights.sum())]
            return int(row[0]), row[1:4].astype(int) + rng.integers(-12, 13, size=3)
        which = int(rng.choice(len(self._backgrounds), p=self._background_share))
        voxel = self._lung[which][rng.integers(self._lung[which].size)]
        return which, np.array(np.unravel_index(voxel, self._backgrounds[which].hu.shape))

    def cut(self, source: Background, centre: NDArray[np.int_], rng: Generator) -> tuple[Floats, Mask, Mask]:
        """The patch about a place, scaled and flipped."""
        scales = rng.uniform(0.85, 1.15) * rng.uniform(0.95, 1.05, size=3)
        flips = rng.random(3) < (0.2, 0.2, 0.5)
        reads, nearest, weights = [], [], []
        for axis in range(3):
            n_target = int(self._size[axis])
            n_source = int(np.ceil((n_target - 1) * scales[axis])) + 2
            start = int(centre[axis]) - n_source // 2
            reads.append(np.clip(np.arange(start, start + n_source), 0, source.hu.shape[axis] - 1))
            matrix = interpolation_weights(n_source, n_target, float(scales[axis]), offset=float(rng.random()))
            weights.append(matrix[::-1] if flips[axis] else matrix)
            nearest.append(reads[axis][weights[axis].argmax(axis=1)])
        hu = source.hu[np.ix_(*reads)].astype(np.float32)
        hu = weights[1] @ (hu @ weights[2].T)
        hu = (weights[0] @ hu.reshape(hu.shape[0], -1)).reshape(tuple(self._size))
        return hu, source.lung[np.ix_(*nearest)], source.teaching[np.ix_(*nearest)]

    def _insert_one(self, hu: Floats, lung: Mask, nodules: Mask, rng: Generator) -> None:
        drawn = draw(self._shapes[rng.choice(len(self._shapes), p=self.share)], rng)
        beside = self._insertion.beside_vessels
        centre = site(hu, lung, rng, 3 if beside and rng.random() < beside else None)
        if centre is None:
            return
        if rng.random() < TETHERED_SHARE:
            tether(hu, lung, centre, rng)
        mask = insert_seen(hu, lung, drawn, centre, self._insertion.least_seen, nodules)
        if mask is not None:
            nodules |= mask


def _drawn_shares(shapes: Sequence[Shape], large: float) -> NDArray[np.float64]:
    """How often each shape is drawn: the large ones are rare among them."""
    diameters = np.array([shape.diameter_mm for shape in shapes])
    share = 0.5 / len(diameters) + 0.5 * diameters / diameters.sum()
    is_large = diameters >= _LARGE_MM
    if not large or not is_large.any():
        return share
    return np.asarray((1 - large) * share + large * is_large / is_large.sum())


def _shares(backgrounds: Sequence[Background], volumes: NDArray[np.float64]) -> NDArray[np.float64]:
    """How often each teaches: by its lungs' volume, and generated ones together by their share."""
    generated = np.array([source.generated for source in backgrounds])
    both = generated.any() and not generated.all()
    weight = np.where(generated, GENERATED_SHARE, 1 - GENERATED_SHARE) if both else np.ones(len(volumes))
    total = np.where(generated, volumes[generated].sum(), volumes[~generated].sum()) if both else volumes.sum()
    return np.asarray(volumes * weight / total)


def insert_seen(
    hu: Floats, lung: Mask, drawn: Drawn, centre: NDArray[np.int_], least_seen: float, taken: Mask | None = None
) -> Mask | None:
    """As `insert`, but None, and hu untouched, where less than a share of the nodule differs from what was there."""
    before = hu.copy()
    mask = insert(hu, lung, drawn, centre, taken)
    if mask is None or not least_seen or (np.abs(hu - before)[mask] > _SEEN_HU).mean() >= least_seen:
        return mask
    hu[:] = before
    return None


def add_lookalike(hu: Floats, lung: Mask, rng: Generator, within: Mask | None = None) -> str | None:
    """Draw one thing that is no nodule, in place, where there is lung, its middle within a mask; its name."""
    name = str(rng.choice(list(LOOKALIKES)))
    at = site(hu, lung, rng, where=2 if name in PLEURAL else 0, within=within)
    if at is None:
        return None
    draw_lookalike(name, hu, lung, at, rng)
    return name


def site(
    hu: Floats, lung: Mask, rng: Generator, where: int | None = None, within: Mask | None = None
) -> NDArray[np.int_] | None:
    """A voxel for a nodule: a third anywhere in the lung (0), a third at a vessel (1), a third at the pleura (2).

    Only where it is asked for: against a thick vessel (3). It lies within a mask, whose edge is no pleura.
    """
    choice = int(rng.integers(3) if where is None else where)
    here = lung if within is None else lung & within
    wanted = _sites(choice, hu, lung) & here
    voxels = np.flatnonzero(wanted if wanted.any() else here)
    if voxels.size == 0:
        return None
    return np.array(np.unravel_index(voxels[rng.integers(voxels.size)], lung.shape))


def _sites(choice: int, hu: Floats, lung: Mask) -> Mask:
    """Where in a lung sites of a kind are."""
    where = lung
    if choice == 1:
        where = lung & (hu > _DENSE_HU)
    elif choice == 2:
        edge = np.zeros_like(lung)
        for axis, reach in ((0, 2), (1, 3), (2, 3)):
            edge |= ~np.roll(lung, reach, axis) | ~np.roll(lung, -reach, axis)
        where = lung & edge
    elif choice == 3:
        dense = lung & (hu > _DENSE_HU)
        where = lung & ~dense & (ndimage.uniform_filter(dense.astype(np.float32), _ABOUT) > _MOSTLY_VESSEL)
    return where
