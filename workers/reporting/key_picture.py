"""Key picture: one slice with the findings on it, their outlines, axes and measurements, and a close-up of each.

No patient data is drawn: the object that holds the picture has it where viewers look for it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from workers.reporting.evidence import Evidence
from workers.reporting.marked_slice import Mark, MarkedSlice
from workers.reporting.narrative import NOT_FOR_DIAGNOSIS
from workers.reporting.picture import BLACK, BOLD, NOTICE, WHITE, Colour, Picture, isotropic
from workers.reporting.room import Box, beside, nearest, overlap, square, wider
from workers.reporting.segmentation import colour_of
from workers.reporting.window import LUNG, Window

#: A version of how pages and pictures look, raised with every change of that: other pixels must never go under a SOP
#: Instance UID that peers may know.
DRAWING = "drawing 3"

#: Sizes in units of which the picture's longer side has 512.
_MARGIN, _TITLE, _TEXT, _SMALL = 5.0, 15.0, 12.0, 11.0
_CLOSE_UP = 128.0
#: mm that a close-up shows at least, and how many times the finding's own length.
_CLOSE_UP_MM, _CLOSE_UP_LENGTHS = 30.0, 1.8
#: A bar of so many mm shows the scale.
_BAR_MM = 50.0
_NOT_A_RULER = "not for measuring"
#: Where the notice and the bar may stand, the best first: parts of the room that is left beside and above them.
_NOTICE_AT = ((0.0, 0.0), (1.0, 0.0), (0.0, 0.94), (1.0, 1.0), (0.5, 0.0), (0.5, 0.9), (0.0, 0.5), (1.0, 0.5))
_BAR_AT = ((0.0, 1.0), (1.0, 1.0), (0.0, 0.0), (1.0, 0.0), (0.25, 1.0), (0.75, 1.0))
#: The patient's directions along x, y and z, falling and rising (PS3.3 Section C.7.6.1.1.1).
_DIRECTION_LETTERS = (("R", "L"), ("A", "P"), ("F", "H"))


@dataclass(frozen=True, kw_only=True)
class KeyPicture:
    """A finished picture [row, column, red green blue], and the size of its square pixels outside the close-ups."""

    pixels: NDArray[np.uint8]
    pixel_mm: float
    #: Numbers of the findings that are enlarged in it.
    close_ups: frozenset[int]


def key_picture(evidence: Evidence, piece: MarkedSlice, window: Window = LUNG) -> KeyPicture:
    """Draw one slice with its marks."""
    hu, pixel_mm = isotropic(evidence.volume.voxels[piece.k], evidence.volume.spacing_mm[1:])
    picture = Picture(window.grey(hu))
    scale = np.array([picture.width, picture.height]) / evidence.volume.voxels.shape[:0:-1]
    drawing = _Drawing(evidence, piece, picture, scale)
    drawing.outlines()
    drawing.notices(pixel_mm)
    close_ups = drawing.close_ups(window.grey(hu), pixel_mm)
    drawing.names(close_ups)
    return KeyPicture(pixels=picture.finished(), pixel_mm=pixel_mm, close_ups=close_ups)


def orientation(evidence: Evidence) -> tuple[str, str]:
    """Where rows and columns of the images run to, in the patient's directions (PS3.3 Section C.7.6.1.1.1)."""
    cosines = [float(value) for value in evidence.header.ImageOrientationPatient]
    return _direction(cosines[:3]), _direction(cosines[3:])


def _direction(cosines: list[float]) -> str:
    """The letters of what a direction points to, the strongest first; parts below a tenth are rounding or a nod."""
    strongest = sorted(range(3), key=lambda axis: -abs(cosines[axis]))
    return "".join(_DIRECTION_LETTERS[axis][cosines[axis] > 0] for axis in strongest if abs(cosines[axis]) > 0.1)


def _opposite(letters: str) -> str:
    return letters.translate(str.maketrans("RLAPFH", "LRPAHF"))


class _Drawing:
    """The parts of a key picture, each drawn where the ones before left room."""

    def __init__(self, evidence: Evidence, piece: MarkedSlice, picture: Picture, scale: NDArray[np.float64]) -> None:
        self._evidence, self._piece, self._picture, self._scale = evidence, piece, picture, scale
        self._boxes = {mark.finding.number: self._box_of(mark) for mark in piece.marks}

    def outlines(self) -> None:
        """Every border line on the slice, and the axes where they are long enough to be seen."""
        for mark in self._piece.marks:
            for line in mark.lines:
                self._picture.line(line * self._scale, _colour(mark), 1.2)
            if mark.is_key and mark.finding.long_axis.length_mm / self._picture.unit > _CLOSE_UP_MM:
                self._axes(mark, self._scale, np.zeros(2))

    def notices(self, pixel_mm: float) -> None:
        """Whose marks these are, on which slice, and how the patient lies."""
        picture, unit, algorithm = self._picture, self._picture.unit, self._evidence.algorithm
        about = [f"{algorithm.name} {algorithm.version}", self._evidence.place_in_words(self._piece.k), _NOT_A_RULER]
        about = [picture.fitting(line, picture.width - (_CLOSE_UP + 4 * _MARGIN) * unit, _SMALL) for line in about]
        title, below = picture.room([NOT_FOR_DIAGNOSIS], _TITLE, BOLD), picture.room(about, _SMALL)
        left, top, _, _ = self._least_hidden(max(title[0], below[0]), title[1] + below[1], _NOTICE_AT)
        picture.text([NOT_FOR_DIAGNOSIS], (left, top), NOTICE, _TITLE, BOLD)
        picture.text(about, (left, top + title[1]), WHITE, _SMALL)
        self._bar(pixel_mm)
        right, down = orientation(self._evidence)
        middle, centre = picture.height / 2, picture.width / 2
        self._letters(_opposite(right), (_MARGIN * unit, middle), (0.0, 0.5))
        self._letters(right, (picture.width - _MARGIN * unit, middle), (1.0, 0.5))
        self._letters(down, (centre, picture.height - _MARGIN * unit), (0.5, 1.0))

    def close_ups(self, grey: NDArray[np.uint8], pixel_mm: float) -> frozenset[int]:
        """The key findings enlarged, in the corners that hide no finding; the numbers of those that found one."""
        drawn = []
        for mark in self._piece.keys:
            lines = [mark.name, mark.extent, mark.bulk, f"detector score {mark.finding.score:.2f}"]
            width = max(_CLOSE_UP * self._picture.unit, self._picture.room(lines, _SMALL)[0])
            height = _CLOSE_UP * self._picture.unit + self._picture.room(lines, _SMALL)[1]
            corner = self._corner(width, height)
            if corner is None:
                break
            self._close_up(mark, grey, pixel_mm, corner, lines)
            drawn.append(mark.finding.number)
        return frozenset(drawn)

    def names(self, close_ups: frozenset[int]) -> None:
        """Each finding's name beside it; its measurements, too, where no close-up tells them."""
        for mark in self._piece.marks:
            if mark.is_key and mark.finding.number not in close_ups:
                self._name(mark, [mark.name, mark.extent, mark.bulk], _SMALL)
            else:
                self._name(mark, [mark.name], _TEXT if mark.is_key else _SMALL)

    def _box_of(self, mark: Mark) -> Box:
        (left, right), (top, bottom) = (
            (low * scale, high * scale)
            for low, high, scale in zip(mark.box[:2], mark.box[2:], self._scale, strict=True)
        )
        return left, top, right, bottom

    def _axes(self, mark: Mark, scale: NDArray[np.float64], origin: NDArray[np.float64]) -> None:
        inverse = np.linalg.inv(self._evidence.volume.affine)
        for axis in (mark.finding.long_axis, mark.finding.short_axis):
            ends = np.array([(inverse @ (*end, 1.0))[:2] + 0.5 for end in (axis.start, axis.end)])
            # A dark seam, since nodules are as white as the line.
            for colour, width in ((BLACK, 2.6), (WHITE, 1.0)):
                self._picture.line((ends - origin) * scale, colour, width)

    def _bar(self, pixel_mm: float) -> None:
        picture, unit = self._picture, self._picture.unit
        length = _BAR_MM / pixel_mm
        if length > picture.width / 2:
            return
        height = picture.room(["50 mm"], _SMALL)[1]
        left, _, _, bottom = self._least_hidden(length, height + 6 * unit, _BAR_AT)
        picture.text([f"{_BAR_MM:.0f} mm"], (left, bottom - height - 6 * unit), WHITE, _SMALL)
        picture.shade((left - unit, bottom - 5 * unit, left + length + unit, bottom + unit))
        picture.line([(left, bottom - 2 * unit), (left + length, bottom - 2 * unit)], WHITE, 2.0)
        picture.taken.append((left, bottom - height - 6 * unit, left + length, bottom))

    def _letters(self, letters: str, at: tuple[float, float], anchor: tuple[float, float]) -> None:
        width, height = self._picture.room([letters], _TEXT, BOLD)
        self._picture.text([letters], (at[0] - anchor[0] * width, at[1] - anchor[1] * height), WHITE, _TEXT, BOLD)

    def _least_hidden(self, width: float, height: float, places: Sequence[tuple[float, float]]) -> Box:
        """Where something hides least of findings and texts: of places as parts of the room, the first of the best."""
        picture, margin = self._picture, _MARGIN * self._picture.unit
        across, down = picture.width - 2 * margin - width, picture.height - 2 * margin - height
        corners = [(margin + x * across, margin + y * down) for x, y in places]
        hidden = [wider(box, 4 * picture.unit) for box in (*self._boxes.values(), *picture.taken)]
        boxes: list[Box] = [(left, top, left + width, top + height) for left, top in corners]
        return min(boxes, key=lambda box: sum(overlap(box, other) for other in hidden))

    def _corner(self, width: float, height: float) -> Box | None:
        """Room for a close-up in a corner, the upper right one first."""
        picture, margin = self._picture, _MARGIN * self._picture.unit
        right, low = picture.width - margin - width, picture.height - margin - height
        above_bar = low - 26 * picture.unit
        for left, top in ((right, margin), (right, low), (margin, above_bar)):
            box = (left, top, left + width, top + height)
            hidden = sum(overlap(box, wider(other, 8 * picture.unit)) for other in self._boxes.values())
            if picture.free(box) and hidden == 0:
                return box
        return None

    def _close_up(self, mark: Mark, grey: NDArray[np.uint8], pixel_mm: float, box: Box, lines: list[str]) -> None:
        picture, side = self._picture, _CLOSE_UP * self._picture.unit
        left = box[2] - side if box[0] > picture.width / 2 else box[0]
        shown: Box = (left, box[1], left + side, box[1] + side)
        pixels = max(_CLOSE_UP_MM, _CLOSE_UP_LENGTHS * mark.finding.long_axis.length_mm) / pixel_mm
        source = square(self._boxes[mark.finding.number], min(pixels, *grey.shape), grey.shape)
        enlarged = Image.fromarray(grey).resize(
            (2 * round(side), 2 * round(side)), Image.Resampling.BICUBIC, box=source
        )
        picture.paste(np.asarray(enlarged), shown)
        scale = side / (source[2] - source[0])
        origin = np.array(source[:2]) / self._scale - np.array(shown[:2]) / (self._scale * scale)
        for line in mark.lines:
            picture.line((line - origin) * self._scale * scale, _colour(mark), 1.4)
        self._axes(mark, self._scale * scale, origin)
        picture.frame(shown, _colour(mark), 1.6)
        width = picture.room(lines, _SMALL)[0]
        text_left = box[2] - width if box[0] > picture.width / 2 else box[0]
        picture.text(lines, (text_left, shown[3]), _colour(mark), _SMALL)
        picture.taken.append(shown)

    def _name(self, mark: Mark, lines: list[str], size: float) -> None:
        """A finding's name where it hides least, and a line to it where that is not close by."""
        picture, own = self._picture, self._boxes[mark.finding.number]
        box = beside(
            own,
            picture.room(lines, size, BOLD),
            marks=[wider(other, 2 * picture.unit) for other in self._boxes.values()],
            texts=picture.taken,
            whole=picture.whole,
        )
        picture.line([nearest(box, own), nearest(own, box)], _colour(mark), 0.8)
        picture.text(lines, (box[0], box[1]), _colour(mark), size, BOLD)


def _colour(mark: Mark) -> Colour:
    return colour_of(mark.finding).to_rgb(clip=True)
