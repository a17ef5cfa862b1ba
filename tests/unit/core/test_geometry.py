"""Slices in patient space: ordered along their normal, and refused by name when they make no volume."""

import math
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dicom_node.core.geometry import dot, normal_of, plane_of, stack_slices
from tests.strategies import AXIAL, CORONAL, SAGITTAL, headers, orientations, series_headers, slice_at, slices_at


@pytest.mark.parametrize(
    ("orientation", "plane"),
    [
        (AXIAL, "axial"),
        (CORONAL, "coronal"),
        (SAGITTAL, "sagittal"),
        # A gantry tilted by 18.5 degrees.
        ((1, 0, 0, 0, 0.948324, -0.317305), "axial"),
        ((1, 0, 0, 0, 0.7071068, 0.7071068), "oblique"),
        (None, None),
        ((0, 0, 0, 0, 0, 0), None),
        ((1, 0, 0, 1, 0, 0), None),
        # Cosines of no unit vector.
        ((0.5, 0, 0, 0, 1, 0), None),
        ((1, 0, 0, 0, math.nan, 0), None),
        ("1", None),
    ],
)
def test_a_plane_is_named_by_its_normal(orientation, plane):
    assert plane_of({"ImageOrientationPatient": orientation}) == plane


@given(orientations())
def test_the_normal_is_a_unit_vector_at_right_angles_to_rows_and_columns(orientation):
    normal = normal_of({"ImageOrientationPatient": orientation})
    assert normal is not None
    assert dot(normal, normal) == pytest.approx(1)
    assert dot(normal, orientation[:3]) == pytest.approx(0, abs=1e-9)
    assert dot(normal, orientation[3:]) == pytest.approx(0, abs=1e-9)


def test_the_order_has_no_part_where_orientations_differ_by_their_rounding():
    slices = slices_at(0.0, 2.5, 5.0)
    slices[0]["ImageOrientationPatient"] = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0004)
    forward, backward = stack_slices(slices), stack_slices(slices[::-1])
    assert forward.problem is None
    assert (forward.normal, forward.positions_mm) == (backward.normal, backward.positions_mm)


@pytest.mark.parametrize(
    ("acquisitions", "problem"),
    [
        ("121212121212", "slices of 2 acquisitions lie between one another"),
        ("123123123123", "slices of 3 acquisitions lie between one another"),
        # One after the other along the patient, with a few slices of overlap, each rotation by itself, or not told.
        ("111111222222", None),
        ("111112122222", None),
        ("123456789abc", None),
        ("1 1 1 1 1 1 ", None),
        ("            ", None),
    ],
)
def test_two_breaths_whose_slices_lie_between_one_another_are_no_volume(acquisitions, problem):
    """Each slice fits its neighbours' distance, and is of another breath or phase than they are."""
    slices = slices_at(*range(12))
    for one, number in zip(slices, acquisitions, strict=True):
        if number.strip():
            one["AcquisitionNumber"] = number
    for given_order in (slices, slices[::-1]):
        stack = stack_slices(given_order)
        assert (stack.problem, stack.missing) == (problem, None)


def test_slices_come_back_in_order_along_the_normal_with_their_spacing():
    stack = stack_slices(slices_at(5.0, 0.0, 2.5))
    assert stack.order == (1, 2, 0)
    assert stack.positions_mm == (0.0, 2.5, 5.0)
    assert stack.spacing_mm == 2.5
    assert (stack.problem, stack.missing, stack.tilt_degrees) == (None, None, 0.0)


@given(orientations(), st.integers(2, 30), st.sampled_from([0.625, 1.0, 5.0]), st.randoms(use_true_random=False))
def test_a_regular_stack_in_any_plane_and_order_has_no_problem(orientation, count, spacing, random):
    normal = normal_of({"ImageOrientationPatient": orientation})
    places = list(range(count))
    random.shuffle(places)
    slices = [
        slice_at(
            0, ImageOrientationPatient=orientation, ImagePositionPatient=tuple(10 + k * spacing * n for n in normal)
        )
        for k in places
    ]
    stack = stack_slices(slices)
    assert stack.problem is None
    assert stack.spacing_mm == pytest.approx(spacing)
    assert [places[i] for i in stack.order] == sorted(places)


def test_a_missing_slice_is_named_by_its_neighbours():
    stack = stack_slices(slices_at(28.0, 30.5, 33.0, 38.0, 40.5))
    assert stack.problem == "slices are missing between 33.0 mm and 38.0 mm along the normal"
    assert stack.missing == stack.problem


def test_one_slice_lost_of_three_is_still_named():
    assert stack_slices(slices_at(0, 1, 3)).missing == "slices are missing between 1.0 mm and 3.0 mm along the normal"


def test_further_gaps_are_counted():
    stack = stack_slices(slices_at(0, 1, 2, 4, 5, 6, 8, 9, 10, 11))
    assert stack.problem == "slices are missing between 2.0 mm and 4.0 mm along the normal and in 1 more places"


@given(st.integers(4, 40), st.data())
def test_no_lost_inner_slice_goes_unnoticed(count, data):
    lost = data.draw(st.integers(1, count - 2))
    assert stack_slices([slice_at(k * 1.25) for k in range(count) if k != lost]).missing


def test_spacings_that_vary_throughout_are_given_as_a_range():
    stack = stack_slices(slices_at(0, 1, 8, 9, 16, 17, 24))
    assert stack.problem == "the distances between slices vary from 1.00 mm to 7.00 mm"


def test_a_spacing_that_changes_slowly_is_noticed():
    heights = [0.0]
    for k in range(60):
        heights.append(heights[-1] + 2.5 + 0.005 * k)
    assert "vary from 2.50 mm to" in stack_slices(slices_at(*heights)).problem


def test_positions_rounded_to_a_tenth_of_a_millimetre_are_regular():
    assert stack_slices(slices_at(*(round(k * 0.625, 1) for k in range(200)))).problem is None


def test_slices_at_one_place_are_counted_but_do_not_look_missing():
    stack = stack_slices(slices_at(0, 0, 1, 2, 2, 3))
    assert stack.problem == "2 of 6 slices lie where another one lies"
    assert stack.missing is None
    assert stack.spacing_mm == 1.0


def test_a_tilted_gantry_is_named_with_its_angle():
    tilt = math.radians(18.5)
    orientation = (1, 0, 0, 0, math.cos(tilt), -math.sin(tilt))
    stack = stack_slices([slice_at(z, ImageOrientationPatient=orientation) for z in range(0, 100, 5)])
    assert stack.problem == "the slices are stacked 18.5 degrees off their normal, as by a tilted gantry"
    assert stack.tilt_degrees == pytest.approx(18.5)
    assert stack.missing is None


def test_single_slices_shifted_sideways_are_named():
    slices = slices_at(0, 1, 2, 3, 4)
    slices[2]["ImagePositionPatient"] = (-175.0, -180.0, 2.0)
    assert stack_slices(slices).problem == "the slices are shifted sideways against each other"


@pytest.mark.parametrize(
    ("odd", "problem"),
    [
        ({"ImageOrientationPatient": CORONAL}, "the slices have different orientations"),
        ({"ImageOrientationPatient": (0, 1, 0, -1, 0, 0)}, "the slices have different orientations"),
        ({"FrameOfReferenceUID": "1.2.4"}, "the slices belong to different frames of reference"),
        ({"Rows": 256}, "the slices differ in their number of rows"),
        ({"Columns": 256}, "the slices differ in their number of columns"),
        ({"PixelSpacing": [0.8, 0.8]}, "the slices differ in their pixel spacing"),
        ({"ImagePositionPatient": None}, "1 of 4 slices have no position or orientation"),
    ],
)
def test_slices_that_do_not_belong_together_are_named(odd, problem):
    stack = stack_slices([*slices_at(0, 1, 2), slice_at(3, **odd)])
    assert stack.problem == problem
    assert stack.missing is None


def test_one_slice_is_no_volume_and_more_may_come():
    stack = stack_slices(slices_at(0))
    assert (stack.problem, stack.missing) == ("one slice makes no volume", "one slice makes no volume")


def test_images_of_one_place_over_time_are_no_volume_and_lack_nothing():
    stack = stack_slices(slices_at(7.5, 7.5, 7.501))
    assert (stack.problem, stack.missing) == ("all 3 slices lie at one position", None)


@pytest.mark.parametrize("height", [1e200, -1e300, 1.1e6, math.inf, -math.inf, math.nan])
def test_a_position_that_cannot_be_reckoned_with_is_none(height):
    stack = stack_slices(slices_at(0, 2.5, height))
    assert (stack.problem, stack.missing) == ("1 of 3 slices have no position or orientation", None)


@pytest.mark.parametrize("slices", [[], [{}, {}], [{"Rows": 5}]])
def test_what_has_no_positions_is_no_volume(slices):
    assert stack_slices(slices).problem is not None


@given(series_headers(), st.randoms(use_true_random=False))
def test_any_order_of_the_same_slices_gives_the_same_verdict(slices, random):
    shuffled = list(slices)
    random.shuffle(shuffled)
    first, second = stack_slices(slices), stack_slices(shuffled)
    assert (first.problem, first.missing, first.positions_mm) == (second.problem, second.missing, second.positions_mm)


@settings(max_examples=50)
@given(st.lists(headers(), max_size=6))
def test_no_header_is_too_odd_to_be_judged(slices):
    stack = stack_slices(slices)
    assert all(a <= b for a, b in pairwise(stack.positions_mm))
