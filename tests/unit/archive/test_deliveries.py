from collections.abc import Iterator
from dataclasses import replace

import pytest

from dicom_node.archive.deliveries import DeliveryRow
from dicom_node.archive.index import Index
from dicom_node.core.errors import IllegalTransition
from dicom_node.core.lifecycle import DeliveryState, JobState, StudyState
from dicom_node.core.priority import Priority
from tests.populated_index import NOW, claim, instance, queue, report, study_uid, uid

STUDY = study_uid("a")
OBJECTS = {uid("seg", "a"), uid("sr", "a")}


@pytest.fixture
def index() -> Iterator[Index]:
    index = Index.open("sqlite://")
    report(index, "a", at=NOW)
    yield index
    index.close()


def plan(index: Index, *peers: str) -> list[DeliveryRow]:
    for sop_instance_uid, *_ in index.deliveries.unplanned():
        index.deliveries.plan(sop_instance_uid, peers, NOW)
    return index.deliveries.of_study(STUDY)


def state_of(index: Index) -> StudyState:
    return index.studies.rows(STUDY)[0].state


def test_every_object_is_planned_once_for_every_peer(index: Index) -> None:
    assert {u for u, *_ in index.deliveries.unplanned()} == OBJECTS
    rows = plan(index, "pacs", "archive")
    assert {(row.sop_instance_uid, row.peer) for row in rows} == {(u, p) for u in OBJECTS for p in ("pacs", "archive")}
    assert {(row.state, row.attempts, row.refusals, row.accepted_at) for row in rows} == {
        (DeliveryState.WAITING, 0, 0, None)
    }
    assert index.deliveries.unplanned() == []
    assert [index.deliveries.due_studies(peer, NOW, 9) for peer in ("pacs", "archive", "none")] == [
        [STUDY],
        [STUDY],
        [],
    ]
    assert index.deliveries.due_studies("pacs", NOW - 0.1, 9) == []


def test_nothing_is_planned_for_a_study_that_is_not_reported(index: Index) -> None:
    queue(index, "b", at=NOW)
    index.studies.add_instance(instance("a", 99, at=NOW + 1))
    assert index.deliveries.unplanned() == []


def test_a_study_is_delivered_with_the_last_object_at_the_last_peer(index: Index) -> None:
    *others, last = plan(index, "pacs", "archive")
    for row in others:
        index.deliveries.accepted(row, reason="accepted (0x0000)", at=NOW + 1)
        assert state_of(index) is StudyState.REPORTED
    index.deliveries.accepted(last, reason="accepted (0x0000)", at=NOW + 2)
    assert state_of(index) is StudyState.DELIVERED
    assert index.studies.rows(STUDY)[0].reason == "2 object(s) accepted by every peer"
    assert index.deliveries.unfinished() == []
    assert index.deliveries.due_studies("pacs", NOW + 9999, 9) == []


def test_an_object_that_nobody_waits_for_does_not_make_a_study_delivered(index: Index) -> None:
    first, _ = sorted(OBJECTS)
    index.deliveries.plan(first, ["pacs"], NOW)
    (row,) = index.deliveries.of_study(STUDY)
    index.deliveries.accepted(row, reason="", at=NOW + 1)
    assert state_of(index) is StudyState.REPORTED
    assert {u for u, *_ in index.deliveries.unplanned()} == OBJECTS - {first}


def test_a_postponed_object_waits_for_its_time_and_counts_refusals_apart(index: Index) -> None:
    for row in plan(index, "pacs"):
        index.deliveries.postponed(row, reason="no answer", refused=False, next_try_at=NOW + 10, at=NOW)
    assert index.deliveries.due_studies("pacs", NOW + 9.9, 9) == []
    assert index.deliveries.due_studies("pacs", NOW + 10, 9) == [STUDY]
    row = index.deliveries.at_peer(STUDY, "pacs")[0]
    assert (row.state, row.attempts, row.refusals, row.reason) == (DeliveryState.WAITING, 1, 0, "no answer")
    index.deliveries.postponed(row, reason="0xA700", refused=True, next_try_at=NOW + 20, at=NOW + 10)
    row = index.deliveries.at_peer(STUDY, "pacs")[0]
    assert (row.attempts, row.refusals) == (2, 1)


def test_one_delivery_that_fails_fails_the_study_and_the_others_still_go_out(index: Index) -> None:
    first, second = plan(index, "pacs")
    index.deliveries.failed(first, reason="0xC000, cannot understand", at=NOW + 1)
    row = index.studies.rows(STUDY)[0]
    assert (row.state, row.reason) == (StudyState.FAILED, "delivery to pacs failed: 0xC000, cannot understand")
    assert index.deliveries.due_studies("pacs", NOW + 1, 9) == [STUDY]
    index.deliveries.accepted(second, reason="", at=NOW + 2)
    assert state_of(index) is StudyState.FAILED
    assert [r.state for r in index.deliveries.unfinished()] == [DeliveryState.FAILED]


def test_a_study_led_back_to_a_report_whose_delivery_failed_has_failed_again(index: Index) -> None:
    first, second = plan(index, "pacs")
    index.deliveries.accepted(second, reason="", at=NOW)
    index.deliveries.failed(first, reason="refused", at=NOW + 1)
    job = index.jobs.of_study(STUDY)[0].job
    index.studies.add_instance(instance("a", 99, at=NOW + 2, series=7))
    index.studies.move(STUDY, StudyState.COMPLETE, cause="quiet", actor="assembly", at=NOW + 3)
    index.jobs.queue(STUDY, [job], cause="", actor="assembly", at=NOW + 4)
    assert state_of(index) is StudyState.REPORTED
    index.deliveries.settle(STUDY, NOW + 5)
    assert state_of(index) is StudyState.FAILED


def test_an_old_reports_failed_delivery_does_not_fail_a_study_that_is_arriving_again(index: Index) -> None:
    row = plan(index, "pacs")[0]
    index.studies.add_instance(instance("a", 99, at=NOW + 1))
    index.deliveries.failed(row, reason="refused", at=NOW + 2)
    assert state_of(index) is StudyState.RECEIVING


def test_settling_again_changes_nothing(index: Index) -> None:
    for row in plan(index, "pacs"):
        index.deliveries.accepted(row, reason="", at=NOW + 1)
    before = index.studies.history(STUDY)
    assert before
    index.deliveries.settle(STUDY, NOW + 5)
    assert index.studies.history(STUDY) == before


def test_what_was_accepted_cannot_fail_afterwards(index: Index) -> None:
    row = plan(index, "pacs")[0]
    index.deliveries.accepted(row, reason="", at=NOW + 1)
    row = next(r for r in index.deliveries.of_study(STUDY) if r.sop_instance_uid == row.sop_instance_uid)
    assert row.accepted_at == NOW + 1
    with pytest.raises(IllegalTransition):
        index.deliveries.failed(row, reason="", at=NOW + 2)


def test_a_report_that_is_written_again_is_delivered_again(index: Index) -> None:
    for row in plan(index, "pacs"):
        index.deliveries.accepted(row, reason="", at=NOW + 1)
    index.jobs.ask_again(STUDY, actor="a person", at=NOW + 2)
    job = index.jobs.of_study(STUDY)[0].job
    index.jobs.queue(STUDY, [job], cause="", actor="assembly", at=NOW + 3)
    claimed = index.jobs.claim(job.job_uid, worker="gpu1:1", lease_seconds=30, at=NOW + 4)
    assert claimed is not None
    index.jobs.report(claimed[1], index.jobs.report_rows(job.job_uid), summary={"result": "again"}, at=NOW + 5)
    assert state_of(index) is StudyState.REPORTED
    assert {u for u, *_ in index.deliveries.unplanned()} == OBJECTS
    for row in plan(index, "pacs"):
        index.deliveries.accepted(row, reason="", at=NOW + 6)
    assert state_of(index) is StudyState.DELIVERED


def test_an_old_report_does_not_go_out_after_a_late_instance_unless_it_counts_again(index: Index) -> None:
    plan(index, "pacs")
    job = index.jobs.of_study(STUDY)[0].job
    index.studies.add_instance(instance("a", 99, at=NOW + 1, series=7))
    assert index.deliveries.due_studies("pacs", NOW + 9, 9) == []
    index.studies.move(STUDY, StudyState.COMPLETE, cause="quiet", actor="assembly", at=NOW + 3)
    index.jobs.queue(STUDY, [job], cause="", actor="assembly", at=NOW + 4)
    assert index.deliveries.due_studies("pacs", NOW + 9, 9) == [STUDY]
    assert {row.sop_instance_uid for row in index.deliveries.at_peer(STUDY, "pacs")} == OBJECTS


def test_the_most_urgent_studies_are_due_first_and_then_the_oldest(index: Index) -> None:
    report(index, "routine later", at=NOW + 2)
    report(index, "stat last", at=NOW + 3, priority=Priority.STAT)
    plan(index, "pacs")
    studies = [study_uid("stat last"), STUDY, study_uid("routine later")]
    assert index.deliveries.due_studies("pacs", NOW + 9, 9) == studies
    assert index.deliveries.due_studies("pacs", NOW + 9, 2) == studies[:2]


def test_only_a_study_that_would_move_is_settled(index: Index) -> None:
    report(index, "b", at=NOW)
    assert index.deliveries.unsettled() == [], "nothing is planned yet"
    plan(index, "pacs")
    assert index.deliveries.unsettled() == []
    with index.deliveries._transactions.write() as connection:
        deliveries = index.deliveries._deliveries
        accepted = deliveries.update().values(state=DeliveryState.ACCEPTED.value)
        connection.execute(accepted.where(deliveries.c.study_instance_uid == STUDY))
    assert index.deliveries.unsettled() == [STUDY]
    index.deliveries.settle(STUDY, NOW + 1)
    assert state_of(index) is StudyState.DELIVERED
    assert index.deliveries.unsettled() == []


def test_a_delivered_report_does_not_hide_what_another_algorithm_failed_by(index: Index) -> None:
    first = index.jobs.of_study(STUDY)[0].job
    index.studies.add_instance(instance("a", 99, at=NOW + 1, series=7))
    index.studies.move(STUDY, StudyState.COMPLETE, cause="quiet", actor="assembly", at=NOW + 3)
    other = replace(first, job_uid=uid("job", "other"), algorithm="fracture", state=JobState.QUEUED)
    index.jobs.queue(STUDY, [first, other], cause="", actor="assembly", at=NOW + 4)
    lease = claim(index, other, at=NOW + 5)
    index.jobs.end(lease, JobState.FAILED, reason="the bones are gone", at=NOW + 6)
    for row in plan(index, "pacs"):
        index.deliveries.accepted(row, reason="", at=NOW + 7)
    study = index.studies.rows(STUDY)[0]
    expected = "2 object(s) accepted by every peer; fracture failed: the bones are gone"
    assert (study.state, study.reason) == (StudyState.DELIVERED, expected)


def test_a_late_result_of_somebody_else_changes_nothing(index: Index, caplog: pytest.LogCaptureFixture) -> None:
    row = plan(index, "pacs")[0]
    assert index.deliveries.postponed(row, reason="no answer", refused=False, next_try_at=NOW + 10, at=NOW)
    assert not index.deliveries.accepted(row, reason="accepted (0x0000)", at=NOW + 1)
    now = index.deliveries.at_peer(STUDY, "pacs")[0]
    assert (now.state, now.attempts, now.reason) == (DeliveryState.WAITING, 1, "no answer")
    assert "a delivery changed meanwhile" in caplog.text


def test_a_late_result_does_not_count_for_a_report_that_was_written_again(index: Index) -> None:
    (old, *_) = plan(index, "pacs")
    index.jobs.ask_again(STUDY, actor="a person", at=NOW + 2)
    job = index.jobs.of_study(STUDY)[0].job
    index.jobs.queue(STUDY, [job], cause="", actor="assembly", at=NOW + 3)
    lease = claim(index, job, at=NOW + 4)
    index.jobs.report(lease, index.jobs.report_rows(job.job_uid), summary={"result": "again"}, at=NOW + 5)
    plan(index, "pacs")
    assert not index.deliveries.accepted(old, reason="accepted (0x0000)", at=NOW + 6)
    assert {row.state for row in index.deliveries.at_peer(STUDY, "pacs")} == {DeliveryState.WAITING}


def test_every_change_of_a_delivery_stands_in_the_history_of_its_study(index: Index) -> None:
    row = plan(index, "pacs")[0]
    index.deliveries.postponed(row, reason="no answer", refused=False, next_try_at=NOW + 10, at=NOW + 1)
    row = index.deliveries.at_peer(STUDY, "pacs")[0]
    index.deliveries.accepted(row, reason="accepted (0x0000)", at=NOW + 2)
    lines = [line for line in index.studies.history(STUDY) if line.subject]
    lines = [line for line in lines if line.subject.startswith("delivery")]
    assert [(line.at, line.subject, line.before, line.after, line.cause) for line in lines] == [
        (NOW + 1, "delivery pacs", "WAITING", "WAITING", f"object {row.sop_instance_uid}: no answer"),
        (NOW + 2, "delivery pacs", "WAITING", "ACCEPTED", f"object {row.sop_instance_uid}: accepted (0x0000)"),
    ]


def test_an_alternative_has_what_waits_and_the_study_is_delivered_by_it(index: Index) -> None:
    plan(index, "pacs")
    assert index.deliveries.also_to("pacs", "archive", reason="away", at=NOW + 1, limit=1) == 1
    assert index.deliveries.also_to("pacs", "archive", reason="away", at=NOW + 1, limit=9) == 1
    assert index.deliveries.also_to("pacs", "archive", reason="away", at=NOW + 1, limit=9) == 0
    for row in index.deliveries.at_peer(STUDY, "archive"):
        assert row.alternative
        index.deliveries.accepted(row, reason="", at=NOW + 2)
    study = index.studies.rows(STUDY)[0]
    expected = "2 object(s) accepted by every peer; archive in place of pacs"
    assert (study.state, study.reason) == (StudyState.DELIVERED, expected)
    assert index.deliveries.due_studies("pacs", NOW + 3, 9) == [STUDY], "the peer gets it all the same"
    for row in index.deliveries.at_peer(STUDY, "pacs"):
        index.deliveries.accepted(row, reason="", at=NOW + 4)
    assert state_of(index) is StudyState.DELIVERED


def test_an_alternative_that_gets_the_object_anyway_is_not_asked_twice(index: Index) -> None:
    plan(index, "pacs", "archive")
    for row in index.deliveries.at_peer(STUDY, "archive"):
        index.deliveries.accepted(row, reason="", at=NOW)
    assert state_of(index) is StudyState.REPORTED
    index.deliveries.also_to("pacs", "archive", reason="away", at=NOW + 1, limit=9)
    assert len(index.deliveries.at_peer(STUDY, "archive")) == 2
    assert state_of(index) is StudyState.DELIVERED
