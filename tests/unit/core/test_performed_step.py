"""Performed procedure steps: which changes they take, and what all steps of a study say together."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicom_node.core.errors import NotificationRefused
from dicom_node.core.performed_step import PerformedStep, StepChange, StepState, changed, counts_of, is_mpps

STUDY = "1.2"
FINAL = (StepState.COMPLETED, StepState.DISCONTINUED)

series = st.dictionaries(st.sampled_from(["1.1", "1.2", "1.3"]), st.integers(0, 9), max_size=3)
changes = st.builds(
    StepChange, state=st.none() | st.sampled_from(StepState), series=st.none() | series, reason=st.none() | st.just("x")
)
steps = st.builds(
    PerformedStep,
    sop_instance_uid=st.just("1"),
    state=st.sampled_from(StepState),
    study_instance_uids=st.sampled_from([(STUDY,), (STUDY, "1.9")]),
    series=series,
)


def step(**values: object) -> PerformedStep:
    fields: dict[str, object] = {"sop_instance_uid": "1", "study_instance_uids": (STUDY,)}
    return PerformedStep(**{**fields, **values})  # type: ignore[arg-type]  # a test's own keywords


@given(st.lists(changes, max_size=6))
def test_after_its_final_state_a_step_takes_no_change_whatever_came_before(these: list[StepChange]) -> None:
    now = step()
    for change in these:
        after = attempt(now, change)
        if isinstance(after, NotificationRefused):
            assert (after.status, after.error_id) in ((0x0110, 0xA710), (0x0121, None))
            assert now.is_final is (after.status == 0x0110)
        else:
            assert not now.is_final
            assert after.state is (change.state or now.state)
            assert after.series == (now.series if change.series is None else change.series)
            now = after


def attempt(now: PerformedStep, change: StepChange) -> PerformedStep | NotificationRefused:
    try:
        return changed(now, change)
    except NotificationRefused as refused:
        return refused


@pytest.mark.parametrize("state", FINAL)
def test_a_completed_step_has_a_series_and_a_discontinued_one_may_have_none(state: StepState) -> None:
    if state is StepState.COMPLETED:
        with pytest.raises(NotificationRefused, match="empty in a completed step"):
            changed(step(), StepChange(state=state))
    else:
        assert changed(step(), StepChange(state=state)).is_final


@given(st.lists(steps, max_size=5), st.randoms(use_true_random=False))
def test_the_counts_are_the_same_in_any_order_and_sums_over_the_ended_steps(
    these: list[PerformedStep], random: object
) -> None:
    told = counts_of(these)
    shuffled = list(these)
    random.shuffle(shuffled)  # type: ignore[attr-defined]  # Hypothesis' own Random
    assert counts_of(shuffled) == told
    if told is None:
        return
    ended = [one for one in these if one.is_final and one.study_instance_uids == (STUDY,)]
    for uid in {uid for uid in told.counts if uid}:
        assert told.counts[uid] == sum(one.series.get(uid, 0) for one in ended) > 0
    if "" in told.counts:
        assert told.final
        assert told.counts[""] == sum(sum(one.series.values()) for one in these)
        assert ended == these
    assert is_mpps(told.source)
    assert ("discontinued" in told.source) == any(one.state is StepState.DISCONTINUED for one in these)


def test_a_step_in_progress_leaves_the_whole_uncounted() -> None:
    done = step(state=StepState.COMPLETED, series={"1.1": 4})
    told = counts_of([done, step()])
    assert told is not None
    assert (told.counts, told.final) == ({"1.1": 4}, False)
    whole = counts_of([done, step(state=StepState.COMPLETED, series={"1.1": 1, "1.2": 2})])
    assert whole is not None
    assert (whole.counts, whole.final, whole.source) == ({"1.1": 5, "1.2": 2, "": 7}, True, "MPPS")


def test_a_series_without_references_is_counted_neither_itself_nor_as_a_whole() -> None:
    done = step(state=StepState.COMPLETED, series={"1.1": 4, "1.2": 0})
    told = counts_of([done])
    assert told is not None
    assert told.counts == {"1.1": 4}
    assert counts_of([replace(done, series={"1.1": 0})]) is None


def test_a_discontinued_step_counts_and_is_named() -> None:
    these = [
        step(state=StepState.COMPLETED, series={"1.1": 4}),
        step(state=StepState.DISCONTINUED, series={"1.2": 3}),
    ]
    told = counts_of(these)
    assert told is not None
    assert (told.counts[""], told.source) == (7, "MPPS (1 of 2 steps discontinued)")
