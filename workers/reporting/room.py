"""Room: where a text may stand beside what it names, so that it hides neither findings nor other texts."""

from collections.abc import Iterable

#: left, top, right, bottom.
Box = tuple[float, float, float, float]

#: Directions (right, down) in which a text may stand, the best first, and how far off in parts of the whole's width.
_DIRECTIONS = ((1, -1), (-1, -1), (1, 1), (-1, 1), (1, 0), (-1, 0), (0, -1), (0, 1))
_WAYS = (0.015, 0.04, 0.08, 0.14, 0.22)


def overlap(one: Box, other: Box) -> float:
    """The area that two boxes share."""
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    return width * height if width > 0 and height > 0 else 0.0


def area(box: Box) -> float:
    """The area of a box."""
    return (box[2] - box[0]) * (box[3] - box[1])


def wider(box: Box, by: float) -> Box:
    """A box with a margin around it."""
    return box[0] - by, box[1] - by, box[2] + by, box[3] + by


def beside(own: Box, size: tuple[float, float], *, marks: Iterable[Box], texts: Iterable[Box], whole: Box) -> Box:
    """Room of some width and height near a box: of all around it the first that hides least, within the whole."""
    marks, texts = list(marks), list(texts)

    def hidden(box: Box) -> float:
        outside = area(box) - overlap(box, whole)
        return 4 * outside + sum(overlap(box, text) for text in texts) + 2 * sum(overlap(box, mark) for mark in marks)

    width = whole[2] - whole[0]
    return min((_off(own, size, way * width, *to) for way in _WAYS for to in _DIRECTIONS), key=hidden)


def nearest(box: Box, other: Box) -> tuple[float, float]:
    """The point of a box that is nearest to the middle of another one."""
    column, row = (other[0] + other[2]) / 2, (other[1] + other[3]) / 2
    return min(max(column, box[0]), box[2]), min(max(row, box[1]), box[3])


def square(own: Box, side: float, shape: tuple[int, ...]) -> Box:
    """A square about the middle of a box, moved into an image [row, column] where it would reach beyond."""
    left = min(max(0.0, (own[0] + own[2] - side) / 2), shape[1] - side)
    top = min(max(0.0, (own[1] + own[3] - side) / 2), shape[0] - side)
    return left, top, left + side, top + side


def _off(own: Box, size: tuple[float, float], way: float, right: int, down: int) -> Box:
    """A box of some size off another one in a direction."""
    (width, height) = size
    left = {1: own[2] + way, -1: own[0] - way - width, 0: (own[0] + own[2] - width) / 2}[right]
    top = {1: own[3] + way, -1: own[1] - way - height, 0: (own[1] + own[3] - height) / 2}[down]
    return left, top, left + width, top + height
