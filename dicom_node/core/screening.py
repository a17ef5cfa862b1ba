"""Screening: the Lung-RADS categories of what was found, where a route says that the examination was of screening.

Nothing of this is guessed: without a route that says so, for anything but a lung nodule, and where an algorithm does
not tell a nodule's composition, there is no category. What an earlier study says of a nodule counts before what the
route says: one that was there before is none of a first screening, and without a course that is known it has none.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

from dicom_node.core.codes import LUNG, NODULE, Code
from dicom_node.core.finding import Finding
from dicom_node.core.lung_rads import Category, Course, Nodule, category_of

#: What a route says of the examinations that it takes.
Screening = Literal["no", "baseline"]

_COURSES: dict[Screening, Course] = {"baseline": Course.BASELINE}


def graded(findings: Sequence[Finding], screening: Screening) -> tuple[Finding, ...]:
    """The findings, those with a category for which the table can decide one; what an algorithm graded stays so."""
    course = _COURSES.get(screening)
    if course is None:
        return tuple(findings)
    return tuple(replace(one, lung_rads=one.lung_rads or _category(one, course)) for one in findings)


def _category(finding: Finding, course: Course) -> Category | None:
    if finding.composition is None or not (_is(finding.concept, NODULE) and _is(finding.site, LUNG)):
        return None
    known = finding.course if finding.is_compared else course
    if known is None:
        return None
    nodule = Nodule(
        composition=finding.composition,
        course=known,
        mean_diameter_mm=finding.mean_diameter_mm,
        solid_diameter_mm=finding.solid_diameter_mm,
        solid_part_grew=finding.change is not None and finding.change.solid_part_grew,
    )
    return category_of(nodule)


def _is(code: Code, other: Code) -> bool:
    return (code.value, code.scheme) == (other.value, other.scheme)
