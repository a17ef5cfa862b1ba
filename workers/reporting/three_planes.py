"""Three planes: one finding cut axially, coronally and sagittally, as wide as it is, and on what its score depended.

The patient lies in it as radiologists look at him, whichever way the series was laid: his right at the left, his head
above. No patient data is drawn.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from dicom_node.core.errors import EvidenceInvalid
from dicom_node.core.finding import Finding
from workers.dependence import LIMIT, NUMBERS, Dependence, Part, lead
from workers.measurement import borders
from workers.preprocessing import GRID_MM
from workers.reporting.evidence import Evidence
from workers.reporting.narrative import NOT_FOR_DIAGNOSIS
from workers.reporting.picture import BOLD, NOTICE, REGULAR, WHITE, Colour, Picture
from workers.reporting.room import Box
from workers.reporting.segmentation import colour_of, tracking_identifier
from workers.reporting.text_page import broken
from workers.reporting.upright import Upright
from workers.reporting.window import LUNG, Window
from workers.volume import LOWEST_HU

#: Pixels of the picture, and of a plane's side; in units, of which the longer side has 512, for all else.
_HEIGHT, _WIDTH = 768, 702
_SIDE = 224.0
_LEFT, _RIGHT, _UPPER, _LOWER = 6.0, 238.0, 54.0, 282.0
_MAP = 134.0
_TITLE, _TEXT, _SMALL = 15.0, 10.0, 8.5
#: mm that a plane shows at least, and how many times the finding's own greatest extent.
_SHOWN_MM, _SHOWN_LENGTHS = 40.0, 1.8
#: The longest of these bars that takes no more than a third of a plane.
_BARS_MM = (10.0, 20.0, 50.0, 100.0)
_COLOURS = "Orange: without it the score falls; blue: without it the score rises."
_UNTOLD = "On what the score depended was not measured."

#: Falls without a part: the score rested on it. Rises without it: it spoke against. Told apart by every eye.
_FALLS: Colour = (255, 150, 20)
_RISES: Colour = (70, 150, 255)
#: A smaller change has no colour; of a whole one so much covers the image.
_CHANGE, _COVERS = 0.05, 0.6
_SHORT = {
    Part.OUTLINED: "outlined",
    Part.RIM: "3 mm around",
    Part.ADJOINING: "touching",
    Part.WALL: "beyond lung",
    Part.LUNG: "lung to 12 mm",
}


@dataclass(frozen=True, kw_only=True)
class _Plane:
    """A cut across one axis of an upright volume: what runs down and to the right, and what stands at its sides."""

    name: str
    #: Of z, y, x.
    across: int
    down: int
    right: int
    #: Whether what runs down is drawn from its end: the head is above.
    from_end: bool
    #: Left, right, above, below (PS3.3 Section C.7.6.1.1.1).
    letters: str


_PLANES = (
    _Plane(name="axial", across=0, down=1, right=2, from_end=False, letters="RLAP"),
    _Plane(name="coronal", across=1, down=0, right=2, from_end=True, letters="RLHF"),
    _Plane(name="sagittal", across=2, down=0, right=1, from_end=True, letters="APHF"),
)
_PLACES = ((_LEFT, _UPPER), (_RIGHT, _UPPER), (_LEFT, _LOWER))


def three_planes(
    evidence: Evidence,
    finding: Finding,
    labels: NDArray[np.uint8],
    told: Dependence | None = None,
    window: Window = LUNG,
) -> NDArray[np.uint8]:
    """The picture [row, column, red green blue] of one finding that `labels` [k, j, i] mark with its number.

    Raises EvidenceInvalid where they do not.
    """
    drawing = _Drawing(evidence, finding, labels, window)
    drawing.head()
    for plane, (left, top) in zip(_PLANES, _PLACES, strict=True):
        drawing.plane(plane, left, top)
    drawing.dependence(told)
    return drawing.picture.finished()


class _Drawing:
    """The parts of the picture."""

    def __init__(self, evidence: Evidence, finding: Finding, labels: NDArray[np.uint8], window: Window) -> None:
        self._evidence, self._finding, self._window = evidence, finding, window
        volume = evidence.volume
        self._upright = Upright.of(volume)
        self._hu, self._labels = self._upright.turned(volume.voxels), self._upright.turned(labels)
        box = _box(self._labels == finding.number)
        #: Middle of the finding in voxels [z, y, x], and the planes of its largest extent.
        self._middle = [(part.start + part.stop - 1) / 2 for part in box]
        own = self._labels[box] == finding.number
        self._cuts = [part.start + _fullest(own, axis) for axis, part in enumerate(box)]
        extent = max((p.stop - p.start) * mm for p, mm in zip(box, self._upright.spacing_mm, strict=True))
        self._shown_mm = max(_SHOWN_MM, _SHOWN_LENGTHS * extent)
        self.picture = Picture(np.zeros((_HEIGHT, _WIDTH), dtype=np.uint8))
        self._unit = self.picture.unit

    def head(self) -> None:
        """What this is, of which finding, and by whom."""
        finding, algorithm = self._finding, self._evidence.algorithm
        axes = f"{finding.long_axis.length_mm:.1f} x {finding.short_axis.length_mm:.1f} mm"
        bulk = f"{finding.volume_mm3:.0f} mm3, {finding.mean_hu:.0f} HU"
        named = f"{tracking_identifier(finding)}: {axes}, {bulk}, detector score {finding.score:.2f}"
        by = f"{algorithm.name} {algorithm.version}, not for measuring"
        self._text([NOT_FOR_DIAGNOSIS], _LEFT, 3.0, NOTICE, _TITLE, BOLD)
        self._text([named], _LEFT, 23.0, _colour(finding), _TEXT + 1, BOLD)
        self._text([by], _LEFT, 38.5, WHITE, _SMALL)

    def plane(self, plane: _Plane, left: float, top: float) -> None:
        """One plane: the images, every outline in it, where it lies, and how large it is."""
        picture, side, box = self.picture, round(_SIDE * self._unit), self._box(left, top, _SIDE)
        picture.paste(self._window.grey(self._sampled(plane, side)), box)
        self._outlines(plane, side, box)
        picture.frame(box, _GREY, 0.8)
        self._text([plane.name if self._upright.is_straight else f"near {plane.name}"], left + 2, top + 2, WHITE, _TEXT)
        for letter, (across, down) in zip(plane.letters, _AT_SIDES, strict=True):
            self._text([letter], left + across * _SIDE - 6, top + down * _SIDE - 7, WHITE, _TEXT, BOLD)
        self._bar(left, top)

    def dependence(self, told: Dependence | None) -> None:
        """The axial plane again, coloured by what the score does without each part, and that in numbers and words."""
        if told is None:
            self._text(list(self._broken(_UNTOLD)), _RIGHT, _LOWER, _GREY, _SMALL)
            return
        side, box = round(_MAP * self._unit), self._box(_RIGHT, _LOWER, _MAP)
        grey = self._window.grey(self._sampled(_PLANES[0], side))
        self.picture.paste(_tinted(grey, self._parts(told, side), told), box)
        self._outlines(_PLANES[0], side, box)
        self.picture.frame(box, _GREY, 0.8)
        self._legend(told)
        words = f"{lead(self._finding.score, told)} {_COLOURS} {LIMIT}"
        self._text(list(self._broken(words)), _RIGHT, _LOWER + _MAP + 3, WHITE, _SMALL)

    def _legend(self, told: Dependence) -> None:
        left, line = _RIGHT + _MAP + 3, 1.25 * _SMALL
        self._text([f"{told.score:.2f} as it is", "without:"], left, _LOWER, WHITE, _SMALL)
        for number, (part, score) in enumerate(told.without.items(), start=2):
            colour, covers = _tint(told.score, score)
            shown: Colour = colour if covers else _GREY
            self._text([f"{score:.2f} {_SHORT[part]}"], left, _LOWER + 1.1 * number * line, shown, _SMALL)

    def _sampled(self, plane: _Plane, side: int) -> NDArray[np.float32]:
        """HU [row, column] of a square about the finding, with pixels as wide as high; air beyond the series."""
        slab = np.take(self._hu, self._cuts[plane.across], axis=plane.across)
        rows, columns = self._places(plane, side)
        grid = np.meshgrid(rows, columns, indexing="ij")
        return np.asarray(
            ndimage.map_coordinates(slab, grid, order=1, mode="grid-constant", cval=LOWEST_HU), dtype=np.float32
        )

    def _places(self, plane: _Plane, side: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Where in voxels the rows and columns of a drawn square lie."""
        away = (np.arange(side) + 0.5 - side / 2) * self._shown_mm / side
        spacing, middle = self._upright.spacing_mm, self._middle
        down = -away if plane.from_end else away
        return middle[plane.down] + down / spacing[plane.down], middle[plane.right] + away / spacing[plane.right]

    def _outlines(self, plane: _Plane, side: int, box: Box) -> None:
        """The border of every finding in a plane; of other ones thinner."""
        labels = np.take(self._labels, self._cuts[plane.across], axis=plane.across)
        scale, spacing = side / self._shown_mm, self._upright.spacing_mm
        for number in (int(n) for n in np.unique(labels) if n):
            width = 1.2 if number == self._finding.number else 0.6
            for line in borders(labels == number):
                down = (line[:, 0] - self._middle[plane.down]) * spacing[plane.down] * scale
                right = (line[:, 1] - self._middle[plane.right]) * spacing[plane.right] * scale
                points = np.column_stack([right, -down if plane.from_end else down]) + side / 2
                for piece in _inside(points, side):
                    self.picture.line(piece + np.array(box[:2]), _colour(replace(self._finding, number=number)), width)

    def _parts(self, told: Dependence, side: int) -> NDArray[np.uint8]:
        """The number of the part that each pixel of the axial square lies in; 0 for none."""
        rows, columns = self._places(_PLANES[0], side)
        found = []
        for n, places in enumerate((np.array([float(self._cuts[0])]), rows, columns)):
            axis, spacing = self._upright.axes[n], self._upright.spacing_mm[n]
            last = self._hu.shape[n] - 1
            along = places if self._upright.forward[n] else last - places
            found.append(np.floor(along * spacing / GRID_MM[axis] + 0.5).astype(int) - told.start[axis])
        parts = told.parts.transpose(self._upright.axes)
        valid = [(index >= 0) & (index < count) for index, count in zip(found, parts.shape, strict=True)]
        clipped = [np.clip(index, 0, count - 1) for index, count in zip(found, parts.shape, strict=True)]
        plane = parts[np.ix_(*clipped)][0]
        there = valid[0][0] & valid[1][:, None] & valid[2][None, :]
        return np.where(there, plane, np.uint8(0))

    def _bar(self, left: float, top: float) -> None:
        """The scale, in a plane's lower left corner."""
        fits = [mm for mm in _BARS_MM if mm <= self._shown_mm / 3] or [_BARS_MM[0]]
        length = fits[-1] / self._shown_mm * _SIDE
        bottom = top + _SIDE - 5
        self._text([f"{fits[-1]:.0f} mm"], left + 3, bottom - 15, WHITE, _SMALL)
        ends = [(at * self._unit, bottom * self._unit) for at in (left + 5, left + 5 + length)]
        self.picture.shade((ends[0][0] - 3, ends[0][1] - 4, ends[1][0] + 3, ends[1][1] + 4))
        self.picture.line(ends, WHITE, 2.0)

    def _broken(self, text: str) -> Iterator[str]:
        return broken(self.picture, text, (_SIDE - 2) * self._unit, _SMALL, REGULAR)

    def _text(
        self, lines: list[str], left: float, top: float, colour: Colour, size: float, font: str = REGULAR
    ) -> None:
        self.picture.text(lines, (left * self._unit, top * self._unit), colour, size, font)

    def _box(self, left: float, top: float, side: float) -> Box:
        """A square in pixels that are whole."""
        x, y, length = round(left * self._unit), round(top * self._unit), round(side * self._unit)
        return float(x), float(y), float(x + length), float(y + length)


_GREY: Colour = (150, 150, 150)
#: Of a plane's letters, as shares of its width and height.
_AT_SIDES = ((0.035, 0.5), (0.955, 0.5), (0.5, 0.04), (0.5, 0.955))


def _box(mask: NDArray[np.bool_]) -> tuple[slice, slice, slice]:
    if not mask.any():
        raise EvidenceInvalid("labels do not mark a finding that a picture is to be drawn of")
    z, y, x = ndimage.find_objects(mask.astype(np.uint8))[0]
    return z, y, x


def _fullest(mask: NDArray[np.bool_], axis: int) -> int:
    """Across an axis the plane of largest extent; of several alike that nearest to the middle of the whole."""
    areas = mask.sum(axis=tuple(other for other in range(3) if other != axis))
    middle = float(areas @ np.arange(len(areas)) / areas.sum())
    largest = np.flatnonzero(areas == areas.max())
    return int(largest[np.abs(largest - middle).argmin()])


def _inside(points: NDArray[np.float64], side: int) -> Iterator[NDArray[np.float64]]:
    """The pieces of a line that lie within a square."""
    within = np.asarray(((points >= 0) & (points <= side)).all(axis=1))
    for piece in np.split(np.arange(len(points)), np.flatnonzero(np.diff(within)) + 1):
        if within[piece[0]] and len(piece) > 1:
            yield points[piece]


def _tint(whole: float, without: float) -> tuple[Colour, float]:
    """In which colour a part is drawn, and how much of the image it covers; 0 for hardly a change."""
    change = whole - without
    if abs(change) < _CHANGE:
        return _FALLS, 0.0
    return (_FALLS if change > 0 else _RISES), _COVERS * min(1.0, abs(change) / max(whole, _CHANGE))


def _tinted(grey: NDArray[np.uint8], parts: NDArray[np.uint8], told: Dependence) -> NDArray[np.uint8]:
    """A plane [row, column, red green blue] with each part in its colour."""
    result = np.repeat(grey[..., None], 3, axis=2).astype(np.float32)
    for part, score in told.without.items():
        colour, covers = _tint(told.score, score)
        here = parts == NUMBERS[part]
        result[here] = (1 - covers) * result[here] + covers * np.array(colour, dtype=np.float32)
    return np.asarray(result.round(), dtype=np.uint8)


def _colour(finding: Finding) -> Colour:
    return colour_of(finding).to_rgb(clip=True)
