"""Every cell of Lung-RADS v2022 that measurements decide, as a radiologist would check it."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicom_node.core.lung_rads import (
    MANAGEMENT,
    TABLE,
    Category,
    Composition,
    Course,
    Nodule,
    category_of,
    has_grown,
    of_exam,
)


def category(text: str) -> str | None:
    """The category of a nodule in words: "solid 7.9 new", "part-solid 9.0 with 4.1 solid growing"."""
    words = text.split()
    solid = float(words[words.index("solid", 1) - 1]) if "with" in words else None
    course = words[-1]
    found = category_of(
        Nodule(
            composition=Composition[words[0].upper().replace("-", "_")],
            course=Course[course.upper()],
            mean_diameter_mm=float(words[1]),
            solid_diameter_mm=solid,
            solid_part_grew=course == "growing" and solid is not None,
        )
    )
    return None if found is None else found.value


@pytest.mark.parametrize(
    ("nodule", "expected"),
    [
        ("solid 5.9 baseline", "2"),
        ("solid 6.0 baseline", "3"),
        ("solid 7.9 baseline", "3"),
        ("solid 8.0 baseline", "4A"),
        ("solid 14.9 baseline", "4A"),
        ("solid 15.0 baseline", "4B"),
        ("solid 3.9 new", "2"),
        ("solid 4.0 new", "3"),
        ("solid 5.9 new", "3"),
        ("solid 6.0 new", "4A"),
        ("solid 7.9 new", "4A"),
        ("solid 8.0 new", "4B"),
        ("solid 7.9 growing", "4A"),
        ("solid 8.0 growing", "4B"),
    ],
)
def test_a_solid_nodule(nodule: str, expected: str) -> None:
    assert category(nodule) == expected


@pytest.mark.parametrize(
    ("nodule", "expected"),
    [
        ("part-solid 5.9 with 4.0 solid baseline", "2"),
        ("part-solid 6.0 with 5.9 solid baseline", "3"),
        ("part-solid 9.0 with 6.0 solid baseline", "4A"),
        ("part-solid 9.0 with 7.9 solid baseline", "4A"),
        ("part-solid 9.0 with 8.0 solid baseline", "4B"),
        ("part-solid 5.9 with 3.0 solid new", "3"),
        ("part-solid 6.0 with 3.9 solid new", "4A"),
        ("part-solid 6.0 with 4.0 solid new", "4B"),
        ("part-solid 9.0 with 3.9 solid growing", "4A"),
        ("part-solid 9.0 with 4.0 solid growing", "4B"),
    ],
)
def test_a_part_solid_nodule(nodule: str, expected: str) -> None:
    assert category(nodule) == expected


@pytest.mark.parametrize(
    ("nodule", "expected"),
    [
        ("non-solid 29.9 baseline", "2"),
        ("non-solid 30.0 baseline", "3"),
        ("non-solid 29.9 new", "2"),
        ("non-solid 30.0 new", "3"),
        ("non-solid 29.9 growing", "2"),
        ("non-solid 29.9 stable", "2"),
        ("non-solid 30.0 stable", "2"),
    ],
)
def test_a_non_solid_nodule(nodule: str, expected: str) -> None:
    assert category(nodule) == expected


@pytest.mark.parametrize(
    "nodule",
    [
        # The solid part decides, and was not measured.
        "part-solid 9.0 baseline",
        "part-solid 9.0 new",
        # It grew, and nobody knows whether its solid part did.
        "part-solid 9.0 growing",
        # The category of the screening before decides.
        "solid 9.0 stable",
        "part-solid 9.0 with 5.0 solid stable",
        # The table has no row for one that is as large and grows as fast.
        "non-solid 30.0 growing",
    ],
)
def test_what_the_table_cannot_decide_gets_no_category(nodule: str) -> None:
    assert category(nodule) is None


def test_a_small_part_solid_nodule_needs_no_solid_part_to_be_measured() -> None:
    assert category("part-solid 5.9 baseline") == "2"
    assert category("part-solid 5.9 new") == "3"


def test_a_size_is_rounded_to_one_decimal_before_it_is_looked_up() -> None:
    assert category("solid 5.94 baseline") == "2"
    assert category("solid 5.96 baseline") == "3"


@given(
    st.sampled_from(Composition),
    st.sampled_from(Course),
    st.floats(0.1, 100),
    st.none() | st.floats(0, 100),
    st.booleans(),
)
def test_4x_is_never_assigned_and_no_row_contradicts_another(
    composition: Composition, course: Course, total: float, solid: float | None, grew: bool
) -> None:
    found = category_of(
        Nodule(
            composition=composition,
            course=course,
            mean_diameter_mm=total,
            solid_diameter_mm=solid,
            solid_part_grew=grew,
        )
    )
    assert found is None or found.value in ("2", "3", "4A", "4B")
    rows = [row for row in TABLE if (row.composition, row.course) == (composition, course)]
    sizes = (round(total, 1), round(solid or 0.0, 1))
    fitting = [
        r for r in rows if r.total_mm[0] <= sizes[0] < r.total_mm[1] and r.solid_mm[0] <= sizes[1] < r.solid_mm[1]
    ]
    assert len(fitting) <= 1


@given(st.sampled_from(Course), st.floats(0.1, 50), st.floats(0, 20))
def test_a_larger_solid_nodule_is_never_less_suspicious(course: Course, size: float, more: float) -> None:
    small, large = (
        category_of(Nodule(composition=Composition.SOLID, course=course, mean_diameter_mm=mm))
        for mm in (size, size + more)
    )
    if small is None or large is None:
        assert small is large
    else:
        assert list(Category).index(large) >= list(Category).index(small)


def test_growth_is_more_than_a_millimetre_and_a_half_within_twelve_months() -> None:
    assert has_grown(6.0, 7.6, 365) is True
    assert has_grown(6.0, 7.5, 365) is False
    assert has_grown(6.0, 4.0, 90) is False
    assert has_grown(6.0, 9.0, 400) is None
    assert has_grown(6.0, 9.0, 0) is None


def test_an_examination_has_the_category_of_its_most_suspicious_nodule() -> None:
    for categories in itertools.permutations([Category.BENIGN, Category.SUSPICIOUS_A, Category.PROBABLY_BENIGN]):
        assert of_exam(categories) is Category.SUSPICIOUS_A
    assert of_exam([Category.SUSPICIOUS_A, Category.SUSPICIOUS_B]) is Category.SUSPICIOUS_B


def test_an_examination_with_a_nodule_of_no_known_category_has_none() -> None:
    assert of_exam([Category.BENIGN, None]) is None
    assert of_exam([]) is None


def test_the_interval_to_the_next_ct() -> None:
    months = {category.value: management.months for category, management in MANAGEMENT.items()}
    assert months == {"2": 12, "3": 6, "4A": 3, "4B": None}


def test_every_cell_of_the_table_and_both_ends_of_each_are_among_the_cases_above() -> None:
    cases = [
        (case, expected)
        for test in (test_a_solid_nodule, test_a_part_solid_nodule, test_a_non_solid_nodule)
        for case, expected in test.pytestmark[0].args[1]  # type: ignore[attr-defined]  # what parametrize left
    ]
    for row in TABLE:
        low, high = row.total_mm if row.composition is not Composition.PART_SOLID else row.solid_mm
        kind = row.composition.value.lower().replace("_", "-")
        own = [
            case.split() for case, _ in cases if case.startswith(f"{kind} ") and case.endswith(f" {row.course.lower()}")
        ]
        sizes = [float(words[words.index("solid", 1) - 1] if "with" in words else words[1]) for words in own]
        found = [size for size in sizes if low <= size < high]
        assert found, f"no case is of {row}"
        if low > 0:
            assert low in found, f"the lower end of {row} is no case"
        if high < 100:
            assert any(high - size < 0.2 for size in found), f"the upper end of {row} is no case"
