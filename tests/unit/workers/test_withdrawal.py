"""A result that a person takes back: nothing of it is sent any more, and who has it gets a rejection note."""

import shutil
import subprocess
from io import BytesIO
from pathlib import Path

import pytest
from pydicom import Dataset, dcmread

from dicom_node.archive.overview import read_study, to_json
from dicom_node.core.errors import IllegalTransition, IndexUnavailable, Interrupted
from dicom_node.core.form import Form
from dicom_node.core.lifecycle import DeliveryState, StudyState
from dicom_node.delivery import Delivery
from dicom_node.settings import Settings
from dicom_node.terminal import print_study
from tests.peers import Behaviour, storage_peer
from tests.populated_index import SEG, SR
from tests.received_study import STUDY
from tests.triage_room import Room, accept, conditions
from tests.unit.workers.test_explanation import written
from workers.owed import NOT_TOLD
from workers.pipe import Reported

pytestmark = [
    # pynetdicom leaves the socket of a refused connection to the garbage collector.
    pytest.mark.filterwarnings(r"ignore:unclosed <socket\.socket:ResourceWarning"),
    pytest.mark.filterwarnings(
        r"ignore:Exception in thread Thread-\d+ \(run_reactor\):pytest.PytestUnhandledThreadExceptionWarning"
    ),
]

#: Key Object Selection Document Storage.
KOS = "1.2.840.10008.5.1.4.1.1.88.59"
REASON = "the outlines lie in another patient's lungs"


def withdraw(room: Room, *, safety: bool = False) -> None:
    room.index.withdrawals.withdraw(STUDY, safety=safety, reason=REASON, actor="page", at=room.now)


def notes(room: Room) -> list[Dataset]:
    """The rejection notes of the study."""
    rows = room.index.jobs.report_rows(room.job.job_uid)
    return [dcmread(room.archive.path_of(row.path)) for row in rows if row.form == Form.REJECTION]


def rejected(note: Dataset) -> set[str]:
    return {
        ref.ReferencedSOPInstanceUID
        for study in note.CurrentRequestedProcedureEvidenceSequence
        for series in study.ReferencedSeriesSequence
        for ref in series.ReferencedSOPSequence
    }


@pytest.mark.parametrize(("safety", "code"), [(False, "113001"), (True, "113037")])
def test_who_has_the_result_gets_a_note_with_the_reason(room: Room, safety: bool, code: str) -> None:
    room.read()
    accept(room)
    results = {row.sop_instance_uid for row in room.index.jobs.report_rows(room.job.job_uid)}
    source = written(room)
    withdraw(room, safety=safety)
    assert room.row.state is StudyState.WITHDRAWN
    assert REASON in room.row.reason
    room.triage.work_off()
    (note,) = notes(room)
    assert note.ConceptNameCodeSequence[0].CodeValue == code
    assert rejected(note) == results
    assert REASON in [item.get("TextValue") for item in note.ContentSequence]
    assert (note.PatientID, note.PatientName, note.StudyInstanceUID) == (source.PatientID, source.PatientName, STUDY)
    (waiting,) = [row for row in room.index.deliveries.of_study(STUDY) if row.form is Form.REJECTION]
    assert (waiting.peer, waiting.state) == ("pacs", DeliveryState.WAITING)
    assert room.index.withdrawals.owed() == []


def test_a_peer_that_has_nothing_is_told_nothing_and_gets_nothing_any_more(room: Room) -> None:
    room.read()
    for uid, *_ in room.index.deliveries.unplanned():
        room.index.deliveries.plan(uid, ["pacs"], room.now)
    withdraw(room)
    room.triage.work_off()
    assert notes(room) == []
    assert room.index.deliveries.due_studies("pacs", room.now + 9e9, 9) == []
    assert room.index.deliveries.unfinished() == []


def test_the_note_arrives_and_the_study_stays_withdrawn(room: Room) -> None:
    room.read()
    pacs = Behaviour()
    with storage_peer(pacs, sop_classes=(SEG, SR, KOS)) as peer:
        delivery = Delivery(Settings(peers=(peer,)), room.index, room.archive, lambda: room.now)
        delivery.step()
        assert room.row.state is StudyState.DELIVERED
        withdraw(room)
        room.triage.work_off()
        delivery.step()
    (note,) = notes(room)
    assert pacs.arrived[-1] == note.SOPInstanceUID
    assert len(pacs.arrived) == 3
    assert room.row.state is StudyState.WITHDRAWN


def test_what_is_withdrawn_while_it_is_being_sent_is_not_sent(room: Room) -> None:
    room.read()
    uids = [uid for uid, *_ in room.index.deliveries.unplanned()]
    assert all(room.index.reports.offered(uid, room.now) for uid in uids)
    withdraw(room)
    assert not any(room.index.reports.offered(uid, room.now) for uid in uids)


def test_peers_that_hold_other_objects_get_other_notes(room: Room) -> None:
    room.read()
    for uid, _, form, _ in room.index.deliveries.unplanned():
        room.index.deliveries.plan(uid, ["pacs", "ris"] if form is Form.SR else ["pacs"], room.now)
    for row in room.index.deliveries.of_study(STUDY):
        room.index.deliveries.accepted(row, reason="", at=room.now)
    withdraw(room)
    room.triage.work_off()
    assert sorted(len(rejected(note)) for note in notes(room)) == [1, 2]


def test_an_index_that_is_away_however_often_does_not_let_a_note_be_given_up(
    room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    room.read()
    accept(room)
    withdraw(room)

    def away(*_: object, **__: object) -> bool:
        raise IndexUnavailable("it is locked")

    with monkeypatch.context() as patch:
        patch.setattr(room.index.withdrawals, "written", away)
        for _ in range(5):
            room.triage.work_off()
    assert notes(room) == []
    room.triage.work_off()
    assert len(notes(room)) == 1


def test_a_reading_process_that_breaks_however_often_does_not_let_a_note_be_given_up(
    room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    room.read()
    accept(room)
    withdraw(room)

    def broken(*_: object, **__: object) -> Reported:
        raise Interrupted("the reading process was killed")

    with monkeypatch.context() as patch:
        patch.setattr(room.triage._owed._readings, "read", broken)
        for _ in range(5):
            room.triage.work_off()
        assert "not told yet" in conditions(room)[NOT_TOLD]
        room.now += 400
        room.triage.work_off()
    room.triage.work_off()
    assert len(notes(room)) == 1
    assert NOT_TOLD not in conditions(room)


def test_what_has_no_result_cannot_be_withdrawn(room: Room) -> None:
    with pytest.raises(IllegalTransition):
        withdraw(room)
    room.read()
    withdraw(room)
    with pytest.raises(IllegalTransition, match="WITHDRAWN cannot follow WITHDRAWN"):
        withdraw(room)


def test_a_withdrawal_needs_a_reason(room: Room) -> None:
    room.read()
    with pytest.raises(IllegalTransition, match="reason"):
        room.index.withdrawals.withdraw(STUDY, safety=False, reason="  ", actor="page", at=room.now)
    assert room.row.state is StudyState.REPORTED


def test_people_see_it_everywhere(room: Room, capsys: pytest.CaptureFixture[str]) -> None:
    room.read()
    accept(room)
    withdraw(room, safety=True)
    detail = read_study(room.index, STUDY, room.now)
    assert to_json(detail)["withdrawals"][0]["peers"] == ["pacs"]
    print_study(detail)
    said = capsys.readouterr().out
    assert "WITHDRAWN at" in said
    assert REASON in said
    room.triage.work_off()
    assert "rejection note written for pacs" in [line.cause for line in room.index.studies.history(STUDY)]


def test_where_the_results_are_gone_people_are_told_to_tell_the_peers(
    room: Room, caplog: pytest.LogCaptureFixture
) -> None:
    room.read()
    accept(room)
    withdraw(room)
    shutil.rmtree(room.archive.path_of("results"))
    room.triage.work_off()
    assert notes(room) == []
    assert "a peer is not told that a result was withdrawn" in caplog.messages
    assert any("tell them yourself" in line.cause for line in room.index.studies.history(STUDY))


@pytest.mark.skipif(shutil.which("dciodvfy") is None, reason="dciodvfy is not installed (Debian: dicom3tools)")
def test_outside_judges_take_the_note(room: Room, tmp_path: Path) -> None:
    room.read()
    accept(room)
    withdraw(room)
    room.triage.work_off()
    (row,) = [row for row in room.index.jobs.report_rows(room.job.job_uid) if row.form == Form.REJECTION]
    file = room.archive.path_of(row.path)
    run = subprocess.run(["dciodvfy", "-new", str(file)], capture_output=True, text=True, check=False)
    assert not [line for line in (run.stdout + run.stderr).splitlines() if line.startswith("Error")]
    assert dcmread(BytesIO(file.read_bytes())).Modality == "KO"
