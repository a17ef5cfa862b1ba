"""How many instances of a study there are, as sources tell: a sender that is asked by C-FIND, or a performed step."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field


def peer_source(peer: str) -> str:
    """How a peer by our name for it is called as a source of counts."""
    return f"peer {peer}"


@dataclass(frozen=True, kw_only=True)
class Told:
    """One count that a source told."""

    #: "MPPS" and what became of its steps, "peer NAME", or "availability by AE TITLE".
    source: str
    #: Empty: of the whole study.
    series_instance_uid: str = ""
    count: int
    #: When it was asked, not when it answered: what came in between may not be in the count. Seconds since 1970, UTC.
    told_at: float
    #: It counts what was made, as a completed performed step does; what a peer holds may still grow.
    final: bool = False


@dataclass(frozen=True, kw_only=True)
class Question:
    """A peer that sent of a study and can be asked what it holds, and how asking went so far."""

    peer: str
    #: The last time; None: never yet.
    asked_at: float | None = None
    #: With the same outcome in a row.
    attempts: int = 0
    next_try_at: float = 0.0
    #: Of the first question without an answer since the last answer; None: it answered last time.
    vain_since: float | None = None
    #: Why there was no answer.
    reason: str = ""

    @property
    def source(self) -> str:
        """Its name as a source of counts."""
        return peer_source(self.peer)

    @property
    def answered(self) -> bool:
        """Whether it was asked and answered the last time."""
        return self.asked_at is not None and self.vain_since is None

    @property
    def vain(self) -> bool:
        """Whether it was asked and did not answer the last time."""
        return self.vain_since is not None


@dataclass(frozen=True, kw_only=True)
class Source:
    """All that one source told of a study."""

    name: str
    #: Of the whole study; None: not told.
    total: int | None
    #: By Series Instance UID; empty: not told.
    series: Mapping[str, int] = field(default_factory=dict)
    #: The earliest of its counts.
    told_at: float
    final: bool

    def met_by(self, held: Mapping[str, int]) -> bool:
        """Whether at least as much is here, in every series and in all."""
        return sum(held.values()) >= (self.total or 0) and all(
            held.get(uid, 0) >= count for uid, count in self.series.items()
        )


@dataclass(frozen=True, kw_only=True)
class Shortfall:
    """A series of which a source counts more than is here, while some of it is."""

    series_instance_uid: str
    source: str
    held: int
    count: int

    def __str__(self) -> str:
        return (
            f"series {self.series_instance_uid} has {self.held} of the {self.count} instances that {self.source} counts"
        )


def sources_of(told: Iterable[Told]) -> list[Source]:
    """The counts by who told them, by name."""
    groups: dict[str, list[Told]] = {}
    for one in told:
        groups.setdefault(one.source, []).append(one)
    return [_source(name, group) for name, group in sorted(groups.items())]


def _source(name: str, told: Sequence[Told]) -> Source:
    counts = {one.series_instance_uid: one.count for one in told}
    total = counts.pop("", None)
    told_at = min(one.told_at for one in told)
    return Source(name=name, total=total, series=counts, told_at=told_at, final=all(one.final for one in told))


def shortfalls(told: Iterable[Told], held: Mapping[str, int]) -> list[Shortfall]:
    """The series that are here in part, by series and source; one that is not here at all is none of them."""
    short = [
        Shortfall(series_instance_uid=uid, source=source.name, held=held[uid], count=count)
        for source in sources_of(told)
        for uid, count in source.series.items()
        if 0 < held.get(uid, 0) < count
    ]
    return sorted(short, key=lambda one: (one.series_instance_uid, one.source))


def further_series(source: Source, held: Mapping[str, int]) -> tuple[int, int]:
    """How many series a source counts of which nothing is here, and how many instances they have."""
    further = [count for uid, count in source.series.items() if count and not held.get(uid)]
    return len(further), sum(further)
