"""What next for the deliveries of a report: decisions over rows and a clock reading alone.

What refers to other objects goes to a peer after them or not at all: a Structured Report refers to the segmentation
that the peer gets, and a reader who is shown the one without the other is misled. So the segmentation goes first; the
Structured Report waits until the peer has accepted it; and where it was refused for good, the Structured Report is not
sent and fails with it. All else of a report comes after its Structured Report, and waits for nothing.
"""

import hashlib
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from dicom_node.core.form import TRAITS, Form
from dicom_node.core.lifecycle import DeliveryState, StudyState

_HELD = (DeliveryState.ACCEPTED, DeliveryState.COMMITTED)


class Standing(Protocol):
    """One object's way to one peer, as far as decisions need to know it."""

    @property
    def sop_instance_uid(self) -> str: ...
    @property
    def sop_class_uid(self) -> str: ...
    @property
    def job_uid(self) -> str: ...
    @property
    def peer(self) -> str: ...
    @property
    def state(self) -> DeliveryState: ...
    @property
    def next_try_at(self) -> float: ...
    @property
    def reason(self) -> str: ...
    @property
    def commitment(self) -> bool: ...
    @property
    def instead(self) -> str: ...
    @property
    def alternative(self) -> bool: ...
    @property
    def form(self) -> Form: ...


StandingT = TypeVar("StandingT", bound=Standing)


@dataclass(frozen=True, kw_only=True)
class Held(Generic[StandingT]):
    """A document that is not sent now, and why; `until` is None where it never will be."""

    row: StandingT
    reason: str
    until: float | None


@dataclass(frozen=True, kw_only=True)
class Plan(Generic[StandingT]):
    """What to do now with one study's deliveries to one peer."""

    #: In the order of their sending; a document only if the peer has then accepted what it refers to.
    send: tuple[StandingT, ...]
    held: tuple[Held[StandingT], ...]


def is_document(row: Standing) -> bool:
    """Whether the object refers to others of its report."""
    return TRAITS[row.form].refers_to is not None


def is_referred_to(part: Standing, by: Standing) -> bool:
    """Whether one object of a report must be there before another one."""
    return part.job_uid == by.job_uid and part.form is TRAITS[by.form].refers_to


def plan_sending(rows: Collection[StandingT], now: float) -> Plan[StandingT]:
    """What of one study goes to one peer now, and which documents wait for what they refer to."""
    held = [decision for row in rows if (decision := _decide(row, rows, now)) is not None]
    kept_back = {decision.row.sop_instance_uid for decision in held}
    due = [row for row in rows if _waits(row) and row.next_try_at <= now and row.sop_instance_uid not in kept_back]
    due.sort(key=lambda row: (TRAITS[row.form].rank, row.sop_class_uid, row.sop_instance_uid))
    return Plan(send=tuple(due), held=tuple(held))


def _decide(row: StandingT, rows: Collection[StandingT], now: float) -> Held[StandingT] | None:
    if not _waits(row) or not is_document(row):
        return None
    parts = [part for part in rows if is_referred_to(part, row)]
    for part in parts:
        if part.state is DeliveryState.FAILED:
            reason = f"not sent without object {part.sop_instance_uid} of its report, which failed: {part.reason}"
            return Held(row=row, reason=reason, until=None)
    later = max((part.next_try_at for part in parts if _waits(part) and part.next_try_at > now), default=None)
    if later is None:
        return None
    return Held(row=row, reason="held until the peer has accepted what it refers to", until=later)


def _waits(row: Standing) -> bool:
    return row.state is DeliveryState.WAITING


def study_state_after_deliveries(rows: Sequence[Standing]) -> tuple[StudyState, str]:
    """Where a study stands whose reports' deliveries these are, and why; REPORTED while something is still open.

    Required is every delivery that was not planned as another's alternative. A peer that named an alternative in its
    place has the object as soon as either has it. COMMITTED is claimed only where every peer that is asked for storage
    commitment gave it for every object, and at least one did.
    """
    required = [row for row in rows if not row.alternative]
    if not required:
        return StudyState.REPORTED, "nothing was sent yet"
    found = {(row.sop_instance_uid, row.peer): row for row in rows}
    ways = [(row, _way(row, found)) for row in required]
    for row, way in ways:
        if row.state is DeliveryState.FAILED and not any(step.state in _HELD for step in way):
            return StudyState.FAILED, f"delivery to {row.peer} failed: {row.reason}"
    if not all(any(step.state in _HELD for step in way) for _, way in ways):
        return StudyState.REPORTED, "a peer has not accepted everything yet"
    if all(map(_kept, (way for _, way in ways))) and any(row.state is DeliveryState.COMMITTED for row in rows):
        peers = sorted({row.peer for row in rows if row.state is DeliveryState.COMMITTED})
        return StudyState.COMMITTED, f"storage commitment by {', '.join(peers)} for every object"
    return StudyState.DELIVERED, _accepted(required, [way for _, way in ways])


def _way(row: Standing, found: dict[tuple[str, str], Standing]) -> list[Standing]:
    """A delivery and its alternatives, the first first; settings that were changed may lead in a circle."""
    way: list[Standing] = []
    step: Standing | None = row
    while step is not None and step not in way:
        way.append(step)
        step = found.get((row.sop_instance_uid, step.instead)) if step.instead else None
    return way


def _kept(way: Sequence[Standing]) -> bool:
    """Whether the peer keeps the object as far as it is asked; an alternative counts only by its commitment."""
    first = way[0]
    accepted = first.state is DeliveryState.ACCEPTED and not first.commitment
    return accepted or any(step.state is DeliveryState.COMMITTED for step in way)


def _accepted(required: Sequence[Standing], ways: Iterable[Sequence[Standing]]) -> str:
    said = f"{len({row.sop_instance_uid for row in required})} object(s) accepted by every peer"
    others = {
        f"{next(step.peer for step in way if step.state in _HELD)} in place of {way[0].peer}"
        for way in ways
        if way[0].state not in _HELD
    }
    return "; ".join([said, *sorted(others)])


#: Waits of different texts differ by this share of them, either way.
_SPREAD = 0.2


def still_waits(until: float, now: float, longest: float) -> bool:
    """Whether a wait goes on that is to end at a time; one of more than the longest began before a clock was set back.

    All in seconds.
    """
    return now < until <= now + longest_wait(longest)


def longest_wait(longest: float) -> float:
    """Seconds that `growing_wait` comes to at most."""
    return longest * (1.0 + _SPREAD)


def growing_wait(attempts: int, *, first: float, longest: float, spread_by: str) -> float:
    """Seconds before the next attempt: doubling up to the longest, spread by a fifth either way.

    What waits for the same text waits alike; different texts do not all come at the same moment.
    """
    wait = min(first * 2.0 ** min(attempts, 30), longest)
    share = int.from_bytes(hashlib.sha256(f"{spread_by} {attempts}".encode()).digest()[:8]) / 2**64
    return wait * (1.0 - _SPREAD + 2.0 * _SPREAD * share)
