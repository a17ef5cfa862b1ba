"""Lanes: one for each peer, so that a peer that hangs holds up nothing but what goes to itself.

A peer with which no association can be had is away: what waits for it keeps its place, one association a time asks
whether it is back, after growing waits, and when it is, everything goes out, the most urgent first. An association
carries study after study, as long as one is due.
"""

import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from dicom_node.archive.delivery_rows import DeliveryRow
from dicom_node.archive.files import Archive
from dicom_node.archive.index import Index
from dicom_node.archive.peers import PeerAway
from dicom_node.core.delivery_plan import growing_wait, is_referred_to, plan_sending, still_waits
from dicom_node.core.errors import (
    AssociationRejected,
    ContextsRejected,
    DeliveryError,
    IndexUnavailable,
    PeerUnreachable,
    StoreFailed,
    UnreadableInstance,
)
from dicom_node.scu.association import MAXIMUM_CONTEXTS
from dicom_node.scu.storage import FileToSend, Kind, Sent, Storing, storing
from dicom_node.settings import DeliverySettings, Peer

log = logging.getLogger(__name__)

#: Studies that are looked up at once, and seconds after which a round ends: a more urgent one may have come.
STUDIES_A_ROUND = 50
LONGEST_ROUND_SECONDS = 5.0


@dataclass(kw_only=True)
class _InHand:
    """A study on its way to the peer."""

    study: str = ""
    #: By SOP Instance UID, from before a row is touched until its fate is in the index.
    waiting: dict[str, DeliveryRow] = field(default_factory=dict)
    #: What of it can be sent, in the order of sending.
    files: dict[str, FileToSend] = field(default_factory=dict)
    #: Whether anything became of any of it.
    tried: bool = False


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
        #: What was sent to the peer so far.
        self._kinds: set[Kind] = set()
        #: That the peer is away, as this lane's round found it; no other lane says so of it.
        self._away: PeerAway | None = None

    def step(self) -> None:
        """Send what is due, study by study, unless the peer is away and not to be asked yet."""
        began = self._clock()
        away = self._away = self._index.peers.away(self.peer.name)
        if away is not None and (self._still_waits(away, began) or not self._is_back(began)):
            return
        studies = deque(self._index.deliveries.due_studies(self.peer.name, began, STUDIES_A_ROUND))
        # By a clock that nobody sets.
        until = time.monotonic() + LONGEST_ROUND_SECONDS
        while studies and time.monotonic() <= until:
            if not self._sent(studies, until):
                return

    def _still_waits(self, away: PeerAway, now: float) -> bool:
        return still_waits(away.next_try_at, now, self._waits.maximum_wait_seconds)

    def _is_back(self, now: float) -> bool:
        """Whether an association with one study goes well: the least tried, for one study may break them all."""
        studies = deque(self._index.deliveries.due_studies(self.peer.name, now, 1, least_tried=True))
        return not studies or self._sent(studies, time.monotonic())

    def _sent(self, studies: deque[str], until: float) -> bool:
        """Take the first of these studies, or more of them, and send them; False where the peer cannot be talked to."""
        error = self._send(studies, until)
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

    def _send(self, studies: deque[str], until: float) -> DeliveryError | None:
        """Send over one association; the error, when the peer cannot be talked to."""
        hand = _InHand()
        try:
            self._take(hand, studies.popleft())
            return self._send_all(hand, studies, until) if hand.files else None
        except IndexUnavailable:
            raise
        # The rim of one study's delivery: what nobody foresaw must not hold up the others'.
        except Exception as error:
            reason = f"an unexpected {type(error).__name__} while it was sent; the log has the place"
            facts = {"study_instance_uid": hand.study, "peer": self.peer.name}
            log.error("a delivery met something unexpected", extra=facts, exc_info=True)
            for row in hand.waiting.values():
                self._postpone(row, reason, refused=False)
            return None

    def _take(self, hand: _InHand, study: str) -> None:
        """Take a study in hand: what of it is due, and can be sent."""
        hand.study, hand.tried = study, False
        hand.waiting = {row.sop_instance_uid: row for row in self._hold_and_plan(study)}
        hand.files = self._files(hand.waiting)
        if not hand.files:
            self._hold_and_plan(study)

    def _send_all(self, hand: _InHand, studies: deque[str], until: float) -> DeliveryError | None:
        """As `_send`, what is in hand first, then what may follow on the same association."""
        kinds = self._kinds_with(hand)
        title, seconds = self._ae_title, self._waits.timeout_seconds
        try:
            with storing(self.peer, kinds, ae_title=title, timeout_seconds=seconds) as to_peer:
                error = self._deliver(hand, to_peer)
                if error is None:
                    self._reached()
                    error = self._send_others(hand, studies, to_peer, until)
                return error
        except ContextsRejected as error:
            for row in hand.waiting.values():
                self._refused(row, str(error))
            self._hold_and_plan(hand.study)
            self._reached()
            return None
        except (PeerUnreachable, AssociationRejected) as error:
            # Nothing of the study was tried: it keeps its place before all that came later.
            return error

    def _send_others(self, hand: _InHand, studies: deque[str], to_peer: Storing, until: float) -> DeliveryError | None:
        """Send study after study while the association takes them; where it does not, another begins with the next."""
        while studies and time.monotonic() <= until:
            self._take(hand, studies[0])
            if not to_peer.takes(hand.files.values()):
                hand.waiting = {}
                return None
            error = self._deliver(hand, to_peer, is_first=False)
            if error is not None or (hand.files and not hand.tried):
                return error
            studies.popleft()
        return None

    def _kinds_with(self, hand: _InHand) -> set[Kind]:
        """What is proposed: what is in hand, and what went to this peer before, since it may follow."""
        kinds = {file.kind for file in hand.files.values()}
        self._kinds = kinds if len(self._kinds | kinds) > MAXIMUM_CONTEXTS else self._kinds | kinds
        return self._kinds

    def _deliver(self, hand: _InHand, to_peer: Storing, *, is_first: bool = True) -> DeliveryError | None:
        """Send what is in hand; the error, when the association breaks. What was not tried keeps its place."""
        # What refers to one of these, which did not arrive, is not sent, and stays where it is.
        broken: list[DeliveryRow] = []
        gone: DeliveryError | None = None
        for uid, file in hand.files.items():
            row = hand.waiting[uid]
            # Whatever becomes of the answer, from now on the peer may have it.
            if any(is_referred_to(part, row) for part in broken) or not self._index.reports.offered(uid, self._clock()):
                continue
            sent = to_peer.send(file)
            if isinstance(sent.error, PeerUnreachable) and not is_first and not hand.tried:
                # The association, which went well so far, ended just now: that says nothing of this study.
                break
            hand.tried = True
            self._record(row, sent)
            del hand.waiting[uid]
            if sent.error is not None:
                broken.append(row)
            if isinstance(sent.error, PeerUnreachable):
                gone = sent.error
                break
        hand.waiting = {}
        if broken:
            self._hold_and_plan(hand.study)
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
        try:
            self._archive.verify(row.path, row.sha256)
            file = FileToSend.read(self._archive.path_of(row.path), as_it_lies=True)
        except (OSError, UnreadableInstance) as error:
            reason = (
                "the report's file in the archive is missing or damaged, or was altered since it was written, and is "
                "not sent; requeue the study to write it again"
            )
            raise UnreadableInstance(reason) from error
        if file.sop_instance_uid != row.sop_instance_uid:
            raise UnreadableInstance("the report's file in the archive is another object's; requeue the study")
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
