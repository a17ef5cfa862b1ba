from enum import StrEnum
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicom_node.core.errors import IllegalTransition
from dicom_node.core.lifecycle import (
    DELIVERY_TRANSITIONS,
    JOB_TRANSITIONS,
    STUDY_TRANSITIONS,
    DeliveryState,
    JobState,
    StudyState,
    check_transition,
    study_state_after_jobs,
)

TABLES: list[dict[StrEnum, frozenset[StrEnum]]] = [STUDY_TRANSITIONS, JOB_TRANSITIONS, DELIVERY_TRANSITIONS]  # type: ignore[list-item]  # one table a state machine, treated alike here

#: A study's way without any mishap.
HAPPY_WAY = ["RECEIVING", "COMPLETE", "QUEUED", "READING", "REPORTED", "DELIVERED", "COMMITTED"]


@pytest.mark.parametrize("table", TABLES)
def test_every_pair_of_states_is_allowed_or_refused_as_the_table_says(
    table: dict[StrEnum, frozenset[StrEnum]],
) -> None:
    for before in table:
        for after in table:
            if after in table[before]:
                check_transition(table, before, after)
            else:
                with pytest.raises(IllegalTransition, match=f"{after} cannot follow {before}; only .+ can"):
                    check_transition(table, before, after)


@pytest.mark.parametrize(
    ("table", "states"),
    [(STUDY_TRANSITIONS, StudyState), (JOB_TRANSITIONS, JobState), (DELIVERY_TRANSITIONS, DeliveryState)],
)
def test_no_state_is_forgotten_and_none_is_a_dead_end(
    table: dict[StrEnum, frozenset[StrEnum]], states: type[StrEnum]
) -> None:
    assert set(table) == set(states)
    assert all(table[state] for state in states)


def test_a_study_goes_its_whole_way_and_a_late_instance_opens_it_again_anywhere_behind_complete() -> None:
    way = list(map(StudyState, HAPPY_WAY))
    for before, after in pairwise(way):
        check_transition(STUDY_TRANSITIONS, before, after)
    for state in set(StudyState) - {StudyState.RECEIVING}:
        check_transition(STUDY_TRANSITIONS, state, StudyState.RECEIVING)


def test_anything_may_fail_and_no_study_skips_a_step() -> None:
    for state in set(StudyState) - {StudyState.FAILED}:
        check_transition(STUDY_TRANSITIONS, state, StudyState.FAILED)
    for before, after in (
        ("RECEIVING", "QUEUED"),
        ("QUEUED", "REPORTED"),
        ("READING", "DELIVERED"),
        ("FAILED", "QUEUED"),
    ):
        with pytest.raises(IllegalTransition):
            check_transition(STUDY_TRANSITIONS, StudyState(before), StudyState(after))


@given(st.lists(st.sampled_from(JobState), max_size=6))
def test_a_study_moves_on_only_when_no_current_job_waits_or_reads(jobs: list[JobState]) -> None:
    current = [job for job in jobs if job is not JobState.SUPERSEDED]
    after = study_state_after_jobs(jobs)
    if not current or JobState.QUEUED in current or JobState.READING in current:
        assert after is None
    elif JobState.REPORTED in current:
        assert after is StudyState.REPORTED
    elif JobState.FAILED in current:
        assert after is StudyState.FAILED
    else:
        assert after is StudyState.NOT_ROUTED
    assert study_state_after_jobs(jobs[::-1]) is after
