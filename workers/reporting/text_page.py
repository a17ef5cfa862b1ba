"""Text page: a narrative as pictures of text, white on black, for viewers that show nothing but images."""

from bisect import bisect_right
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from workers.reporting.narrative import COLUMNS, NOT_FOR_DIAGNOSIS, Narrative
from workers.reporting.picture import BOLD, NOTICE, REGULAR, SMALLEST_SIDE, WHITE, Colour, Picture

_MARGIN, _TITLE, _HEADLINE, _TEXT, _ROW = 14.0, 17.0, 15.0, 12.0, 10.5
_GAP = 6.0
#: Where the columns of a finding's row begin.
_COLUMNS_AT = (14.0, 76.0, 124.0, 204.0, 240.0, 286.0, 326.0, 366.0)
_DIM: Colour = (170, 170, 170)


def text_pages(told: Narrative) -> tuple[NDArray[np.uint8], ...]:
    """The narrative on as many pages [row, column, red green blue] as it needs."""
    pages = _Pages()
    pages.lines([NOT_FOR_DIAGNOSIS], NOTICE, _TITLE, BOLD)
    pages.lines([told.headline], WHITE, _HEADLINE, BOLD)
    for sentence in told.sentences:
        pages.lines([sentence], WHITE, _TEXT)
    if told.rows:
        pages.row(COLUMNS, _DIM)
        for row in told.rows:
            pages.row(row, WHITE)
    return tuple(page.finished() for page in pages.pages)


class _Pages:
    """Pages that are filled from top to bottom."""

    def __init__(self) -> None:
        self.pages = [_empty()]
        self._down = _MARGIN

    def lines(self, texts: Sequence[str], colour: Colour, size: float, font: str = REGULAR) -> None:
        """A paragraph, broken into lines."""
        page = self.pages[-1]
        for text in texts:
            for line in broken(page, text, SMALLEST_SIDE - 2 * _MARGIN, size, font):
                self._room(page.line_height(size))
                self.pages[-1].text([line], (_MARGIN, self._down), colour, size, font)
                self._down += page.line_height(size)
        self._down += _GAP

    def row(self, cells: Sequence[str], colour: Colour) -> None:
        """A row of the table of findings."""
        self._room(self.pages[-1].line_height(_ROW) + 2)
        page = self.pages[-1]
        ends = (*_COLUMNS_AT[1:], float(SMALLEST_SIDE))
        for cell, left, right in zip(cells, _COLUMNS_AT, ends, strict=True):
            page.text([page.fitting(cell, right - left, _ROW)], (left, self._down), colour, _ROW)
        self._down += page.line_height(_ROW) + 2

    def _room(self, height: float) -> None:
        if self._down + height > SMALLEST_SIDE - _MARGIN:
            self.pages.append(_empty())
            self._down = _MARGIN
            self.pages[-1].text([NOT_FOR_DIAGNOSIS], (_MARGIN, self._down), NOTICE, _TEXT, BOLD)
            self._down += self.pages[-1].line_height(_TEXT) + _GAP


def _empty() -> Picture:
    return Picture(np.zeros((SMALLEST_SIDE, SMALLEST_SIDE), dtype=np.uint8))


def broken(page: Picture, text: str, width: float, size: float, font: str) -> Iterator[str]:
    """A text in lines of at most some width, broken between words, and within one that is too long by itself."""
    line = ""
    for word in text.split():
        candidate = f"{line} {word}" if line else word
        if page.room([candidate], size, font)[0] <= width:
            line = candidate
            continue
        if line:
            yield line
        *whole, line = _pieces(page, word, width, size, font)
        yield from whole
    if line:
        yield line


def _pieces(page: Picture, word: str, width: float, size: float, font: str) -> Iterator[str]:
    """A word in pieces of at most some width."""
    # No letter is narrower than a fifth of its height: more than that is not even looked at.
    most = 1 + int(width / (0.2 * size * page.unit))
    while word:
        lengths = range(1, min(most, len(word)) + 1)
        taken = max(1, bisect_right(lengths, width, key=lambda n: page.room([word[:n]], size, font)[0]))
        yield word[:taken]
        word = word[taken:]
