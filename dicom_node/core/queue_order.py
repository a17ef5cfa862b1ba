"""The order of the queue: STAT first, then by priority, where a job that waits grows more urgent.

The rules are a table and a division: LOW, the least urgent term, has risen to the rank of HIGH when it has waited the
maximum, and every other term before that. Among jobs of one rank the longest waiting goes first.
"""

from collections.abc import Iterable

from dicom_node.core.priority import QUEUES, Priority, queue_of

_RANK = {priority: number for number, priority in enumerate(Priority)}

#: Nothing but STAT itself ever goes before what stands here.
_HIGHEST_BY_WAITING = _RANK[Priority.HIGH]

#: Ranks that the least urgent job rises within the maximum.
_STEPS = max(_RANK.values()) - _HIGHEST_BY_WAITING


def rank(priority: Priority, waited_seconds: float, maximum_waiting_seconds: float) -> int:
    """0 for STAT; for others from 1 (HIGH, and whatever has waited long enough) to 4, the lower the sooner.

    Whoever has waited `maximum_waiting_seconds` has rank 1 whatever its priority, and goes before all later ones.
    """
    own = _RANK[priority]
    if own <= _HIGHEST_BY_WAITING:
        return own
    if waited_seconds >= maximum_waiting_seconds:
        return _HIGHEST_BY_WAITING
    risen = int(max(0.0, waited_seconds) / maximum_waiting_seconds * _STEPS)
    return max(_HIGHEST_BY_WAITING, own - risen)


def place(priority: Priority, queued_at: float, now: float, maximum_waiting_seconds: float) -> tuple[int, float]:
    """What jobs are sorted by: the rank, then the time of queueing."""
    return rank(priority, now - queued_at, maximum_waiting_seconds), queued_at


def priorities_of(queues: Iterable[str]) -> tuple[Priority, ...]:
    """The priorities whose jobs wait in these queues, the most urgent first."""
    served = frozenset(queues)
    unknown = served - frozenset(QUEUES)
    if unknown:
        raise ValueError(f"no such queue: {', '.join(sorted(unknown))}; queues are {', '.join(QUEUES)}")
    return tuple(priority for priority in Priority if queue_of(priority) in served)
