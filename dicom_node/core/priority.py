"""Requested Procedure Priority (0040,1003), its order, and the queue that each term waits in."""

from enum import StrEnum


class Priority(StrEnum):
    """The defined terms of PS3.3 Section C.4.11, most urgent first."""

    STAT = "STAT"
    HIGH = "HIGH"
    ROUTINE = "ROUTINE"
    MEDIUM = "MEDIUM"
    LOW = "LOW"


#: Queue names from the first to be served to the last.
QUEUES = ("stat", "urgent", "routine")

_QUEUE_OF = {
    Priority.STAT: "stat",
    Priority.HIGH: "urgent",
    Priority.ROUTINE: "routine",
    Priority.MEDIUM: "routine",
    Priority.LOW: "routine",
}


def queue_of(priority: Priority) -> str:
    """The queue in which a job of this priority waits."""
    return _QUEUE_OF[priority]


def more_urgent(first: Priority, second: Priority) -> Priority:
    """The more urgent of two priorities."""
    order = list(Priority)
    return min(first, second, key=order.index)
