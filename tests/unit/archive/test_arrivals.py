from collections.abc import Iterator

import pytest

from dicom_node.archive.arrivals import Asked
from dicom_node.archive.index import Index
from dicom_node.core.completeness import StudyFacts
from dicom_node.core.expectation import Question, Told
from dicom_node.core.lifecycle import StudyState
from tests.populated_index import NOW, instance, receive, report, study_uid, uid

STUDY = study_uid("a")
SERIES = uid("series", "a", 2)
ASKABLE = {"CT1": ("pacs",), "OTHER": ("other",)}


@pytest.fixture
def index() -> Iterator[Index]:
    index = Index.open("sqlite://")
    yield index
    index.close()


def facts_of(index: Index, study: str = STUDY) -> StudyFacts:
    return index.arrivals.facts([study], ASKABLE)[study]


def asked(at: float, *, attempts: int = 1, peer: str = "pacs") -> Asked:
    return Asked(study_instance_uid=STUDY, peer=peer, asked_at=at, attempts=attempts, next_try_at=at + 2)


def test_the_facts_of_a_study_tell_how_it_came_and_who_can_be_asked(index: Index) -> None:
    receive(index, "a", at=NOW)
    receive(index, "b", at=NOW)
    facts = facts_of(index)
    assert (facts.last_received_at, facts.open_associations, facts.told) == (NOW, 0, ())
    assert facts.questions == (Question(peer="pacs"),)
    assert index.arrivals.facts([STUDY])[STUDY].questions == ()


def test_what_a_performed_step_counts_may_be_told_before_the_first_instance(index: Index) -> None:
    index.arrivals.tell(STUDY, {"": 4, SERIES: 3}, source="MPPS", at=NOW - 60, final=True)
    receive(index, "a", at=NOW)
    step = {"source": "MPPS", "told_at": NOW - 60, "final": True}
    assert facts_of(index).told == (Told(count=4, **step), Told(series_instance_uid=SERIES, count=3, **step))  # type: ignore[arg-type]  # text, number, bool


def test_what_a_source_tells_takes_the_place_of_what_it_told_before_and_of_nothing_else(index: Index) -> None:
    receive(index, "a", at=NOW)
    index.arrivals.tell(STUDY, {"": 2, "1.9": 2}, source="peer pacs", at=NOW)
    index.arrivals.tell(STUDY, {"": 9}, source="MPPS", at=NOW)
    index.arrivals.tell(study_uid("b"), {"": 9}, source="peer pacs", at=NOW)
    index.arrivals.tell(STUDY, {"": 4}, source="peer pacs", at=NOW + 1)
    told = {(one.source, one.series_instance_uid): one.count for one in facts_of(index).told}
    assert told == {("peer pacs", ""): 4, ("MPPS", ""): 9}


def test_an_answer_is_a_fact_and_a_line_of_the_history_when_its_counts_are_new(index: Index) -> None:
    receive(index, "a", at=NOW)
    index.arrivals.answered(asked(NOW + 1), {"": 9, SERIES: 8}, held=4)
    index.arrivals.answered(asked(NOW + 3, attempts=2), {"": 9, SERIES: 8}, held=4)
    index.arrivals.answered(asked(NOW + 5, attempts=3), {"": 9, SERIES: 7}, held=5)
    facts = facts_of(index)
    assert {one.told_at for one in facts.told} == {NOW + 5}
    assert facts.questions == (Question(peer="pacs", asked_at=NOW + 5, attempts=3, next_try_at=NOW + 7),)
    first, *lines = index.studies.history(STUDY)
    assert [(line.at, line.cause, line.actor) for line in lines] == [
        (NOW + 1, "peer pacs counts 9 instances in 1 series; 4 are here", "inquiry"),
        (NOW + 5, "peer pacs counts 9 instances in 1 series; 5 are here", "inquiry"),
    ]
    assert all(line.before == line.after == StudyState.RECEIVING for line in (first, *lines))
    assert index.studies.rows(STUDY)[0].reason == lines[-1].cause


def test_a_question_in_vain_is_noted_with_its_reason_and_told_once(index: Index) -> None:
    receive(index, "a", at=NOW)
    for number, reason in enumerate(("away", "away", "busy"), start=1):
        index.arrivals.unanswered(asked(NOW + number, attempts=number), reason)
    (question,) = facts_of(index).questions
    assert (question.vain_since, question.asked_at, question.reason, question.attempts) == (NOW + 1, NOW + 3, "busy", 3)
    causes = [line.cause for line in index.studies.history(STUDY)[1:]]
    assert causes == ["peer pacs was asked in vain: away", "peer pacs was asked in vain: busy"]


def test_a_peer_that_falls_silent_leaves_what_it_told_and_an_answer_ends_its_silence(index: Index) -> None:
    receive(index, "a", at=NOW)
    index.arrivals.answered(asked(NOW + 1), {"": 9}, held=4)
    index.arrivals.unanswered(asked(NOW + 3), "away")
    facts = facts_of(index)
    assert facts.questions[0].vain
    assert [one.count for one in facts.told] == [9]
    index.arrivals.answered(asked(NOW + 5), {"": 9}, held=4)
    assert facts_of(index).questions[0].answered


def test_the_series_that_we_made_ourselves_are_not_expected_from_a_peer_that_got_them(index: Index) -> None:
    report(index, "a", at=NOW)
    index.studies.add_instance(instance("a", 99, at=NOW + 10))
    ours = uid("sr", "series", "a"), uid("seg", "series", "a")
    index.arrivals.answered(asked(NOW + 11), {"": 9, SERIES: 7, ours[0]: 1, ours[1]: 1}, held=7)
    told = {one.series_instance_uid: one.count for one in facts_of(index).told}
    assert told == {"": 7, SERIES: 7}


def test_an_answer_about_a_study_that_has_gone_on_changes_nothing_that_people_see(index: Index) -> None:
    receive(index, "a", at=NOW)
    index.studies.move(STUDY, StudyState.COMPLETE, cause="whole", actor="test", at=NOW + 1)
    index.arrivals.answered(asked(NOW + 2), {"": 9}, held=4)
    index.arrivals.unanswered(asked(NOW + 3), "away")
    assert index.studies.rows(STUDY)[0].reason == "whole"
    assert len(index.studies.history(STUDY)) == 2
    assert index.arrivals.facts([STUDY], ASKABLE) == {}


def test_two_peers_of_one_title_are_both_asked_and_a_title_that_nobody_has_asks_nobody(index: Index) -> None:
    receive(index, "a", at=NOW)
    both = index.arrivals.facts([STUDY], {"CT1": ("first", "second")})[STUDY]
    assert [question.peer for question in both.questions] == ["first", "second"]
    assert index.arrivals.facts([STUDY], {"OTHER": ("other",)})[STUDY].questions == ()


def test_duplicates_and_conflicting_copies_are_held_once(index: Index) -> None:
    for number, at in ((1, 0.0), (2, 0.25), (3, 5.0)):
        index.studies.add_instance(instance("a", number, at=NOW + at))
    index.studies.add_instance(instance("a", 3, at=NOW + 6))
    index.studies.add_instance(instance("a", 3, at=NOW + 7, sha256="c" * 64))
    index.studies.add_instance(instance("a", 1, at=NOW + 8, series=1))
    index.studies.add_instance(instance("b", 1, at=NOW))
    held = index.arrivals.held([STUDY, study_uid("none")])
    assert held == {STUDY: ({SERIES: 3, uid("series", "a", 1): 1}, 4.75), study_uid("none"): ({}, 0.0)}


def test_only_the_newest_instances_tell_the_pauses_of_their_sender(index: Index) -> None:
    for number in range(20):
        index.studies.add_instance(instance("a", number, at=NOW + (0 if number == 0 else 100 + number / 8)))
    assert index.arrivals.held([STUDY])[STUDY][1] == 0.125


def test_which_studies_arrive_is_told_with_the_last_instance_and_whether_a_source_counted_what_was_made(
    index: Index,
) -> None:
    for name in "abc":
        receive(index, name, at=NOW)
    index.studies.move(study_uid("c"), StudyState.COMPLETE, cause="whole", actor="test", at=NOW)
    index.arrivals.tell(STUDY, {"": 9}, source="peer pacs", at=NOW)
    index.arrivals.tell(study_uid("b"), {"": 9}, source="MPPS", at=NOW, final=True)
    assert index.arrivals.arriving() == {STUDY: (NOW, False), study_uid("b"): (NOW, True)}
