from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicom_node.core.lifecycle import StudyState
from dicom_node.core.retention import HeldStudy, RetentionPolicy, leaving, may_leave

DAY = 86400.0
NOW = 1_700_000_000.0
COMMITTED = frozenset({StudyState.COMMITTED})

#: Committed, a hundred days old, of one gigabyte.
OLD = HeldStudy(
    study_instance_uid="1.2",
    state=StudyState.COMMITTED,
    last_received_at=NOW - 100 * DAY,
    state_since=NOW - 100 * DAY,
    size_bytes=10**9,
    has_open_work=False,
)

#: A study goes after thirty days while less than ten gigabytes are free.
POLICY = RetentionPolicy(days=30, wanted_free_bytes=10e9, states=COMMITTED)

moments = st.floats(NOW - 200 * DAY, NOW)
held = st.builds(
    HeldStudy,
    study_instance_uid=st.from_regex(r"1\.[1-9][0-9]{0,8}", fullmatch=True),
    state=st.sampled_from(StudyState),
    last_received_at=moments,
    state_since=moments,
    size_bytes=st.integers(0, 5 * 10**9),
    has_open_work=st.booleans(),
)
studies = st.lists(held, max_size=12, unique_by=lambda study: study.study_instance_uid)
policies = st.builds(
    RetentionPolicy,
    days=st.one_of(st.just(0.0), st.floats(0.01, 200)),
    wanted_free_bytes=st.one_of(st.just(0.0), st.floats(1, 20e9)),
    states=st.sets(st.sampled_from([StudyState.DELIVERED, StudyState.NOT_ROUTED])).map(lambda more: COMMITTED | more),
)
free = st.floats(0, 20e9)


def test_an_old_committed_study_leaves_when_room_is_wanted() -> None:
    assert leaving([OLD], POLICY, free_bytes=9e9, now=NOW) == (OLD,)
    assert leaving([OLD], POLICY, free_bytes=10e9, now=NOW) == ()


@pytest.mark.parametrize(("days", "wanted_free_bytes"), [(0.0, 10e9), (30.0, 0.0), (0.0, 0.0)])
def test_without_an_age_or_a_wanted_room_nothing_may_ever_leave(days: float, wanted_free_bytes: float) -> None:
    policy = replace(POLICY, days=days, wanted_free_bytes=wanted_free_bytes)
    assert not policy.is_on
    assert not may_leave(OLD, policy, NOW)


def test_the_age_counts_from_the_last_change() -> None:
    assert may_leave(OLD, POLICY, NOW)
    assert not may_leave(replace(OLD, state_since=NOW - 29 * DAY), POLICY, NOW)
    assert not may_leave(replace(OLD, last_received_at=NOW - 29 * DAY), POLICY, NOW)


def test_the_oldest_leaves_first_and_no_more_than_needed() -> None:
    older = replace(OLD, study_instance_uid="1.3", last_received_at=NOW - 101 * DAY)
    oldest = replace(OLD, study_instance_uid="1.1", last_received_at=NOW - 102 * DAY)
    assert leaving([OLD, oldest, older], POLICY, free_bytes=8.5e9, now=NOW) == (oldest, older)


@given(studies=studies, policy=policies, free_bytes=free)
def test_nothing_leaves_whose_results_are_not_safe(
    studies: list[HeldStudy], policy: RetentionPolicy, free_bytes: float
) -> None:
    for study in leaving(studies, policy, free_bytes=free_bytes, now=NOW):
        assert study.state in policy.states
        assert not study.has_open_work
        assert NOW - study.last_received_at > policy.days * DAY
        assert NOW - study.state_since > policy.days * DAY


@given(studies=studies, policy=policies, free_bytes=free)
def test_nothing_ever_leaves_by_age_alone(studies: list[HeldStudy], policy: RetentionPolicy, free_bytes: float) -> None:
    left = leaving(studies, policy, free_bytes=free_bytes, now=NOW)
    assert not left or (policy.days > 0 and free_bytes < policy.wanted_free_bytes)


@given(studies=studies, policy=policies, free_bytes=free)
def test_without_the_last_one_that_leaves_the_room_would_not_suffice(
    studies: list[HeldStudy], policy: RetentionPolicy, free_bytes: float
) -> None:
    left = leaving(studies, policy, free_bytes=free_bytes, now=NOW)
    if left:
        assert free_bytes + sum(study.size_bytes for study in left[:-1]) < policy.wanted_free_bytes


@given(studies=studies, policy=policies, free_bytes=free, data=st.data())
def test_who_stays_while_another_leaves_may_not_leave_or_is_no_older(
    studies: list[HeldStudy], policy: RetentionPolicy, free_bytes: float, data: st.DataObject
) -> None:
    shuffled = data.draw(st.permutations(studies))
    left = leaving(shuffled, policy, free_bytes=free_bytes, now=NOW)
    assert left == leaving(studies, policy, free_bytes=free_bytes, now=NOW)
    for study in studies:
        if left and study not in left and may_leave(study, policy, NOW):
            assert study.last_received_at >= left[-1].last_received_at
