"""Delivery of reports: every object to every peer that takes results, tried until each has it.

One lane for each peer, so that a peer that hangs holds up nothing but what goes to itself. A peer with which no
association can be had is away: what waits for it keeps its place, one association a time asks whether it is back, after
growing waits, and when it is, everything goes out, the most urgent first, one association a study.
"""

import hashlib
import logging
from collections.abc import Callable, Collection, Sequence

from dicom_node.archive.deliveries import DeliveryRow
from dicom_node.archive.files import Archive
from dicom_node.archive.index import Index
from dicom_node.archive.peers import PeerAway
from dicom_node.archive.reports import HELD
from dicom_node.core.delivery_plan import growing_wait, is_referred_to, plan_sending
from dicom_node.core.errors import (
    AssociationRejected,
    ContextsRejected,
    DeliveryError,
    IndexUnavailable,
    PeerUnreachable,
    StoreFailed,
    UnreadableInstance,
)
from dicom_node.core.form import STRUCTURED_REPORTS, Form
from dicom_node.core.lifecycle import DeliveryState
from dicom_node.scu.storage import FileToSend, Sent, store
from dicom_node.settings import DeliverySettings, Peer, Settings

log = logging.getLogger(__name__)

#: Studies that are looked up at once, and seconds after which a round ends: a more urgent one may have come.
STUDIES_A_ROUND = 50
LONGEST_ROUND_SECONDS = 5.0

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
        if self._looked_at_all is not None and now - self._looked_at_all < _LOOK_AT_ALL_SECONDS:
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
    """Whether a peer gets an object of this form: also a structured report in the only form that there is.

    The settings may have changed since it was written, and silence is no answer.
    """
    if peer.takes(form):
        return True
    wants_one = not peer.wanted_forms.isdisjoint(STRUCTURED_REPORTS)
    return (
        wants_one
        and form in STRUCTURED_REPORTS
        and peer.wanted_forms.isdisjoint(set(written) & set(STRUCTURED_REPORTS))
    )


class Lane:
    """Sends what is due at one peer."""

    def __init__(
        self,
        peer: Peer,
        waits: DeliverySettings,
        index: Index,
        archive: Archive,
        clock: Callable[[], float],
        *,
        ae_title: str,
    ) -> None:
        self.peer = peer
        self._waits = waits
        self._index = index
        self._archive = archive
        self._clock = clock
        self._ae_title = ae_title
        #: That the peer is away, as this lane's round found it; no other lane says so of it.
        self._away: PeerAway | None = None

    def step(self) -> None:
        """Send what is due, study by study, unless the peer is away and not to be asked yet."""
        began = self._clock()
        away = self._away = self._index.peers.away(self.peer.name)
        if away is not None and (away.next_try_at > began or not self._is_back(began)):
            return
        for study in self._index.deliveries.due_studies(self.peer.name, began, STUDIES_A_ROUND):
            if not self._sent(study) or self._clock() - began > LONGEST_ROUND_SECONDS:
                return

    def _is_back(self, now: float) -> bool:
        """Whether an association with one study goes well: the least tried, for one study may break them all."""
        studies = self._index.deliveries.due_studies(self.peer.name, now, 1, least_tried=True)
        return all(map(self._sent, studies))

    def _sent(self, study: str) -> bool:
        error = self._send(study)
        if error is not None:
            self._missed(error)
        return error is None

    def _missed(self, error: DeliveryError) -> None:
        """No association could be had, or it broke: one attempt is counted for all that waits here."""
        now, away = self._clock(), self._away
        attempts = 0 if away is None else away.attempts
        next_try_at = now + self._wait(attempts, self.peer.name)
        self._index.peers.missed(self.peer.name, reason=str(error), next_try_at=next_try_at, at=now)
        facts = {"peer": self.peer.name, "attempts": attempts + 1, "reason": str(error)}
        log.warning("a peer is away and will be asked again", extra=facts)

    def _reached(self) -> None:
        away, self._away = self._away, None
        if away is not None:
            self._index.peers.reached(self.peer.name)
            log.info("a peer is back", extra={"peer": self.peer.name, "attempts": away.attempts})

    def _send(self, study: str) -> DeliveryError | None:
        """Send one study's objects over one association; the error, when the peer cannot be talked to."""
        waiting: dict[str, DeliveryRow] = {}
        try:
            return self._try(study, waiting)
        except IndexUnavailable:
            raise
        # The rim of one study's delivery: what nobody foresaw must not hold up the others'.
        except Exception as error:
            reason = f"an unexpected {type(error).__name__} while it was sent; the log has the place"
            facts = {"study_instance_uid": study, "peer": self.peer.name}
            log.error("a delivery met something unexpected", extra=facts, exc_info=True)
            for row in waiting.values():
                self._postpone(row, reason, refused=False)
            return None

    def _try(self, study: str, waiting: dict[str, DeliveryRow]) -> DeliveryError | None:
        """As `_send`; a row is in `waiting` from before it is touched until its fate is in the index."""
        waiting |= {row.sop_instance_uid: row for row in self._hold_and_plan(study)}
        files = self._files(waiting)
        if not files:
            self._hold_and_plan(study)
            return None
        gone: DeliveryError | None = None
        # What refers to one of these, which did not arrive, is not sent, and stays where it is.
        broken: list[DeliveryRow] = []

        def wanted(file: FileToSend) -> bool:
            row = waiting[file.sop_instance_uid]
            if any(is_referred_to(part, row) for part in broken):
                return False
            # Whatever becomes of the answer, from now on the peer may have it.
            return self._index.reports.offered(row.sop_instance_uid, self._clock())

        try:
            answers = store(
                self.peer,
                list(files.values()),
                ae_title=self._ae_title,
                timeout_seconds=self._waits.timeout_seconds,
                wanted=wanted,
            )
            for sent in answers:
                row = waiting[sent.file.sop_instance_uid]
                self._record(row, sent)
                del waiting[row.sop_instance_uid]
                if sent.error is not None:
                    broken.append(row)
                if isinstance(sent.error, PeerUnreachable):
                    gone = sent.error
        except ContextsRejected as error:
            for row in waiting.values():
                self._refused(row, str(error))
                broken.append(row)
        except (PeerUnreachable, AssociationRejected) as error:
            # Nothing of the study was tried: it keeps its place before all that came later.
            return error
        if gone is None:
            self._reached()
        waiting.clear()
        if broken or gone is not None:
            self._hold_and_plan(study)
        return gone

    def _hold_and_plan(self, study: str) -> Sequence[DeliveryRow]:
        """What is to be sent now; documents that must wait for what they refer to, or fail with it, do so."""
        now = self._clock()
        plan = plan_sending(self._index.deliveries.at_peer(study, self.peer.name), now)
        for held in plan.held:
            if held.until is None:
                self._index.deliveries.failed(held.row, reason=held.reason, at=now, refused=False)
            elif (held.row.reason, held.row.next_try_at) != (held.reason, held.until):
                self._index.deliveries.held(held.row, reason=held.reason, until=held.until, at=now)
        return plan.send

    def _files(self, waiting: dict[str, DeliveryRow]) -> dict[str, FileToSend]:
        """What can be sent, by SOP Instance UID, in the order of the rows; what cannot has failed and waits no more."""
        files: dict[str, FileToSend] = {}
        lost: list[DeliveryRow] = []
        for uid, row in list(waiting.items()):
            if any(is_referred_to(part, row) for part in lost):
                del waiting[uid]
                continue
            try:
                files[uid] = self._file(row)
            except UnreadableInstance as error:
                del waiting[uid]
                lost.append(row)
                self._index.deliveries.failed(row, reason=str(error), at=self._clock(), refused=False)
                log.error("a report's file cannot be sent", extra={**_facts(row), "reason": str(error)})
        return files

    def _file(self, row: DeliveryRow) -> FileToSend:
        """The file, byte by byte as it was written; UnreadableInstance where it is not."""
        path = self._archive.path_of(row.path)
        try:
            file = FileToSend.read(path)
            with path.open("rb") as content:
                sha256 = hashlib.file_digest(content, "sha256").hexdigest()
        except (OSError, UnreadableInstance) as error:
            reason = "the report's file in the archive is missing or damaged; requeue the study to write it again"
            raise UnreadableInstance(reason) from error
        if sha256 != row.sha256 or file.sop_instance_uid != row.sop_instance_uid:
            reason = (
                "the report's file in the archive was altered since it was written and is not sent; requeue the study"
            )
            raise UnreadableInstance(reason)
        return file

    def _record(self, row: DeliveryRow, sent: Sent) -> None:
        if sent.error is None:
            commitment = self.peer.commitment
            self._index.deliveries.accepted(row, reason=sent.answer, at=self._clock(), commitment=commitment)
            log.info("object delivered", extra=_facts(row))
        elif isinstance(sent.error, StoreFailed):
            self._refused(row, str(sent.error))
        else:
            self._postpone(row, str(sent.error), refused=False)

    def _refused(self, row: DeliveryRow, reason: str) -> None:
        """The peer answered that it will not have the object; after too many times it fails for good."""
        if row.refusals + 1 < self._waits.maximum_refusals:
            self._postpone(row, reason, refused=True)
            return
        self._index.deliveries.failed(row, reason=reason, at=self._clock())
        log.error("object refused for good", extra={**_facts(row), "reason": reason})

    def _postpone(self, row: DeliveryRow, reason: str, *, refused: bool) -> None:
        now = self._clock()
        # One study's objects wait alike and stay together.
        next_try_at = now + self._wait(row.attempts, f"{row.study_instance_uid} {row.peer}")
        self._index.deliveries.postponed(row, reason=reason, refused=refused, next_try_at=next_try_at, at=now)
        facts = {**_facts(row), "attempts": row.attempts + 1, "reason": reason}
        log.warning("object not delivered, will be tried again", extra=facts)

    def _wait(self, attempts: int, spread_by: str) -> float:
        first, longest = self._waits.first_wait_seconds, self._waits.maximum_wait_seconds
        return growing_wait(attempts, first=first, longest=longest, spread_by=spread_by)


def _facts(row: DeliveryRow) -> dict[str, object]:
    return {
        "study_instance_uid": row.study_instance_uid,
        "sop_instance_uid": row.sop_instance_uid,
        "peer": row.peer,
    }
