"""A study that was routed and not read: those who wait for its result get a report that says why."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from pydicom import Dataset, dcmread

from dicom_node.core.attempts import Attempts
from dicom_node.core.errors import InconsistentGeometry, Interrupted, NotApplicable, OutOfDeviceMemory, TriageError
from dicom_node.core.form import UNREAD, Form
from dicom_node.core.lifecycle import JobState, StudyState
from dicom_node.delivery import Delivery
from dicom_node.settings import Peer, Settings
from tests.received_study import STUDY, queued
from tests.triage_room import Room, accept, late_slice
from workers import writing
from workers.reporting import report
from workers.reporting.evidence import Evidence
from workers.reporting.passage import Checked, check_objects
from workers.reporting.report import Report

#: Names a peer: nothing is sent in these tests.
PACS = Peer(name="pacs", ae_title="PACS", host="127.0.0.1", port=11999, results=True)


def fail(room: Room, error: TriageError) -> None:
    """The next readings end by this error."""

    def raise_it() -> None:
        raise error

    room.algorithm.meanwhile = raise_it


def succeed(room: Room) -> None:
    room.algorithm.meanwhile = lambda: None


def ask_again(room: Room) -> None:
    """A person has the study read again."""
    room.index.jobs.ask_again(STUDY, actor="page", at=room.now)
    room.index.jobs.queue(STUDY, [room.job_row.job], cause="again", actor="assembly", at=room.now)


def written(room: Room, number: int = -1) -> Dataset:
    """The structured report that lies in the archive for the job."""
    rows = room.index.jobs.report_rows(room.job.job_uid)
    return dcmread(room.archive.path_of(rows[number].path))


def comment(ds: Dataset) -> str:
    return str(ds.ContentSequence[-1].ContentSequence[-1].TextValue)


def processing(ds: Dataset) -> str:
    return str(ds.ContentSequence[-1].ContentSequence[0].ConceptCodeSequence[0].CodeValue)


def named(ds: Dataset) -> list[str]:
    """What a report says it replaces."""
    return [
        document.ReferencedSOPInstanceUID
        for study in ds.get("PredecessorDocumentsSequence", [])
        for series in study.ReferencedSeriesSequence
        for document in series.ReferencedSOPSequence
    ]


@pytest.mark.parametrize(
    ("error", "state", "study"),
    [
        (NotApplicable("no lungs were found in the series"), JobState.NOT_APPLICABLE, StudyState.NOT_ROUTED),
        (InconsistentGeometry("slices lie 2.5 and 5 mm apart"), JobState.FAILED, StudyState.FAILED),
    ],
)
def test_the_job_and_the_study_stay_what_they_are_and_a_report_says_why(
    room: Room, error: TriageError, state: JobState, study: StudyState
) -> None:
    fail(room, error)
    room.read()
    assert (room.job_row.job.state, room.row.state, room.row.reason) == (state, study, str(error))
    (row,) = room.index.jobs.report_rows(room.job.job_uid)
    assert row.form == Form.UNREAD
    ds = written(room)
    assert processing(ds) == "111245"
    assert str(error)[1:] in comment(ds)
    assert room.index.jobs.owed(9) == []
    assert "a report was written that says why there is none" in [
        line.cause for line in room.index.studies.history(STUDY)
    ]


def test_it_goes_to_the_peers_as_any_report_and_its_delivery_leaves_the_study_alone(room: Room) -> None:
    fail(room, NotApplicable("no lungs were found"))
    room.read()
    accept(room)
    (delivery,) = room.index.deliveries.of_study(STUDY)
    assert delivery.accepted_at is not None
    assert (room.row.state, room.row.reason) == (StudyState.NOT_ROUTED, "no lungs were found")


def plan(room: Room, *peers: Peer) -> list[str]:
    """The peers that an object waits for, each with its form."""
    delivery = Delivery(Settings(peers=peers), room.index, room.archive, lambda: room.now)
    delivery.oversee()
    return sorted(f"{row.peer}: {row.form}" for row in room.index.deliveries.of_study(STUDY))


def test_a_peer_that_gets_pictures_or_documents_of_readings_is_told_in_those_too(room: Room) -> None:
    """Who looks at nothing but pictures must see that there is no result."""
    room.forms = frozenset({Form.SR, Form.SECONDARY_CAPTURE, Form.PDF})
    room.triage = room.triage_with(lung_nodule=room.algorithm)
    fail(room, NotApplicable("no lungs were found"))
    room.read()
    rows = room.index.jobs.report_rows(room.job.job_uid)
    assert [row.held for row in rows] == [""] * 3
    pictures = replace(PACS, name="pictures", forms=("SR", "SC"))
    documents = replace(PACS, name="documents", forms=("SR", "PDF"))
    unwilling = replace(pictures, name="unwilling", unread=False)
    assert plan(room, PACS, pictures, documents, unwilling) == [
        "documents: UNREAD",
        "documents: UNREAD PDF",
        "pacs: UNREAD",
        "pictures: UNREAD",
        "pictures: UNREAD SC",
    ]


def test_a_study_that_is_read_after_all_gets_pictures_of_other_uids(room: Room) -> None:
    room.forms = frozenset({Form.SR, Form.SECONDARY_CAPTURE})
    room.triage = room.triage_with(lung_nodule=room.algorithm)
    fail(room, NotApplicable("no lungs were found"))
    room.read()
    before = {row.sop_instance_uid for row in room.index.jobs.report_rows(room.job.job_uid)}
    assert len(before) == 2
    succeed(room)
    ask_again(room)
    room.read()
    rows = [row for row in room.index.jobs.report_rows(room.job_row.job.job_uid) if row.form not in UNREAD]
    assert before.isdisjoint(row.sop_instance_uid for row in rows)
    assert len([row for row in rows if row.form == Form.SECONDARY_CAPTURE]) == 1 + 2 * room.algorithm.nodules


def hold(monkeypatch: pytest.MonkeyPatch, *forms: Form) -> None:
    """The gate finds a fault in objects of these forms."""

    def check(report: Report, evidence: Evidence) -> list[Checked]:
        checked = check_objects(report, evidence)
        return [replace(one, fault=f"{one.form} breaks a rule") if one.form in forms else one for one in checked]

    monkeypatch.setattr(writing, "check_objects", check)


def causes(room: Room) -> list[str]:
    """What the study's history says."""
    return [line.cause for line in room.index.studies.history(STUDY)]


def test_a_picture_that_is_held_keeps_nobody_from_being_told(
    room: Room, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    room.forms = frozenset({Form.SR, Form.SECONDARY_CAPTURE})
    room.triage = room.triage_with(lung_nodule=room.algorithm)
    hold(monkeypatch, Form.UNREAD_PICTURE)
    fail(room, NotApplicable("no lungs were found"))
    room.read()
    assert plan(room, replace(PACS, forms=("SR", "SC"))) == ["pacs: UNREAD"]
    said = "a report was written that says why there is none; UNREAD SC is held: UNREAD SC breaks a rule"
    assert said in causes(room)
    assert "a peer is not told why a study was not read" not in caplog.messages
    assert "a report that says why a study was not read is not sent in every form" in caplog.messages
    assert [held.reason for held in room.index.reports.held(STUDY)] == ["UNREAD SC breaks a rule"]


def test_where_the_report_itself_is_held_nothing_is_sent(
    room: Room, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    room.forms = frozenset({Form.SR, Form.SECONDARY_CAPTURE})
    room.triage = room.triage_with(lung_nodule=room.algorithm)
    hold(monkeypatch, Form.UNREAD)
    fail(room, NotApplicable("no lungs were found"))
    room.read()
    assert plan(room, replace(PACS, forms=("SR", "SC"))) == []
    assert any(cause.startswith("nothing is sent that says why there is no report") for cause in causes(room))
    assert "a peer is not told why a study was not read" in caplog.messages


@pytest.mark.parametrize("error", [OSError("no such font"), ValueError("Tess^Test")])
def test_a_picture_that_cannot_be_drawn_keeps_nobody_from_being_told(
    room: Room, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, error: Exception
) -> None:
    def draw(*_: object) -> None:
        raise error

    room.forms = frozenset({Form.SR, Form.SECONDARY_CAPTURE, Form.PDF})
    room.triage = room.triage_with(lung_nodule=room.algorithm)
    monkeypatch.setattr(report, "build_secondary_captures", draw)
    fail(room, NotApplicable("no lungs were found"))
    room.read()
    rows = room.index.jobs.report_rows(room.job.job_uid)
    assert {row.form for row in rows} == {Form.UNREAD, Form.UNREAD_PDF}
    assert "a form of a report cannot be written" in caplog.messages
    assert str(error) not in caplog.text


def test_a_peer_that_does_not_want_such_reports_gets_none(room: Room) -> None:
    fail(room, NotApplicable("no lungs were found"))
    room.read()
    quiet = Peer(name="quiet", ae_title="Q", host="127.0.0.1", port=11998, results=True, unread=False)
    assert plan(room, PACS, quiet) == ["pacs: UNREAD"]


@pytest.mark.parametrize("nodules", [0, 1])
def test_a_peer_whose_form_changed_since_gets_the_structured_report_that_there_is(room: Room, nodules: int) -> None:
    room.algorithm.nodules = nodules
    room.read()
    wanted = ["pacs: SEG", "pacs: SR"] if nodules else ["pacs: SR"]
    assert plan(room, replace(PACS, sr_form="ohif")) == wanted


def test_a_reading_does_not_wait_for_the_answers_that_are_owed(room: Room) -> None:
    """Many studies may fail at once, by a bundle that is gone."""
    fail(room, NotApplicable("no lungs were found"))
    seen: list[str] = []
    reading, explaining = room.triage._read_next, room.triage._owed.explain_next

    def read() -> bool:
        seen.append("read")
        return reading() or len(seen) < 6

    def explain() -> bool:
        seen.append("explain")
        return explaining() or len(seen) < 6

    room.triage._read_next = read  # type: ignore[method-assign]  # to see the order
    room.triage._owed.explain_next = explain  # type: ignore[method-assign]
    room.triage.work_off()
    assert seen[:4] == ["read", "explain", "read", "explain"]
    assert room.index.jobs.owed(9) == []


def test_a_dead_letter_is_answered_too_also_where_the_node_found_the_worker_silent(room: Room) -> None:
    claimed = room.index.jobs.claim(room.job.job_uid, worker="gone:1", lease_seconds=1, at=room.now)
    assert claimed is not None
    room.now += 60
    room.index.jobs.expire(now=room.now, attempts=Attempts(maximum=1), actor="dispatch")
    assert room.job_row.dead_letter
    room.read()
    assert "he worker went silent during attempt 1 of 1" in comment(written(room))


def test_only_the_last_attempt_is_answered(room: Room) -> None:
    fail(room, Interrupted("the device hangs"))
    room.read()
    assert room.index.jobs.report_rows(room.job.job_uid) == []
    room.read()
    assert "The device hangs." in comment(written(room))


def test_a_study_whose_files_cannot_be_loaded_is_answered_with_all_that_was_received(room: Room) -> None:
    damaged = room.file(3)
    damaged.write_bytes(damaged.read_bytes()[:900])
    room.read()
    assert room.row.state is StudyState.FAILED
    (study,) = written(room).CurrentRequestedProcedureEvidenceSequence
    listed = {ref.ReferencedSOPInstanceUID for ref in study.ReferencedSeriesSequence[0].ReferencedSOPSequence}
    assert listed == {instance.sop_instance_uid for instance in room.study.series[0].instances}


def test_where_no_header_can_be_read_nothing_is_sent_under_nobodys_name_and_people_are_told(
    room: Room, caplog: pytest.LogCaptureFixture
) -> None:
    for number in range(10):
        room.file(number).write_bytes(b"damaged")
    room.read()
    assert room.index.jobs.report_rows(room.job.job_uid) == []
    assert room.index.jobs.owed(9) == []
    assert "a peer is not told why a study was not read" in caplog.messages
    assert any("nobody can be told whose study" in line.cause for line in room.index.studies.history(STUDY))


def test_a_later_success_replaces_it_and_reading_again_writes_the_same_object(room: Room) -> None:
    fail(room, OutOfDeviceMemory("no memory is left"))
    room.read()
    room.read()
    accept(room)
    failure = written(room)
    succeed(room)
    ask_again(room)
    room.read()
    success = written(room)
    assert processing(success) == "111242"
    assert named(success) == [failure.SOPInstanceUID]
    assert success.InstanceNumber == 2
    accept(room)
    ask_again(room)
    room.read()
    assert written(room).SOPInstanceUID == success.SOPInstanceUID
    assert written(room) == success


def test_a_failure_after_a_success_replaces_that_too(room: Room) -> None:
    room.read()
    accept(room)
    success = written(room)
    fail(room, NotApplicable("the bundle of today reads no such series"))
    ask_again(room)
    room.read()
    assert named(written(room)) == [success.SOPInstanceUID]
    accept(room)
    failure = written(room)
    ask_again(room)
    room.read()
    assert written(room).SOPInstanceUID == failure.SOPInstanceUID


def test_however_often_it_is_read_again_by_one_worker_its_peers_are_told_each_time_why_it_was_not_read(
    room: Room,
) -> None:
    for number in range(1, 6):
        fail(room, NotApplicable(f"the bundle {number} reads no such series"))
        room.read()
        assert f"bundle {number} reads no such series" in comment(written(room))
        assert room.index.jobs.owed(9) == []
        accept(room)
        ask_again(room)


def test_what_nobody_was_offered_is_not_named(room: Room) -> None:
    fail(room, NotApplicable("no lungs were found"))
    room.read()
    succeed(room)
    ask_again(room)
    room.read()
    assert named(written(room)) == []


def test_an_archive_that_is_away_leaves_the_answer_for_later(room: Room, tmp_path: Path) -> None:
    fail(room, NotApplicable("no lungs were found"))
    room.triage._owed.explain_next = lambda: False  # type: ignore[method-assign]  # the worker ends just before
    room.read()
    assert [job.job_uid for job, _ in room.index.jobs.owed(9)] == [room.job.job_uid]
    studies = room.archive.path_of("studies")
    shutil.move(studies, tmp_path / "away")
    triage = room.triage_with(lung_nodule=room.algorithm)
    for _ in range(5):
        triage.work_off()
    assert [job.job_uid for job, _ in room.index.jobs.owed(9)] == [room.job.job_uid]
    shutil.move(tmp_path / "away", studies)
    triage.work_off()
    assert room.index.jobs.owed(9) == []
    assert "No lungs were found." in comment(written(room))


def test_each_peer_gets_the_forms_that_it_asks_for(room: Room) -> None:
    ohif = Peer(name="viewer", ae_title="V", host="127.0.0.1", port=11997, results=True, sr_form="ohif")
    documents = Peer(name="ris", ae_title="R", host="127.0.0.1", port=11996, results=True, forms=("SR",))
    settings = Settings(peers=(PACS, ohif, documents))
    room.triage._forms = settings.wanted_forms
    room.read()
    assert plan(room, PACS, ohif, documents) == [
        "pacs: SEG",
        "pacs: SR",
        "ris: SR IMAGES",
        "viewer: SEG",
        "viewer: SR OHIF",
    ]


def test_what_no_peer_asks_for_is_not_missed(room: Room) -> None:
    documents = Peer(name="ris", ae_title="R", host="127.0.0.1", port=11996, results=True, forms=("SR",))
    room.read()
    assert plan(room, documents) == ["ris: SR"]
    (delivery,) = room.index.deliveries.of_study(STUDY)
    room.index.deliveries.accepted(delivery, reason="0x0000", at=room.now)
    assert room.row.state is StudyState.DELIVERED


def test_another_form_has_predecessors_of_its_own(room: Room, tmp_path: Path) -> None:
    room.triage._forms = frozenset({Form.SEG, Form.SR, Form.SR_OHIF})
    room.read()
    accept(room)
    first = {row.form: row.sop_instance_uid for row in room.index.jobs.report_rows(room.job.job_uid)}
    late_slice(room, tmp_path)()
    job = queued(room.index, at=room.now, job_uid="2.25.2")
    room.read()
    for row in room.index.jobs.report_rows(job.job_uid):
        if row.form in (Form.SR, Form.SR_OHIF):
            assert named(dcmread(room.archive.path_of(row.path))) == [first[row.form]]
