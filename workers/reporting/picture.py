"""Picture: a slice as people see it, with lines and texts drawn over it, and the room that they take.

Places are pixels of the picture, where (0, 0) is the upper left corner of its first pixel. Sizes of lines and texts are
in units of which the picture's longer side has 512: so large is the smallest window that it must be read in.
"""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import reportlab
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from workers.reporting.room import Box, area, overlap

Colour = tuple[int, int, int]
#: A picture's longer side has at least so many pixels.
SMALLEST_SIDE = 512
#: Drawn so many times larger, for smooth lines.
_FINER = 2
_BACKGROUND = (0, 0, 0, 170)
#: Bitstream Vera comes with the library that writes PDF.
FONTS = Path(reportlab.__file__).with_name("fonts")
REGULAR, BOLD = "Vera.ttf", "VeraBd.ttf"

WHITE: Colour = (255, 255, 255)
BLACK: Colour = (0, 0, 0)
NOTICE: Colour = (255, 214, 64)


def printable(text: str) -> str:
    """A text in the characters that the fonts have; a question mark stands for any other."""
    return text.encode("latin-1", errors="replace").decode("latin-1")


def isotropic(hu: NDArray[np.float32], spacing_mm: tuple[float, float]) -> tuple[NDArray[np.float32], float]:
    """A slice [j, i] with pixels as wide as high, and large enough to draw on; and their size in mm."""
    dy, dx = spacing_mm
    pixel_mm = min(dy, dx) / math.ceil(SMALLEST_SIDE / max(hu.shape))
    rows, columns = (round(n * mm / pixel_mm) for n, mm in zip(hu.shape, (dy, dx), strict=True))
    if (rows, columns) == hu.shape:
        return hu, pixel_mm
    return np.asarray(Image.fromarray(hu).resize((columns, rows), Image.Resampling.BILINEAR)), pixel_mm


class Picture:
    """A picture in the making."""

    def __init__(self, grey: NDArray[np.uint8]) -> None:
        """Begin with a grey image [row, column]."""
        self.height, self.width = grey.shape
        self.unit = max(grey.shape) / SMALLEST_SIDE
        #: Room that texts keep free of other texts.
        self.taken: list[Box] = []
        size = (self.width * _FINER, self.height * _FINER)
        self._image = Image.fromarray(grey).resize(size, Image.Resampling.NEAREST).convert("RGB")
        self._draw = ImageDraw.Draw(self._image, "RGBA")
        self._fonts: dict[tuple[str, float], ImageFont.FreeTypeFont] = {}

    @property
    def whole(self) -> Box:
        """The picture's own box."""
        return 0.0, 0.0, float(self.width), float(self.height)

    def finished(self) -> NDArray[np.uint8]:
        """The picture [row, column, red green blue]."""
        return np.asarray(self._image.reduce(_FINER))

    def line(self, points: Sequence[Sequence[float]] | NDArray[np.float64], colour: Colour, width: float = 1.2) -> None:
        """A line from point to point (column, row)."""
        drawn = [(float(column) * _FINER, float(row) * _FINER) for column, row in points]
        self._draw.line(drawn, fill=colour, width=max(1, round(width * self.unit * _FINER)), joint="curve")

    def frame(self, box: Box, colour: Colour, width: float = 1.2) -> None:
        """The border of a box."""
        left, top, right, bottom = box
        self.line([(left, top), (right, top), (right, bottom), (left, bottom), (left, top)], colour, width)

    def paste(self, grey: NDArray[np.uint8], box: Box) -> None:
        """Another image over a box."""
        left, top, right, bottom = (round(value * _FINER) for value in box)
        piece = Image.fromarray(grey).resize((right - left, bottom - top), Image.Resampling.NEAREST).convert("RGB")
        self._image.paste(piece, (left, top))

    def shade(self, box: Box) -> None:
        """Darken a box for what will be written there."""
        self._draw.rectangle([value * _FINER for value in box], fill=_BACKGROUND)

    def room(self, lines: Sequence[str], size: float, font: str = REGULAR) -> tuple[float, float]:
        """Width and height of some lines of text."""
        face = self._font(font, size)
        width = max(face.getlength(printable(line)) for line in lines) / _FINER
        return width + 6 * self.unit, self.line_height(size) * len(lines) + 3 * self.unit

    def line_height(self, size: float) -> float:
        """From one line of text to the next."""
        return 1.25 * size * self.unit

    def fitting(self, text: str, width: float, size: float, font: str = REGULAR) -> str:
        """As much of a text as has room on one line."""
        while len(text) > 3 and self.room([text], size, font)[0] > width:
            text = text.removesuffix("..")[:-1].rstrip() + ".."
        return text

    def text(
        self, lines: Sequence[str], at: tuple[float, float], colour: Colour, size: float, font: str = REGULAR
    ) -> Box:
        """Lines of text on a dark ground, from their upper left corner; the box that they now take."""
        width, height = self.room(lines, size, font)
        box = (at[0], at[1], at[0] + width, at[1] + height)
        self.shade(box)
        for number, line in enumerate(lines):
            place = (at[0] + 3 * self.unit, at[1] + self.unit + number * self.line_height(size))
            corner = (place[0] * _FINER, place[1] * _FINER)
            self._draw.text(corner, printable(line), fill=colour, font=self._font(font, size))
        self.taken.append(box)
        return box

    def free(self, box: Box) -> bool:
        """Whether a box is within the picture and overlaps nothing that is taken."""
        inside = overlap(box, self.whole) >= area(box) - 1e-6
        return inside and not any(overlap(box, other) for other in self.taken)

    def _font(self, name: str, size: float) -> ImageFont.FreeTypeFont:
        key = (name, size)
        if key not in self._fonts:
            self._fonts[key] = ImageFont.truetype(FONTS / name, round(size * self.unit * _FINER))
        return self._fonts[key]
