from collections.abc import Iterator
from dataclasses import replace

import pytest

from dicom_node.archive.commitment_rows import Silence
from dicom_node.archive.index import Index
from dicom_node.archive.overview import read_overview, read_study
from dicom_node.core.commitment import CommitmentReport
from dicom_node.core.lifecycle import CommitmentState, DeliveryState, StudyState
from tests.populated_index import NOW, SR, claim, report, study_uid, uid

STUDY = study_uid("a")
SEG_UID, SR_UID = uid("seg", "a"), uid("sr", "a")
BOTH = (SEG_UID, SR_UID)


@pytest.fixture
def index() -> Iterator[Index]:
    index = Index.open("sqlite://")
    report(index, "a", at=NOW)
    yield index
    index.close()


def accept(index: Index, *peers: str, at: float = NOW, commitment: bool = True) -> None:
    """Everything of the study is accepted by these peers."""
    objects = index.deliveries.unplanned()
    index.deliveries.plan_all([(sop_instance_uid, peers) for sop_instance_uid, *_ in objects], at)
    for peer in peers:
        for row in index.deliveries.at_peer(STUDY, peer):
            if row.state is DeliveryState.WAITING:
                index.deliveries.accepted(row, reason="accepted (0x0000)", at=at, commitment=commitment)


def ask(index: Index, transaction: str = "2.25.1", *, peer: str = "pacs", at: float = NOW + 1) -> None:
    (due,) = index.commitments.due(peer, at, 9)
    assert index.commitments.begin(due, transaction, next_try_at=at + 300, at=at)


def answer(
    index: Index, committed: tuple[str, ...], transaction: str = "2.25.1", *, at: float = NOW + 2, **failed: int
) -> object:
    """The peer keeps these, and not the `seg` or `sr` for that reason."""
    reasons = {uid(kind, "a"): reason for kind, reason in failed.items()}
    said = CommitmentReport(transaction_uid=transaction, committed=frozenset(committed), failed=reasons)
    return index.commitments.answer(said, maximum_refusals=3, send_again_at=at + 2, at=at)


def state_of(index: Index) -> StudyState:
    return index.studies.rows(STUDY)[0].state


def states(index: Index, peer: str = "pacs") -> dict[str, DeliveryState]:
    return {row.sop_instance_uid: row.state for row in index.deliveries.at_peer(STUDY, peer)}


def read_again(index: Index, *, at: float, peer: str = "pacs") -> tuple[str, ...]:
    """Another report supersedes the study's and waits for the peer; its objects."""
    index.jobs.ask_again(STUDY, actor="a person", at=at)
    old = index.jobs.of_study(STUDY)[0].job
    job = replace(old, job_uid=f"{old.job_uid}.2", evidence="d" * 64)
    index.jobs.queue(STUDY, [job], cause="", actor="assembly", at=at)
    rows = [
        replace(row, sop_instance_uid=f"{row.sop_instance_uid}.2", path=f"{row.path}.2")
        for row in index.jobs.report_rows(old.job_uid)
    ]
    index.jobs.report(claim(index, job, at=at), rows, summary={"result": "again"}, at=at)
    uids = tuple(sop_instance_uid for sop_instance_uid, *_ in index.deliveries.unplanned())
    index.deliveries.plan_all([(uid, [peer]) for uid in uids], at)
    return uids


def causes(index: Index) -> list[str]:
    """What storage commitment wrote into the study's history."""
    return [line.cause for line in index.studies.history(STUDY) if line.actor == "storage commitment"]


def test_a_report_that_was_superseded_before_it_went_out_is_waited_for_by_nobody(index: Index) -> None:
    index.deliveries.plan_all([(uid, ["pacs"]) for uid in BOTH], NOW)
    new = read_again(index, at=NOW + 5)
    assert (read_overview(index, NOW + 9).peers[0].waiting, len(index.deliveries.unfinished())) == (2, 2)
    assert read_overview(index, NOW + 9).peers[0].oldest_waiting_seconds == 4
    assert index.deliveries.also_to("pacs", "archive", reason="away", at=NOW + 6, limit=9) == 2
    accept(index, "pacs", at=NOW + 7)
    (due,) = index.commitments.due("pacs", NOW + 8, 9)
    assert {row.sop_instance_uid for row in due.rows} == set(new)
    (peer,) = (peer for peer in read_overview(index, NOW + 9).peers if peer.peer == "pacs")
    assert (peer.waiting, peer.accepted, peer.oldest_waiting_seconds) == (0, 2, None)
    assert {row.peer for row in index.deliveries.unfinished()} == {"archive"}
    index.deliveries.failed(index.deliveries.at_peer(STUDY, "archive")[0], reason="", at=NOW + 9)
    assert index.deliveries.waiting_for_others_than(["archive"]) == set()


def test_an_object_that_the_peer_does_not_keep_and_that_was_superseded_is_not_sent_again(index: Index) -> None:
    accept(index, "pacs")
    ask(index)
    new = read_again(index, at=NOW + 2)
    assert index.commitments.open_by_peer() == {}, "nobody waits for that answer"
    accept(index, "pacs", at=NOW + 3)
    answer(index, (), at=NOW + 4, seg=0x0112, sr=0x0112)
    rows = {row.sop_instance_uid: row for row in index.deliveries.of_study(STUDY)}
    assert {row.state for row in rows.values()} == {DeliveryState.ACCEPTED}
    assert rows[SR_UID].reason.startswith("superseded; peer pacs accepted it")
    (due,) = index.commitments.due("pacs", NOW + 9999, 9)
    assert {row.sop_instance_uid for row in due.rows} == set(new)
    ask(index, "2.25.2", at=NOW + 5)
    answer(index, new, "2.25.2", at=NOW + 6)
    assert state_of(index) is StudyState.COMMITTED


def test_the_history_tells_of_the_first_question_and_the_first_silence_only(index: Index) -> None:
    accept(index, "pacs")
    for number in range(9):
        ask(index, f"2.25.{number}", at=NOW + 1 + 300 * number)
    assert causes(index) == [
        "storage commitment of 2 object(s) asked for",
        "no answer about storage commitment yet; it is asked for again until one comes",
    ]


def test_the_history_tells_once_why_a_question_was_not_taken(index: Index) -> None:
    accept(index, "pacs")
    for number, reason in enumerate(("aborted", "aborted", "0x0122", "aborted", "0x0122")):
        ask(index, f"2.25.{number}", at=NOW + 1 + 300 * number)
        index.commitments.not_taken(f"2.25.{number}", reason=reason, at=NOW + 2 + 300 * number)
    assert causes(index)[1:] == ["storage commitment: aborted", "storage commitment: 0x0122"]


def test_of_answered_transactions_only_the_last_is_kept(index: Index) -> None:
    accept(index, "pacs")
    for number in range(5):
        ask(index, f"2.25.{number}", at=NOW + 1 + 4000 * number)
        answer(index, (), f"2.25.{number}", at=NOW + 2 + 4000 * number)
    assert [row.transaction_uid for row in index.commitments.of_study(STUDY)] == ["2.25.3", "2.25.4"]
    (due,) = index.commitments.due("pacs", NOW + 99999, 9)
    assert due.unanswered == 5, "answers that leave an object out do not shorten the wait"


def test_unanswered_transactions_are_few_however_short_the_waits_are(index: Index) -> None:
    accept(index, "pacs")
    for number in range(50):
        ask(index, f"2.25.{number}", at=NOW + 301 * number)
    assert len(index.commitments.of_study(STUDY)) <= 31


def test_a_second_duplicate_transaction_waits_as_long_as_one_without_an_answer(index: Index) -> None:
    accept(index, "pacs")
    ask(index)
    answer(index, (), seg=0x0131, sr=0x0131)
    ask(index, "2.25.2", at=NOW + 4)
    answer(index, (), "2.25.2", at=NOW + 5, seg=0x0131, sr=0x0131)
    assert index.commitments.due("pacs", NOW + 303, 9) == []
    assert len(index.commitments.due("pacs", NOW + 304, 9)) == 1


def test_silence_is_what_was_asked_since_the_last_answer_and_whose_time_is_over(index: Index) -> None:
    accept(index, "pacs", "archive")
    assert index.commitments.silence("pacs", NOW) == Silence(unanswered=0, asked_at=None)
    ask(index)
    assert index.commitments.silence("pacs", NOW + 300) == Silence(unanswered=0, asked_at=NOW + 1)
    assert index.commitments.silence("pacs", NOW + 301).unanswered == 1
    assert index.commitments.silence("archive", NOW + 301).unanswered == 0
    ask(index, "2.25.2", at=NOW + 301)
    index.commitments.not_taken("2.25.2", reason="aborted", at=NOW + 302)
    assert index.commitments.silence("pacs", NOW + 303) == Silence(unanswered=2, asked_at=NOW + 301)
    answer(index, (SR_UID,), "2.25.1", at=NOW + 304)
    assert index.commitments.silence("pacs", NOW + 9999) == Silence(unanswered=0, asked_at=None)


def test_a_study_is_committed_when_the_peer_keeps_every_object(index: Index) -> None:
    accept(index, "pacs")
    assert state_of(index) is StudyState.DELIVERED
    ask(index)
    assert index.commitments.open_by_peer() == {"pacs": 1}
    assert answer(index, BOTH)
    study = index.studies.rows(STUDY)[0]
    assert (study.state, study.reason) == (StudyState.COMMITTED, "storage commitment by pacs for every object")
    assert set(states(index).values()) == {DeliveryState.COMMITTED}
    (row,) = index.commitments.of_study(STUDY)
    assert (row.state, row.answered_at, row.reason) == (CommitmentState.COMMITTED, NOW + 2, "2 of 2 object(s) kept")
    assert index.commitments.open_by_peer() == {}
    assert index.commitments.due("pacs", NOW + 9999, 9) == []


def test_a_peer_that_is_not_asked_never_makes_a_study_committed(index: Index) -> None:
    accept(index, "pacs", commitment=False)
    assert index.commitments.due("pacs", NOW + 9999, 9) == []
    assert (state_of(index), set(states(index).values())) == (StudyState.DELIVERED, {DeliveryState.ACCEPTED})


def test_every_asked_peer_must_answer(index: Index) -> None:
    accept(index, "pacs", "archive")
    ask(index, "2.25.1")
    ask(index, "2.25.2", peer="archive")
    answer(index, BOTH, "2.25.1")
    assert state_of(index) is StudyState.DELIVERED
    answer(index, BOTH, "2.25.2")
    assert state_of(index) is StudyState.COMMITTED


def test_nothing_is_asked_before_the_peer_has_everything(index: Index) -> None:
    index.deliveries.plan_all([(sop_instance_uid, ["pacs"]) for sop_instance_uid in BOTH], NOW)
    first, second = index.deliveries.at_peer(STUDY, "pacs")
    index.deliveries.accepted(first, reason="", at=NOW, commitment=True)
    assert index.commitments.due("pacs", NOW + 1, 9) == []
    index.deliveries.accepted(second, reason="", at=NOW, commitment=True)
    (due,) = index.commitments.due("pacs", NOW + 1, 9)
    assert {row.sop_instance_uid for row in due.rows} == set(BOTH)


def test_what_was_asked_is_asked_again_only_after_its_time_with_the_same_objects(index: Index) -> None:
    accept(index, "pacs")
    ask(index)
    assert index.commitments.due("pacs", NOW + 300, 9) == []
    (due,) = index.commitments.due("pacs", NOW + 301, 9)
    assert (due.unanswered, {row.sop_instance_uid for row in due.rows}) == (1, set(BOTH))
    ask(index, "2.25.2", at=NOW + 301)
    old, new = index.commitments.of_study(STUDY)
    assert (old.state, new.state, new.attempts) == (CommitmentState.FAILED, CommitmentState.ASKED, 2)
    assert "no answer" in old.reason
    assert index.commitments.open_by_peer() == {"pacs": 1}


def test_an_answer_that_comes_late_still_counts(index: Index) -> None:
    accept(index, "pacs")
    ask(index)
    ask(index, "2.25.2", at=NOW + 301)
    assert answer(index, BOTH, "2.25.1", at=NOW + 302)
    assert state_of(index) is StudyState.COMMITTED


def test_the_same_answer_twice_changes_nothing(index: Index) -> None:
    accept(index, "pacs")
    ask(index)
    answer(index, BOTH)
    before = index.studies.history(STUDY)
    assert answer(index, BOTH) is not None
    assert answer(index, (), seg=0x0112) is not None
    assert index.studies.history(STUDY) == before


def test_an_answer_that_nobody_asked_for_is_not_known(index: Index) -> None:
    accept(index, "pacs")
    assert answer(index, BOTH, "2.25.99") is None
    assert set(states(index).values()) == {DeliveryState.ACCEPTED}


def test_what_a_peer_does_not_keep_is_sent_again_and_the_study_is_delivered_no_more(index: Index) -> None:
    accept(index, "pacs")
    ask(index)
    answer(index, (SR_UID,), seg=0x0112)
    assert states(index) == {SEG_UID: DeliveryState.WAITING, SR_UID: DeliveryState.COMMITTED}
    assert state_of(index) is StudyState.REPORTED
    row = next(row for row in index.deliveries.at_peer(STUDY, "pacs") if row.sop_instance_uid == SEG_UID)
    assert (row.refusals, row.next_try_at, row.accepted_at) == (1, NOW + 4, None)
    assert row.reason == "peer pacs accepted it and answered by storage commitment 0x0112, no such object instance"
    accept(index, "pacs", at=NOW + 5)
    assert state_of(index) is StudyState.DELIVERED
    (due,) = index.commitments.due("pacs", NOW + 6, 9)
    assert [row.sop_instance_uid for row in due.rows] == [SEG_UID]
    assert due.unanswered == 0
    ask(index, "2.25.2", at=NOW + 6)
    answer(index, (SEG_UID,), "2.25.2", at=NOW + 7)
    assert state_of(index) is StudyState.COMMITTED


def test_a_peer_that_loses_an_object_again_and_again_fails_it_for_good(index: Index) -> None:
    for time in range(3):
        accept(index, "pacs", at=NOW + 10 * time)
        ask(index, f"2.25.{time + 1}", at=NOW + 10 * time + 1)
        answer(index, (), f"2.25.{time + 1}", at=NOW + 10 * time + 2, seg=0x0110, sr=0x0110)
    assert set(states(index).values()) == {DeliveryState.FAILED}
    study = index.studies.rows(STUDY)[0]
    assert study.state is StudyState.FAILED
    assert "0x0110, processing failure" in study.reason
    lines = [(line.before, line.after) for line in index.studies.history(STUDY) if line.subject == "delivery pacs"]
    assert lines[-2:] == [("ACCEPTED", "WAITING"), ("WAITING", "FAILED")]


def test_a_duplicate_transaction_is_asked_again_without_sending_again(index: Index) -> None:
    accept(index, "pacs")
    ask(index)
    answer(index, (), seg=0x0131, sr=0x0131)
    assert set(states(index).values()) == {DeliveryState.ACCEPTED}
    assert state_of(index) is StudyState.DELIVERED
    assert len(index.commitments.due("pacs", NOW + 4, 9)) == 1


def test_an_object_that_the_answer_leaves_out_is_asked_for_again(index: Index) -> None:
    accept(index, "pacs")
    ask(index)
    answer(index, (SR_UID,))
    assert states(index) == {SEG_UID: DeliveryState.ACCEPTED, SR_UID: DeliveryState.COMMITTED}
    (row,) = index.commitments.of_study(STUDY)
    assert (row.state, row.reason) == (CommitmentState.FAILED, "1 of 2 object(s) kept")
    (due,) = index.commitments.due("pacs", NOW + 301, 9)
    assert [row.sop_instance_uid for row in due.rows] == [SEG_UID]


def test_an_object_that_was_never_asked_for_is_not_committed_by_an_answer(index: Index) -> None:
    accept(index, "pacs", "archive")
    ask(index)
    answer(index, BOTH)
    assert set(states(index, "archive").values()) == {DeliveryState.ACCEPTED}


def test_an_answer_to_an_earlier_report_does_not_commit_the_one_written_since(index: Index) -> None:
    accept(index, "pacs")
    ask(index)
    index.jobs.ask_again(STUDY, actor="a person", at=NOW + 2)
    job = index.jobs.of_study(STUDY)[0].job
    index.jobs.queue(STUDY, [job], cause="", actor="assembly", at=NOW + 3)
    lease = claim(index, job, at=NOW + 4)
    index.jobs.report(lease, index.jobs.report_rows(job.job_uid), summary={"result": "again"}, at=NOW + 5)
    accept(index, "pacs", at=NOW + 6)
    assert answer(index, BOTH, at=NOW + 7) is not None
    assert (state_of(index), set(states(index).values())) == (StudyState.DELIVERED, {DeliveryState.ACCEPTED})


def test_a_question_about_deliveries_that_changed_meanwhile_is_not_asked(index: Index) -> None:
    accept(index, "pacs")
    (due,) = index.commitments.due("pacs", NOW + 1, 9)
    ask(index)
    assert not index.commitments.begin(due, "2.25.2", next_try_at=NOW + 300, at=NOW + 1)
    assert [row.transaction_uid for row in index.commitments.of_study(STUDY)] == ["2.25.1"]


def test_a_peer_that_could_not_be_reached_was_not_asked(index: Index) -> None:
    accept(index, "pacs")
    ask(index)
    index.commitments.withdraw("2.25.1", NOW + 5)
    assert index.commitments.of_study(STUDY) == []
    (due,) = index.commitments.due("pacs", NOW + 5, 9)
    assert due.unanswered == 0


def test_a_peer_that_would_not_take_the_question_is_asked_again_in_its_time(index: Index) -> None:
    accept(index, "pacs")
    ask(index)
    index.commitments.not_taken("2.25.1", reason="peer pacs answered 0x0122", at=NOW + 2)
    assert index.commitments.open_by_peer() == {}
    assert state_of(index) is StudyState.DELIVERED
    assert index.commitments.due("pacs", NOW + 300, 9) == []
    (due,) = index.commitments.due("pacs", NOW + 301, 9)
    assert due.unanswered == 1
    assert index.studies.history(STUDY)[-1].cause == "storage commitment: peer pacs answered 0x0122"


def test_a_peer_that_the_settings_ask_no_more_does_not_hold_up_the_others_commitment(index: Index) -> None:
    accept(index, "pacs", "archive")
    ask(index, "2.25.1")
    ask(index, "2.25.2", peer="archive")
    answer(index, BOTH, "2.25.1")
    assert state_of(index) is StudyState.DELIVERED
    assert index.commitments.waive({"pacs"}, NOW + 3) == 2
    assert set(states(index, "archive").values()) == {DeliveryState.ACCEPTED}
    assert (state_of(index), index.commitments.open_by_peer()) == (StudyState.COMMITTED, {})
    assert index.commitments.waive({"pacs"}, NOW + 4) == 0


def test_unanswered_transactions_of_more_than_a_day_ago_are_forgotten(index: Index) -> None:
    accept(index, "pacs")
    at = NOW
    for number in range(60):
        at += 3600
        ask(index, f"2.25.{number}", at=at)
    assert len(index.commitments.of_study(STUDY)) <= 26


def test_the_overview_tells_what_is_accepted_committed_and_away(index: Index) -> None:
    accept(index, "pacs")
    assert all(
        line.reason == "accepted (0x0000); storage commitment not asked for yet"
        for line in read_study(index, STUDY, NOW).deliveries
    )
    ask(index)
    line = read_study(index, STUDY, NOW).deliveries[0]
    assert (line.reason, line.next_try_at) == ("accepted (0x0000); storage commitment asked for", NOW + 301)
    answer(index, (SEG_UID,), sr=0x0112)
    index.peers.missed("pacs", reason="does not answer", next_try_at=NOW + 50, at=NOW + 2)
    (waiting,) = read_overview(index, NOW + 12).deliveries
    assert (waiting.sop_class_uid, waiting.next_try_at, waiting.reason) == (SR, NOW + 50, "does not answer")
    (peer,) = read_overview(index, NOW + 12).peers
    assert (peer.waiting, peer.committed, peer.oldest_waiting_seconds) == (1, 1, 10)
    assert (peer.away_since, peer.reason, peer.commitments_open) == (NOW + 2, "does not answer", 0)
