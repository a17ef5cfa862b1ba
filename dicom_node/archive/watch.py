"""The watch over arriving studies: which are to be looked at in a round, and their facts."""

from collections.abc import Mapping
from dataclasses import replace

from dicom_node.archive.arrivals import Arrivals
from dicom_node.core.completeness import StudyFacts, Timers, first_look_at, next_look_at


class Watch:
    """Looks at what came anew and at what is due; for one thread.

    A round over a thousand studies that arrive, or wait, costs one question to the index; what is held is counted once
    for each last arrival.
    """

    def __init__(
        self, arrivals: Arrivals, timers: Timers, askable: Mapping[str, tuple[str, ...]] | None = None
    ) -> None:
        """`askable`: calling AE title to the peers that send under it and can be asked."""
        self._arrivals = arrivals
        self._timers = timers
        self._askable = askable
        #: Study Instance UIDs, as the last round found them.
        self.arriving: frozenset[str] = frozenset()
        #: The last arrival that was looked at, and when to look again if none came since.
        self._looked: dict[str, tuple[float, float]] = {}
        #: What was held with that last arrival, and the longest pause.
        self._held: dict[str, tuple[float, dict[str, int], float]] = {}
        #: The last arrivals that lie ahead, since the clock was set back, and when they were first seen.
        self._ahead: dict[str, tuple[float, float]] = {}

    def due(self, now: float) -> dict[str, StudyFacts]:
        """The facts, with what is held, of the studies about which something may be decided now."""
        arriving = self._arrivals.arriving()
        self.arriving = frozenset(arriving)
        self._looked = {uid: looked for uid, looked in self._looked.items() if uid in arriving}
        self._held = {uid: held for uid, held in self._held.items() if uid in arriving}
        self._ahead = {
            uid: self._seen(uid, at, now) for uid, (at, _) in arriving.items() if at > now or uid in self._ahead
        }
        wanted = [uid for uid, (at, final) in arriving.items() if self._is_due(uid, at, now, final=final)]
        return self._with_held(self._arrivals.facts(wanted, self._askable)) if wanted else {}

    def _seen(self, uid: str, at: float, now: float) -> tuple[float, float]:
        known = self._ahead.get(uid)
        return known if known is not None and known[0] == at else (at, now)

    def rest(self, study_instance_uid: str, facts: StudyFacts, now: float, until: float) -> None:
        """Without news look again then, or sooner for what changes without a new instance."""
        at = min(until, next_look_at(facts.last_received_at, now))
        self._looked[study_instance_uid] = (facts.last_received_at, at)

    def _is_due(self, uid: str, at: float, now: float, *, final: bool) -> bool:
        last, again = self._looked.get(uid, (None, 0.0))
        since = min(self._ahead.get(uid, (at, at))[1], at)
        return (last != at or again <= now) and first_look_at(since, self._timers, final=final) <= now

    def _with_held(self, some: dict[str, StudyFacts]) -> dict[str, StudyFacts]:
        stale = [uid for uid, facts in some.items() if self._held.get(uid, (None,))[0] != facts.last_received_at]
        for uid, (series, pause) in self._arrivals.held(stale).items() if stale else ():
            self._held[uid] = (some[uid].last_received_at, series, pause)
        return {
            uid: replace(
                facts,
                held=self._held[uid][1],
                pause_seconds=self._held[uid][2],
                seen_at=self._ahead[uid][1] if uid in self._ahead else None,
            )
            for uid, facts in some.items()
        }
