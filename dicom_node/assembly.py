"""Assembly: what has arrived is judged, routed and queued; jobs that lost their worker or message go again."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from dicom_node.archive.index import Index
from dicom_node.archive.studies import Reception
from dicom_node.core.completeness import StudyFacts, missing_slices, verdict
from dicom_node.core.errors import IllegalTransition, NodeError, QueueUnavailable
from dicom_node.core.job import Job, evidence_digest
from dicom_node.core.lifecycle import JobState, StudyState
from dicom_node.core.priority import queue_of
from dicom_node.core.routing import Choice, RoutingDecision, route_study
from dicom_node.core.study import Study
from dicom_node.core.uid import derived_uid
from dicom_node.job_queue import JobQueue
from dicom_node.settings import Settings
from dicom_node.telemetry import log_context

log = logging.getLogger(__name__)

ACTOR = "assembly"

#: With nothing left in its queue, a job that still waits after so long has lost its message.
LOST_MESSAGE_SECONDS = 15.0

#: A message older than this is sent again whatever its queue holds; the index makes a second one harmless.
STALE_MESSAGE_SECONDS = 300.0


class Assembly:
    """Asks the index what is due and does it; what must outlive a restart is in the index."""

    def __init__(self, settings: Settings, index: Index, queue: JobQueue, clock: Callable[[], float]) -> None:
        self._index = index
        self._queue = queue
        self._clock = clock
        self._timers = settings.completeness
        self._routes = settings.routes
        self._attempts = settings.queue.maximum_attempts
        self._queue_answers = True
        #: What each study that is still arriving lacked, and its last arrival when that was found out.
        self._missing: dict[str, tuple[float, tuple[tuple[str, str], ...]]] = {}

    def step(self) -> None:
        """One round over everything that may be due."""
        receptions = self._index.studies.receptions()
        arriving = {reception.study_instance_uid for reception in receptions}
        self._missing = {uid: found for uid, found in self._missing.items() if uid in arriving}
        for reception in receptions:
            with self._alone(reception.study_instance_uid, "judged"):
                self._judge(reception)
        for uid in self._index.studies.in_state(StudyState.COMPLETE):
            with self._alone(uid, "routed"):
                self._route(uid)
        for job in self._index.jobs.expire(now=self._clock(), maximum_attempts=self._attempts, actor=ACTOR):
            _tell_of_silence(job)
        self._ring()

    @contextmanager
    def _alone(self, study_instance_uid: str, doing: str) -> Iterator[None]:
        """Work on one study, whose headers may hold anything; what nobody foresaw fails it and harms no other."""
        with log_context(study_instance_uid=study_instance_uid):
            try:
                yield
            except IllegalTransition as error:
                log.info("study changed while it was worked on", extra={"reason": str(error)})
            # The index or the disk is at fault, not the study: the whole round comes again.
            except (NodeError, OSError):
                raise
            except Exception as error:
                kind = type(error).__name__
                log.error("a study could not be worked on", extra={"step": doing, "error": kind}, exc_info=True)
                cause = f"an unexpected {kind} while the study was {doing}; its log line has the place"
                self._fail(study_instance_uid, cause)

    def _fail(self, study_instance_uid: str, cause: str) -> None:
        with suppress(IllegalTransition):
            self._index.studies.move(study_instance_uid, StudyState.FAILED, cause=cause, actor=ACTOR, at=self._clock())

    def _judge(self, reception: Reception) -> None:
        now = self._clock()
        facts = StudyFacts(
            last_received_at=reception.last_received_at,
            open_associations=reception.open_associations,
            aborted_associations=reception.aborted_associations,
        )
        # The headers are looked at only when, without doubts of theirs, the study would be complete.
        if not verdict(facts, now, self._timers).complete:
            return
        missing = self._missing_slices(reception)
        judged = verdict(StudyFacts(**{**vars(facts), "missing": missing}), now, self._timers)
        if not judged.complete:
            return
        uid, reason = reception.study_instance_uid, judged.reason
        if self._index.studies.complete(
            uid, last_received_at=facts.last_received_at, cause=reason, actor=ACTOR, at=now
        ):
            log.info("study complete", extra={"reason": reason})

    def _missing_slices(self, reception: Reception) -> tuple[tuple[str, str], ...]:
        """What the study's volumes lack, found out once for each last arrival: a gap is waited for, not looked at."""
        uid, at = reception.study_instance_uid, reception.last_received_at
        if self._missing.get(uid, (None,))[0] != at:
            self._missing[uid] = at, missing_slices(self._index.studies.study(uid))
        return self._missing[uid][1]

    def _route(self, study_instance_uid: str) -> None:
        study = self._index.studies.study(study_instance_uid)
        if not study.series:
            count = self._index.studies.rows(study_instance_uid)[0].conflicts
            mend = "kept and not read; correct the UIDs at the sender, or read the other study"
            self._fail(study_instance_uid, f"all {count} instances hold UIDs of another study; {mend}")
            return
        decision = route_study(study, self._routes)
        now = self._clock()
        if not decision.chosen:
            self._index.studies.move(
                study_instance_uid, StudyState.NOT_ROUTED, cause=decision.reason, actor=ACTOR, at=now
            )
            log.info("study not routed", extra={"reason": decision.reason})
            return
        jobs = [_job(study, choice) for choice in decision.chosen]
        cause = _in_words(decision)
        wanting = self._index.jobs.queue(study_instance_uid, jobs, cause=cause, actor=ACTOR, at=now)
        log.info("study routed", extra={"reason": cause, "jobs": len(wanting)})

    def _ring(self) -> None:
        """Send the message of every queued job that has none on its way."""
        now = self._clock()
        try:
            for job in self._unheard(now):
                self._queue.send(job)
                self._index.jobs.sent(job.job_uid, now)
        except QueueUnavailable as error:
            if self._queue_answers:
                log.error("the broker is away; jobs wait in the index", extra={"reason": str(error)})
            self._queue_answers = False
            return
        if not self._queue_answers:
            log.info("the broker is back")
        self._queue_answers = True

    def _unheard(self, now: float) -> list[Job]:
        """Queued jobs without a message on its way, as far as the queues tell."""
        lengths = self._queue.lengths()
        stale = self._index.jobs.unsent(now - STALE_MESSAGE_SECONDS)
        lost = [
            job for job in self._index.jobs.unsent(now - LOST_MESSAGE_SECONDS) if not lengths[queue_of(job.priority)]
        ]
        return list({job.job_uid: job for job in (*stale, *lost)}.values())


def _tell_of_silence(job: Job) -> None:
    facts = {"study_instance_uid": job.study_instance_uid, "job_uid": job.job_uid, "reason": job.reason}
    if job.state is JobState.FAILED:
        log.error("a worker went silent; its job has failed", extra=facts)
    else:
        log.warning("a worker went silent; its job is queued again", extra=facts)


def _job(study: Study, choice: Choice) -> Job:
    evidence = evidence_digest(choice.series.instances)
    return Job(
        job_uid=derived_uid("job", study.study_instance_uid, choice.route.name, choice.route.algorithm, evidence),
        study_instance_uid=study.study_instance_uid,
        series_instance_uid=choice.series.series_instance_uid,
        algorithm=choice.route.algorithm,
        route=choice.route.name,
        priority=choice.priority,
        send_to=choice.route.send_to,
        evidence=evidence,
        state=JobState.QUEUED,
        reason="",
        attempts=0,
    )


def _in_words(decision: RoutingDecision) -> str:
    chosen = (
        f"{choice.route.algorithm} reads series {choice.series.series_instance_uid}: {choice.reason}"
        for choice in decision.chosen
    )
    others = (f"not series {other.series_instance_uid}: {other.reason}" for other in decision.not_chosen)
    return "; ".join((*chosen, *others))
