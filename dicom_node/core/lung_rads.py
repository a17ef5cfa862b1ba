"""Lung-RADS v2022 as a table: the category of a nodule, where all that the category rests on is known.

Sizes are mean diameters in mm, rounded to one decimal as the guideline asks. Only rows that measurements decide are
here: juxtapleural and airway nodules, atypical cysts and stepped management need a reader, and 4X and S are a reader's
judgement; none of them is ever assigned. The size thresholds agree with the guideline's published summaries
(doi 10.1016/j.jacr.2023.09.009); they are no substitute for its text.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from math import inf


class Composition(StrEnum):
    """What a nodule consists of."""

    SOLID = "SOLID"
    PART_SOLID = "PART_SOLID"
    NON_SOLID = "NON_SOLID"


class Course(StrEnum):
    """What is known of a nodule from earlier screenings."""

    #: The first screening.
    BASELINE = "BASELINE"
    #: It was not there at the screening before.
    NEW = "NEW"
    #: Its mean diameter grew by more than 1.5 mm within 12 months.
    GROWING = "GROWING"
    #: It was there before and did not grow so, or more slowly.
    STABLE = "STABLE"


class Category(StrEnum):
    """The categories that measurements can decide."""

    BENIGN = "2"
    PROBABLY_BENIGN = "3"
    SUSPICIOUS_A = "4A"
    SUSPICIOUS_B = "4B"


@dataclass(frozen=True, kw_only=True)
class Row:
    """One cell of the guideline: sizes from the lower bound up to, but not including, the upper one."""

    composition: Composition
    course: Course
    category: Category
    #: Mean diameter of the whole nodule.
    total_mm: tuple[float, float] = (0.0, inf)
    #: Mean diameter of the solid part of a part-solid one.
    solid_mm: tuple[float, float] = (0.0, inf)


@dataclass(frozen=True, kw_only=True)
class Nodule:
    """What the table must know of a nodule."""

    composition: Composition
    course: Course
    mean_diameter_mm: float
    #: Of a part-solid one.
    solid_diameter_mm: float | None = None
    #: Whether the solid part of a part-solid one is new or grew.
    solid_part_grew: bool = False


@dataclass(frozen=True, kw_only=True)
class Management:
    """What the guideline recommends for a category."""

    text: str
    #: To the next CT; None where the category asks for more than an interval.
    months: int | None


_SOLID, _PART, _NON = Composition.SOLID, Composition.PART_SOLID, Composition.NON_SOLID
_BASELINE, _NEW, _GROWING, _STABLE = Course
_2, _3, _4A, _4B = Category

TABLE: tuple[Row, ...] = (
    Row(composition=_SOLID, course=_BASELINE, total_mm=(0, 6), category=_2),
    Row(composition=_SOLID, course=_BASELINE, total_mm=(6, 8), category=_3),
    Row(composition=_SOLID, course=_BASELINE, total_mm=(8, 15), category=_4A),
    Row(composition=_SOLID, course=_BASELINE, total_mm=(15, inf), category=_4B),
    Row(composition=_SOLID, course=_NEW, total_mm=(0, 4), category=_2),
    Row(composition=_SOLID, course=_NEW, total_mm=(4, 6), category=_3),
    Row(composition=_SOLID, course=_NEW, total_mm=(6, 8), category=_4A),
    Row(composition=_SOLID, course=_NEW, total_mm=(8, inf), category=_4B),
    Row(composition=_SOLID, course=_GROWING, total_mm=(0, 8), category=_4A),
    Row(composition=_SOLID, course=_GROWING, total_mm=(8, inf), category=_4B),
    Row(composition=_PART, course=_BASELINE, total_mm=(0, 6), category=_2),
    Row(composition=_PART, course=_BASELINE, total_mm=(6, inf), solid_mm=(0, 6), category=_3),
    Row(composition=_PART, course=_BASELINE, total_mm=(6, inf), solid_mm=(6, 8), category=_4A),
    Row(composition=_PART, course=_BASELINE, total_mm=(6, inf), solid_mm=(8, inf), category=_4B),
    Row(composition=_PART, course=_NEW, total_mm=(0, 6), category=_3),
    Row(composition=_PART, course=_NEW, total_mm=(6, inf), solid_mm=(0, 4), category=_4A),
    Row(composition=_PART, course=_NEW, total_mm=(6, inf), solid_mm=(4, inf), category=_4B),
    # Of a growing one the solid part decides, which must itself be new or have grown.
    Row(composition=_PART, course=_GROWING, solid_mm=(0, 4), category=_4A),
    Row(composition=_PART, course=_GROWING, solid_mm=(4, inf), category=_4B),
    Row(composition=_NON, course=_BASELINE, total_mm=(0, 30), category=_2),
    Row(composition=_NON, course=_BASELINE, total_mm=(30, inf), category=_3),
    Row(composition=_NON, course=_NEW, total_mm=(0, 30), category=_2),
    Row(composition=_NON, course=_NEW, total_mm=(30, inf), category=_3),
    # A larger one that grows fast has no row; of stable solid ones the earlier category decides, which is unknown here.
    Row(composition=_NON, course=_GROWING, total_mm=(0, 30), category=_2),
    Row(composition=_NON, course=_STABLE, category=_2),
)

MANAGEMENT: dict[Category, Management] = {
    _2: Management(text="low-dose CT in 12 months", months=12),
    _3: Management(text="low-dose CT in 6 months", months=6),
    _4A: Management(
        text="low-dose CT in 3 months; PET/CT may be considered with a solid part of 8 mm or more", months=3
    ),
    _4B: Management(text="referral for further clinical evaluation", months=None),
}

#: Growth of the mean diameter by more than so many mm, within so many days, is growth.
GROWTH_MM = 1.5
GROWTH_WITHIN_DAYS = 366.0


def in_tenths(size_mm: float) -> float:
    """A size as it is judged, by the guideline and by whatever else compares sizes, and as reports say it."""
    return round(size_mm, 1)


def category_of(nodule: Nodule) -> Category | None:
    """The category of a nodule found by screening; None where the table cannot decide.

    That is so for a part-solid nodule whose solid part was not measured and counts, for one that grew while its solid
    part did not, and for what has no row.
    """
    total, solid = in_tenths(nodule.mean_diameter_mm), nodule.solid_diameter_mm
    if nodule.composition is _PART and nodule.course is _GROWING and not nodule.solid_part_grew:
        return None
    for row in TABLE:
        if (row.composition, row.course) != (nodule.composition, nodule.course) or not _within(total, row.total_mm):
            continue
        if row.solid_mm == (0.0, inf):
            return row.category
        if solid is None:
            return None
        if _within(in_tenths(solid), row.solid_mm):
            return row.category
    return None


def has_grown(earlier_mm: float, later_mm: float, days: float) -> bool | None:
    """Whether a mean diameter grew as the guideline means it; None where the two are not within 12 months.

    The guideline has no rule for a slower growth that measurements alone could apply.
    """
    if not 0 < days <= GROWTH_WITHIN_DAYS:
        return None
    return in_tenths(in_tenths(later_mm) - in_tenths(earlier_mm)) > GROWTH_MM


def of_exam(categories: Iterable[Category | None]) -> Category | None:
    """The category of an examination: that of its most suspicious nodule, where each one's is known."""
    found = list(categories)
    if not found or None in found:
        return None
    return max((category for category in found if category is not None), key=list(Category).index)


def _within(size: float, bounds: tuple[float, float]) -> bool:
    return bounds[0] <= size < bounds[1]
