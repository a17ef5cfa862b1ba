"""Alignment: where a place of one scan lies in another of the same patient, by what both show of the lungs.

A patient lies and breathes otherwise each time: a lung is moved, and wider or narrower along each axis. That is told by
how its voxels are spread along x, y and z, which needs no images of the earlier scan and no search. Places are compared
in millimetres of a lung of average size, so that neither scan is the reference. Places are LPS mm, [n, 3].
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

#: Shares of a lung's voxels, without the last twentieth at either end, where vessels and airways join or leave a mask.
_SHARES = np.linspace(0.05, 0.95, 19)
#: Spread of those places along x, y and z in an average lung, in mm; measured in the drawn chests of `training`.
AVERAGE_MM = np.array([25.0, 41.0, 50.0])
#: And of both lungs together: what lies as far apart across is no nearer for that.
AVERAGE_OF_BOTH_MM = np.array([70.0, 41.0, 50.0])
#: Two lungs are spread alike, but for breath: more is another lung, a part of one, or a mask that leaked.
_MOST_STRETCH = 1.3
#: So much may the shares lie apart after alignment, root mean square along the worst axis.
_MOST_MISFIT_MM = 3.5


@dataclass(frozen=True, kw_only=True, eq=False)
class LungShape:
    """How the voxels of a lung are spread: the places below which growing shares of them lie, [axis, share]."""

    quantiles: Floats
    #: Whether it is of both lungs together.
    is_pair: bool = False

    @classmethod
    def of(cls, places: Floats, *, is_pair: bool = False) -> "LungShape":
        """Of voxels' places; needs at least one."""
        return cls(quantiles=np.quantile(places, _SHARES, axis=0).T, is_pair=is_pair)

    @cached_property
    def centre(self) -> Floats:
        """The middle along each axis."""
        return np.asarray(self.quantiles.mean(axis=1))

    @cached_property
    def spread(self) -> Floats:
        """How far places lie from the middle, as their standard deviation along each axis."""
        return np.asarray(self.quantiles.std(axis=1))

    def in_average_lung(self, places: Floats) -> Floats:
        """Where places would lie in a lung of average size around the origin, or in two."""
        return np.asarray((places - self.centre) / self.spread * self._average)

    def out_of_average_lung(self, places: Floats) -> Floats:
        """The other way round."""
        return np.asarray(places / self._average * self.spread + self.centre)

    @property
    def _average(self) -> Floats:
        return AVERAGE_OF_BOTH_MM if self.is_pair else AVERAGE_MM

    def misfit_mm(self, other: "LungShape") -> float:
        """How far the two lungs still differ after alignment, along the axis where they differ most."""
        # Of both lungs together, too, in the scale of one: the gap between them makes any difference large.
        mine, theirs = ((one.quantiles.T - one.centre) / one.spread * AVERAGE_MM for one in (self, other))
        return float(np.sqrt(((mine - theirs) ** 2).mean(axis=0)).max())

    def is_like(self, other: "LungShape") -> bool:
        """Whether both can be the same lung, whole in both scans."""
        if min(self.spread.min(), other.spread.min()) <= 0:
            return False
        stretch = np.abs(np.log(self.spread / other.spread)).max()
        return bool(stretch <= np.log(_MOST_STRETCH)) and self.misfit_mm(other) <= _MOST_MISFIT_MM
