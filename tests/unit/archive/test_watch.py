from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from dicom_node.archive.index import Index
from dicom_node.archive.watch import Watch
from dicom_node.core.completeness import verdict
from dicom_node.core.lifecycle import StudyState
from dicom_node.settings import CompletenessSettings
from tests.populated_index import NOW, instance, receive, study_uid

A, B = study_uid("a"), study_uid("b")


@pytest.fixture
def index() -> Iterator[Index]:
    index = Index.open("sqlite://")
    receive(index, "a", at=NOW)
    receive(index, "b", at=NOW)
    yield index
    index.close()


def watch_over(index: Index) -> Watch:
    return Watch(index.arrivals, CompletenessSettings())


def test_what_came_just_now_is_not_looked_at(index: Index) -> None:
    watch = watch_over(index)
    assert watch.due(NOW + 0.08) == {}
    assert watch.arriving == {A, B}
    assert set(watch.due(NOW + 0.1)) == {A, B}


def test_a_count_of_what_was_made_is_looked_at_with_each_instance(index: Index) -> None:
    index.arrivals.tell(A, {"": 5}, source="MPPS", at=NOW, final=True)
    assert set(watch_over(index).due(NOW)) == {A}


def test_a_study_that_rests_is_looked_at_when_its_time_has_come_or_something_came(index: Index) -> None:
    watch = watch_over(index)
    for uid, facts in watch.due(NOW + 20).items():
        watch.rest(uid, facts, NOW + 20, until=NOW + 20.5 if uid == A else NOW + 60)
    assert watch.due(NOW + 20.4) == {}
    assert set(watch.due(NOW + 20.5)) == {A}
    assert set(watch.due(NOW + 21)) == {A, B}, "an association may have ended"
    index.studies.add_instance(instance("b", 9, at=NOW + 21))
    assert set(watch.due(NOW + 21.5)) >= {B}


def test_a_clock_set_back_does_not_end_the_looking(index: Index) -> None:
    index.arrivals.tell(A, {"": 5}, source="MPPS", at=NOW, final=True)
    assert set(watch_over(index).due(NOW - 3600)) == {A}


def test_a_clock_set_back_makes_a_study_wait_from_when_it_was_next_seen(index: Index) -> None:
    watch, yesterday = watch_over(index), NOW - 86400
    assert watch.due(yesterday) == {}
    facts = watch.due(yesterday + 3)
    assert set(facts) == {A, B}
    timers = CompletenessSettings()
    assert verdict(facts[A], yesterday + 3, timers).complete
    assert not verdict(facts[A], yesterday + 1, timers).complete


def test_what_is_held_is_counted_once_for_each_last_arrival(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[list[str]] = []
    held = index.arrivals.held

    def counted(uids: Sequence[str]) -> Any:
        looks.append(sorted(uids))
        return held(uids)

    monkeypatch.setattr(index.arrivals, "held", counted)
    watch = watch_over(index)
    for _ in range(2):
        facts = watch.due(NOW + 1)
    assert sum(facts[A].held.values()) == 4
    index.studies.add_instance(instance("a", 9, at=NOW + 2))
    assert sum(watch.due(NOW + 3)[A].held.values()) == 5
    assert looks == [sorted([A, B]), [A]]


def test_a_study_that_has_gone_on_is_forgotten(index: Index) -> None:
    watch = watch_over(index)
    watch.due(NOW + 1)
    index.studies.move(A, StudyState.COMPLETE, cause="whole", actor="test", at=NOW + 1)
    assert set(watch.due(NOW + 2)) == {B} == watch.arriving


def test_a_thousand_studies_are_looked_at_in_few_questions(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(30):
        index.studies.add_instance(instance(f"s{number}", 1, at=NOW))
    questions = []
    read = index.transactions.read

    def counted() -> Any:
        questions.append(None)
        return read()

    monkeypatch.setattr(index.transactions, "read", counted)
    watch = watch_over(index)
    assert len(watch.due(NOW + 1)) == 32
    assert len(questions) == 4
