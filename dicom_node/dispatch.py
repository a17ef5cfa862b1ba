"""Dispatch: rings for the jobs that wait, and takes back those whose worker went silent.

A bell wakes a worker and decides nothing: what is read next is asked of the index. So a bell too many is harmless, a
lost one is rung again, and while the broker is away the jobs wait in the index, where workers also look by themselves.
"""

import logging
import math
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from types import MappingProxyType

from dicom_node.archive.index import Index
from dicom_node.core.errors import QueueUnavailable
from dicom_node.core.job import Job
from dicom_node.core.lifecycle import JobState
from dicom_node.core.priority import queue_of
from dicom_node.job_queue import JobQueue
from dicom_node.settings import Settings

log = logging.getLogger(__name__)

ACTOR = "dispatch"

#: What the index calls the condition of a broker that does not answer.
BROKER_AWAY = "broker away"

#: A job that still waits so long after its bell is rung for again.
LOST_BELL_SECONDS = 15.0

#: So many bells in one queue wake every worker, also where none is known yet; more would only be carried about.
ENOUGH_BELLS = 32

#: Where a job was rung for a moment ago, workers have better to do than to prepare for one that may come.
CALM_SECONDS = 1.0

#: How often the broker is asked for its queues while nothing is to be rung for.
ASK_SECONDS = 2.0


class Dispatch:
    """Two kinds of rounds for two threads: a broker that hangs must not keep a silent worker's jobs from others."""

    def __init__(self, settings: Settings, index: Index, queue: JobQueue, clock: Callable[[], float]) -> None:
        self._index = index
        self._queue = queue
        self._clock = clock
        self._attempts = settings.queue.attempts
        self._answers: bool | None = None
        self._lengths: Mapping[str, int] = MappingProxyType({})
        self._ask_at = 0.0
        self._rang_at = -math.inf
        #: Jobs that may soon come. What is not rung for in time is not worth keeping.
        self._announced: deque[Job] = deque(maxlen=ENOUGH_BELLS)

    @property
    def broker_answers(self) -> bool:
        """Whether the broker answered when it was last asked; it may not have been asked yet."""
        return self._answers is not False

    def lengths(self) -> Mapping[str, int] | None:
        """Messages in each queue when the broker was last asked; None when it did not answer."""
        return self._lengths if self._answers else None

    @property
    def workers_may_be_idle(self) -> bool:
        """Whether no bell waits to be heard, and none was rung a moment ago: else nobody has time to prepare."""
        return not any(self._lengths.values()) and not 0.0 <= self._clock() - self._rang_at < CALM_SECONDS

    def announce(self, job: Job) -> None:
        """Let a worker that is idle prepare for a job that may soon come; at the next round, from any thread."""
        self._announced.append(job)

    def ring(self) -> None:
        """Ring for every job that waits without a bell, as far as enough are not in its queue already."""
        now = self._clock()
        self._pass_on()
        # After a clock was set back it lies farther off than it may.
        is_early = now < self._ask_at <= now + ASK_SECONDS
        if is_early and not self.broker_answers:
            return
        jobs = self._index.jobs.unsent(now - LOST_BELL_SECONDS, at=now)
        if is_early and not jobs:
            return
        self._ask_at = now + ASK_SECONDS
        try:
            self._lengths = self._ring_for(jobs, now)
        except QueueUnavailable as error:
            self._tell(now, error)
        else:
            self._tell(now, None)

    def expire(self) -> None:
        """Let the jobs of silent workers wait for another, or become dead letters after their last attempt."""
        for job in self._index.jobs.expire(now=self._clock(), attempts=self._attempts, actor=ACTOR):
            _tell_of_silence(job)

    def _pass_on(self) -> None:
        """Send what was announced; where the broker is away it is dropped, and the jobs are read as if unannounced."""
        while self._announced:
            job = self._announced.popleft()
            if self.broker_answers:
                with suppress(QueueUnavailable):
                    self._queue.announce(job)

    def _ring_for(self, jobs: list[Job], now: float) -> Mapping[str, int]:
        lengths = dict(self._queue.lengths())
        if not jobs:
            return lengths
        self._rang_at = now
        # Who hears one reads all that waits: as many as there are workers wake all of them.
        enough = min(len(self._index.workers.rows()) or ENOUGH_BELLS, ENOUGH_BELLS)
        heard = []
        try:
            for job in jobs:
                queue = queue_of(job.priority)
                if lengths[queue] < enough:
                    self._queue.send(job)
                    lengths[queue] += 1
                heard.append(job.job_uid)
        finally:
            self._index.jobs.sent(heard, now)
        return lengths

    def _tell(self, now: float, error: QueueUnavailable | None) -> None:
        """Say once that the broker went, and once that it returned."""
        answered, answers = self._answers, error is None
        # Known here only once the index knows it: a round in which it does not answer is told of by the next.
        if answers != answered and error is not None:
            reason = f"{error}; jobs wait in the index, and workers look there by themselves"
            self._index.conditions.began(BROKER_AWAY, reason=reason, at=now)
            log.error("the broker is away; jobs wait in the index", extra={"reason": str(error)})
        elif answers != answered:
            self._index.conditions.ended(BROKER_AWAY)
            if answered is False:
                log.info("the broker is back")
        self._answers = answers


def _tell_of_silence(job: Job) -> None:
    facts = {"study_instance_uid": job.study_instance_uid, "job_uid": job.job_uid, "reason": job.reason}
    if job.state is JobState.FAILED:
        log.error("a worker went silent; its job is a dead letter", extra=facts)
    else:
        log.warning("a worker went silent; its job is queued again", extra=facts)
