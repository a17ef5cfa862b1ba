"""A reported study, its files, and peers that take them or not."""

import hashlib
from dataclasses import dataclass, field, replace

import pytest
from pydicom.uid import UID

from dicom_node.archive.deliveries import DeliveryRow
from dicom_node.archive.files import Archive
from dicom_node.archive.index import Index
from dicom_node.archive.jobs import ReportRow
from dicom_node.core.lifecycle import StudyState
from dicom_node.core.priority import Priority
from dicom_node.delivery import Delivery
from dicom_node.settings import DeliverySettings, Peer, Settings
from tests.instances import ct_instance, write_instance
from tests.peers import free_port
from tests.populated_index import NOW, claim, instance, objects, queue, study_uid, summary

#: What both sides of an association leave behind, whose end is not tested here.
WIRE_NOISE = [
    # pynetdicom leaves the socket of a refused connection to the garbage collector.
    pytest.mark.filterwarnings(r"ignore:unclosed <socket\.socket:ResourceWarning"),
    # Where both sides end an association at once, pynetdicom's reactor may end by an InvalidEventError: Evt15 in Sta13.
    pytest.mark.filterwarnings(
        r"ignore:Exception in thread Thread-\d+ \(run_reactor\):pytest.PytestUnhandledThreadExceptionWarning"
    ),
]

STUDY = study_uid("a")


@dataclass
class Site:
    """A reported study, its files, and a clock that a test turns."""

    index: Index
    archive: Archive
    now: float = NOW
    seg: ReportRow = field(init=False)
    sr: ReportRow = field(init=False)

    def report(
        self, study: str, send_to: tuple[str, ...] = (), at: float = NOW, priority: Priority = Priority.ROUTINE
    ) -> None:
        """A study with a report that lies in the archive, written a second before `at`."""
        job = queue(self.index, study, at=at - 5, priority=priority)
        if send_to:
            self.index.studies.add_instance(instance(study, 50, at=NOW - 4))
            self.index.studies.move(study_uid(study), StudyState.COMPLETE, cause="", actor="test", at=NOW - 4)
            job = replace(job, send_to=send_to)
            self.index.jobs.queue(study_uid(study), [job], cause="", actor="test", at=NOW - 4)
        lease = claim(self.index, job, at=at - 3)
        rows = [self._written(row) for row in objects(study)]
        self.index.jobs.report(lease, rows, summary=summary(2), at=at - 1)
        self.seg, self.sr = objects(study)

    def _written(self, row: ReportRow) -> ReportRow:
        path = self.archive.path_of(row.path)
        path.parent.mkdir(parents=True, exist_ok=True)
        changes = {"SOPClassUID": UID(row.sop_class_uid), "SOPInstanceUID": UID(row.sop_instance_uid)}
        write_instance(path, ct_instance(**changes))
        return replace(row, sha256=hashlib.sha256(path.read_bytes()).hexdigest())

    def delivery(self, *peers: Peer, **settings: float) -> Delivery:
        waits = DeliverySettings(**({"timeout_seconds": 5.0} | settings))  # type: ignore[arg-type]  # numbers by name
        whole = Settings(peers=peers, delivery=waits)
        return Delivery(whole, self.index, self.archive, lambda: self.now)

    def state(self, study: str = "a") -> StudyState:
        return self.index.studies.rows(study_uid(study))[0].state

    def waiting(self, peer: str) -> list[DeliveryRow]:
        """All that waits for a peer."""
        return [row for row in self.index.deliveries.unfinished() if row.peer == peer]

    def rows(self, study: str = "a") -> dict[str, DeliveryRow]:
        """The deliveries by SOP class, when there is one peer."""
        return {row.sop_class_uid: row for row in self.index.deliveries.of_study(study_uid(study))}


def away(name: str = "pacs") -> Peer:
    """A peer that does not run."""
    return Peer(name=name, ae_title="PACS", host="127.0.0.1", port=free_port(), results=True)
