"""The order of the worklist: a flag moves its study up, and nothing moves any study below its normal place."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from dicom_node.core.priority import Priority
from dicom_node.core.reading_order import Candidate, Urgency, place, urgency_of

NOW = 1_000_000.0
LONGEST = 14_400.0
CRITICAL, ACTIONABLE = "ACR Category 1 Actionable Finding", "ACR Category 3 Actionable Finding"

candidates = st.lists(
    st.builds(
        Candidate,
        study_instance_uid=st.integers(1, 10**6).map(lambda number: f"1.2.{number}"),
        priority=st.sampled_from(Priority),
        last_received_at=st.floats(NOW - 40_000, NOW),
        flags=st.lists(st.sampled_from([CRITICAL, "ACR Category 2 Actionable Finding", ACTIONABLE, "?"])).map(tuple),
    ),
    max_size=30,
    unique_by=lambda one: one.study_instance_uid,
)


def ordered(studies: list[Candidate]) -> list[str]:
    return [one.study_instance_uid for one in sorted(studies, key=lambda one: place(one, NOW, LONGEST))]


@given(candidates)
def test_among_those_without_a_flag_the_order_is_the_one_without_any_algorithm(studies: list[Candidate]) -> None:
    unflagged = {one.study_instance_uid for one in studies if not one.flags}
    normal = ordered([replace(one, flags=()) for one in studies])
    assert [uid for uid in ordered(studies) if uid in unflagged] == [uid for uid in normal if uid in unflagged]


@given(candidates)
def test_whatever_the_flags_say_no_study_has_a_lower_place_than_its_own_without_them(studies: list[Candidate]) -> None:
    for one in studies:
        assert place(one, NOW, LONGEST) <= place(replace(one, flags=()), NOW, LONGEST)
        among_others = [replace(other, flags=()) for other in studies if other is not one]
        before = ordered([*among_others, replace(one, flags=())]).index(one.study_instance_uid)
        assert ordered([*among_others, one]).index(one.study_instance_uid) <= before


@given(candidates)
def test_a_study_is_passed_only_by_flagged_ones(studies: list[Candidate]) -> None:
    """Every study that stands before an unflagged one, and would not without flags, has a flag itself."""
    normal, now = ordered([replace(one, flags=()) for one in studies]), ordered(studies)
    for one in studies:
        if one.flags:
            continue
        uid = one.study_instance_uid
        passed_by = set(now[: now.index(uid)]) - set(normal[: normal.index(uid)])
        assert all(other.flags for other in studies if other.study_instance_uid in passed_by)


@given(candidates)
def test_who_waits_too_long_goes_before_every_routine_study_and_every_later_actionable_one(
    studies: list[Candidate],
) -> None:
    order = ordered(studies)
    for one in studies:
        if NOW - one.last_received_at < LONGEST:
            continue
        behind = [
            other for other in studies if order.index(other.study_instance_uid) < order.index(one.study_instance_uid)
        ]
        for other in behind:
            assert urgency_of(other, NOW, LONGEST) is not Urgency.ROUTINE
            assert urgency_of(other, NOW, LONGEST) is Urgency.CRITICAL or other.last_received_at <= one.last_received_at


def test_the_groups_follow_from_what_was_asked_and_found() -> None:
    def group(priority: Priority, *flags: str, waits: float = 0) -> Urgency:
        one = Candidate(study_instance_uid="1", priority=priority, last_received_at=NOW - waits, flags=flags)
        return urgency_of(one, NOW, LONGEST)

    assert group(Priority.STAT) is Urgency.CRITICAL
    assert group(Priority.HIGH) is Urgency.ACTIONABLE
    assert group(Priority.ROUTINE) is Urgency.ROUTINE
    assert group(Priority.LOW, CRITICAL) is Urgency.CRITICAL
    assert group(Priority.LOW, ACTIONABLE) is Urgency.ACTIONABLE
    assert group(Priority.LOW, "No finding") is Urgency.ROUTINE
    assert group(Priority.LOW, waits=LONGEST) is Urgency.ACTIONABLE
