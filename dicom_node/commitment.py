"""Storage commitment of what peers accepted: asked for, followed, and asked for again until it is answered."""

import logging
import time
import uuid
from collections.abc import Callable

from dicom_node.archive.commitment_rows import CommitmentDue
from dicom_node.archive.index import Index
from dicom_node.core.commitment import CommitmentReport
from dicom_node.core.delivery_plan import growing_wait, still_waits
from dicom_node.core.errors import (
    AssociationRejected,
    CommitmentNotTaken,
    ContextsRejected,
    DeliveryError,
    PeerUnreachable,
    StoreFailed,
)
from dicom_node.scu.storage_commitment import CommitmentRequest, ask
from dicom_node.settings import DeliverySettings, Peer, Settings

log = logging.getLogger(__name__)

#: Studies that are looked up at once, and seconds after which a round ends.
STUDIES_A_ROUND = 50
LONGEST_ROUND_SECONDS = 5.0

#: How long we stay on an association for a peer's answer that may come over it.
LINGER_SECONDS = 2.0

#: A peer that left so many questions in a row without an answer is silent: it is asked one study at a time.
SILENT_AFTER = 3
#: The condition of a silent peer is named by this and its name.
_SILENT = "commitment "


class Commitment:
    """Takes the answers of every peer, and has a lane for each that is asked."""

    def __init__(self, settings: Settings, index: Index, clock: Callable[[], float]) -> None:
        self._index = index
        self._clock = clock
        self._waits = settings.delivery
        self._admitted = {title.strip() for title in settings.admission.calling_ae_titles}
        asked = [peer for peer in settings.peers if peer.commitment]
        self.lanes = tuple(
            CommitmentLane(peer, self, settings.delivery, index, clock, ae_title=settings.node.ae_title)
            for peer in asked
        )

    def start(self) -> None:
        """Forget what earlier settings asked peers for that are not asked any more."""
        asked = {lane.peer.name for lane in self.lanes}
        for row in self._index.conditions.rows():
            if row.condition.startswith(_SILENT) and row.condition.removeprefix(_SILENT) not in asked:
                self._index.conditions.ended(row.condition)
        waived = self._index.commitments.waive(asked, self._clock())
        if waived:
            log.warning("peers are asked for storage commitment no more", extra={"objects": waived})
        for lane in self.lanes:
            if self._admitted and lane.peer.ae_title.strip() not in self._admitted:
                facts = {"peer": lane.peer.name, "calling_ae_title": lane.peer.ae_title}
                log.warning("a peer may not call to answer; add its AE title to calling_ae_titles", extra=facts)

    def step(self) -> None:
        """One round of every lane, in this thread."""
        for lane in self.lanes:
            lane.step()

    def take(self, report: CommitmentReport) -> bool:
        """Take an answer, over whichever association it came; False where nobody asked for it."""
        now = self._clock()
        send_again_at = now + growing_wait(
            0,
            first=self._waits.first_wait_seconds,
            longest=self._waits.maximum_wait_seconds,
            spread_by=report.transaction_uid,
        )
        answered = self._index.commitments.answer(
            report, maximum_refusals=self._waits.maximum_refusals, send_again_at=send_again_at, at=now
        )
        facts: dict[str, object] = {"transaction_uid": report.transaction_uid}
        if answered is None:
            log.warning("a storage commitment that nobody asked for", extra=facts)
            return False
        facts |= {"study_instance_uid": answered.study_instance_uid, "peer": answered.peer}
        if _silent_since(self._index, answered.peer) is not None:
            self._index.conditions.ended(f"{_SILENT}{answered.peer}")
            log.info("a peer answers storage commitment again", extra={"peer": answered.peer})
        if answered.committed:
            log.info("objects committed", extra={**facts, "objects": len(answered.committed)})
        for sop_instance_uid in answered.refused:
            reason = f"0x{report.failed[sop_instance_uid]:04X}"
            refused = {**facts, "sop_instance_uid": sop_instance_uid, "reason": reason}
            log.error("a peer does not keep what it accepted", extra=refused)
        return True


class CommitmentLane:
    """Asks one peer to keep what it accepted."""

    def __init__(
        self,
        peer: Peer,
        commitment: Commitment,
        waits: DeliverySettings,
        index: Index,
        clock: Callable[[], float],
        *,
        ae_title: str,
    ) -> None:
        self.peer = peer
        self._take = commitment.take
        self._waits = waits
        self._index = index
        self._clock = clock
        self._ae_title = ae_title
        # Only a matter of speed: a peer that answered over another association is not waited for on ours.
        self._answers_here = True

    def step(self) -> None:
        """Ask for what is due, study by study, unless the peer is away or silent and not to be asked yet."""
        began = self._clock()
        away = self._index.peers.away(self.peer.name)
        if away is not None and still_waits(away.next_try_at, began, self._waits.maximum_wait_seconds):
            return
        # By a clock that nobody sets.
        until = time.monotonic() + LONGEST_ROUND_SECONDS
        for due in self._index.commitments.due(self.peer.name, began, STUDIES_A_ROUND):
            if not self._may_be_asked():
                return
            error = self._ask(due)
            if error is not None:
                self._missed(error)
                return
            if away is not None:
                self._index.peers.reached(self.peer.name)
                away = None
            if time.monotonic() > until:
                return

    def _may_be_asked(self) -> bool:
        """Always, unless the peer is silent: then after as long a time as it has been silent, up to the longest wait.

        Each of these questions is about the study that is due for the longest time, for one may be what silences it.
        """
        now = self._clock()
        silence, since = (
            self._index.commitments.silence(self.peer.name, now),
            _silent_since(self._index, self.peer.name),
        )
        if since is None:
            if silence.unanswered < SILENT_AFTER:
                return True
            self._fell_silent(silence.unanswered, now)
            since = now
        # It may be one that answers over our association only, and was late once.
        self._answers_here = True
        if silence.asked_at is None:
            return True
        first, longest = self._waits.commitment_timeout_seconds, self._waits.commitment_maximum_wait_seconds
        wait = min(longest, max(first, silence.asked_at - since))
        # One that was asked later than now was asked before the clock was set back.
        return not 0 <= now - silence.asked_at < wait

    def _fell_silent(self, unanswered: int, now: float) -> None:
        name = self.peer.name
        reason = (
            f"{name} does not answer storage commitment ({unanswered} requests); see its settings: it must know our AE "
            f"title {self._ae_title}, host and port; or set commitment = false for it"
        )
        self._index.conditions.began(f"{_SILENT}{name}", reason=reason, at=now)
        log.warning("a peer does not answer storage commitment", extra={"peer": name, "reason": reason})

    def _ask(self, due: CommitmentDue) -> DeliveryError | None:
        """Ask for one study; the error, when no association came about."""
        now, transaction_uid = self._clock(), f"2.25.{uuid.uuid4().int}"
        first, longest = self._waits.commitment_timeout_seconds, self._waits.commitment_maximum_wait_seconds
        wait = growing_wait(due.unanswered, first=first, longest=longest, spread_by=due.study_instance_uid)
        if not self._index.commitments.begin(due, transaction_uid, next_try_at=now + wait, at=now):
            return None
        objects = tuple((row.sop_class_uid, row.sop_instance_uid) for row in due.rows)
        facts = {"transaction_uid": transaction_uid, "study_instance_uid": due.study_instance_uid}
        facts |= {"peer": self.peer.name}
        try:
            self._answers_here = ask(
                self.peer,
                CommitmentRequest(transaction_uid=transaction_uid, objects=objects),
                self._take,
                ae_title=self._ae_title,
                timeout_seconds=self._waits.timeout_seconds,
                linger_seconds=LINGER_SECONDS if self._answers_here else 0.0,
                is_answered=lambda: self._index.commitments.still_open([transaction_uid]) == 0,
            )
        except (CommitmentNotTaken, ContextsRejected, StoreFailed) as error:
            self._index.commitments.not_taken(transaction_uid, reason=str(error), at=self._clock())
            log.warning("storage commitment cannot be asked for", extra={**facts, "reason": str(error)})
            return None
        except (PeerUnreachable, AssociationRejected) as error:
            self._index.commitments.withdraw(transaction_uid, self._clock())
            return error
        log.info("storage commitment asked for", extra={**facts, "attempt": due.unanswered + 1})
        return None

    def _missed(self, error: DeliveryError) -> None:
        now, away = self._clock(), self._index.peers.away(self.peer.name)
        attempts = 0 if away is None else away.attempts
        first, longest = self._waits.first_wait_seconds, self._waits.maximum_wait_seconds
        wait = growing_wait(attempts, first=first, longest=longest, spread_by=self.peer.name)
        self._index.peers.missed(self.peer.name, reason=str(error), next_try_at=now + wait, at=now)
        facts = {"peer": self.peer.name, "attempts": attempts + 1, "reason": str(error)}
        log.warning("a peer is away and will be asked again", extra=facts)


def _silent_since(index: Index, peer: str) -> float | None:
    """Since when the peer is known to be silent; None where it is not."""
    condition = f"{_SILENT}{peer}"
    return next((row.since for row in index.conditions.rows() if row.condition == condition), None)
