"""The plan of a chaos run: which studies are sent when, and what goes wrong meanwhile; a pure function of the seed."""

import random
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeVar

T = TypeVar("T")


class Kind(StrEnum):
    """What is sent."""

    #: A chest CT with nodules, or without: read and reported.
    CHEST = "chest CT"
    #: The same, its last slices sent only after the report.
    LATE = "late images"
    #: The same, its last slices sent as soon as the study waits to be read or is read.
    LATE_READING = "late during reading"
    #: The same, and a small series that no route wants comes while the study is read, or after the report.
    SECOND_SERIES = "second series late"
    #: The same, sent a second time while it is worked on.
    TWICE = "sent twice"
    #: The same, some instances of it sent several times over one association.
    DUPLICATES = "duplicate instances"
    #: The same, and one instance again with other pixels under the same UID.
    CONFLICT = "conflicting instance"
    #: The same, wanted at once: Requested Procedure Priority STAT.
    STAT = "urgent chest CT"
    #: A slice is missing and never comes: its own answer, no report.
    GAP = "missing slice"
    #: No route wants it.
    MR = "brain MR"


#: Those that must come back as a report.
REPORTED = frozenset(Kind) - {Kind.GAP, Kind.MR}

#: Those of which something comes late.
LATE = frozenset({Kind.LATE, Kind.LATE_READING, Kind.SECOND_SERIES})

#: How often each kind is drawn.
_KINDS = {
    Kind.CHEST: 8,
    Kind.LATE: 3,
    Kind.LATE_READING: 3,
    Kind.SECOND_SERIES: 2,
    Kind.TWICE: 2,
    Kind.DUPLICATES: 2,
    Kind.CONFLICT: 1,
    Kind.STAT: 2,
    Kind.GAP: 1,
    Kind.MR: 1,
}


class Target(StrEnum):
    """What a fault is done to."""

    NODE = "node"
    WORKER = "worker"
    CHILD = "reading process"
    REDIS = "Redis"
    PACS = "PACS"
    DISK = "disk"
    INCOMING = "senders' connections"
    OUTGOING = "connections to the PACS"


class Act(StrEnum):
    """What is done."""

    KILL = "kill -9"
    STOP = "SIGSTOP"
    #: So full that the node refuses instances.
    LOW = "nearly full"
    #: Not a byte is left.
    FULL = "full"
    CUT = "cut"
    STALL = "stalled"
    REFUSE = "refused"


#: How often each fault is drawn, and the least and most seconds until it is mended: a killed program started again, a
#: stopped one continued, room on the disk, the wire whole. A worker, its child and Redis are the node's to start again.
_FAULTS: dict[tuple[Target, Act], tuple[int, float, float]] = {
    (Target.NODE, Act.KILL): (12, 0.2, 4.0),
    (Target.WORKER, Act.KILL): (12, 0.0, 0.0),
    (Target.CHILD, Act.KILL): (10, 0.0, 0.0),
    (Target.REDIS, Act.KILL): (8, 0.0, 0.0),
    (Target.PACS, Act.KILL): (9, 0.5, 8.0),
    (Target.NODE, Act.STOP): (7, 0.5, 8.0),
    (Target.WORKER, Act.STOP): (7, 0.5, 12.0),
    (Target.CHILD, Act.STOP): (6, 0.5, 15.0),
    (Target.REDIS, Act.STOP): (6, 0.5, 15.0),
    (Target.PACS, Act.STOP): (5, 0.5, 15.0),
    (Target.DISK, Act.LOW): (4, 1.0, 6.0),
    (Target.DISK, Act.FULL): (4, 0.5, 4.0),
    (Target.INCOMING, Act.CUT): (8, 0.0, 0.0),
    (Target.INCOMING, Act.STALL): (4, 0.5, 10.0),
    (Target.INCOMING, Act.REFUSE): (3, 0.5, 4.0),
    (Target.OUTGOING, Act.CUT): (6, 0.0, 0.0),
    (Target.OUTGOING, Act.STALL): (4, 0.5, 15.0),
    (Target.OUTGOING, Act.REFUSE): (3, 0.5, 8.0),
}

#: A study's connections carry some 200 KB in and 30 KB out; a cut comes within them.
_CUT_BYTES = {Target.INCOMING: 150_000, Target.OUTGOING: 25_000}


@dataclass(frozen=True, kw_only=True)
class PlannedStudy:
    """One study on its way to the node."""

    number: int
    kind: Kind
    #: Which of the drawn series it is a copy of.
    template: int
    #: Seconds after the run's start.
    at: float
    #: All its UIDs follow from this.
    uid_seed: str
    #: For what else is left to chance: the order of instances, which are sent twice, how long a sender waits.
    seed: int

    @property
    def late_while_read(self) -> bool:
        """Whether what comes late comes as soon as the study waits to be read, and not only after its report."""
        return self.kind is Kind.LATE_READING or (self.kind is Kind.SECOND_SERIES and self.seed % 2 == 1)


@dataclass(frozen=True, kw_only=True)
class PlannedFault:
    """One thing that goes wrong."""

    number: int
    target: Target
    act: Act
    #: Seconds after the run's start.
    at: float
    #: Until it is mended.
    seconds: float
    #: Bytes that may still pass before a cut.
    after_bytes: int


@dataclass(frozen=True, kw_only=True)
class Plan:
    """All of a run."""

    seed: int
    studies: tuple[PlannedStudy, ...]
    faults: tuple[PlannedFault, ...]
    #: How long studies come in.
    seconds: float


def plan_run(seed: int, *, studies: int, faults: int, seconds_per_study: float, templates: int) -> Plan:
    """The plan of this seed: the same arguments always give the same plan.

    Each kind of study and each kind of fault comes at least once, as far as the numbers allow.
    """
    seconds = studies * seconds_per_study
    return Plan(
        seed=seed,
        studies=_studies(random.Random(f"studies {seed}"), seed, studies, seconds, templates),
        faults=_faults(random.Random(f"faults {seed}"), faults, seconds),
        seconds=seconds,
    )


def _studies(rng: random.Random, seed: int, count: int, seconds: float, templates: int) -> tuple[PlannedStudy, ...]:
    kinds = _drawn(rng, list(_KINDS), list(_KINDS.values()), count)
    return tuple(
        PlannedStudy(
            number=number,
            kind=kind,
            template=rng.randrange(templates),
            at=round(at, 2),
            uid_seed=str(uuid.UUID(int=rng.getrandbits(128))),
            seed=rng.getrandbits(32),
        )
        for number, (kind, at) in enumerate(zip(kinds, _times(rng, count, seconds), strict=True), start=1)
    )


def _faults(rng: random.Random, count: int, seconds: float) -> tuple[PlannedFault, ...]:
    chosen = _drawn(rng, list(_FAULTS), [weight for weight, _, _ in _FAULTS.values()], count)
    planned = []
    for number, ((target, act), at) in enumerate(zip(chosen, _times(rng, count, seconds), strict=True), start=1):
        _, least, most = _FAULTS[target, act]
        planned.append(
            PlannedFault(
                number=number,
                target=target,
                act=act,
                at=round(at, 2),
                seconds=round(rng.uniform(least, most), 2),
                after_bytes=rng.randint(1, _CUT_BYTES.get(target, 1)),
            )
        )
    return tuple(planned)


def _drawn(rng: random.Random, things: Sequence[T], weights: Sequence[int], count: int) -> list[T]:
    """So many things by their weights, each at least once where there is room, in random order."""
    once = rng.sample(things, min(count, len(things)))
    drawn = once + rng.choices(things, weights, k=count - len(once))
    rng.shuffle(drawn)
    return drawn


def _times(rng: random.Random, count: int, seconds: float) -> list[float]:
    """Moments at random, one in each of as many equal parts of the time."""
    return [(part + rng.random()) * seconds / max(count, 1) for part in range(count)]
