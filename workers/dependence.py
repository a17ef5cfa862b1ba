"""Dependence: how a finding's score changes where a part of the image around it is replaced by even lung.

The network is run again over a piece around the finding, once as it is and once without each part. That shows what its
score depended on, and no more: not why something is a nodule, nor what parts do together.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from hashlib import sha256
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from workers.morphology import grown
from workers.preprocessing import GRID_MM, HU_WINDOW
from workers.volume import Region

Floats = NDArray[np.float32]
Mask = NDArray[np.bool_]
Box = tuple[slice, slice, slice]
#: The score that the network gives to what it marked, in a piece of the grid that lies in some box.
ScoreOf = Callable[[Floats, Box], float]

#: mm around a finding that the network is shown: beyond, nothing moved its scores on drawn chests.
_SHOWN_MM = 24.0
#: mm around an outline that count as its rim, and within which other parts begin and end.
_RIM_MM, _NEAR_MM = 3.0, 12.0
#: What the edge shares with the lung goes with what is outlined, or its ghost would stay.
_EDGE_MM = 1.5
#: Denser than that, within the lungs, is tissue.
_TISSUE_ABOVE_HU = -600.0
#: Without lung around, what it usually has.
_LUNG_HU = -850.0
#: Fewer voxels are no part.
_FEWEST_VOXELS = 12
#: A change of the score that is worth a word.
_CHANGE = 0.05


class Part(StrEnum):
    """What is replaced; the value is its name for people."""

    OUTLINED = "what is outlined"
    RIM = "the 3 mm around it"
    ADJOINING = "the dense tissue that touches it, such as a vessel"
    WALL = "what lies beyond the lung"
    LUNG = "the rest of the lung within 12 mm"


#: The values of `Dependence.parts`.
NUMBERS: Mapping[Part, int] = MappingProxyType({part: number for number, part in enumerate(Part, start=1)})


@dataclass(frozen=True, kw_only=True)
class Dependence:
    """What a finding's score depended on."""

    #: The score of the finding in the piece as it is, 0 to 1: what all others are compared with.
    score: float
    #: Without each part; a part that is not there is not named.
    without: Mapping[Part, float]
    #: Where the piece begins on the network's grid [k, j, i].
    start: tuple[int, int, int]
    #: Of each voxel of the piece the number of its part; 0 for none.
    parts: NDArray[np.uint8]

    @property
    def most(self) -> Part | None:
        """The part without which the score falls most; None where it hardly falls without any."""
        part = min(self.without, key=lambda part: self.without[part], default=None)
        return part if part is not None and self.score - self.without[part] >= _CHANGE else None


def dependence(
    values: Floats, lungs: Mask, outlined: Region, marked: Box, slice_mm: float, score_of: ScoreOf
) -> Dependence:
    """Replace each part around a finding in turn; values 0..1, lungs and finding are on the network's grid.

    `marked` is the box in which the network marked it; the series' slices are `slice_mm` apart.
    """
    box = _around(outlined.box, marked, values.shape)
    piece = np.ascontiguousarray(values[box])
    inside = np.zeros(piece.shape, dtype=bool)
    inside[tuple(slice(o.start - b.start, o.stop - b.start) for o, b in zip(outlined.box, box, strict=True))] = (
        outlined.mask
    )
    lung = np.asarray(lungs[box])
    distance = ndimage.distance_transform_edt(~inside, sampling=GRID_MM)
    # Across slices an edge is blurred by as much as they are apart.
    across = GRID_MM[0] * _EDGE_MM / max(_EDGE_MM, slice_mm)
    edge = ndimage.distance_transform_edt(~inside, sampling=(across, *GRID_MM[1:])) <= _EDGE_MM
    tissue = piece > _normal(_TISSUE_ABOVE_HU)
    parts = _parts(inside, lung, tissue, distance)
    plain = lung & ~tissue & ~edge
    even = float(np.median(piece[plain])) if plain.any() else _normal(_LUNG_HU)
    without = {}
    for part, number in NUMBERS.items():
        replaced = parts == number
        if replaced.sum() < _FEWEST_VOXELS and part is not Part.OUTLINED:
            continue
        if part is Part.OUTLINED:
            replaced |= edge & lung
        without[part] = score_of(np.where(replaced, np.float32(even), piece), box)
    start = (box[0].start, box[1].start, box[2].start)
    return Dependence(score=score_of(piece, box), without=MappingProxyType(without), start=start, parts=parts)


def _parts(inside: Mask, lung: Mask, tissue: Mask, distance: NDArray[np.float64]) -> NDArray[np.uint8]:
    """The number of each voxel's part: each is in one at most."""
    near = distance <= _NEAR_MM
    dense = lung & tissue & near & ~inside
    touching = grown(dense & (distance <= _EDGE_MM), dense)
    # What ends within the rim is a blurred edge or a spicule, no vessel.
    adjoining = grown(touching & (distance > _RIM_MM), touching)
    parts = np.zeros(inside.shape, dtype=np.uint8)
    parts[near] = NUMBERS[Part.LUNG]
    parts[distance <= _RIM_MM] = NUMBERS[Part.RIM]
    parts[adjoining] = NUMBERS[Part.ADJOINING]
    parts[near & ~lung] = NUMBERS[Part.WALL]
    parts[inside] = NUMBERS[Part.OUTLINED]
    return parts


def in_words(name: str, score: float, told: Dependence) -> str:
    """What a report says of one finding's score, in sentences."""
    others = sorted(((value, part) for part, value in told.without.items() if part is not told.most))
    changes = ", ".join(f"{value:.2f} without {part}" for value, part in others)
    further = f" Of the others: {changes}." if changes else ""
    return f"{name}: {lead(score, told)}{further} {LIMIT}"


def lead(score: float, told: Dependence) -> str:
    """On what a finding's score depends most, in one sentence."""
    shown = f" ({told.score:.2f} with only {_SHOWN_MM:.0f} mm around it shown)"
    alone = "" if f"{score:.2f}" == f"{told.score:.2f}" else shown
    if told.most is None:
        return f"Its score of {score:.2f}{alone} hardly falls, whichever part is replaced by even lung."
    left = f"{told.without[told.most]:.2f} is left where that is replaced by even lung"
    return f"Its score of {score:.2f}{alone} depends most on {told.most}: {left}."


def digest(explained: Mapping[int, Dependence]) -> str:
    """What of a part of a report's identity rests on what was told of scores; empty where nothing was."""
    told = [
        (number, f"{one.score:.2f}", *(f"{part} {score:.2f}" for part, score in one.without.items()))
        for number, one in sorted(explained.items())
    ]
    return f" {sha256(repr(told).encode()).hexdigest()[:16]}" if told else ""


#: Goes with every such sentence and map.
LIMIT = "This shows what the network's score depended on, not why something is a nodule."


def _around(box: Box, other: Box, shape: tuple[int, ...]) -> Box:
    """What is shown around two boxes, as far as the grid goes."""
    margins = (int(np.ceil(_SHOWN_MM / mm)) for mm in GRID_MM)
    k, j, i = (
        slice(max(0, min(one.start, two.start) - margin), min(count, max(one.stop, two.stop) + margin))
        for one, two, margin, count in zip(box, other, margins, shape, strict=True)
    )
    return k, j, i


def _normal(hu: float) -> float:
    low, high = HU_WINDOW
    return (hu - low) / (high - low)
