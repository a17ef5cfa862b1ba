"""The semi-synthetic test set: nodules of patients who taught nothing, drawn into lungs that taught nothing.

Four volumes in five are pieces of generated thoraces, the fifth holds the held-out slab about the hila of a real lung,
outside which nothing is judged. Volumes without nodules are whole generated thoraces. Both hold things that look like
nodules. A case is a function of seed and number, and is kept in the cache under a checksum of the code that draws.
"""

import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from scipy import ndimage

from training import augmentation, dataset, lookalikes, phantom_backgrounds, shapes
from training.augmentation import Slices, aerate, draw, on_grid, scanned, tether
from training.dataset import TETHERED_SHARE, Background, add_lookalike, insert_seen, site
from training.edition import edition
from training.phantom_backgrounds import thoraces
from training.shapes import Shape
from workers.preprocessing import GRID_MM
from workers.volume import Region

Floats = NDArray[np.float32]
Mask = NDArray[np.bool_]

#: Height of a volume with nodules, 126 mm, and how much of it at either end is neither right nor wrong: there the piece
#: is cut out of a lung, and so would a nodule be, which no scan does that covers the lungs.
_SLICES, _CUT = 84, 12
_MOST_NODULES = 3
_LOOKALIKES = (1, 4)
#: The share of a nodule that must differ from what was there: what lies hidden in a vessel no reader could outline.
_LEAST_SEEN = 0.5
#: Every so many-th volume with nodules holds a real lung.
_REAL_EVERY = 5
_THICKNESSES_MM = (1.5, 2.5, 3.0, 5.0)
#: As in a clinical scan; training went up to 45.
_MOST_NOISE_HU = 30.0
#: Of a generated thorax, the slices that hold lungs.
_LUNGS_FROM, _LUNGS_TO = 18, 196


@dataclass(frozen=True, kw_only=True)
class DrawnNodule:
    """A nodule that was drawn in: its voxels on the grid, and what it is."""

    region: Region
    kind: str
    #: Of the ball of as many voxels.
    diameter_mm: float


@dataclass(frozen=True, kw_only=True)
class DrawnScan:
    """A volume in HU on the shared grid, and what is true of it."""

    name: str
    #: The lung that it was drawn into: what stands for a patient.
    background: str
    slice_thickness_mm: float
    hu: Floats
    #: The same as a scanner gives it.
    slices: Slices
    #: What lies elsewhere is neither right nor wrong.
    judged: Mask
    nodules: tuple[DrawnNodule, ...]


@dataclass(frozen=True, kw_only=True)
class Case:
    """One volume of the set, not drawn yet."""

    number: int
    with_nodules: bool

    @property
    def name(self) -> str:
        """What reports call it."""
        return f"{'nodules' if self.with_nodules else 'normal'}-{self.number:03d}"

    @property
    def is_real(self) -> bool:
        """Whether its lung is a real one."""
        return self.with_nodules and self.number % _REAL_EVERY == _REAL_EVERY - 1

    @property
    def generated(self) -> int:
        """Which of the volumes of its sort in generated lungs it is: all lungs have their turn."""
        return self.number - self.number // _REAL_EVERY if self.with_nodules else self.number

    def generator(self, seed: int) -> Generator:
        """Where everything random of it comes from."""
        return np.random.default_rng((seed, self.number, int(self.with_nodules)))


def cases(nodules: int, normals: int) -> tuple[Case, ...]:
    """The first so many volumes of both sorts."""
    return (
        *(Case(number=n, with_nodules=True) for n in range(nodules)),
        *(Case(number=n, with_nodules=False) for n in range(normals)),
    )


class DrawnScans:
    """The volumes of a set, drawn when they are asked for the first time."""

    def __init__(
        self, real: Sequence[Background], shapes: Sequence[Shape], thoraxes: Sequence[int], cache: Path, seed: int,
        use: str = "test",
    ) -> None:  # fmt: skip
        """`use` says whose shapes and which slab of the real lungs: those of the test, or of validation."""
        self._real = real
        self._shapes = [shape for shape in shapes if shape.use == use]
        self._thoraxes, self._seed, self._slab = thoraxes, seed, -1 if use == "test" else 0
        self._cache = cache
        #: Where the volumes are kept.
        self.folder = cache / f"{use}-set-{seed}-{_edition()}"
        self._latest: Background | None = None
        if not self._shapes:
            raise ValueError(f"no shapes are kept for {use}: give all shapes, not those that taught")

    def __call__(self, case: Case) -> DrawnScan:
        """A volume from the cache, or drawn now."""
        kept = self.folder / f"{case.name}.npz"
        if not kept.exists():
            self.folder.mkdir(parents=True, exist_ok=True)
            partial = kept.with_suffix(".partial.npz")
            _keep(self._drawn(case), partial)
            partial.replace(kept)
        return _kept(kept, case.name)

    def _drawn(self, case: Case) -> DrawnScan:
        rng = case.generator(self._seed)
        source = self._background(case)
        hu, lung, judged = _cut(source, case, self._slab, rng)
        hu = aerate(hu, rng)
        for _ in range(int(rng.integers(*_LOOKALIKES))):
            add_lookalike(hu, lung, rng, judged)
        labels, kinds = self._inserted(hu, lung, judged, rng) if case.with_nodules else (np.zeros(hu.shape, int), ())
        thickness = _THICKNESSES_MM[case.number % len(_THICKNESSES_MM)]
        slices = scanned(hu, rng, thickness, _MOST_NOISE_HU)
        return DrawnScan(
            name=case.name,
            background=source.name,
            slice_thickness_mm=thickness,
            hu=on_grid(slices, len(hu)),
            slices=slices,
            judged=judged,
            nodules=_nodules(labels, kinds),
        )

    def _background(self, case: Case) -> Background:
        if case.is_real:
            return self._real[case.number // _REAL_EVERY % len(self._real)]
        seed = self._thoraxes[case.generated % len(self._thoraxes)]
        if self._latest is None or self._latest.name != f"phantom-{seed}":
            self._latest = next(thoraces([seed], self._cache))
        return self._latest

    def _inserted(
        self, hu: Floats, lung: Mask, judged: Mask, rng: Generator
    ) -> tuple[NDArray[np.int_], tuple[str, ...]]:
        """Nodules drawn whole into hu, in place, apart from each other, their middles where it is judged.

        A label for each, and their kinds.
        """
        labels = np.zeros(hu.shape, dtype=int)
        kinds: list[str] = []
        wanted = int(rng.integers(1, _MOST_NODULES + 1))
        for _ in range(40):
            centre = site(hu, lung, rng, within=judged)
            if centre is None or len(kinds) == wanted:
                break
            drawn = draw(self._shapes[int(rng.integers(len(self._shapes)))], rng)
            if rng.random() < TETHERED_SHARE:
                tether(hu, lung, centre, rng)
            taken = ndimage.binary_dilation(labels > 0, iterations=6)
            mask = insert_seen(hu, lung, drawn, centre, _LEAST_SEEN, taken)
            if mask is not None:
                kinds.append(drawn.kind)
                labels[mask] = len(kinds)
        return labels, tuple(kinds)


def drawn_in_turn(scans: DrawnScans, chosen: Sequence[Case]) -> Iterator[DrawnScan]:
    """The volumes one by one: one in memory at a time."""
    for case in chosen:
        yield scans(case)


def _cut(source: Background, case: Case, slab: int, rng: Generator) -> tuple[Floats, Mask, Mask]:
    """HU, lung and what is judged of a case's piece, perhaps mirrored: no organ tells left from right then."""
    if not case.is_real and not case.with_nodules:
        levels = slice(0, len(source.hu))
    elif case.is_real:
        levels = _around_slab(source, slab)
    else:
        start = int(rng.integers(_LUNGS_FROM, _LUNGS_TO - _SLICES))
        levels = slice(start, start + _SLICES)
    judged = source.judging[levels].copy()
    if case.with_nodules:
        judged[:_CUT] = judged[-_CUT:] = False
    if case.is_real:
        inner = np.zeros(len(source.hu), dtype=bool)
        inner[_slab(source, slab)] = True
        judged = judged & inner[levels][:, None, None]
    mirrored = (slice(None), slice(None), slice(None, None, -1 if rng.random() < 0.5 else 1))
    hu = np.ascontiguousarray(source.hu[levels][mirrored], dtype=np.float32)
    return hu, np.ascontiguousarray(source.lung[levels][mirrored]), np.ascontiguousarray(judged[mirrored])


def _slab(source: Background, which: int) -> NDArray[np.int_]:
    """The levels of a held-out slab, from below."""
    labels, count = ndimage.label(source.judging.any(axis=(1, 2)))
    if count < 2:
        raise ValueError(f"{source.name} has {count} held-out slabs; one is wanted for validation and one for the test")
    return np.flatnonzero(labels == (count + which + 1 if which < 0 else which + 1))


def _around_slab(source: Background, which: int) -> slice:
    levels = _slab(source, which)
    start = int(np.clip((levels[0] + levels[-1] - _SLICES) // 2, 0, len(source.hu) - _SLICES))
    return slice(start, start + _SLICES)


def _nodules(labels: NDArray[np.int_], kinds: Sequence[str]) -> tuple[DrawnNodule, ...]:
    made = []
    for number, (box, kind) in enumerate(zip(ndimage.find_objects(labels), kinds, strict=True), start=1):
        mask = labels[box] == number
        volume = float(mask.sum() * np.prod(GRID_MM))
        made.append(
            DrawnNodule(region=Region(box=box, mask=mask), kind=kind, diameter_mm=float(np.cbrt(6 * volume / np.pi)))
        )
    return tuple(made)


def _keep(drawn: DrawnScan, path: Path) -> None:
    labels = np.zeros(drawn.hu.shape, dtype=np.uint8)
    for number, nodule in enumerate(drawn.nodules, start=1):
        labels[nodule.region.box][nodule.region.mask] = number
    said = {
        "background": drawn.background,
        "slice_thickness_mm": drawn.slice_thickness_mm,
        "kinds": [nodule.kind for nodule in drawn.nodules],
        "first": drawn.slices.first,
        "step": drawn.slices.step,
    }
    hu = np.round(drawn.slices.hu).astype(np.int16)
    np.savez_compressed(path, hu=hu, judged=drawn.judged, labels=labels, said=np.array(json.dumps(said)))


def _kept(path: Path, name: str) -> DrawnScan:
    with np.load(path) as arrays:
        said, judged = json.loads(str(arrays["said"])), arrays["judged"]
        slices = Slices(hu=arrays["hu"].astype(np.float32), first=said["first"], step=said["step"])
        return DrawnScan(
            name=name,
            background=said["background"],
            slice_thickness_mm=said["slice_thickness_mm"],
            hu=on_grid(slices, len(judged)),
            slices=slices,
            judged=judged,
            nodules=_nodules(arrays["labels"].astype(int), said["kinds"]),
        )


#: What draws a volume, from its lungs to its noise.
DRAWING = (augmentation, dataset, lookalikes, shapes, *phantom_backgrounds.DRAWING, sys.modules[__name__])


def _edition() -> str:
    return edition(DRAWING)
