"""A whole node as a modality meets it: what it is told and promises outlives its sudden end."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from pydicom import Dataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian
from pynetdicom import AE, evt
from pynetdicom.association import Association
from pynetdicom.presentation import build_context
from pynetdicom.sop_class import (  # type: ignore[attr-defined]  # made at run time
    ModalityPerformedProcedureStep,
    StorageCommitmentPushModel,
)

from deploy.rig import RunningNode, free_port
from dicom_node.core.lifecycle import StudyState
from dicom_node.settings import Peer
from tests.instances import SERIES_UID, STUDY_UID, ct_instance, sop_uid, write_instance
from tests.requesting import Requestor

PATIENCE_SECONDS = 60.0
STEP = "2.25.1"

#: Long enough that only the step's counts can make the study complete in time.
_LONG_QUIET = """
[completeness]
quiet_seconds_when_whole = 600.0
quiet_seconds_otherwise = 600.0
"""


@contextmanager
def modality(node: RunningNode) -> Iterator[Association]:
    ae = Requestor(ae_title="SCANNER")
    contexts = [build_context(CTImageStorage, ExplicitVRLittleEndian)]
    contexts += [build_context(uid) for uid in (StorageCommitmentPushModel, ModalityPerformedProcedureStep)]
    association = ae.associate("127.0.0.1", node.port, contexts=contexts, ae_title="TRIAGE")
    assert association.is_established
    yield association
    association.release()
    association.join(10)


@contextmanager
def listening(port: int, told: list[Dataset]) -> Iterator[None]:
    ae = AE(ae_title="SCANNER")
    ae.add_supported_context(StorageCommitmentPushModel, scu_role=True, scp_role=True)

    def report(event: evt.Event) -> tuple[int, None]:
        told.append(event.event_information)
        return 0x0000, None

    server = ae.start_server(("127.0.0.1", port), block=False, evt_handlers=[(evt.EVT_N_EVENT_REPORT, report)])
    try:
        yield
    finally:
        server.shutdown()


def until(holds: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE_SECONDS
    while not holds():
        assert time.monotonic() < end, "it did not come about"
        time.sleep(0.1)


def begun() -> Dataset:
    ds, scheduled = Dataset(), Dataset()
    scheduled.StudyInstanceUID = STUDY_UID
    ds.ScheduledStepAttributesSequence = [scheduled]
    ds.PerformedProcedureStepID, ds.PerformedStationAETitle, ds.Modality = "P1", "SCANNER", "CT"
    ds.PerformedProcedureStepStartDate, ds.PerformedProcedureStepStartTime = "20240229", "101500"
    ds.PerformedProcedureStepStatus, ds.PerformedSeriesSequence = "IN PROGRESS", []
    return ds


def ended(*numbers: int) -> Dataset:
    ds, series = Dataset(), Dataset()
    series.SeriesInstanceUID = SERIES_UID
    series.ReferencedImageSequence = references(*numbers)
    ds.PerformedProcedureStepStatus, ds.PerformedSeriesSequence = "COMPLETED", [series]
    return ds


def references(*numbers: int) -> list[Dataset]:
    items = []
    for number in numbers:
        item = Dataset()
        item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = CTImageStorage, sop_uid(number)
        items.append(item)
    return items


def question(*numbers: int) -> Dataset:
    ds = Dataset()
    ds.TransactionUID, ds.ReferencedSOPSequence = "2.25.2", references(*numbers)
    return ds


def test_a_killed_node_keeps_its_promises_and_the_steps_it_was_told_of(tmp_path: Path) -> None:
    port, told = free_port(), list[Dataset]()
    scanner = Peer(name="scanner", ae_title="SCANNER", host="127.0.0.1", port=port)
    node = RunningNode(tmp_path / "node", scanner, further_settings=_LONG_QUIET)
    # Its worker has nothing to do here.
    node.listen()
    try:
        with modality(node) as association:
            assert association.send_n_create(begun(), ModalityPerformedProcedureStep, STEP)[0].Status == 0x0000
            for number in (1, 2):
                path = write_instance(tmp_path / f"{number}.dcm", ct_instance(number))
                assert association.send_c_store(path).Status == 0x0000
            answer, _ = association.send_n_action(
                question(1, 2, 3), 1, StorageCommitmentPushModel, "1.2.840.10008.1.20.1.1"
            )
            assert answer.Status == 0x0000
            # It has no handler for what it is told here: the node hears no success.
        assert node.program.process is not None
        node.program.process.kill()
        node.program.process.wait(60)
        node.listen()
        assert told == []
        with listening(port, told):
            until(lambda: bool(told))
            until(lambda: node.index.promises.owed() == {})
        with modality(node) as association:
            answer, _ = association.send_n_set(ended(1, 2), ModalityPerformedProcedureStep, STEP)
            assert answer.Status == 0x0000
        until(lambda: any(row.after == StudyState.COMPLETE for row in node.index.studies.history(STUDY_UID)))
        (judged,) = (row for row in node.index.studies.history(STUDY_UID) if row.after == StudyState.COMPLETE)
        assert judged.cause.startswith("all 2 instances that MPPS counts are here")
    finally:
        node.stop()
    (answer,) = told
    assert [item.ReferencedSOPInstanceUID for item in answer.ReferencedSOPSequence] == [sop_uid(1), sop_uid(2)]
    assert [(i.ReferencedSOPInstanceUID, i.FailureReason) for i in answer.FailedSOPSequence] == [(sop_uid(3), 0x0112)]
