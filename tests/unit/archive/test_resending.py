"""What a person has sent once more goes out again, and a withdrawal still knows who had it before."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from dicom_node.archive.index import Index
from dicom_node.archive.tally import Kind, Tally
from dicom_node.core.errors import IllegalTransition, UnknownStudy
from dicom_node.core.lifecycle import DeliveryState, StudyState
from dicom_node.core.priority import Priority
from tests.populated_index import NOW, deliver, queue, report, study_uid

STUDY = study_uid("a")


@pytest.fixture
def index(tmp_path: Path) -> Iterator[Index]:
    index = Index.open(f"sqlite:///{tmp_path / 'index.sqlite'}")
    report(index, "a", at=NOW - 60)
    deliver(index, "a", at=NOW - 50)
    yield index
    index.close()


def states(index: Index) -> list[DeliveryState]:
    return [row.state for row in index.deliveries.of_study(STUDY)]


def test_every_object_waits_again_as_if_it_had_never_been_tried(index: Index) -> None:
    assert index.resending.send_again(STUDY, actor="user ann", at=NOW) == 2
    assert states(index) == [DeliveryState.WAITING, DeliveryState.WAITING]
    assert index.studies.rows(STUDY)[0].state is StudyState.REPORTED
    assert index.deliveries.due_studies("pacs", NOW, 10) == [STUDY]
    assert {line.actor for line in index.studies.history(STUDY)[-3:]} == {"user ann"}
    for row in index.deliveries.of_study(STUDY):
        assert (row.attempts, row.refusals, row.accepted_at) == (0, 0, None)
        index.deliveries.accepted(row, reason="0x0000 Success", at=NOW + 9000)
    assert index.studies.rows(STUDY)[0].state is StudyState.DELIVERED
    tally = Tally(index, (60.0,))
    tally.look()
    assert tally.durations()[Kind.DELIVERY, "routine"].count == 1, "the second clock did not start with an instance"


def test_who_had_it_before_is_told_of_a_withdrawal_while_it_waits(index: Index) -> None:
    index.resending.send_again(STUDY, actor="user ann", at=NOW)
    withdrawal = index.withdrawals.withdraw(STUDY, safety=True, reason="wrong", actor="user ann", at=NOW + 1)
    assert {peer: len(uids) for peer, uids in withdrawal.objects.items()} == {"pacs": 2}


def test_what_failed_for_good_is_sent_again_and_its_study_no_longer_failed(index: Index) -> None:
    report(index, "b", at=NOW - 60)
    for sop, *_ in index.deliveries.unplanned():
        index.deliveries.plan(sop, ["pacs"], NOW - 50)
    for row in index.deliveries.of_study(study_uid("b")):
        index.deliveries.failed(row, reason="0xA700", at=NOW - 40)
    assert index.studies.rows(study_uid("b"))[0].state is StudyState.FAILED
    assert index.resending.send_again(study_uid("b"), actor="user ann", at=NOW) == 2
    assert index.studies.rows(study_uid("b"))[0].state is StudyState.REPORTED


def test_what_cannot_be_sent_again_is_refused_and_nothing_changes(index: Index) -> None:
    with pytest.raises(UnknownStudy):
        index.resending.send_again("1.2.3", actor="x", at=NOW)
    index.resending.send_again(STUDY, actor="x", at=NOW)
    with pytest.raises(IllegalTransition, match="waits to be sent already"):
        index.resending.send_again(STUDY, actor="x", at=NOW)
    index.withdrawals.withdraw(STUDY, safety=False, reason="wrong", actor="x", at=NOW)
    with pytest.raises(IllegalTransition, match="WITHDRAWN"):
        index.resending.send_again(STUDY, actor="x", at=NOW)


def test_a_priority_changes_what_waits_and_nothing_else(index: Index) -> None:
    job = queue(index, "waiting", at=NOW)
    index.jobs.sent([job.job_uid], NOW)
    index.priorities.change(study_uid("waiting"), Priority.STAT, actor="user ann", at=NOW)
    assert index.studies.rows(study_uid("waiting"))[0].priority == Priority.STAT
    assert [waiting.priority for waiting in index.jobs.unsent(NOW)] == [Priority.STAT], "the bell rings again"
    with pytest.raises(IllegalTransition, match="no job of it waits"):
        index.priorities.change(STUDY, Priority.STAT, actor="user ann", at=NOW)
