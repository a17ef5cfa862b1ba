"""A result that was taken back, and readings of its study: those before it, while it is asked for, and afterwards."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import sqlalchemy as sa
from pydicom import Dataset, dcmread
from pydicom.uid import ExplicitVRLittleEndian

from dicom_node.archive.index import Index
from dicom_node.assembly import Assembly
from dicom_node.core.errors import IllegalTransition, InconsistentGeometry
from dicom_node.core.expression import parse_expression
from dicom_node.core.form import Form
from dicom_node.core.lifecycle import DeliveryState, JobState, StudyState
from dicom_node.core.routing import Route
from dicom_node.core.uid import derived_uid
from dicom_node.intake import Intake
from dicom_node.reindexing import reindex
from dicom_node.settings import NodeSettings, Settings
from tests import triage_room
from tests.instances import received
from tests.received_study import STUDY, queued
from tests.triage_room import Room, accept, late_slice
from tests.unit.workers.test_explanation import ask_again, fail, named, written
from tests.unit.workers.test_withdrawal import REASON, notes, rejected, withdraw

pytestmark = [
    # pynetdicom leaves the socket of a refused connection to the garbage collector.
    pytest.mark.filterwarnings(r"ignore:unclosed <socket\.socket:ResourceWarning"),
    pytest.mark.filterwarnings(
        r"ignore:Exception in thread Thread-\d+ \(run_reactor\):pytest.PytestUnhandledThreadExceptionWarning"
    ),
]


def test_read_again_it_is_another_object_that_names_the_one_taken_back(room: Room) -> None:
    """A peer that was told to reject an instance would reject it again."""
    room.read()
    accept(room)
    before = written(room)
    withdraw(room)
    room.triage.work_off()
    ask_again(room)
    room.read()
    after = [
        dcmread(room.archive.path_of(row.path))
        for row in room.index.jobs.report_rows(room.job.job_uid)
        if row.form == Form.SR
    ]
    assert [ds.SOPInstanceUID for ds in after] != [before.SOPInstanceUID]
    assert named(after[0]) == [before.SOPInstanceUID]
    assert room.row.state is StudyState.REPORTED
    assert len(notes(room)) == 1, "the note is still to be sent"


@pytest.mark.parametrize("peers_now", [(), ("archive",), ("archive", "pacs")])
def test_who_has_a_result_is_told_also_where_it_was_written_again_and_goes_to_others_now(
    room: Room, peers_now: tuple[str, ...]
) -> None:
    """The same images, read again, are the same objects; the settings may send them elsewhere, or nothing went yet."""
    room.read()
    accept(room)
    sent = current(room)
    for _ in range(2):
        ask_again(room)
        room.read()
        assert current(room) == sent
        for uid, *_ in room.index.deliveries.unplanned():
            room.index.deliveries.plan(uid, peers_now, room.now)
    withdraw(room)
    (withdrawal,) = room.index.withdrawals.of_study(STUDY)
    assert set(withdrawal.objects["pacs"]) == sent
    room.triage.work_off()
    (note,) = notes(room)
    assert rejected(note) == sent


def current(room: Room) -> set[str]:
    """What the study's result consists of."""
    rows = room.index.jobs.report_rows(room.job.job_uid)
    return {row.sop_instance_uid for row in rows if row.form != Form.REJECTION}


def read_again_by_another_version(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    other = replace(triage_room.IDENTIFICATION, version="9.9", checksum="c" * 64)
    monkeypatch.setattr(triage_room, "IDENTIFICATION", other)
    room.triage = room.triage_with(lung_nodule=room.algorithm)
    ask_again(room)
    room.read()


def test_what_an_earlier_version_wrote_and_peers_have_is_taken_back_too(
    room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    room.read()
    accept(room)
    first = current(room)
    read_again_by_another_version(room, monkeypatch)
    accept(room)
    second = current(room)
    assert not first & second
    assert room.row.state is StudyState.DELIVERED
    withdraw(room)
    room.triage.work_off()
    (note,) = notes(room)
    assert rejected(note) == first | second


def test_what_the_answer_that_it_could_not_be_read_again_replaced_is_taken_back_too(room: Room) -> None:
    room.read()
    accept(room)
    first = current(room)
    fail(room, InconsistentGeometry("slices lie 2.5 and 5 mm apart"))
    ask_again(room)
    room.read()
    accept(room)
    unread = current(room)
    assert len(unread) == 1
    withdraw(room)
    room.triage.work_off()
    (note,) = notes(room)
    assert rejected(note) == first | unread


def test_what_was_replaced_before_its_answer_came_is_taken_back_and_not_sent(
    room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    room.read()
    for uid, *_ in room.index.deliveries.unplanned():
        room.index.deliveries.plan(uid, ["pacs"], room.now)
    seg, sr = sorted(room.index.deliveries.of_study(STUDY), key=lambda row: row.sop_class_uid)[::-1]
    assert room.index.reports.offered(seg.sop_instance_uid, room.now)
    read_again_by_another_version(room, monkeypatch)
    assert room.index.deliveries.due_studies("pacs", room.now + 9e9, 9) == []
    assert not room.index.reports.offered(seg.sop_instance_uid, room.now)
    (left,) = room.index.deliveries.of_study(STUDY)
    assert (left.sop_instance_uid, left.state) == (seg.sop_instance_uid, DeliveryState.FAILED)
    withdraw(room)
    (owed,) = room.index.withdrawals.owed()
    assert owed.objects == {"pacs": (seg.sop_instance_uid,)}
    assert sr.sop_instance_uid not in room.index.withdrawals.files(owed)


def test_what_was_refused_after_an_answer_was_lost_is_taken_back_too(room: Room) -> None:
    """A peer that has an object already may refuse it."""
    room.read()
    results = sorted(current(room))
    for uid in results:
        room.index.deliveries.plan(uid, ["pacs"], room.now)
        assert room.index.reports.offered(uid, room.now)
    for row in room.index.deliveries.of_study(STUDY):
        room.index.deliveries.failed(row, reason="0x0111 Duplicate SOP instance", at=room.now)
    withdraw(room)
    (owed,) = room.index.withdrawals.owed()
    assert owed.objects == {"pacs": tuple(results)}


def test_what_was_taken_back_does_not_wait_for_its_peers_when_its_study_is_asked_for_again(room: Room) -> None:
    room.read()
    results = current(room)
    for uid in results:
        room.index.deliveries.plan(uid, ["pacs"], room.now)
    withdraw(room)
    ask_again(room)
    assert room.index.deliveries.due_studies("pacs", room.now + 9e9, 9) == []
    assert room.index.deliveries.unfinished() == []
    assert not any(room.index.reports.offered(uid, room.now) for uid in results)
    with room.index.transactions.read() as connection:
        offered = connection.execute(sa.select(room.index.transactions.tables["reports"].c.offered_at)).scalars().all()
    assert set(offered) == {None}


def test_a_late_image_after_it_is_read_as_usual(room: Room, tmp_path: Path) -> None:
    room.read()
    accept(room)
    withdraw(room)
    room.triage.work_off()
    late_slice(room, tmp_path)()
    assert room.row.state is StudyState.RECEIVING


CHEST = Route(name="chest", algorithm="lung_nodule", when=parse_expression('Modality == "CT"'), minimum_instances=3)


def arrive(room: Room, *sent: Dataset) -> None:
    """Instances arrive, and some minutes pass."""
    intake = Intake(archive=room.archive, studies=room.index.studies, clock=lambda: room.now)
    for ds in sent:
        intake.store(received(ds, ExplicitVRLittleEndian, association_id=None))
    assembly = Assembly(Settings(routes=(CHEST,)), room.index, lambda: room.now)
    for _ in range(3):
        room.now += 100
        assembly.step()


def withdrawn_by_route(room: Room) -> list[Dataset]:
    """A study that was routed as in a node, and whose result was taken back; the result, and what withdraws it."""
    room.read()
    room.index.jobs.ask_again(STUDY, actor="test", at=room.now)
    arrive(room)
    room.read()
    accept(room)
    withdraw(room, safety=True)
    room.triage.work_off()
    rows = [row for job in room.index.jobs.of_study(STUDY) for row in room.index.jobs.report_rows(job.job.job_uid)]
    return [dcmread(room.archive.path_of(row.path)) for row in rows]


def test_what_was_made_here_and_comes_back_opens_nothing(room: Room) -> None:
    """A peer may pass on to us whatever it gets of a study, what withdraws a result too."""
    results = withdrawn_by_route(room)
    assert {ds.Modality for ds in results} == {"SEG", "SR", "KO"}
    arrive(room, *results)
    assert room.row.state is StudyState.WITHDRAWN
    causes = [line.cause for line in room.index.studies.history(STUDY)]
    assert sum("came back, which was made here" in cause for cause in causes) == len(results)


def test_a_late_object_that_changes_nothing_of_what_was_read_has_nothing_read_that_was_taken_back(room: Room) -> None:
    """Another reader's report, say. A person's word has it read again, and so does an image of the series."""
    (first, *_) = withdrawn_by_route(room)
    first.SOPInstanceUID = first.file_meta.MediaStorageSOPInstanceUID = "2.25.4712"
    first.SeriesInstanceUID = "2.25.4713"
    arrive(room, first)
    readings = room.algorithm.readings
    room.read()
    assert (room.row.state, room.algorithm.readings) == (StudyState.NOT_ROUTED, readings)
    assert room.row.reason == "the evidence is what a result was withdrawn of; requeue the study to have it read again"
    room.index.jobs.ask_again(STUDY, actor="page", at=room.now)
    arrive(room)
    room.read()
    assert (room.row.state, room.algorithm.readings) == (StudyState.REPORTED, readings + 1)


def test_what_is_taken_back_while_a_late_object_comes_in_is_not_read_for_that(room: Room) -> None:
    """As above, but the person was quicker than the quiet time behind the object."""
    room.read()
    room.index.jobs.ask_again(STUDY, actor="test", at=room.now)
    arrive(room)
    room.read()
    accept(room)
    rows = [row for job in room.index.jobs.of_study(STUDY) for row in room.index.jobs.report_rows(job.job.job_uid)]
    late = dcmread(room.archive.path_of(rows[0].path))
    late.SOPInstanceUID = late.file_meta.MediaStorageSOPInstanceUID = "2.25.4712"
    late.SeriesInstanceUID = "2.25.4713"
    intake = Intake(archive=room.archive, studies=room.index.studies, clock=lambda: room.now)
    intake.store(received(late, ExplicitVRLittleEndian, association_id=None))
    assert room.row.state is StudyState.RECEIVING
    withdraw(room, safety=True)
    readings = room.algorithm.readings
    arrive(room)
    room.read()
    assert (room.row.state, room.algorithm.readings) == (StudyState.NOT_ROUTED, readings)
    room.index.jobs.ask_again(STUDY, actor="page", at=room.now)
    arrive(room)
    room.read()
    assert (room.row.state, room.algorithm.readings) == (StudyState.REPORTED, readings + 1)


def test_what_was_taken_back_is_not_read_by_another_route_or_one_of_another_name(room: Room) -> None:
    withdrawn_by_route(room)
    (job, *_) = room.index.jobs.of_study(STUDY)
    renamed = replace(job.job, route="renamed", job_uid=derived_uid("renamed"), state=JobState.QUEUED)
    room.index.studies.move(STUDY, StudyState.RECEIVING, cause="a late object", actor="test", at=room.now)
    room.index.studies.move(STUDY, StudyState.COMPLETE, cause="quiet", actor="test", at=room.now)
    assert room.index.jobs.queue(STUDY, [renamed], cause="", actor="test", at=room.now) == []


def test_an_index_made_again_from_the_files_does_not_write_what_was_taken_back_again(
    room: Room, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    room.read()
    accept(room)
    taken_back = current(room)
    read_again_by_another_version(room, monkeypatch)
    accept(room)
    taken_back |= current(room)
    withdraw(room, safety=True)
    room.triage.work_off()

    assert reindex(Settings(node=NodeSettings(data_dir=tmp_path)), lambda: room.now).withdrawn_studies == 1
    index = Index.open(f"sqlite:///{tmp_path / 'index.sqlite'}")
    (study,) = index.studies.rows(STUDY)
    assert study.state is StudyState.NOT_ROUTED
    assert "withdrawn; see its rejection note" in study.reason
    (known,) = index.withdrawals.of_study(STUDY)
    assert (known.safety, known.reason, index.withdrawals.owed()) == (True, REASON, [])
    assert (index.deliveries.unplanned(), index.reports.held()) == ([], [])

    index.studies.move(STUDY, StudyState.COMPLETE, cause="asked for again", actor="page", at=room.now)
    index.studies.move(STUDY, StudyState.RECEIVING, cause="", actor="test", at=room.now)
    again = Room(index, room.archive, queued(index, at=room.now))
    again.triage = again.triage_with(lung_nodule=again.algorithm)
    again.read()
    assert len(current(again)) == 2
    assert not current(again) & taken_back
    index.close()


@pytest.mark.parametrize("state", [StudyState.RECEIVING, StudyState.COMPLETE, StudyState.QUEUED, StudyState.READING])
def test_what_was_sent_before_can_be_taken_back_while_its_study_is_read_again(
    room: Room, tmp_path: Path, state: StudyState
) -> None:
    room.read()
    accept(room)
    before = current(room)
    job = room.job
    if state is StudyState.RECEIVING:
        late_slice(room, tmp_path)()
    elif state is StudyState.COMPLETE:
        room.index.jobs.ask_again(STUDY, actor="page", at=room.now)
    else:
        ask_again(room)
    if state is not StudyState.READING:
        withdraw(room)
        assert room.row.state is state
    if state is StudyState.RECEIVING:
        job = queued(room.index, at=room.now, job_uid="2.25.2")
    elif state is StudyState.COMPLETE:
        room.index.jobs.queue(STUDY, [job], cause="again", actor="assembly", at=room.now)
    elif state is StudyState.READING:
        room.algorithm.meanwhile = lambda: (setattr(room.algorithm, "meanwhile", lambda: None), withdraw(room))
    room.read()
    assert room.row.state is StudyState.REPORTED
    after = {row.sop_instance_uid for row in room.index.jobs.report_rows(job.job_uid) if row.form != Form.REJECTION}
    assert len(after) == 2
    assert not before & after
    assert {uid for uid, *_ in room.index.deliveries.unplanned()} == after
    (told,) = room.index.withdrawals.of_study(STUDY)
    assert told.objects == {"pacs": tuple(sorted(before))}
    assert told.written_at is not None


def test_a_first_reading_has_nothing_that_could_be_withdrawn_while_it_goes_on(room: Room) -> None:
    assert room.row.state is StudyState.QUEUED
    with pytest.raises(IllegalTransition, match="no result that could be withdrawn"):
        withdraw(room)
    assert room.index.withdrawals.of_study(STUDY) == []


def test_what_nobody_was_offered_before_it_was_taken_back_is_not_named(room: Room) -> None:
    room.read()
    withdraw(room)
    ask_again(room)
    room.read()
    assert named(written(room)) == []
    assert len(room.index.deliveries.unplanned()) == 2


def test_what_was_taken_back_is_not_written_again_where_its_file_is_gone(room: Room) -> None:
    room.read()
    accept(room)
    before = current(room)
    withdraw(room)
    room.triage.work_off()
    shutil.rmtree(room.archive.path_of("results"))
    ask_again(room)
    room.read()
    assert room.row.state is StudyState.FAILED
    assert "told to reject" in room.row.reason
    assert not before & {uid for uid, *_ in room.index.deliveries.unplanned()}
