"""Crops for the second look: nodules, and what a search takes for nodules, each in the middle of a small box.

Half of them hold a nodule. Of the others most show a place where the searching network was wrong in lungs that teach,
scanned anew, so that it need not mark it again; or what it marks highest among lookalikes that are drawn in; the rest a
lookalike, a vessel or a piece of pleura. What it marks is in the middle as it marks it, nodules, too: of a tube that is
another place than the one that it was drawn from.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from training.augmentation import aerate, draw, scan, tether
from training.dataset import TETHERED_SHARE, Background, Insertion, Patches, add_lookalike, insert_seen, site
from training.lookalikes import LOOKALIKES, PLEURAL, draw_lookalike
from training.shapes import Shape
from workers.preprocessing import Candidate, normalise
from workers.second_look import centre_of, crop

Floats = NDArray[np.float32]
Mask = NDArray[np.bool_]
Voxel = NDArray[np.int_]
#: What a search marks in values 0..1 where the lungs are, the highest score first.
Marks = Callable[[Floats, Mask], Sequence[Candidate]]

#: Voxels that are drawn around a crop, and how far off its middle what it shows may lie.
_AROUND = (8, 12, 12)
_JITTER = 2
#: Of the tries at a crop without a nodule; where the search marks no drawn lookalike, as in half of them, another try.
_MINED_SHARE, _MARKED_SHARE, _LOOKALIKE_SHARE = 0.40, 0.35, 0.10
#: Lookalikes that are drawn for the search to mark one of them.
_SOWN = (1, 4)


def shown() -> str:
    """What the crops show, in words for a card."""
    return (
        "Half of the crops hold a nodule. Of the others about half show a place where the search was wrong in lungs "
        "that teach, about a fifth what it marks highest among lookalikes drawn into them, the rest lookalikes, "
        "vessels and pleura, marked or not."
    )


@dataclass(frozen=True, kw_only=True)
class Crop:
    """Values 0..1 and whether a nodule is in the middle."""

    values: Floats
    is_nodule: bool


class Crops:
    """Crops drawn by number: the same seed and number give the same crop."""

    def __init__(
        self,
        backgrounds: Sequence[Background],
        shapes: Sequence[Shape],
        size: tuple[int, int, int],
        seed: int,
        pool: int = 0,
        insertion: Insertion | None = None,
    ) -> None:
        """`pool` is how many are drawn, an even number: later ones are those again, turned over; 0: each is drawn."""
        self._backgrounds, self._size, self._seed = backgrounds, size, seed
        self._insertion = insertion or Insertion()
        around = (size[0] + 2 * _AROUND[0], size[1] + 2 * _AROUND[1], size[2] + 2 * _AROUND[2])
        self._patches = Patches(backgrounds, shapes, around, seed, self._insertion)
        self._shapes = [shape for shape in shapes if not shape.held_out]
        #: Places [background, k, j, i, weight] where the searching network saw what is not there.
        self.mined: NDArray[np.float64] = np.zeros((0, 5))
        #: What the searching network marks; None: that is not known.
        self.marks: Marks | None = None
        self._pool = pool
        self._kept: dict[int, Crop] = {}

    def __getitem__(self, number: int) -> Crop:
        if not self._pool:
            return self.drawn(number)
        again = number % self._pool
        if again not in self._kept:
            self._kept[again] = self.drawn(again)
        kept, turns = self._kept[again], np.random.default_rng((self._seed, 2, number)).random(4) < 0.5
        turned = np.flip(kept.values, tuple(axis for axis in range(3) if turns[axis]))
        if turns[3] and self._size[1] == self._size[2]:
            turned = turned.swapaxes(1, 2)
        return Crop(values=np.ascontiguousarray(turned), is_nodule=kept.is_nodule)

    def drawn(self, number: int) -> Crop:
        """A crop that is drawn for this number alone."""
        rng = np.random.default_rng((self._seed, 1, number))
        while True:
            made = self._nodule(rng) if number % 2 else self._other(rng)
            if made is not None:
                values, at = made
                k, j, i = (int(v) for v in at + rng.integers(-_JITTER, _JITTER + 1, size=3))
                return Crop(values=crop(values, (k, j, i), self._size), is_nodule=bool(number % 2))

    def _nodule(self, rng: Generator) -> tuple[Floats, Voxel] | None:
        hu, lung = self._lung(*self._patches.place(rng), rng)
        if rng.random() < 0.3:
            add_lookalike(hu, lung, rng)
        beside = self._insertion.beside_vessels
        against = 3 if beside and rng.random() < beside else None
        centre = site(hu, lung, rng, against, within=_inner(lung))
        if centre is None:
            return None
        if rng.random() < TETHERED_SHARE:
            tether(hu, lung, centre, rng)
        drawn = draw(self._shapes[int(rng.choice(len(self._shapes), p=self._patches.share))], rng)
        mask = insert_seen(hu, lung, drawn, centre, self._insertion.least_seen)
        if mask is None:
            return None
        values = _shown(hu, rng)
        low, high = (end(np.argwhere(mask), axis=0) for end in (np.min, np.max))
        marked = [at for at in self._marked(values, lung) if mask[at]]
        return values, np.array(marked[0]) if marked else (low + high) // 2

    def _other(self, rng: Generator) -> tuple[Floats, Voxel] | None:
        choice = rng.random()
        if choice < _MINED_SHARE and len(self.mined):
            row = self.mined[int(rng.integers(len(self.mined)))]
            hu, _ = self._lung(int(row[0]), row[1:4].astype(int), rng)
            return _shown(hu, rng), np.array(hu.shape) // 2
        hu, lung = self._lung(*self._patches.place(rng), rng)
        if self.marks is not None and choice < _MINED_SHARE + _MARKED_SHARE:
            return self._marked_lookalike(hu, lung, rng)
        name = str(rng.choice(list(LOOKALIKES)))
        drawn = choice < _MINED_SHARE + _MARKED_SHARE + _LOOKALIKE_SHARE
        where = (2 if name in PLEURAL else 0) if drawn else int(rng.integers(1, 3))
        at = site(hu, lung, rng, where, within=_inner(lung))
        if at is not None and drawn:
            draw_lookalike(name, hu, lung, at, rng)
        return None if at is None else (_shown(hu, rng), at)

    def _marked_lookalike(self, hu: Floats, lung: Mask, rng: Generator) -> tuple[Floats, Voxel] | None:
        """What the search marks highest about drawn lookalikes; None where it marks nothing."""
        inner = _inner(lung)
        for _ in range(int(rng.integers(*_SOWN))):
            add_lookalike(hu, lung, rng, inner)
        values = _shown(hu, rng)
        marked = [at for at in self._marked(values, lung) if inner[at]]
        return (values, np.array(marked[0])) if marked else None

    def _marked(self, values: Floats, lung: Mask) -> list[tuple[int, int, int]]:
        """The middles of what the search marks, the highest score first."""
        return [centre_of(candidate) for candidate in self.marks(values, lung)] if self.marks else []

    def _lung(self, which: int, centre: Voxel, rng: Generator) -> tuple[Floats, Mask]:
        hu, lung, counts = self._patches.cut(self._backgrounds[which], centre, rng)
        return aerate(hu, rng), lung & counts


def _shown(hu: Floats, rng: Generator) -> Floats:
    """Values 0..1 of a scan of it."""
    return normalise(scan(hu, rng))


def _inner(lung: Mask) -> Mask:
    """The lung in the middle third of a box's sides: what a crop about it shows lies in the box."""
    inner = np.zeros_like(lung)
    box = tuple(slice(n // 3, n - n // 3) for n in lung.shape)
    inner[box] = lung[box]
    return inner
