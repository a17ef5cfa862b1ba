"""Assembly: what has arrived is judged, routed and queued."""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import reduce

from dicom_node.archive.index import Index
from dicom_node.archive.watch import Watch
from dicom_node.core.completeness import Deciding, StudyFacts, Verdict, missing_slices, verdict
from dicom_node.core.errors import IllegalTransition, NodeError
from dicom_node.core.job import Job, evidence_digest
from dicom_node.core.lifecycle import JobState, StudyState
from dicom_node.core.priority import more_urgent
from dicom_node.core.routing import TOGETHER, Choice, RoutingDecision, route_study
from dicom_node.core.study import Study
from dicom_node.core.uid import derived_uid
from dicom_node.settings import Settings
from dicom_node.telemetry import log_context

log = logging.getLogger(__name__)

ACTOR = "assembly"


class Assembly:
    """Asks the index what is due and does it; what must outlive a restart is in the index."""

    def __init__(
        self,
        settings: Settings,
        index: Index,
        clock: Callable[[], float],
        announce: Callable[[Job], None] = lambda _job: None,
        *,
        announcing: Callable[[], bool] = lambda: True,
        on_jobs: Callable[[], None] = lambda: None,
    ) -> None:
        """`announce` is told of a job that comes if nothing more of its study does, while `announcing` holds.

        `on_jobs` is told that there is work for workers.
        """
        self._index = index
        self._clock = clock
        self._timers = settings.completeness
        self._routes = settings.routes
        self._takers = tuple(peer.name for peer in settings.peers if peer.results)
        self._watch = Watch(index.arrivals, self._timers, settings.askable_peers)
        #: What each study that is still arriving lacked, and its last arrival when that was found out.
        self._missing: dict[str, tuple[float, tuple[tuple[str, str], ...]]] = {}
        #: The studies whose headers this round has looked at.
        self._judged: dict[str, Study] = {}
        self._announce, self._announcing, self._on_jobs = announce, announcing, on_jobs
        #: The last arrival of each study whose jobs were announced.
        self._announced: dict[str, float] = {}

    def step(self) -> None:
        """One round over everything that may be due."""
        # Also of a round that broke off.
        self._judged.clear()
        due = self._watch.due(self._clock())
        self._missing = {uid: found for uid, found in self._missing.items() if uid in self._watch.arriving}
        self._announced = {uid: at for uid, at in self._announced.items() if uid in self._watch.arriving}
        for uid, facts in due.items():
            with self._alone(uid, "judged"):
                self._judge(uid, facts)
        for uid in self._index.studies.in_state(StudyState.COMPLETE):
            with self._alone(uid, "routed"):
                self._route(uid)

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

    def _judge(self, study_instance_uid: str, facts: StudyFacts) -> None:
        now = self._clock()
        judged = verdict(facts, now, self._timers)
        # The headers are looked at only when, without doubts of theirs, the study would be complete.
        if judged.complete:
            missing = self._missing_slices(study_instance_uid, facts.last_received_at)
            judged = verdict(replace(facts, missing=missing), now, self._timers)
        if judged.check_again_at is None:
            self._arrived(study_instance_uid, facts, judged, now)
            return
        self._watch.rest(study_instance_uid, facts, now, judged.check_again_at)
        if judged.decided_by is Deciding.GEOMETRY and self._announcing():
            self._announce_jobs(study_instance_uid, facts.last_received_at)

    def _announce_jobs(self, study_instance_uid: str, at: float) -> None:
        """While only the quiet time is waited for, a worker may prepare what will be read if nothing more comes."""
        if self._announced.get(study_instance_uid) == at or self._missing_slices(study_instance_uid, at):
            return
        self._announced[study_instance_uid] = at
        study = self._judged.get(study_instance_uid) or self._index.studies.study(study_instance_uid)
        for job in self._jobs(study, route_study(study, self._routes)):
            self._announce(job)
            self._on_jobs()

    def _arrived(self, study_instance_uid: str, facts: StudyFacts, judged: Verdict, now: float) -> None:
        after = StudyState.FAILED if judged.failed else StudyState.COMPLETE
        last, cause = facts.last_received_at, judged.reason
        if self._index.studies.arrived(
            study_instance_uid, after, last_received_at=last, cause=cause, actor=ACTOR, at=now
        ):
            level, message = (logging.ERROR, "study incomplete") if judged.failed else (logging.INFO, "study complete")
            log.log(level, message, extra={"reason": cause, "kind": judged.decided_by})

    def _missing_slices(self, uid: str, at: float) -> tuple[tuple[str, str], ...]:
        """What the study's volumes lack, found out once for each last arrival: a gap is waited for, not looked at."""
        if self._missing.get(uid, (None,))[0] != at:
            study = self._judged[uid] = self._index.studies.study(uid)
            self._missing[uid] = at, missing_slices(study)
        return self._missing[uid][1]

    def _route(self, study_instance_uid: str) -> None:
        # What came since it was judged has taken it back to RECEIVING, where it cannot be queued.
        study = self._judged.get(study_instance_uid) or self._index.studies.study(study_instance_uid)
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
        jobs = self._jobs(study, decision)
        cause = _in_words(decision)
        wanting = self._index.jobs.queue(study_instance_uid, jobs, cause=cause, actor=ACTOR, at=now)
        self._on_jobs()
        log.info("study routed", extra={"reason": cause, "jobs": len(wanting)})

    def _jobs(self, study: Study, decision: RoutingDecision) -> list[Job]:
        """One job for each algorithm and series: what several routes want of the same is read once, for all of them."""
        together: dict[tuple[str, str], list[Choice]] = {}
        for choice in decision.chosen:
            key = (choice.route.algorithm, choice.series.series_instance_uid)
            together.setdefault(key, []).append(choice)
        return [_job(study, choices, self._takers) for choices in together.values()]


def _job(study: Study, choices: Sequence[Choice], takers: tuple[str, ...]) -> Job:
    """The job of routes that choose the same series for the same algorithm; `takers` get what a route sends to all."""
    series, algorithm = choices[0].series, choices[0].route.algorithm
    evidence, route = evidence_digest(series.instances), TOGETHER.join(choice.route.name for choice in choices)
    named = [choice.route.send_to for choice in choices]
    # Of all routes none names a peer: then whoever takes results when the report is there.
    send_to = tuple(dict.fromkeys(peer for peers in named for peer in peers or takers)) if any(named) else ()
    return Job(
        job_uid=derived_uid("job", study.study_instance_uid, route, algorithm, evidence),
        study_instance_uid=study.study_instance_uid,
        series_instance_uid=series.series_instance_uid,
        algorithm=algorithm,
        route=route,
        priority=reduce(more_urgent, (choice.priority for choice in choices)),
        send_to=send_to,
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
