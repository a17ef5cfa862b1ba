"""Delivery of reports: every object to every peer that takes results, tried until each has it.

What goes where is planned here, and what arrived is settled; a lane for each peer sends.
"""

import logging
from collections.abc import Callable, Collection, Sequence

from dicom_node.archive.files import Archive
from dicom_node.archive.index import Index
from dicom_node.archive.reports import HELD
from dicom_node.core.form import STRUCTURED_REPORTS, Form, nearest_report
from dicom_node.core.lifecycle import DeliveryState
from dicom_node.lane import STUDIES_A_ROUND, Lane
from dicom_node.settings import Peer, Settings

log = logging.getLogger(__name__)

#: Objects that are given an alternative in one change of the index.
_OBJECTS_A_CHANGE = 200

#: How far back a round looks for newly reported studies, and how often all of them are looked through: another
#: machine's clock may be late.
_LOOK_BACK_SECONDS = 30.0
_LOOK_AT_ALL_SECONDS = 60.0


class Delivery:
    """Plans what goes where and settles what arrived; all memory is in the index, so a restart loses nothing."""

    def __init__(
        self,
        settings: Settings,
        index: Index,
        archive: Archive,
        clock: Callable[[], float],
        on_planned: Callable[[], None] = lambda: None,
    ) -> None:
        """`on_planned` is told that something new is to be sent."""
        self._index = index
        self._on_planned = on_planned
        self._clock = clock
        self._peers = {peer.name: peer for peer in settings.peers}
        self._takers = tuple(peer.name for peer in settings.peers if peer.results)
        self._instead_after = settings.delivery.instead_after_seconds
        self._looked_at_all: float | None = None
        self.lanes = tuple(
            Lane(peer, settings.delivery, index, archive, clock, ae_title=settings.node.ae_title)
            for peer in settings.peers
        )
        if not self._takers and any(not route.send_to for route in settings.routes):
            log.warning("no peer takes results; reports stay in the archive; set results = true for a peer")

    def step(self) -> None:
        """One whole round in this thread: plan, send at each peer in turn, settle."""
        self.oversee()
        for lane in self.lanes:
            lane.step()

    def oversee(self) -> None:
        """Plan what is new, give alternatives to what waits for too long, and settle; nothing is sent."""
        now = self._clock()
        since = self._since(now)
        self._plan(since, now)
        self._take_alternatives(now)
        if since == 0.0 and not self._index.reports.held():
            self._index.conditions.ended(HELD)
        for study in self._index.deliveries.unsettled(since):
            self._index.deliveries.settle(study, now)

    def _since(self, now: float) -> float:
        # A clock that was set back is before the last look: then all are looked through anew.
        if self._looked_at_all is not None and 0.0 <= now - self._looked_at_all < _LOOK_AT_ALL_SECONDS:
            return now - _LOOK_BACK_SECONDS
        self._looked_at_all = now
        return 0.0

    def _plan(self, since: float, now: float) -> None:
        found = [
            (uid, tuple(dict.fromkeys(named or self._takers)), form, job)
            for uid, named, form, job in self._index.deliveries.unplanned(since)
        ]
        written: dict[str, set[Form]] = {}
        for _, _, form, job in found:
            written.setdefault(job, set()).add(form)
        wanted = [(uid, self._wanting(peers, form, written[job])) for uid, peers, form, job in found if peers]
        if planned := [(uid, peers) for uid, peers in wanted if peers]:
            self._index.deliveries.plan_all(planned, now)
            self._on_planned()
        if unwanted := [uid for uid, peers in wanted if not peers]:
            self._index.deliveries.unwanted(unwanted, now)
        unknown = {name for _, peers in wanted for name in peers} - self._peers.keys()
        if since == 0.0:
            unknown |= self._index.deliveries.waiting_for_others_than(self._peers)
        for name in unknown:
            self._fail_unknown(name, now)

    def _wanting(self, peers: Sequence[str], form: Form, written: Collection[Form]) -> tuple[str, ...]:
        """Those of the peers that take this form of what was written of a report.

        Of one that is not in the settings, nobody knows what it takes.
        """
        return tuple(name for name in peers if name not in self._peers or _takes(self._peers[name], form, written))

    def _fail_unknown(self, name: str, now: float) -> None:
        """A route or earlier settings named a peer that there is none of."""
        while studies := self._index.deliveries.due_studies(name, now, STUDIES_A_ROUND):
            for study in studies:
                for row in self._index.deliveries.at_peer(study, name):
                    if row.state is DeliveryState.WAITING:
                        reason = f"no peer is named {name} in the settings"
                        self._index.deliveries.failed(row, reason=reason, at=now, refused=False)

    def _take_alternatives(self, now: float) -> None:
        for away in self._index.peers.all_away():
            peer = self._peers.get(away.peer)
            if peer is None or not peer.instead or now - away.since < self._instead_after:
                continue
            facts = {"peer": peer.name, "reason": away.reason}
            while moved := self._index.deliveries.also_to(
                peer.name, peer.instead, reason=away.reason, at=now, limit=_OBJECTS_A_CHANGE
            ):
                log.warning("a peer is away for long; its objects also go to another", extra={**facts, "count": moved})


def _takes(peer: Peer, form: Form, written: Collection[Form]) -> bool:
    """Whether a peer gets an object of this form: of structured reports the one that is nearest to what it wants.

    The settings may have changed since they were written, and silence is no answer.
    """
    if form in STRUCTURED_REPORTS:
        return form is nearest_report(peer.wanted_forms, written)
    return peer.takes(form)
