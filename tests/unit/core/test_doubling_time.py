"""The rule of the volume doubling time, as a radiologist would check it."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicom_node.core.doubling_time import Speed, VolumeMeasured, doubling_days, speed_of

OURS = ("lung_nodule", "0.1.0", "ab" * 32)


def measured(volume_mm3: float, **changes: object) -> VolumeMeasured:
    """A volume measured by us on slices of 1 mm."""
    value = VolumeMeasured(volume_mm3=volume_mm3, slice_thickness_mm=1.0, segmented_by=OURS)
    return replace(value, **changes)  # type: ignore[arg-type]  # the fields' own types


def test_a_nodule_of_twice_the_volume_after_100_days_doubles_in_100_days() -> None:
    assert doubling_days(measured(200), measured(400), 100) == pytest.approx(100)


def test_a_nodule_of_four_times_the_volume_after_100_days_doubles_in_50_days() -> None:
    assert doubling_days(measured(200), measured(800), 100) == pytest.approx(50)


def test_one_that_shrinks_to_half_in_100_days_has_a_negative_time() -> None:
    assert doubling_days(measured(400), measured(200), 100) == pytest.approx(-100)


def test_a_change_of_a_quarter_or_less_says_nothing() -> None:
    assert doubling_days(measured(400), measured(500), 100) is None
    assert doubling_days(measured(400), measured(300), 100) is None
    assert doubling_days(measured(400), measured(501), 100) is not None


def test_slices_of_another_thickness_are_not_compared() -> None:
    assert doubling_days(measured(200), measured(400, slice_thickness_mm=2.0), 100) is None


def test_what_another_version_outlined_is_not_compared() -> None:
    assert doubling_days(measured(200), measured(400, segmented_by=("lung_nodule", "0.2.0", "cd" * 32)), 100) is None


@pytest.mark.parametrize("days", [0, -30])
def test_no_time_between_is_no_speed(days: float) -> None:
    assert doubling_days(measured(200), measured(400), days) is None


@pytest.mark.parametrize(
    ("days", "expected"),
    [
        (30, Speed.SUSPICIOUS),
        (399.9, Speed.SUSPICIOUS),
        (400, Speed.INDETERMINATE),
        (600, Speed.INDETERMINATE),
        (600.1, Speed.NOT_SUSPICIOUS),
        (-100, Speed.NOT_SUSPICIOUS),
    ],
)
def test_what_a_doubling_time_means(days: float, expected: Speed) -> None:
    assert speed_of(days) is expected


@given(st.floats(10, 1e4), st.floats(1.3, 20), st.floats(10, 2000))
def test_after_the_doubling_time_the_volume_has_doubled(volume: float, factor: float, days: float) -> None:
    found = doubling_days(measured(volume), measured(volume * factor), days)
    assert found is not None
    assert 2 ** (days / found) == pytest.approx(factor)
