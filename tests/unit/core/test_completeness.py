"""When a study has arrived, judged from facts and a clock."""

from dataclasses import dataclass, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicom_node.core.completeness import StudyFacts, missing_slices, verdict
from tests.strategies import slice_at, slices_at, study_of


@dataclass(frozen=True)
class Timers:
    quiet_seconds_when_whole: float = 2.0
    quiet_seconds_otherwise: float = 60.0


ARRIVED = StudyFacts(last_received_at=1000.0, open_associations=0)
GAP = (("1.2", "slices are missing between 33.0 mm and 38.0 mm along the normal"),)


def test_a_whole_study_is_complete_after_the_short_quiet_time():
    judged = verdict(ARRIVED, 1002.0, Timers())
    assert judged.complete
    assert judged.check_again_at is None
    assert judged.reason == "all associations ended and no slices are missing; nothing came for 2.0 s"


def test_a_whole_study_is_waited_for_until_then():
    judged = verdict(ARRIVED, 1001.5, Timers())
    assert not judged.complete
    assert judged.check_again_at == 1002.0
    assert "waiting for 2 s" in judged.reason


@pytest.mark.parametrize(
    ("doubt", "words"),
    [
        ({"open_associations": 1}, "1 association is still open"),
        ({"open_associations": 2}, "2 associations are still open"),
        ({"aborted_associations": 1}, "1 association is broken off"),
        ({"missing": GAP}, "series 1.2: slices are missing between 33.0 mm and 38.0 mm along the normal"),
        ({"missing": (*GAP, ("1.3", "x"), ("1.4", "y"))}, "2 more series are incomplete"),
    ],
)
def test_a_doubt_makes_the_wait_the_long_one_and_is_named(doubt, words):
    facts = replace(ARRIVED, **doubt)
    waiting = verdict(facts, 1059.0, Timers())
    assert not waiting.complete
    assert waiting.check_again_at == 1060.0
    assert words in waiting.reason
    done = verdict(facts, 1060.0, Timers())
    assert done.complete
    assert words in done.reason


def test_a_clock_set_back_does_not_make_anyone_wait_longer_than_the_quiet_time():
    assert verdict(ARRIVED, 500.0, Timers()).check_again_at == 502.0


@given(
    st.floats(0, 1e10),
    st.floats(-1e3, 1e6),
    st.integers(0, 3),
    st.integers(0, 3),
    st.sampled_from([(), GAP]),
)
def test_who_looks_again_when_told_finds_the_study_complete(received, later, open_, aborted, missing):
    """Law: with no news, the verdict at `check_again_at` is complete, and never a moment earlier than it says."""
    facts = StudyFacts(
        last_received_at=received, open_associations=open_, aborted_associations=aborted, missing=missing
    )
    first = verdict(facts, received + later, Timers())
    if not first.complete:
        assert first.check_again_at is not None
        assert first.check_again_at > min(received, received + later)
        # A microsecond for the rounding of seconds since 1970.
        assert verdict(facts, max(first.check_again_at, received + 60.0) + 1e-5, Timers()).complete


def test_a_whole_series_lacks_nothing():
    assert missing_slices(study_of(s1=slices_at(0, 1, 2))) == ()


def test_a_series_with_a_gap_is_named():
    study = study_of(s1=slices_at(0, 1, 2), s2=slices_at(0, 1, 2, 4))
    assert missing_slices(study) == (("1.2", "slices are missing between 2.0 mm and 4.0 mm along the normal"),)


def test_the_first_slice_of_a_volume_is_expected_to_be_followed():
    assert missing_slices(study_of(s1=slices_at(0))) == (("1.1", "one slice makes no volume"),)


@pytest.mark.parametrize(
    "header",
    [
        slice_at(0, ImageType=("ORIGINAL", "PRIMARY", "LOCALIZER")),
        slice_at(0, Modality="CR"),
        slice_at(0, ImagePositionPatient=None),
        {},
    ],
    ids=["a localizer", "a radiograph", "an image without position", "an empty header"],
)
def test_an_image_that_is_no_slice_of_a_volume_lacks_nothing(header):
    assert missing_slices(study_of(s1=[header])) == ()


def test_what_no_further_slice_can_mend_is_not_waited_for():
    repeated = study_of(s1=slices_at(0, 0, 1, 1))
    mixed = study_of(s1=[*slices_at(0, 1), slice_at(7, Rows=256)])
    assert missing_slices(repeated) == missing_slices(mixed) == ()
