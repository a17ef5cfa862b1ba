"""Promises: what peers ask us to keep is looked at, and they are told until they have acknowledged it.

PS3.4 Annex J, with us as the provider. A peer that has our promise may delete its own: it is given for an instance only
when its file was just read and is what the index says was received.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import NamedTuple

from dicom_node.archive.files import Archive
from dicom_node.archive.index import Index
from dicom_node.archive.promises import PromiseRow
from dicom_node.core.commitment import (
    CLASS_CONFLICT,
    NO_SUCH_INSTANCE,
    PROCESSING_FAILURE,
    PromiseReport,
    PromiseRequest,
    failure_in_words,
)
from dicom_node.core.delivery_plan import growing_wait, still_waits
from dicom_node.core.errors import (
    AssociationRejected,
    IndexUnavailable,
    PeerUnreachable,
    ReportNotTaken,
    UnreadableInstance,
)
from dicom_node.core.study import Instance
from dicom_node.scu.storage_commitment import tell
from dicom_node.settings import DeliverySettings, Settings
from dicom_node.telemetry import log_context

log = logging.getLogger(__name__)

#: Peers that are told at one time, and transactions that are looked up at once.
PEERS_AT_ONCE = 8
TRANSACTIONS_A_ROUND = 50
#: A peer that cannot be told for so long is told no more; it asks again, or keeps its own.
GIVEN_UP_AFTER_SECONDS = 7 * 86400.0

#: After so many attempts people see it, as a condition that is named by this and the AE title.
_TOLD_OF_AFTER = 3
_UNTOLD = "promise "

#: Tells a peer over the association on which it asked in this transaction; False where that has ended or the peer did
#: not acknowledge. The answer is made only if the association is still there.
TellHere = Callable[[str, Callable[[], PromiseReport]], bool]


class Promising:
    """Answers peers side by side, and each one transaction after the other: a slow one holds up only itself."""

    def __init__(self, settings: Settings, index: Index, archive: Archive, clock: Callable[[], float]) -> None:
        self._index, self._archive, self._clock = index, archive, clock
        self._ae_title = settings.node.ae_title
        self._waits = settings.delivery
        #: Peers to which no association is opened now, and those that are left alone, since we failed ourselves.
        self._away, self._failing = _Rests(settings.delivery, clock), _Rests(settings.delivery, clock)
        self._peers = {title: peer for peer in reversed(settings.peers) for title in (peer.ae_title, *peer.sends_as)}
        self._pool = ThreadPoolExecutor(PEERS_AT_ONCE, thread_name_prefix="promises")
        self._telling: dict[str, Future[None]] = {}
        #: Set by who owns the associations.
        self.tell_here: TellHere = _nobody_is_here

    def ask(self, request: PromiseRequest) -> bool:
        """Take a question, durable at return; False where its transaction UID is in use for another."""
        taken = self._index.promises.ask(request, self._clock())
        facts = {"transaction_uid": request.transaction_uid, "calling_ae_title": request.calling_ae_title}
        if taken:
            log.info("a peer asks us to keep objects", extra={**facts, "objects": len(request.objects)})
        else:
            log.warning("a peer asks by a transaction UID that is in use", extra=facts)
        return taken

    def step(self) -> None:
        """One round: begin to tell every peer that is owed an answer and is not being told already; wait for none."""
        busy = {title for title, telling in self._telling.items() if not telling.done()}
        busy |= self._failing.now()
        due: dict[str, list[PromiseRow]] = {}
        for row in self._index.promises.due(self._clock(), TRANSACTIONS_A_ROUND, without=busy):
            due.setdefault(row.calling_ae_title, []).append(row)
        for title, rows in due.items():
            self._telling[title] = self._pool.submit(self._tell_each, title, rows)

    def close(self) -> None:
        """Tell nobody more; what is on its way ends by itself, and the rest is told after the next start."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _tell_each(self, title: str, rows: Sequence[PromiseRow]) -> None:
        """Tell one peer; while it is away, only over associations that it opened. Runs in a thread of the pool."""
        with log_context(calling_ae_title=title):
            postponed: list[PromiseRow] = []
            for row in rows:
                try:
                    if not self._tell(row):
                        postponed.append(row)
                except ReportNotTaken as error:
                    # Of this transaction: others may be taken, in another round.
                    self._missed(row, str(error))
                    break
                # The rim of the thread: a busy index or a defect; nothing is claimed, and the answer is still owed.
                except Exception as error:
                    self._failed(title, row, error)
                    return
            with suppress(IndexUnavailable):
                if postponed:
                    self._index.promises.postpone(postponed, next_try_at=self._away.until(title))
            self._failing.end(title)

    def _tell(self, row: PromiseRow) -> bool:
        """Whether the peer was told, or tried to be; not where it is known to be away."""
        if self.tell_here(row.transaction_uid, lambda: self._answer(row)):
            return self._told(row)
        title = row.calling_ae_title
        if title in self._away.now():
            return False
        peer = self._peers.get(title)
        if peer is None:
            mend = f"no peer of the settings has the AE title {title}; add it with its address"
            return self._missed(row, f"its association has ended, and {mend}")
        try:
            tell(
                peer,
                lambda: self._answer(row),
                ae_title=self._ae_title,
                timeout_seconds=self._waits.timeout_seconds,
            )
        except (PeerUnreachable, AssociationRejected) as error:
            self._away.begin(title, row.attempts)
            return self._missed(row, str(error))
        self._away.end(title)
        return self._told(row)

    def _failed(self, title: str, row: PromiseRow, error: Exception) -> None:
        """We failed ourselves: leave this peer alone for a while, and say so once in a row."""
        is_news = self._failing.begin(title)
        facts = {"error": type(error).__name__}
        log.log(logging.ERROR if is_news else logging.DEBUG, "a peer could not be answered", extra=facts, exc_info=True)
        with suppress(IndexUnavailable):
            self._missed(row, "the node itself failed; see its log")

    def _answer(self, row: PromiseRow) -> PromiseReport:
        """What was found, now or when it was first looked: written down before anybody is told."""
        known = self._index.promises.find(row.transaction_uid)
        if known is not None and known.failed is not None:
            return row.report(known.failed)
        kept = {uid: self._index.studies.find(uid) for _, uid in row.objects}
        studies = {instance.study_instance_uid for instances in kept.values() for instance in instances}
        # None of their files is removed from the disk before it is known that they were promised.
        with self._archive.filing(*studies):
            return row.report(self._look(row, kept))

    def _look(self, row: PromiseRow, kept: Mapping[str, Sequence[Instance]]) -> Mapping[str, int]:
        # Each once, however often it was named: to read its file is what takes time.
        objects = dict.fromkeys(row.objects)
        failures = [(uid, self._failure(sop_class_uid, kept[uid])) for sop_class_uid, uid in objects]
        failed = {uid: failure for uid, failure in failures if failure is not None}
        studies = [instance.study_instance_uid for uid in kept if uid not in failed for instance in kept[uid]]
        self._index.promises.looked(row, failed, studies, self._clock())
        for uid, failure in failed.items():
            facts = {"transaction_uid": row.transaction_uid, "sop_instance_uid": uid}
            log.warning("an object is not kept as a peer asks", extra={**facts, "reason": failure_in_words(failure)})
        return failed

    def _failure(self, sop_class_uid: str, kept: Sequence[Instance]) -> int | None:
        """Why an object is not kept; None where it is. Of one that came with several contents, each must be whole."""
        if not kept:
            return NO_SUCH_INSTANCE
        if any(instance.sop_class_uid != sop_class_uid for instance in kept):
            return CLASS_CONFLICT
        try:
            for instance in kept:
                self._archive.verify(instance.path, instance.sha256)
        except UnreadableInstance:
            return NO_SUCH_INSTANCE
        except OSError:
            # The disk's fault says nothing of the object, and yet nobody may rely on it now.
            return PROCESSING_FAILURE
        return None

    def _told(self, row: PromiseRow) -> bool:
        self._index.promises.told(row, self._clock())
        self._seen(row)
        log.info("a peer knows what is kept", extra={"transaction_uid": row.transaction_uid})
        return True

    def _missed(self, row: PromiseRow, reason: str) -> bool:
        now, facts = self._clock(), {"transaction_uid": row.transaction_uid, "reason": reason}
        if now - row.asked_at > GIVEN_UP_AFTER_SECONDS:
            self._index.promises.give_up(row)
            self._seen(row)
            log.error("a peer never took the answer about what we keep, and is told no more", extra=facts)
            return True
        first, longest = self._waits.first_wait_seconds, self._waits.maximum_wait_seconds
        wait = growing_wait(row.attempts, first=first, longest=longest, spread_by=row.transaction_uid)
        self._index.promises.missed(row, reason=reason, next_try_at=now + wait)
        if row.attempts + 1 >= _TOLD_OF_AFTER:
            words = f"{row.calling_ae_title} cannot be told what we keep of what it sent: {reason}"
            self._index.conditions.began(f"{_UNTOLD}{row.calling_ae_title}", reason=words, at=now)
        # Once in a row, and not again at each attempt.
        level = logging.WARNING if row.reason != reason else logging.DEBUG
        log.log(level, "a peer could not be told what is kept, and will be", extra=facts)
        return True

    def _seen(self, row: PromiseRow) -> None:
        """Let people see no more that this peer cannot be told; another answer that it is owed says so again."""
        if row.attempts >= _TOLD_OF_AFTER:
            self._index.conditions.ended(f"{_UNTOLD}{row.calling_ae_title}")


class _Rest(NamedTuple):
    until: float
    #: How many there were in a row.
    times: int


class _Rests:
    """Which peers are left alone for a while, longer each time; safe to share between threads."""

    def __init__(self, waits: DeliverySettings, clock: Callable[[], float]) -> None:
        self._waits, self._clock = waits, clock
        self._rests: dict[str, _Rest] = {}

    def begin(self, title: str, attempts: int = 0) -> bool:
        """Leave a peer alone, for at least as long as after so many attempts; whether this is the first in a row."""
        before = self._rests.get(title)
        count = max(attempts, 0 if before is None else before.times)
        first, longest = self._waits.first_wait_seconds, self._waits.maximum_wait_seconds
        wait = growing_wait(count, first=first, longest=longest, spread_by=title)
        self._rests[title] = _Rest(self._clock() + wait, count + 1)
        return before is None

    def end(self, title: str) -> None:
        """It is as it should be."""
        self._rests.pop(title, None)

    def now(self) -> set[str]:
        """Those that are left alone."""
        now = self._clock()
        return {title for title, rest in list(self._rests.items()) if self._goes_on(rest, now)}

    def until(self, title: str) -> float:
        """When its rest is over; now where it is."""
        rest, now = self._rests.get(title), self._clock()
        return now if rest is None or not self._goes_on(rest, now) else rest.until

    def _goes_on(self, rest: "_Rest", now: float) -> bool:
        return still_waits(rest.until, now, self._waits.maximum_wait_seconds)


def _nobody_is_here(_transaction_uid: str, _answer: Callable[[], PromiseReport]) -> bool:
    return False
