from dataclasses import dataclass

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from dicom_node.core.priority import QUEUES, Priority
from dicom_node.core.queue_order import place, priorities_of, rank

MAXIMUM = 1800.0
PRIORITIES = st.sampled_from(Priority)
SECONDS = st.floats(0, 1e6)


@pytest.mark.parametrize(
    ("priority", "waited", "expected"),
    [
        (Priority.STAT, 0, 0),
        (Priority.HIGH, 0, 1),
        (Priority.ROUTINE, 0, 2),
        (Priority.ROUTINE, 599, 2),
        (Priority.ROUTINE, 601, 1),
        (Priority.MEDIUM, 0, 3),
        (Priority.LOW, 0, 4),
        (Priority.LOW, 601, 3),
        (Priority.LOW, 1799, 2),
        (Priority.LOW, 1800, 1),
        (Priority.LOW, 1e9, 1),
    ],
)
def test_who_waits_rises_a_rank_each_third_of_the_maximum(priority: Priority, waited: float, expected: int) -> None:
    assert rank(priority, waited, MAXIMUM) == expected


def test_what_just_came_goes_before_less_urgent_work_that_has_hardly_waited() -> None:
    now = 1.8e9
    assert place(Priority.HIGH, now, now, MAXIMUM) < place(Priority.ROUTINE, now - 60, now, MAXIMUM)
    assert place(Priority.HIGH, now, now, MAXIMUM) > place(Priority.ROUTINE, now - 601, now, MAXIMUM)


def test_a_clock_that_was_set_back_makes_nobody_less_urgent() -> None:
    assert [rank(priority, -3600, MAXIMUM) for priority in Priority] == [0, 1, 2, 3, 4]


@given(PRIORITIES, SECONDS, SECONDS, st.floats(1, 604800))
def test_no_job_falls_back_by_waiting(priority: Priority, waited: float, more: float, maximum: float) -> None:
    assert rank(priority, waited + more, maximum) <= rank(priority, waited, maximum)


@given(PRIORITIES, PRIORITIES, SECONDS, st.floats(1, 604800))
def test_of_two_that_waited_alike_the_more_urgent_never_comes_later(
    first: Priority, second: Priority, waited: float, maximum: float
) -> None:
    ranks = [rank(priority, waited, maximum) for priority in sorted((first, second), key=list(Priority).index)]
    assert ranks == sorted(ranks)


@given(PRIORITIES, SECONDS, st.floats(1, 604800))
def test_stat_goes_first_and_nothing_else_ever_becomes_stat(priority: Priority, waited: float, maximum: float) -> None:
    assert (rank(priority, waited, maximum) == 0) == (priority is Priority.STAT)


@given(PRIORITIES, st.floats(0, 1e6), PRIORITIES, st.floats(0, 1e6), st.floats(1, 604800), SECONDS)
def test_who_has_waited_the_maximum_goes_before_whatever_came_later_but_stat(
    first: Priority, first_at: float, second: Priority, later: float, maximum: float, longer: float
) -> None:
    now = first_at + maximum + longer
    second_at = first_at + later
    assume(second is not Priority.STAT and second_at > first_at)
    assume(now - first_at >= maximum)  # else the sum was rounded down
    assert place(first, first_at, now, maximum) < place(second, second_at, now, maximum)


@dataclass(frozen=True)
class Waiting:
    priority: Priority
    queued_at: float


@given(st.lists(st.tuples(PRIORITIES, st.integers(0, 40)), min_size=1, max_size=40), st.integers(1, 3))
def test_while_stat_ends_no_job_waits_longer_than_the_maximum_and_those_before_it(
    arrivals: list[tuple[Priority, int]], every: int
) -> None:
    """One worker takes a job each second; a HIGH job comes in each second as long as the others wait, or STAT none."""
    maximum = 20.0
    waiting = [Waiting(priority, float(at)) for priority, at in arrivals]
    bound = maximum + len(waiting) + 41
    ended: dict[int, float] = {}
    now = 41.0
    others = list(enumerate(waiting))
    flood: list[Waiting] = []
    while others:
        if int(now) % every == 0:
            flood.append(Waiting(Priority.HIGH, now))
        candidates = [(place(job.priority, job.queued_at, now, maximum), number) for number, job in others]
        best = min(candidates)
        if flood and place(Priority.HIGH, flood[0].queued_at, now, maximum) < best[0]:
            flood.pop(0)
        else:
            ended[best[1]] = now
            others = [(number, job) for number, job in others if number != best[1]]
        now += 1
        assert now < 41 + 3 * bound, "somebody waits for ever"
    for number, job in enumerate(waiting):
        assert ended[number] - job.queued_at <= bound + len(waiting)


def test_queues_hold_the_priorities_that_wait_in_them() -> None:
    assert priorities_of(QUEUES) == tuple(Priority)
    assert priorities_of(["routine"]) == (Priority.ROUTINE, Priority.MEDIUM, Priority.LOW)
    assert priorities_of(["urgent", "stat"]) == (Priority.STAT, Priority.HIGH)
    assert priorities_of([]) == ()
    with pytest.raises(ValueError, match="no such queue: gpu; queues are stat, urgent, routine"):
        priorities_of(["stat", "gpu"])
