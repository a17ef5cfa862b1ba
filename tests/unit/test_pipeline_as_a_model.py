"""The pipeline under faults, driven by chance against what must hold of it always.

Assembly, dispatch, delivery and storage commitment are the real ones over a real index, with a clock that the test
turns. Workers, broker and PACS are models that fail in every way they can: a worker vanishes with its lease and comes
back late, the broker loses its bells, the PACS is away, refuses, or loses what it accepted.
"""

import hashlib
import tempfile
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from unittest.mock import patch

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

from dicom_node.archive.files import Archive
from dicom_node.archive.index import Index
from dicom_node.archive.jobs import LeaseLost, ReportRow
from dicom_node.archive.studies import Added
from dicom_node.assembly import Assembly
from dicom_node.commitment import Commitment
from dicom_node.core.commitment import CommitmentReport
from dicom_node.core.errors import IllegalTransition, PeerUnreachable, QueueUnavailable, StoreFailed
from dicom_node.core.expression import parse_expression
from dicom_node.core.job import Job, Lease
from dicom_node.core.lifecycle import STUDY_TRANSITIONS, JobState, StudyState
from dicom_node.core.priority import QUEUES, queue_of
from dicom_node.core.routing import Route
from dicom_node.core.uid import derived_uid
from dicom_node.delivery import Delivery
from dicom_node.dispatch import Dispatch
from dicom_node.scu.storage import FileToSend, Kind, Sent
from dicom_node.scu.storage_commitment import CommitmentRequest, TakeReport
from dicom_node.settings import DeliverySettings, Peer, QueueSettings, Settings
from tests.populated_index import NOW, SEG, SR, instance, study_uid
from tests.strategies import slice_at

PACS = Peer(name="pacs", ae_title="PACS", host="pacs", port=104, results=True, commitment=True)
ROUTES = (Route(name="chest", algorithm="lung_nodule", when=parse_expression('Modality == "CT"'), minimum_instances=2),)
SETTINGS = Settings(
    routes=ROUTES,
    peers=(PACS,),
    queue=QueueSettings(maximum_attempts=3),
    delivery=DeliverySettings(maximum_refusals=4, maximum_wait_seconds=60.0),
)
FINAL = {StudyState.COMMITTED, StudyState.NOT_ROUTED, StudyState.FAILED}
MODALITY = {"a": "CT", "b": "CT", "c": "CT", "not wanted": "MR"}
STUDIES = st.sampled_from(list(MODALITY))
ROUNDS = ("leases", "assembly", "dispatch", "delivery", "commitment")
WORKERS = st.sampled_from(["gpu1:1", "gpu2:2"])


@dataclass
class Broker:
    """Bells in memory; it can be away, and lose what it took."""

    away: bool = False
    bells: dict[str, int] = field(default_factory=lambda: dict.fromkeys(QUEUES, 0))

    def send(self, job: Job) -> None:
        if self.away:
            raise QueueUnavailable("the broker took no message")
        self.bells[queue_of(job.priority)] += 1

    def announce(self, job: Job) -> None:
        self.send(job)

    def lengths(self) -> Mapping[str, int]:
        if self.away:
            raise QueueUnavailable("the broker does not answer")
        return dict(self.bells)


@dataclass
class Pacs:
    """What the other side of the wire holds and has promised to keep."""

    away: bool = False
    refusals: int = 0
    held: set[str] = field(default_factory=set)
    promised: set[str] = field(default_factory=set)
    #: Every object that it was ever sent, with its bytes.
    seen: dict[str, str] = field(default_factory=dict)

    @contextmanager
    def storing(self, _peer: Peer, kinds: Collection[Kind], **_rest: object) -> Iterator["Wire"]:
        if self.away:
            raise PeerUnreachable("the PACS does not answer")
        yield Wire(self, frozenset(kinds))

    def send(self, file: FileToSend) -> Sent:
        if self.refusals:
            self.refusals -= 1
            return Sent(file=file, answer="", error=StoreFailed("out of resources", status=0xA700))
        digest = hashlib.sha256(file.path.read_bytes()).hexdigest()
        assert self.seen.setdefault(file.sop_instance_uid, digest) == digest, "one UID named two contents"
        self.held.add(file.sop_instance_uid)
        return Sent(file=file, answer="accepted (0x0000)", error=None)

    def ask(self, _peer: Peer, request: CommitmentRequest, take: TakeReport, **_rest: object) -> bool:
        if self.away:
            raise PeerUnreachable("the PACS does not answer")
        asked = {uid for _, uid in request.objects}
        self.promised |= asked & self.held
        take(
            CommitmentReport(
                transaction_uid=request.transaction_uid,
                committed=frozenset(asked & self.held),
                failed=dict.fromkeys(asked - self.held, 0x0112),
            )
        )
        return True


@dataclass(frozen=True)
class Wire:
    """An association with the PACS, as a lane knows it."""

    pacs: Pacs
    kinds: frozenset[Kind]

    def takes(self, files: Iterable[FileToSend]) -> bool:
        return not self.pacs.away and all(file.kind in self.kinds for file in files)

    def send(self, file: FileToSend) -> Sent:
        return self.pacs.send(file)


class Pipeline(RuleBasedStateMachine):
    """Everything that can happen, in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.now = NOW
        self.folder = tempfile.TemporaryDirectory()
        self.archive = Archive(Path(self.folder.name))
        self.index = Index.open("sqlite://")
        self.broker, self.pacs = Broker(), Pacs()
        self.accepted: dict[str, set[int]] = {}
        self.leases: list[tuple[Job, Lease]] = []
        #: Evidence that was reported, by job.
        self.reported: dict[str, set[str]] = {}
        self.patches = (
            patch("dicom_node.lane.storing", self.pacs.storing),
            patch("dicom_node.commitment.ask", self.pacs.ask),
        )
        for each in self.patches:
            each.start()
        self.start_node()

    def start_node(self) -> None:
        """The node's memory is what the index holds."""
        clock = self.clock
        self.dispatch = Dispatch(SETTINGS, self.index, self.broker, clock)
        self.assembly = Assembly(SETTINGS, self.index, clock, self.dispatch.announce)
        self.delivery = Delivery(SETTINGS, self.index, self.archive, clock)
        self.commitment = Commitment(SETTINGS, self.index, clock)

    def clock(self) -> float:
        return self.now

    @rule()
    def restart_the_node(self) -> None:
        self.start_node()

    @initialize(studies=st.lists(STUDIES, min_size=1, unique=True), slices=st.integers(2, 4))
    def something_arrives(self, studies: list[str], slices: int) -> None:
        for study in studies:
            for number in range(1, slices + 1):
                self.receive(study, number)

    @rule(study=STUDIES, number=st.integers(1, 6))
    def receive(self, study: str, number: int) -> None:
        """A slice comes: a new one, a late one, one that leaves a gap, or one that is here."""
        known = self.accepted.setdefault(study, set())
        header = slice_at(2.5 * number, Modality=MODALITY[study], SeriesNumber=2, InstanceNumber=number)
        added = self.index.studies.add_instance(instance(study, number, at=self.now, attributes=header))
        assert (added is Added.NEW) == (number not in known)
        known.add(number)

    @rule(
        seconds=st.sampled_from([0.1, 2.5, 5.0, 40.0, 70.0, 700.0]),
        steps=st.one_of(st.just(list(ROUNDS)), st.lists(st.sampled_from(ROUNDS), max_size=4)),
        workers=st.lists(WORKERS, max_size=2),
    )
    def live_on(self, seconds: float, steps: list[str], workers: list[str]) -> None:
        """Time passes, and rounds come, in their order or in any other; workers look for something to read."""
        self.now += seconds
        self.work(steps)
        for worker in workers:
            self.claim(worker)

    def work(self, steps: Iterable[str]) -> None:
        rounds: Mapping[str, Callable[[], None]] = {
            "assembly": self.assembly.step,
            "dispatch": self.dispatch.ring,
            "leases": self.dispatch.expire,
            "delivery": self.delivery.step,
            "commitment": self.commitment.step,
        }
        for step in steps:
            rounds[step]()

    def claim(self, worker: str) -> None:
        claimed = self.index.jobs.claim_next(worker=worker, queues=QUEUES, lease_seconds=30.0, at=self.now)
        if claimed is not None:
            job, lease = claimed
            assert job.attempts <= SETTINGS.queue.maximum_attempts
            held = [other for _, other in self.leases if other.job_uid == job.job_uid]
            assert all(lease.fence > other.fence for other in held)
            self.leases.append((job, lease))

    @precondition(lambda self: self.leases)
    @rule(data=st.data(), outcome=st.sampled_from(["report", "report", "retry", "fail", "not applicable", "vanish"]))
    def end_a_reading(self, data: st.DataObject, outcome: str) -> None:
        """A worker comes to an end, maybe long after its lease did."""
        job, lease = data.draw(st.sampled_from(self.leases))
        self.leases.remove((job, lease))
        current = self.index.jobs.renew(lease, self.now + 30.0)
        try:
            self.end(job, lease, outcome)
        except LeaseLost:
            assert not current
        else:
            assert current or outcome == "vanish"

    def end(self, job: Job, lease: Lease, outcome: str) -> None:
        jobs, at = self.index.jobs, self.now
        if outcome == "report":
            jobs.report(lease, self.write(job), summary={"result": "1 nodule found", "findings": 1}, at=at)
            self.reported.setdefault(job.study_instance_uid, set()).add(job.evidence)
        elif outcome == "retry":
            jobs.retry(lease, reason="the disk was full", attempts=SETTINGS.queue.attempts, at=at)
        elif outcome != "vanish":
            state = JobState.FAILED if outcome == "fail" else JobState.NOT_APPLICABLE
            jobs.end(lease, state, reason=outcome, at=at)

    def write(self, job: Job) -> list[ReportRow]:
        """The same evidence always writes the same objects."""
        rows = []
        for sop_class in (SEG, SR):
            uid = derived_uid("object", job.job_uid, sop_class)
            data = _file(sop_class, uid)
            series = derived_uid("series", job.study_instance_uid, sop_class)
            path = self.archive.store_result(
                study_uid=job.study_instance_uid, series_uid=series, sop_uid=uid, data=data
            )
            rows.append(
                ReportRow(
                    sop_instance_uid=uid,
                    series_instance_uid=series,
                    sop_class_uid=sop_class,
                    path=path,
                    sha256=hashlib.sha256(data).hexdigest(),
                )
            )
        return rows

    @rule(away=st.booleans(), loses=st.booleans())
    def trouble_the_broker(self, away: bool, loses: bool) -> None:
        self.broker.away = away
        if loses:
            self.broker.bells = dict.fromkeys(QUEUES, 0)

    @rule(away=st.booleans(), refusals=st.integers(0, 3))
    def trouble_the_pacs(self, away: bool, refusals: int) -> None:
        self.pacs.away, self.pacs.refusals = away, refusals

    @rule()
    def lose_what_was_not_promised(self) -> None:
        self.pacs.held &= self.pacs.promised

    @rule(study=STUDIES)
    def ask_again(self, study: str) -> None:
        if study in self.accepted:
            with suppress(IllegalTransition):
                self.index.jobs.ask_again(study_uid(study), actor="page", at=self.now)

    @invariant()
    def every_history_is_one_legal_way(self) -> None:
        for study in self.accepted:
            lines = [line for line in self.index.studies.history(study_uid(study)) if not line.subject]
            for before, after in pairwise(lines):
                assert before.after == after.before
            for line in lines[1:]:
                before, after = StudyState(line.before), StudyState(line.after)
                assert before is after or after in STUDY_TRANSITIONS[before]
            assert lines[-1].after == self.state(study)

    @invariant()
    def nothing_accepted_is_lost(self) -> None:
        for study, numbers in self.accepted.items():
            kept = sum(len(series.instances) for series in self.index.studies.study(study_uid(study)).series)
            assert kept == len(numbers)

    @invariant()
    def what_is_called_delivered_is_there(self) -> None:
        for study in self.accepted:
            state = self.state(study)
            if state not in (StudyState.DELIVERED, StudyState.COMMITTED):
                continue
            objects = self.objects(study)
            assert objects
            assert objects <= self.pacs.seen.keys()
            if state is StudyState.COMMITTED:
                assert objects <= self.pacs.promised

    @invariant()
    def one_evidence_is_reported_once(self) -> None:
        for study, evidence in self.reported.items():
            jobs = [row.job for row in self.index.jobs.of_study(study)]
            names = {derived_uid("object", job.job_uid, SR) for job in jobs if job.evidence in evidence}
            assert len(names & self.pacs.seen.keys()) <= len(evidence)

    @invariant()
    def a_job_is_in_one_pair_of_hands(self) -> None:
        for study in self.accepted:
            for row in self.index.jobs.of_study(study_uid(study)):
                holders = [
                    lease for job, lease in self.leases if job.job_uid == row.job.job_uid and self.is_held(lease)
                ]
                assert len(holders) <= 1

    def is_held(self, lease: Lease) -> bool:
        return self.index.jobs.renew(lease, lease.expires_at)

    def state(self, study: str) -> StudyState:
        return self.index.studies.rows(study_uid(study))[0].state

    def objects(self, study: str) -> set[str]:
        """Of the jobs that count now."""
        rows = self.index.jobs.of_study(study_uid(study))
        current = {row.job.job_uid for row in rows if row.job.state is JobState.REPORTED}
        return {row.sop_instance_uid for uid in current for row in self.index.jobs.report_rows(uid)}

    def teardown(self) -> None:
        """Faults stop, and every study that was accepted comes to its end."""
        try:
            self.broker.away = self.pacs.away = False
            self.pacs.refusals = 0
            self.leases.clear()
            for _ in range(400):
                self.now += 15.0
                self.work(["leases", "assembly", "dispatch"])
                self.claim("gpu1:1")
                if self.leases:
                    job, lease = self.leases.pop()
                    self.end(job, lease, "report")
                self.work(["delivery", "commitment"])
                if all(self.state(study) in FINAL for study in self.accepted):
                    break
            assert {study: state for study in self.accepted if (state := self.state(study)) not in FINAL} == {}
            self.every_history_is_one_legal_way()
            self.what_is_called_delivered_is_there()
        finally:
            for each in self.patches:
                each.stop()
            self.index.close()
            self.folder.cleanup()


def _file(sop_class: str, uid: str) -> bytes:
    """A small DICOM file."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = sop_class, uid
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds = FileDataset(None, {}, file_meta=meta, preamble=b"\0" * 128)
    ds.SOPClassUID, ds.SOPInstanceUID, ds.ContentLabel = sop_class, uid, "RESULT"
    with tempfile.SpooledTemporaryFile() as file:
        ds.save_as(file, enforce_file_format=True)
        file.seek(0)
        return file.read()


TestPipeline = Pipeline.TestCase
TestPipeline.settings = settings(
    max_examples=20, stateful_step_count=30, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
