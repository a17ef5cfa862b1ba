"""A Lung-RADS category is written when all that it rests on is known, and never otherwise."""

from dataclasses import replace

import pytest

from dicom_node.core.codes import ANATOMICAL_STRUCTURE, Code
from dicom_node.core.lung_rads import Category, Composition, Course
from dicom_node.core.screening import graded
from tests.unit.core.test_urgency import growing, nodule

SOLID, PART_SOLID, NON_SOLID = Composition


@pytest.mark.parametrize(
    ("known", "category"),
    [
        ({"diameter_mm": 5.9, "composition": SOLID}, Category.BENIGN),
        ({"diameter_mm": 6.0, "composition": SOLID}, Category.PROBABLY_BENIGN),
        ({"diameter_mm": 8.0, "composition": SOLID}, Category.SUSPICIOUS_A),
        ({"diameter_mm": 15.0, "composition": SOLID}, Category.SUSPICIOUS_B),
        ({"diameter_mm": 9.0, "composition": PART_SOLID, "solid_diameter_mm": 7.0}, Category.SUSPICIOUS_A),
        ({"diameter_mm": 9.0, "composition": PART_SOLID}, None),
        ({"diameter_mm": 9.0, "composition": NON_SOLID}, Category.BENIGN),
        ({"diameter_mm": 9.0}, None),
    ],
)
def test_at_a_first_screening_composition_and_size_decide(known: dict[str, object], category: Category | None) -> None:
    (finding,) = graded([nodule(**known)], "baseline")  # type: ignore[arg-type]  # what a test knows
    assert finding.lung_rads is category


def test_outside_of_screening_nothing_is_graded() -> None:
    (finding,) = graded([nodule(20.0, composition=SOLID)], "no")
    assert finding.lung_rads is None


def test_only_nodules_of_the_lung_are_graded_and_what_an_algorithm_graded_stays_so() -> None:
    large = nodule(20.0, composition=SOLID)
    liver = Code("10200004", "SCT", "Liver")
    others = [replace(large, site=liver), replace(large, concept=liver, category=ANATOMICAL_STRUCTURE)]
    assert [one.lung_rads for one in graded(others, "baseline")] == [None, None]
    (own,) = graded([replace(large, lung_rads=Category.SUSPICIOUS_A)], "baseline")
    assert own.lung_rads is Category.SUSPICIOUS_A


@pytest.mark.parametrize(
    ("course", "category"),
    [
        (Course.NEW, Category.SUSPICIOUS_A),
        (Course.BASELINE, Category.PROBABLY_BENIGN),
        # It may be one that was there before, or not: nothing is graded by a guess.
        (None, None),
    ],
)
def test_what_an_earlier_study_says_counts_before_what_the_route_says(
    course: Course | None, category: Category | None
) -> None:
    compared = nodule(7.0, composition=SOLID, is_compared=True, course=course)
    (finding,) = graded([compared], "baseline")
    assert finding.lung_rads is category


def test_what_was_there_before_is_none_of_a_first_screening() -> None:
    grown = replace(growing(2.0), composition=SOLID, course=Course.GROWING)
    stable = replace(growing(0.2), composition=SOLID, course=Course.STABLE)
    assert [one.lung_rads for one in graded([grown, stable], "baseline")] == [Category.SUSPICIOUS_B, None]
