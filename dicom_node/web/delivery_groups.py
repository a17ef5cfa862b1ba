"""Delivery groups: what became of many objects on their way to a peer, said once where it is the same of all."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from dicom_node.archive.lines import DeliveryLine


@dataclass(frozen=True, kw_only=True)
class DeliveryGroup:
    """Deliveries to one peer that are in the same state for the same reason."""

    #: The one that is due first, or was accepted or committed last: it speaks for the others.
    latest: DeliveryLine
    lines: Sequence[DeliveryLine]

    @property
    def classes(self) -> Mapping[str, int]:
        """How many objects of each SOP class, the most first."""
        return dict(Counter(line.sop_class_uid for line in self.lines).most_common())

    @property
    def attempts(self) -> int:
        """Of the one that was tried most often."""
        return max(line.attempts for line in self.lines)

    @property
    def key(self) -> str:
        """A name for it that stays when the page is renewed."""
        return f"{self.latest.peer}-{self.latest.state}-{min(line.sop_instance_uid for line in self.lines)}"


def grouped(deliveries: Iterable[DeliveryLine]) -> list[DeliveryGroup]:
    """The groups, each where its first delivery stood."""
    found: dict[tuple[object, ...], list[DeliveryLine]] = {}
    for line in deliveries:
        stage = (line.accepted_at is None, line.committed_at is None, line.next_try_at is None)
        found.setdefault((line.peer, line.state, line.reason, *stage), []).append(line)
    return [DeliveryGroup(latest=_latest(lines), lines=lines) for lines in found.values()]


def _latest(lines: Sequence[DeliveryLine]) -> DeliveryLine:
    due = [line for line in lines if line.next_try_at is not None]
    if due:
        return min(due, key=lambda line: line.next_try_at or 0.0)
    return max(lines, key=lambda line: line.committed_at or line.accepted_at or 0.0)
