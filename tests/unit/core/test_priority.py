from hypothesis import given
from hypothesis import strategies as st

from dicom_node.core.priority import QUEUES, Priority, more_urgent, queue_of

PRIORITIES = st.sampled_from(Priority)


@given(PRIORITIES, PRIORITIES, PRIORITIES)
def test_the_more_urgent_of_some_is_one_of_them_whatever_their_order(a: Priority, b: Priority, c: Priority) -> None:
    assert more_urgent(a, b) is more_urgent(b, a)
    assert more_urgent(a, b) in (a, b)
    assert more_urgent(a, a) is a
    assert more_urgent(more_urgent(a, b), c) is more_urgent(a, more_urgent(b, c))


@given(PRIORITIES, PRIORITIES)
def test_the_more_urgent_never_waits_in_a_later_queue(first: Priority, second: Priority) -> None:
    places = [QUEUES.index(queue_of(priority)) for priority in (more_urgent(first, second), first, second)]
    assert places[0] == min(places)


def test_stat_goes_before_all_and_has_a_queue_of_its_own() -> None:
    assert all(more_urgent(Priority.STAT, other) is Priority.STAT for other in Priority)
    assert [priority for priority in Priority if queue_of(priority) == QUEUES[0]] == [Priority.STAT]
    assert {queue_of(priority) for priority in Priority} == set(QUEUES)
