"""What became of a finding, as a radiologist would check it: sizes that do not compare are called no change."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicom_node.core.change import CONTRAST_TIMES, NOT_KNOWN, OTHERWISE_TIMES, Change, Size, Trend
from dicom_node.core.doubling_time import LEAST_CHANGE
from dicom_node.core.lung_rads import Course


def size(mean_mm: float, volume_mm3: float, **changes: Any) -> Size:
    fields: dict[str, Any] = {
        "mean_diameter_mm": mean_mm,
        "volume_mm3": volume_mm3,
        "method": "ATTENUATION",
        "slice_thickness_mm": 1.0,
        "kernel": "soft",
        "outlined_by": ("lung_nodule", "0.2.0", "ab" * 32),
    }
    return Size(**{**fields, **changes})


def change(earlier: Size, later: Size, days: float = 90.0) -> Change:
    return Change(earlier=earlier, later=later, days=days, name="Nodule 1", date="20240101")


def test_a_volume_that_grew_by_more_than_a_quarter_increased() -> None:
    grown = change(size(8.0, 268), size(9.0, 382))
    assert grown.trend is Trend.INCREASED
    assert grown.diameter_mm == 1.0
    assert grown.volume_percent == pytest.approx(42.5, abs=0.1)
    assert grown.doubling_days == pytest.approx(90 * 0.6931 / 0.3545, rel=0.01)
    assert grown.growth_mm == 1.0


def test_what_two_measurements_differ_by_is_no_significant_change() -> None:
    same = change(size(8.0, 268), size(8.4, 330))
    assert same.trend is Trend.UNCHANGED
    assert same.doubling_days is None
    assert same.growth_mm is None


def test_a_smaller_one_decreased_and_has_a_negative_doubling_time() -> None:
    shrunk = change(size(10.0, 524), size(8.0, 268))
    assert shrunk.trend is Trend.DECREASED
    assert shrunk.doubling_days is not None
    assert shrunk.doubling_days < 0


def test_of_masks_alone_volume_without_diameter_is_not_clear() -> None:
    by_mask = {"method": "SMOOTHED"}
    assert change(size(8.0, 268, **by_mask), size(9.0, 382, **by_mask)).trend is None
    assert change(size(8.0, 268, **by_mask), size(10.0, 524, **by_mask)).trend is Trend.INCREASED


def test_a_volume_and_a_diameter_that_go_different_ways_are_not_clear() -> None:
    assert change(size(8.0, 268), size(7.8, 400)).trend is None


OTHERWISE = [
    ({"method": "SMOOTHED"}, "method"),
    ({"method": ""}, "method"),
    ({"slice_thickness_mm": 5.0}, "thick"),
    ({"kernel": "sharp"}, "kernel"),
    ({"kernel": ""}, "kernel"),
    ({"measured_by": "another build"}, "software"),
    ({"outlined_by": ("lung_nodule", "0.1.0", "cd" * 32)}, "version"),
]


@pytest.mark.parametrize(("other", "word"), OTHERWISE)
def test_what_measuring_otherwise_may_make_of_a_size_is_called_no_change(other: dict[str, Any], word: str) -> None:
    for later in (size(8.0, 268), size(10.0, 524), size(6.6, 150)):
        unlike = change(size(8.0, 268, **other), later)
        assert any(word in caveat for caveat in unlike.caveats)
        assert (unlike.trend, unlike.doubling_days, unlike.growth_mm, unlike.course) == (None, None, None, None)
        assert unlike.doubled_within_days is None


@pytest.mark.parametrize(("other", "word"), OTHERWISE)
def test_growth_far_beyond_what_measuring_otherwise_may_make_is_told_with_its_caveat_and_without_a_doubling_time(
    other: dict[str, Any], word: str
) -> None:
    grown = change(size(9.3, 421, **other), size(32.1, 17300))
    assert grown.trend is Trend.INCREASED
    assert any(word in caveat for caveat in grown.caveats)
    assert grown.growth_mm == 22.8
    assert grown.course is Course.GROWING
    assert grown.doubling_days is None
    assert not grown.solid_part_grew
    shrunk = change(size(32.1, 17300, **other), size(9.3, 421))
    assert (shrunk.trend, shrunk.growth_mm, shrunk.doubling_days, shrunk.course) == (Trend.DECREASED, None, None, None)


def test_what_is_half_as_large_by_another_method_and_then_still_grew_grew() -> None:
    """The margin in numbers: twice the volume, and a quarter more of that; of masks alone 1.5 mm beyond it, too."""
    other = {"measured_by": "another build"}
    by_mask = {"method": "SMOOTHED"}
    assert change(size(8.0, 268, **other), size(10.7, 668)).trend is None
    assert change(size(8.0, 268, **other), size(10.8, 680)).trend is Trend.INCREASED
    assert change(size(8.0, 268, **other, **by_mask), size(10.8, 680, **by_mask)).trend is None
    assert change(size(8.0, 268, **other, **by_mask), size(12.2, 951, **by_mask)).trend is Trend.INCREASED


def test_what_is_smaller_than_its_slices_show_is_taken_for_as_large_as_they_may_hide() -> None:
    thick, thin = {"slice_thickness_mm": 5.0}, {"slice_thickness_mm": 1.0}
    assert change(size(3.0, 20, **thick), size(6.5, 140, **thin)).trend is None
    assert change(size(5.0, 65, **thin), size(1.5, 6, **thick)).trend is None
    grown = change(size(3.0, 20, **thick), size(16.0, 2144, **thin))
    assert grown.trend is Trend.INCREASED
    assert grown.doubled_within_days == pytest.approx(90 * 0.6931 / 1.580, rel=0.01)


def test_how_soon_it_surely_doubled_where_it_was_measured_otherwise_is_longer_than_its_doubling_time() -> None:
    alike = change(size(8.0, 268), size(16.0, 2144))
    assert alike.doubled_within_days == alike.doubling_days == pytest.approx(30)
    otherwise = change(size(8.0, 268, kernel="sharp"), size(16.0, 2144))
    assert otherwise.doubled_within_days == pytest.approx(45)
    assert otherwise.doubling_days is None


def test_contrast_agent_in_one_examination_alone_is_a_caveat_with_a_small_margin() -> None:
    plain, enhanced = {"contrast": "without"}, {"contrast": "with"}
    assert change(size(8.0, 268, **plain), size(8.4, 330, **plain)).trend is Trend.UNCHANGED
    for then, now, words in ((plain, enhanced, "now and not then"), (enhanced, plain, "then and not now")):
        assert change(size(8.0, 268, **then), size(8.4, 330, **now)).trend is None
        grown = change(size(8.0, 268, **then), size(9.3, 421, **now))
        assert grown.caveats == (f"contrast agent was given {words}",)
        assert grown.trend is Trend.INCREASED
        assert grown.doubling_days is None
        assert grown.doubled_within_days == pytest.approx(90 * 0.6931 / 0.2861, rel=0.01)
    # Who gave it must tell it: what tells nothing had none.
    assert not change(size(8.0, 268), size(8.0, 268, **plain)).caveats
    assert change(size(8.0, 268), size(8.0, 268, **enhanced)).caveats


@pytest.mark.parametrize(("then", "now"), [(50, 59), (100, 118), (500, 590)])
def test_growth_that_is_the_margin_and_a_rounding_more_doubles_in_no_time_that_is_told(then: float, now: float) -> None:
    grown = change(size(8.0, then, contrast="without"), size(11.0, now, contrast="with"))
    assert grown.doubled_within_days is None or grown.doubled_within_days > 0


def test_slices_hide_nothing_where_contrast_agent_alone_differs() -> None:
    """They are as thick in both examinations, as where sizes compare."""
    thick = {"slice_thickness_mm": 5.0}
    for then, now in ((size(3.0, 14, **thick), (8.3, 299)), (size(4.0, 34, **thick), (8.4, 310))):
        alike = change(then, size(*now, **thick))
        contrast = change(then, size(*now, **thick, contrast="with"))
        assert alike.trend is contrast.trend is Trend.INCREASED
        assert alike.course is contrast.course is Course.GROWING
        assert contrast.doubled_within_days is not None
        assert alike.doubled_within_days is not None
        assert contrast.doubled_within_days > alike.doubled_within_days


def test_where_nobody_looked_whether_contrast_agent_was_given_sizes_do_not_compare() -> None:
    for now in ("with", "without", ""):
        unlike = change(size(8.0, 268, contrast=NOT_KNOWN), size(9.6, 345, contrast=now))
        assert unlike.caveats == ("it is not known whether contrast agent was given then",)
        assert (unlike.trend, unlike.doubling_days, unlike.course) == (None, None, None)
        assert not unlike.solid_part_grew


def test_a_solid_part_is_not_called_grown_across_contrast_agent_or_methods() -> None:
    then = size(10, 500, solid_diameter_mm=3.0)
    for other in ({"contrast": "with"}, {"kernel": "sharp"}):
        assert not change(then, size(22, 5000, solid_diameter_mm=16.0, **other)).solid_part_grew


def test_growth_by_lung_rads_is_within_a_year_and_stability_too() -> None:
    assert change(size(8.0, 268), size(10.0, 524)).course is Course.GROWING
    assert change(size(8.0, 268), size(9.5, 449)).course is Course.STABLE
    # More slowly: the guideline's row for that is none that measurements decide.
    assert change(size(8.0, 268), size(10.0, 524), days=800).course is None
    assert change(size(8.0, 268), size(8.2, 280), days=800).course is Course.STABLE


def test_two_of_one_day_have_neither_trend_nor_growth_nor_doubling_time() -> None:
    at_once = change(size(8.0, 268), size(10.0, 524), days=0)
    assert (at_once.trend, at_once.growth_mm, at_once.course, at_once.doubling_days) == (None, None, None, None)


def test_a_kernel_that_is_told_on_neither_side_is_not_the_same() -> None:
    untold = change(size(8.0, 268, kernel=""), size(10.0, 524, kernel=""))
    assert any("not told" in caveat for caveat in untold.caveats)
    assert (untold.trend, untold.growth_mm) == (None, None)


def test_a_solid_part_that_was_not_measured_then_has_not_surely_grown() -> None:
    assert not change(size(10, 500), size(12, 900, solid_diameter_mm=6.0)).solid_part_grew
    assert change(size(10, 500, solid_diameter_mm=3.0), size(12, 900, solid_diameter_mm=6.0)).solid_part_grew


sizes = st.builds(
    size,
    st.floats(2, 40),
    st.floats(10, 30000),
    method=st.sampled_from(["ATTENUATION", "SMOOTHED", "VOXELS", ""]),
    slice_thickness_mm=st.sampled_from([1.0, 2.5]),
    kernel=st.sampled_from(["soft", "sharp", ""]),
    contrast=st.sampled_from(["with", "without", ""]),
)


@given(sizes, sizes)
def test_what_grew_seen_backwards_shrank_or_is_within_what_measurements_differ_by(one: Size, other: Size) -> None:
    there, back = change(one, other).trend, change(other, one).trend
    assert there is not back or there in (Trend.UNCHANGED, None)
    assert (change(one, other).caveats == ()) == (change(other, one).caveats == ())


@given(sizes, st.floats(1, 3000))
def test_nothing_becomes_of_what_is_as_it_was(one: Size, days: float) -> None:
    same = change(one, one, days)
    assert same.trend in (Trend.UNCHANGED, None)
    # Whatever it was measured by: never growth.
    assert (same.trend is None) == bool(same.caveats)
    assert same.doubling_days is None


@given(sizes, sizes, st.floats(-10, 3000))
def test_only_what_surely_increased_has_grown(one: Size, other: Size, days: float) -> None:
    found = change(one, other, days)
    if found.course is Course.GROWING or found.growth_mm is not None:
        assert found.trend is Trend.INCREASED
    if found.doubling_days is not None or found.trend is Trend.UNCHANGED or found.course is Course.STABLE:
        assert not found.caveats


@given(sizes, sizes, st.floats(1, 3000))
def test_what_is_told_of_unlike_sizes_is_beyond_the_margin_of_its_caveats(one: Size, other: Size, days: float) -> None:
    found = change(one, other, days)
    times = other.volume_mm3 / one.volume_mm3
    assert found.times in (1.0, CONTRAST_TIMES, OTHERWISE_TIMES)
    if found.trend is Trend.INCREASED and found.caveats:
        # By attenuation a diameter alone may tell it, with a volume that goes the same way.
        assert times > found.times
        assert times > found.times * (1 + LEAST_CHANGE) or (found.growth_mm is not None and found.growth_mm > 1.5)
        assert found.doubled_within_days is not None
        assert found.doubled_within_days > 0


@given(sizes, sizes, st.floats(1, 3000))
def test_a_caveat_only_takes_away_from_what_would_be_told(one: Size, other: Size, days: float) -> None:
    """The same sizes measured alike would be told as at least as much of a change."""
    how: dict[str, Any] = {"method": "ATTENUATION", "slice_thickness_mm": 1.0, "kernel": "soft", "contrast": ""}
    told, alike = change(one, other, days).trend, change(replace(one, **how), replace(other, **how), days).trend
    if told in (Trend.INCREASED, Trend.DECREASED):
        assert alike is told
