"""A study is as urgent as the most urgent rule that what is known of a finding fulfils, and says why."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicom_node.core.change import Change, Size
from dicom_node.core.codes import (
    ACTIONABLE_CATEGORY_2,
    ANATOMICAL_STRUCTURE,
    LUNG,
    MORPHOLOGICALLY_ABNORMAL_STRUCTURE,
    NODULE,
)
from dicom_node.core.finding import Axis, Finding, Outline
from dicom_node.core.lung_rads import Category, Composition, Course
from dicom_node.core.priority import Priority
from dicom_node.core.screening import graded
from dicom_node.core.urgency import DEFAULT_RULES, TriageRule, urgency_of

POINT = (0.0, 0.0, 0.0)


def nodule(diameter_mm: float = 5.0, number: int = 1, **known: object) -> Finding:
    axis = Axis(length_mm=diameter_mm, start=POINT, end=POINT)
    finding = Finding(
        number=number,
        concept=NODULE,
        category=MORPHOLOGICALLY_ABNORMAL_STRUCTURE,
        site=LUNG,
        laterality=None,
        centre=POINT,
        long_axis=axis,
        short_axis=axis,
        maximum_3d_diameter_mm=diameter_mm,
        volume_mm3=1.0,
        mean_hu=0.0,
        deviation_hu=0.0,
        score=0.7,
        outline=Outline(sop_instance_uid="2.25.1", points=((0.0, 0.0),)),
    )
    return replace(finding, **known)  # type: ignore[arg-type]  # what a test knows


def judged(*findings: Finding, rules: tuple[TriageRule, ...] = DEFAULT_RULES) -> Priority | None:
    urgency = urgency_of(findings, rules, "lung_nodule")
    return urgency.priority if urgency else None


def test_the_default_rules_look_at_growth_and_solid_part_and_not_at_size() -> None:
    assert judged() is None
    assert judged(nodule(5.0)) is Priority.ROUTINE
    assert judged(nodule(25.0)) is Priority.ROUTINE
    assert judged(nodule(7.0, doubling_days=399.0)) is Priority.HIGH
    assert judged(nodule(7.0, doubling_days=900.0)) is Priority.ROUTINE
    assert judged(nodule(7.0, doubling_days=-200.0)) is Priority.ROUTINE
    part_solid = {"composition": Composition.PART_SOLID}
    assert judged(nodule(10.0, **part_solid, solid_diameter_mm=8.0)) is Priority.HIGH
    assert judged(nodule(10.0, **part_solid, solid_diameter_mm=5.0)) is Priority.ROUTINE


def growing(by_mm: float, **unlike: object) -> Finding:
    """A nodule that was smaller by so much ninety days ago, of a volume that goes with that."""
    then = Size(
        mean_diameter_mm=8.0, volume_mm3=268.0, method="ATTENUATION", slice_thickness_mm=1.0, kernel="soft",
        outlined_by=("lung_nodule", "0.2.0", "ab"),
    )  # fmt: skip
    now = replace(then, mean_diameter_mm=8.0 + by_mm, volume_mm3=268.0 * ((8.0 + by_mm) / 8.0) ** 3)
    change = Change(earlier=replace(then, **unlike), later=now, days=9000, name="Nodule 1", date="20240101")  # type: ignore[arg-type]  # what a test knows
    return nodule(8.0 + by_mm, is_compared=True, change=change)


def test_growth_counts_where_both_sizes_compare() -> None:
    assert judged(growing(1.5)) is Priority.ROUTINE
    assert judged(growing(1.6)) is Priority.HIGH
    assert judged(growing(2.5, slice_thickness_mm=5.0)) is Priority.ROUTINE
    assert judged(growing(-3.0)) is Priority.ROUTINE


def test_growth_far_beyond_what_methods_differ_by_counts_as_it_was_measured() -> None:
    assert judged(growing(8.0, slice_thickness_mm=5.0)) is Priority.HIGH
    rules = (TriageRule(name="it grew by 8 mm", priority=Priority.STAT, minimum_growth_mm=8.0),)
    assert judged(growing(8.0, slice_thickness_mm=5.0), rules=rules) is Priority.STAT
    assert judged(growing(7.9, slice_thickness_mm=5.0), rules=rules) is Priority.ROUTINE


def test_a_rule_may_ask_for_what_is_new() -> None:
    rules = (TriageRule(name="it was not marked before", priority=Priority.HIGH, new=True),)
    assert judged(nodule(), rules=rules) is Priority.ROUTINE
    assert judged(nodule(is_compared=True, course=Course.BASELINE), rules=rules) is Priority.ROUTINE
    assert judged(nodule(is_compared=True, course=Course.NEW), rules=rules) is Priority.HIGH


def test_the_reason_names_the_finding_its_size_the_rule_and_how_soon() -> None:
    rule = TriageRule(name="it measures 15 mm or more", priority=Priority.HIGH, minimum_diameter_mm=15.0)
    found = (nodule(16.0), nodule(18.5, number=2), nodule(4.0, number=3))
    urgency = urgency_of(found, (*DEFAULT_RULES, rule), "lung_nodule")

    assert urgency is not None
    assert urgency.reason == (
        "Nodule 2, of 18.5 mm mean diameter and 1 more: it measures 15 mm or more; to be seen within hours"
    )
    assert urgency.code == ACTIONABLE_CATEGORY_2


def test_all_that_a_rule_asks_must_hold_of_one_and_the_same_finding() -> None:
    rule = TriageRule(name="large and sure", priority=Priority.STAT, minimum_diameter_mm=10.0, minimum_score=0.9)

    assert judged(nodule(12.0, score=0.5), nodule(4.0, score=0.95), rules=(rule,)) is Priority.ROUTINE
    assert judged(nodule(12.0, score=0.95), rules=(rule,)) is Priority.STAT


def test_a_rule_may_ask_for_several_findings_and_for_one_algorithm() -> None:
    several = TriageRule(name="many", priority=Priority.HIGH, minimum_findings=2)
    other = TriageRule(name="not ours", priority=Priority.STAT, algorithm="chest_xray_pneumonia")

    assert judged(nodule(), rules=(several, other)) is Priority.ROUTINE
    assert judged(nodule(), nodule(number=2), rules=(several, other)) is Priority.HIGH


def test_an_outlined_organ_is_no_reason_to_look_soon_unless_a_rule_asks_for_it() -> None:
    organ = nodule(110.0, category=ANATOMICAL_STRUCTURE)
    large = TriageRule(name="it is large", priority=Priority.HIGH, minimum_diameter_mm=15.0)

    assert judged(organ) is None
    assert judged(organ, rules=(large,)) is None
    assert judged(organ, rules=(replace(large, algorithm="lung_nodule"),)) is Priority.HIGH
    assert judged(organ, nodule(number=2)) is Priority.ROUTINE


def test_organs_do_not_count_among_several() -> None:
    several = TriageRule(name="many", priority=Priority.HIGH, minimum_findings=2)

    assert judged(nodule(), nodule(number=2, category=ANATOMICAL_STRUCTURE), rules=(several,)) is Priority.ROUTINE


@pytest.mark.parametrize(
    ("solid_mm", "priority"),
    [(7.94, Priority.ROUTINE), (7.9499, Priority.ROUTINE), (7.951, Priority.HIGH), (8.0, Priority.HIGH)],
)
def test_a_size_is_compared_as_the_report_says_it(solid_mm: float, priority: Priority) -> None:
    part_solid = {"composition": Composition.PART_SOLID, "solid_diameter_mm": solid_mm}
    assert judged(nodule(12.0, **part_solid)) is priority


@given(size_mm=st.floats(3.0, 20.0))
def test_urgency_and_lung_rads_agree_on_which_solid_part_measures_8_mm(size_mm: float) -> None:
    known = {"composition": Composition.PART_SOLID, "solid_diameter_mm": size_mm}
    (graded_one,) = graded([nodule(25.0, **known)], "baseline")

    is_urgent = judged(nodule(25.0, **known)) is Priority.HIGH
    assert is_urgent is (graded_one.lung_rads is Category.SUSPICIOUS_B)
    assert is_urgent is (float(f"{size_mm:.1f}") >= 8.0)


@given(size_mm=st.floats(14.0, 16.0))
def test_urgency_and_lung_rads_agree_on_which_nodule_measures_15_mm(size_mm: float) -> None:
    rule = TriageRule(name="it measures 15 mm or more", priority=Priority.HIGH, minimum_diameter_mm=15.0)
    one = nodule(size_mm, composition=Composition.SOLID)

    is_urgent = judged(one, rules=(rule,)) is Priority.HIGH
    assert is_urgent is (graded([one], "baseline")[0].lung_rads is Category.SUSPICIOUS_B)


KNOWN = st.fixed_dictionaries(
    {
        "composition": st.sampled_from(Composition),
        "solid_diameter_mm": st.floats(0, 40),
        "malignancy": st.floats(0, 1),
        "doubling_days": st.floats(-1000, 1000),
    }
)
RULES = st.lists(
    st.builds(
        TriageRule,
        name=st.just("a rule"),
        priority=st.sampled_from(Priority),
        minimum_diameter_mm=st.floats(0, 40),
        minimum_solid_diameter_mm=st.sampled_from([0.0, 8.0]),
        compositions=st.sampled_from([(), (Composition.PART_SOLID,)]),
        maximum_doubling_days=st.sampled_from([0.0, 400.0]),
        minimum_malignancy=st.sampled_from([0.0, 0.5]),
    ),
    max_size=4,
).map(tuple)


@given(rules=RULES, more=RULES, known=KNOWN, diameter_mm=st.floats(1, 60))
def test_no_further_finding_rule_or_unknown_makes_a_study_less_urgent(
    rules: tuple[TriageRule, ...], more: tuple[TriageRule, ...], known: dict[str, object], diameter_mm: float
) -> None:
    order = [*Priority, None]
    base = judged(nodule(diameter_mm, **known), rules=rules)
    further = judged(nodule(diameter_mm, **known), nodule(3.0, number=2), rules=rules + more)
    unknown = judged(nodule(diameter_mm), rules=rules)

    assert order.index(further) <= order.index(base)
    # What is not known fulfils nothing: it can only fail to raise the priority that the study has.
    assert order.index(unknown) >= order.index(base)
