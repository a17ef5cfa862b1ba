"""Upright: a volume along the patient's own directions, whichever way its slices, rows and columns were laid.

Of the three axes of a volume each is taken for that of the patient to which it is nearest; nothing is resampled.
"""

import itertools
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from workers.volume import Volume

#: A volume turned farther is not said to be axial, but near it.
_STRAIGHT = 0.985


@dataclass(frozen=True, kw_only=True)
class Upright:
    """How a volume [k, j, i] becomes one of [z, y, x], which grow to the patient's head, back and left (LPS)."""

    #: The axis of [k, j, i] that runs along z, y and x, and whether it runs the same way.
    axes: tuple[int, int, int]
    forward: tuple[bool, bool, bool]
    #: Along z, y and x.
    spacing_mm: tuple[float, float, float]
    #: Whether the axes are the patient's but for a nod.
    is_straight: bool

    @classmethod
    def of(cls, volume: Volume) -> "Upright":
        """That of a volume."""
        # Rows z, y, x; columns k, j, i.
        cosines = (volume.affine[:3, :3] / np.linalg.norm(volume.affine[:3, :3], axis=0))[::-1, ::-1]
        best = max(itertools.permutations(range(3)), key=lambda axes: sum(abs(cosines[n, axes[n]]) for n in range(3)))
        k, j, i = best
        along = [float(cosines[n, axis]) for n, axis in enumerate(best)]
        z, y, x = (value > 0 for value in along)
        dz, dy, dx = (volume.spacing_mm[axis] for axis in best)
        return cls(
            axes=(k, j, i),
            forward=(z, y, x),
            spacing_mm=(dz, dy, dx),
            is_straight=min(map(abs, along)) >= _STRAIGHT,
        )

    def turned(self, array: NDArray[Any]) -> NDArray[Any]:
        """An array [k, j, i] as [z, y, x], without a copy."""
        back = tuple(slice(None, None, 1 if forward else -1) for forward in self.forward)
        return array.transpose(self.axes)[back]
