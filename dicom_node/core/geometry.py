"""Image planes in patient coordinates: orientation, position along the normal, and slices that make a volume or do not.

Image Position (Patient), Image Orientation (Patient): PS3.3 Section C.7.6.2.1.1. Lengths in mm, LPS axes.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import median_low
from typing import Any

from dicom_node.core.study import Attributes

Vector = tuple[float, float, float]

#: Up to 20 degrees off an axis a plane keeps its name: a tilted gantry still makes axial images.
_PLANE_COSINE = math.cos(math.radians(20))

_PLANES = ("sagittal", "coronal", "axial")

#: Largest difference of one direction cosine between slices of a stack. Writers round to as few as four digits; at the
#: edge of a 500 mm field 0.001 is 0.25 mm, less than a pixel.
ORIENTATION_TOLERANCE = 0.001

#: Closer than this, two slices lie at one place: no scanner reconstructs slices so dense.
SAME_PLACE_MM = 0.01

#: How far a slice may lie off the line through the first one along the normal. About a pixel over the whole stack: over
#: the few cm of a finding the shear is then a tenth of that.
LATERAL_TOLERANCE_MM = 1.0

#: How far a slice may lie off a regular grid, in slice spacings. Positions rounded to 0.1 mm put a slice of 0.6 mm
#: spacing 8 % off; a length along the normal is then wrong by less than the slices themselves leave open.
SPACING_TOLERANCE = 0.1

#: Further from the origin than a kilometre is no place in a scanner, and its square may be no number any more.
LARGEST_COORDINATE = 1e6

#: Neighbours further apart than this many times the usual distance have lost a slice between them.
GAP = 1.5

#: One slice in so many may go back to an acquisition that was left, as where two meet; more are interleaved.
_SLICES_A_RETURN = 4

#: What slices of one volume share, and what to say when they do not.
_SHARED: Mapping[str, str] = {
    "FrameOfReferenceUID": "the slices belong to different frames of reference",
    "Rows": "the slices differ in their number of rows",
    "Columns": "the slices differ in their number of columns",
    "PixelSpacing": "the slices differ in their pixel spacing",
}


def dot(a: Vector, b: Vector) -> float:
    """The scalar product."""
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


def _numbers(value: Any, count: int) -> tuple[float, ...] | None:
    """`count` numbers of a size that can be reckoned with, or None."""
    if not isinstance(value, (tuple, list)) or len(value) != count:
        return None
    try:
        numbers = tuple(float(part) for part in value)
    except (TypeError, ValueError, OverflowError):
        return None
    # Not a number is not below the bound either.
    return numbers if all(abs(number) <= LARGEST_COORDINATE for number in numbers) else None


def normal_of(attributes: Attributes) -> Vector | None:
    """The unit normal of the image plane, row direction x column direction; None when the header does not tell."""
    cosines = _numbers(attributes.get("ImageOrientationPatient"), 6)
    if cosines is None:
        return None
    (ax, ay, az), (bx, by, bz) = cosines[:3], cosines[3:]
    cross = (ay * bz - az * by, az * bx - ax * bz, ax * by - ay * bx)
    length = math.sqrt(dot(cross, cross))
    # Cosines of a length other than one, or not at right angles, are no orientation.
    if not math.isclose(length, 1.0, abs_tol=0.01):
        return None
    return (cross[0] / length, cross[1] / length, cross[2] / length)


def position_of(attributes: Attributes) -> Vector | None:
    """The centre of the first pixel; None when the header does not tell."""
    position = _numbers(attributes.get("ImagePositionPatient"), 3)
    return None if position is None else (position[0], position[1], position[2])


def plane_of(attributes: Attributes) -> str | None:
    """axial, coronal, sagittal or oblique; None when the header does not tell."""
    normal = normal_of(attributes)
    if normal is None:
        return None
    cosine, name = max(zip(map(abs, normal), _PLANES, strict=True))
    return name if cosine >= _PLANE_COSINE else "oblique"


@dataclass(frozen=True, kw_only=True)
class SliceStack:
    """Slices in order along their normal, and what keeps them from being one regular volume."""

    #: Places in the given sequence, by rising position along the normal; slices without a place are left out.
    order: tuple[int, ...]
    #: Along the normal, in that order.
    positions_mm: tuple[float, ...]
    normal: Vector | None
    #: Mean distance of neighbours along the normal; None for fewer than two positions.
    spacing_mm: float | None
    #: Angle between the normal and the way from the first slice to the last.
    tilt_degrees: float
    #: What keeps the slices from being a volume; None when they are one.
    problem: str | None
    #: The part of it that slices yet to come could mend.
    missing: str | None


def stack_slices(slices: Sequence[Attributes]) -> SliceStack:
    """Order slices along their normal and name whatever is irregular, in the same words for any order of them.

    Slices lost before the first or behind the last one leave no trace in the geometry.
    """
    placed = [(i, n, p) for i, s in enumerate(slices) if (n := normal_of(s)) and (p := position_of(s))]
    mixture = _mixture(slices, len(placed))
    if len(placed) < 2:
        missing = "one slice makes no volume" if len(slices) == 1 else None
        return _stack([], None, mixture or missing or "the slices have no positions", missing)
    normal = min(n for _, n, _ in placed)
    ordered = sorted((dot(p, normal), p, i) for i, _, p in placed)
    if mixture:
        return _stack(ordered, normal, mixture, None)
    places = _distinct([along for along, _, _ in ordered])
    if len(places) < 2:
        # Watching one place over time, as for the arrival of a contrast bolus: no slice to come would make it a volume.
        return _stack(ordered, normal, f"all {len(ordered)} slices lie at one position", None)
    missing = _irregularity(places)
    mingled = _mingling([slices[index].get("AcquisitionNumber") for _, _, index in ordered])
    problems = (_repetition(len(ordered), places), _shift(ordered, normal), mingled, missing)
    return _stack(ordered, normal, "; ".join(problem for problem in problems if problem) or None, missing)


def _stack(
    ordered: list[tuple[float, Vector, int]], normal: Vector | None, problem: str | None, missing: str | None
) -> SliceStack:
    places = _distinct([along for along, _, _ in ordered])
    lateral = _lateral(ordered[0][1], ordered[-1][1], normal) if normal else 0.0
    return SliceStack(
        order=tuple(index for _, _, index in ordered),
        positions_mm=tuple(along for along, _, _ in ordered),
        normal=normal,
        spacing_mm=(places[-1] - places[0]) / (len(places) - 1) if len(places) > 1 else None,
        tilt_degrees=math.degrees(math.atan2(lateral, places[-1] - places[0])) if len(places) > 1 else 0.0,
        problem=problem,
        missing=missing,
    )


def _mixture(slices: Sequence[Attributes], placed: int) -> str | None:
    """What the slices do not share but must."""
    if 0 < placed < len(slices):
        return f"{len(slices) - placed} of {len(slices)} slices have no position or orientation"
    cosines = [c for s in slices if (c := _numbers(s.get("ImageOrientationPatient"), 6))]
    for column in zip(*cosines, strict=True):
        if max(column) - min(column) > ORIENTATION_TOLERANCE:
            return "the slices have different orientations"
    for keyword, words in _SHARED.items():
        if len({_hashable(s[keyword]) for s in slices if s.get(keyword) is not None}) > 1:
            return words
    return None


def _mingling(acquisitions: Sequence[Any]) -> str | None:
    """Two acquisitions, as of two breaths or phases, whose slices lie between one another: a volume of neither.

    Acquisition Number (0020,0012) of each slice along the normal.
    """
    known = [number for number in acquisitions if number is not None]
    left: set[Any] = set()
    returns = 0
    for before, after in pairwise(known):
        if before != after:
            left.add(before)
            returns += after in left
    if returns * _SLICES_A_RETURN <= len(known):
        return None
    return f"slices of {len(set(known))} acquisitions lie between one another"


def _hashable(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _distinct(positions: list[float]) -> list[float]:
    """Sorted positions, those within SAME_PLACE_MM of the one before taken for the same."""
    kept = positions[:1]
    for position in positions:
        if position - kept[-1] > SAME_PLACE_MM:
            kept.append(position)
    return kept


def _repetition(count: int, places: list[float]) -> str | None:
    if count == len(places):
        return None
    return f"{count - len(places)} of {count} slices lie where another one lies"


def _lateral(a: Vector, b: Vector, normal: Vector) -> float:
    """How far apart two points are across the normal."""
    step = (b[0] - a[0], b[1] - a[1], b[2] - a[2])
    return math.sqrt(max(0.0, dot(step, step) - dot(step, normal) ** 2))


def _shift(ordered: list[tuple[float, Vector, int]], normal: Vector) -> str | None:
    """A tilted gantry moves each slice sideways against the one before; anything else may shift single ones."""
    first, last = ordered[0][1], ordered[-1][1]
    if max(_lateral(first, position, normal) for _, position, _ in ordered) <= LATERAL_TOLERANCE_MM:
        return None
    lateral, along = _lateral(first, last, normal), ordered[-1][0] - ordered[0][0]
    direction = ((last[0] - first[0]), (last[1] - first[1]), (last[2] - first[2]))
    length = math.sqrt(dot(direction, direction))
    if length > 0 and along > 0:
        unit = (direction[0] / length, direction[1] / length, direction[2] / length)
        if max(_lateral(first, position, unit) for _, position, _ in ordered) <= LATERAL_TOLERANCE_MM:
            tilt = math.degrees(math.atan2(lateral, along))
            return f"the slices are stacked {tilt:.1f} degrees off their normal, as by a tilted gantry"
    return "the slices are shifted sideways against each other"


def _irregularity(places: list[float]) -> str | None:
    """Gaps by name, or the range of spacings when slices lie off a regular grid."""
    spacing = (places[-1] - places[0]) / (len(places) - 1)
    offsets = [place - places[0] - k * spacing for k, place in enumerate(places)]
    # Half the range: the first slice is no better a place to measure from than any other.
    if (max(offsets) - min(offsets)) / 2 <= SPACING_TOLERANCE * spacing:
        return None
    steps = [b - a for a, b in pairwise(places)]
    usual = median_low(steps)
    gaps = [(a, b) for a, b in pairwise(places) if b - a > GAP * usual]
    # A lost slice is an exception; where a third of the distances are long, that is how the series was made.
    if not gaps or len(gaps) > max(1, len(steps) // 3):
        return f"the distances between slices vary from {min(steps):.2f} mm to {max(steps):.2f} mm"
    further = f" and in {len(gaps) - 1} more places" if len(gaps) > 1 else ""
    return f"slices are missing between {gaps[0][0]:.1f} mm and {gaps[0][1]:.1f} mm along the normal{further}"
