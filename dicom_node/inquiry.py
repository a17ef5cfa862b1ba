"""Inquiry: peers that sent of a study are asked by C-FIND how many instances they hold of it."""

import logging
import math
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from dicom_node.archive.arrivals import Asked
from dicom_node.archive.index import Index
from dicom_node.archive.watch import Watch
from dicom_node.core.completeness import StudyFacts, question_due_at, settling_seconds
from dicom_node.core.errors import AssociationRejected, PeerUnreachable, QueryFailed
from dicom_node.core.expectation import Question
from dicom_node.scu.query import Counting, counting
from dicom_node.settings import Peer, Settings
from dicom_node.telemetry import log_context

log = logging.getLogger(__name__)

#: Studies that are asked about on one association, so that none stays open for long.
STUDIES_AN_ASSOCIATION = 20

#: Peers that are asked at one time.
PEERS_AT_ONCE = 16

#: After a round with a peer that failed for a reason of ours, as a full disk is.
REST_SECONDS = 5.0


class Inquiry:
    """Asks peers side by side, one association a peer, so that a slow one holds up only its own studies."""

    def __init__(self, settings: Settings, index: Index, clock: Callable[[], float]) -> None:
        self._index = index
        self._clock = clock
        self._timers = settings.completeness
        self._ae_title = settings.node.ae_title
        self._peers = {peer.name: peer for peer in settings.peers if peer.query}
        self._watch = Watch(index.arrivals, self._timers, settings.askable_peers)
        self._pool = ThreadPoolExecutor(max(1, min(len(self._peers), PEERS_AT_ONCE)), thread_name_prefix="inquiry")
        self._asking: dict[str, Future[None]] = {}
        self._rests_until: dict[str, float] = {}

    def step(self) -> None:
        """One round: begin to ask every peer that is due and is not being asked already; wait for none."""
        now = self._clock()
        # Before the index is read: what a peer tells meanwhile must not be asked again.
        free = {peer for peer in self._peers if self._is_free(peer, now)}
        for peer, due in self._due(now).items() if free else ():
            if peer in free:
                self._asking[peer] = self._pool.submit(self._ask, self._peers[peer], due[:STUDIES_AN_ASSOCIATION])

    def close(self) -> None:
        """Ask no more; a question on its way ends by itself within its time limit."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _is_free(self, peer: str, now: float) -> bool:
        asking = self._asking.get(peer)
        rests = now < self._rests_until.get(peer, now) <= now + REST_SECONDS
        return (asking is None or asking.done()) and not rests

    def _due(self, now: float) -> dict[str, list[tuple[str, StudyFacts, Question]]]:
        """Study, facts and question by peer, the longest due first."""
        found: dict[str, list[tuple[float, str, StudyFacts, Question]]] = {}
        for uid, facts in self._watch.due(now).items():
            due = [(question_due_at(facts, question, self._timers), question) for question in facts.questions]
            # Without anybody to ask there is nothing to do until something comes.
            first = min((at for at, _ in due), default=math.inf)
            if first > now:
                self._watch.rest(uid, facts, now, first)
            for at, question in due:
                if at <= now:
                    found.setdefault(question.peer, []).append((at, uid, facts, question))
        return {peer: [one[1:] for one in sorted(some, key=lambda one: one[:2])] for peer, some in found.items()}

    def _ask(self, peer: Peer, due: Sequence[tuple[str, StudyFacts, Question]]) -> None:
        """Ask one peer about some studies; runs in a thread of the pool."""
        with log_context(peer=peer.name):
            try:
                self._ask_each(peer, list(due))
            # The rim of the thread: a busy index or a defect; the studies are due again.
            except Exception as error:
                log.error("a peer could not be asked", extra={"error": type(error).__name__}, exc_info=True)
                self._rests_until[peer.name] = self._clock() + REST_SECONDS

    def _ask_each(self, peer: Peer, due: list[tuple[str, StudyFacts, Question]]) -> None:
        began = self._clock()
        try:
            with counting(
                peer, ae_title=self._ae_title, timeout_seconds=self._timers.question_timeout_seconds
            ) as count:
                while due:
                    began = self._clock()
                    self._ask_one(count, *due[0], asked_at=began)
                    due.pop(0)
        except (PeerUnreachable, AssociationRejected) as error:
            # What one study was not told the others would not be told either: none of them waits for it.
            for uid, facts, question in due:
                self._in_vain(uid, facts, question, str(error), asked_at=began)

    def _ask_one(self, count: Counting, uid: str, facts: StudyFacts, question: Question, *, asked_at: float) -> None:
        try:
            counts = count(uid)
        except QueryFailed as error:
            self._in_vain(uid, facts, question, str(error), asked_at=asked_at)
            return
        held = sum(facts.held.values())
        asked = self._asked(uid, facts, question, answered=True, asked_at=asked_at)
        self._index.arrivals.answered(asked, counts, held=held)
        log.info("a peer told what it holds", extra={"study_instance_uid": uid, "instances": counts[""], "count": held})

    def _in_vain(self, uid: str, facts: StudyFacts, question: Question, reason: str, *, asked_at: float) -> None:
        asked = self._asked(uid, facts, question, answered=False, asked_at=asked_at)
        self._index.arrivals.unanswered(asked, reason)
        # Once, and not again at each attempt.
        level = logging.DEBUG if question.vain else logging.WARNING
        log.log(level, "a peer was asked in vain", extra={"study_instance_uid": uid, "reason": reason})

    def _asked(self, uid: str, facts: StudyFacts, question: Question, *, answered: bool, asked_at: float) -> Asked:
        """When to ask again: after a wait that doubles while the outcome stays and nothing new has come."""
        settled = facts.last_received_at + settling_seconds(facts, self._timers)
        same = question.vain if not answered else question.answered and (question.asked_at or 0.0) >= settled
        attempts = question.attempts + 1 if same else 1
        first, longest = self._timers.question_first_wait_seconds, self._timers.question_maximum_wait_seconds
        # Beyond sixty doublings every wait is the longest.
        wait = min(first * 2.0 ** min(attempts - 1, 60), longest)
        return Asked(
            study_instance_uid=uid,
            peer=question.peer,
            asked_at=asked_at,
            attempts=attempts,
            next_try_at=asked_at + wait,
        )
