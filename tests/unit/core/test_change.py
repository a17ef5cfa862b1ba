"""What became of a finding, as a radiologist would check it: sizes that do not compare are called no change."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicom_node.core.change import Change, Size, Trend
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


@pytest.mark.parametrize(
    ("other", "word"),
    [
        ({"method": "SMOOTHED"}, "method"),
        ({"slice_thickness_mm": 5.0}, "thick"),
        ({"kernel": "sharp"}, "kernel"),
        ({"kernel": ""}, "kernel"),
        ({"measured_by": "another build"}, "software"),
        ({"outlined_by": ("lung_nodule", "0.1.0", "cd" * 32)}, "version"),
    ],
)
def test_sizes_that_were_made_otherwise_are_called_no_change(other: dict[str, Any], word: str) -> None:
    unlike = change(size(8.0, 268, **other), size(12.0, 905))
    assert any(word in caveat for caveat in unlike.caveats)
    assert (unlike.trend, unlike.doubling_days, unlike.growth_mm, unlike.course) == (None, None, None, None)


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
    untold = change(size(8.0, 268, kernel=""), size(12.0, 905, kernel=""))
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
    assert (same.trend is None) == bool(same.caveats)
    assert same.doubling_days is None


@given(sizes, sizes, st.floats(-10, 3000))
def test_only_what_surely_increased_has_grown(one: Size, other: Size, days: float) -> None:
    found = change(one, other, days)
    if found.course is Course.GROWING or found.growth_mm is not None:
        assert found.trend is Trend.INCREASED
        assert not found.caveats
