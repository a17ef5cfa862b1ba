"""The result of a chaos run, and everything because of which it is not good."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from deploy.chaos_faults import DoneFault, UnaskedEnd
from deploy.chaos_plan import Act, Target
from deploy.chaos_verdict import Outcome
from dicom_node.archive.studies import HistoryRow
from dicom_node.core.lifecycle import JobState

#: So many of the planned faults must hit: some come when there is nothing left to be done to.
LEAST_SHARE_HIT = 20 / 21
#: A program that had met a full disk may end of it a little later.
_AFTER_FULL_DISK_SECONDS = 5.0
#: The faults that can end an attempt to read; clocks of the harness and of the node are read at different moments.
_ENDS_ATTEMPTS = frozenset({Target.NODE, Target.WORKER, Target.CHILD, Target.DISK})
_CLOCK_SECONDS = 1.0


@dataclass(frozen=True, kw_only=True)
class Result:
    """All that a run found."""

    outcomes: tuple[Outcome, ...]
    #: How many studies the plan has.
    planned: int
    faults: tuple[DoneFault, ...]
    least_hits: int
    unasked_ends: tuple[UnaskedEnd, ...]
    #: Processes of a node that outlived it: one that was killed, or the last one, which ended in order.
    left_over: tuple[str, ...]
    #: Studies of which every attempt met a fault and that were therefore asked for again, as a person would.
    asked_again: tuple[str, ...]
    pacs: str
    committing: bool
    #: Whether the disk was a small one that could be filled to the last byte.
    real_disk: bool
    #: The whole run, and how long it took until everything was final after the last fault was mended.
    seconds: float
    healing_seconds: float

    @property
    def hits(self) -> int:
        """How many faults have hit."""
        return sum(done.hit for done in self.faults)

    @property
    def unjudged(self) -> tuple[int, ...]:
        """Numbers of planned studies that have no outcome."""
        return tuple(sorted(set(range(1, self.planned + 1)) - {outcome.number for outcome in self.outcomes}))


def harmed(outcome: Outcome) -> bool:
    """Whether the study was lost, reported twice, is stuck or changed untold."""
    return bool(outcome.lost or outcome.twice or outcome.stuck or outcome.untold)


def shortcomings(result: Result) -> list[str]:
    """Everything because of which the run is not good, in words; empty: it is good."""
    found = [f"LEFT OVER from a node: {process}" for process in result.left_over]
    if result.unjudged:
        found.append(f"studies {list(result.unjudged)} of the plan were never sent, and cannot be judged")
    if len(result.outcomes) != result.planned - len(result.unjudged):
        found.append(f"{len(result.outcomes)} studies were judged, and {result.planned} are in the plan")
    if result.hits < result.least_hits:
        found.append(f"{result.hits} of {len(result.faults)} faults hit; at least {result.least_hits} have to")
    found += [f"{end.program} ended at {end.at:.1f} s though nobody had asked it to" for end in inexcusable(result)]
    bad = sum(harmed(outcome) for outcome in result.outcomes)
    return [*found, f"{bad} studies came to harm"] if bad else found


def inexcusable(result: Result) -> list[UnaskedEnd]:
    """Unasked ends that no full disk accounts for."""
    full = [
        (done.hit_at, done.ended + _AFTER_FULL_DISK_SECONDS)
        for done in result.faults
        if done.hit_at is not None and done.fault.act is Act.FULL
    ]
    return [end for end in result.unasked_ends if not any(began <= end.at <= ended for began, ended in full)]


def least_hits(faults: int) -> int:
    """How many of so many planned faults must hit."""
    return math.floor(faults * LEAST_SHARE_HIT + 1e-9)


def failed_by_faults_alone(history: Sequence[HistoryRow], faults: Iterable[DoneFault], *, run_began_at: float) -> bool:
    """Whether a fault hit during each attempt that a dead letter had; False also where it had none.

    `run_began_at` is in seconds since 1970.
    """
    hits = [
        (run_began_at + done.hit_at, run_began_at + done.ended)
        for done in faults
        if done.hit_at is not None and done.fault.target in _ENDS_ATTEMPTS
    ]
    attempts = _attempts(history)
    return bool(attempts) and all(
        any(began - _CLOCK_SECONDS <= until and at <= ended + _CLOCK_SECONDS for at, until in hits)
        for began, ended in attempts
    )


def _attempts(history: Sequence[HistoryRow]) -> list[tuple[float, float]]:
    """When each attempt of the jobs that are dead letters began and ended, since they were last queued anew."""
    running: dict[str, float] = {}
    spent: dict[str, list[tuple[float, float]]] = {}
    dead = set[str]()
    for line in history:
        before, after, job = str(line.before), str(line.after), line.subject
        if not job.startswith("job "):
            continue
        if before in (JobState.SUPERSEDED, after):
            spent[job] = []
        if after == JobState.READING:
            running[job] = line.at
        elif before == JobState.READING and after in (JobState.QUEUED, JobState.FAILED):
            spent.setdefault(job, []).append((running.get(job, line.at), line.at))
        (dead.add if after == JobState.FAILED else dead.discard)(job)
    return [attempt for job in sorted(dead) for attempt in spent.get(job, [])]
