"""The index's promises: each transaction is answered once, and its UID is free when the answer was acknowledged."""

from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dicom_node.archive.index import Index
from dicom_node.archive.promises import PromiseRow
from dicom_node.core.commitment import PromiseRequest
from tests.populated_index import NOW

CT = "1.2.840.10008.5.1.4.1.1.2"


@pytest.fixture
def index() -> Iterator[Index]:
    index = Index.open("sqlite://")
    yield index
    index.close()


def request(transaction: str = "1", title: str = "CT1", objects: tuple[str, ...] = ("1.1",)) -> PromiseRequest:
    pairs = tuple((CT, uid) for uid in objects)
    return PromiseRequest(transaction_uid=transaction, calling_ae_title=title, objects=pairs)


def row_of(index: Index, transaction: str = "1") -> PromiseRow:
    row = index.promises.find(transaction)
    assert row is not None
    return row


def test_a_question_is_due_at_once_and_after_each_attempt_when_its_wait_is_over(index: Index) -> None:
    assert index.promises.ask(request(), NOW)
    (row,) = index.promises.due(NOW, 5)
    index.promises.missed(row, reason="away", next_try_at=NOW + 9)
    assert index.promises.due(NOW + 8, 5) == []
    (later,) = index.promises.due(NOW + 9, 5)
    assert (later.attempts, later.reason, later.failed) == (1, "away", None)
    assert index.promises.due(NOW + 9, 5, without={"CT1"}) == []
    assert index.promises.owed() == {"CT1": 1}


def test_another_question_by_a_uid_in_use_is_refused_whoever_asks(index: Index) -> None:
    assert index.promises.ask(request(), NOW)
    assert index.promises.ask(request(), NOW + 1)
    assert not index.promises.ask(request(objects=("1.2",)), NOW + 1)
    assert not index.promises.ask(request(title="CT2"), NOW + 1)
    assert row_of(index).asked_at == NOW


def test_an_acknowledged_answer_is_owed_no_more_and_frees_its_uid(index: Index) -> None:
    index.promises.ask(request(), NOW)
    index.promises.looked(row_of(index), {"1.1": 0x0112}, [], NOW)
    index.promises.told(row_of(index), NOW + 1)
    assert (index.promises.due(NOW + 99, 5), index.promises.owed()) == ([], {})
    assert row_of(index).failed == {"1.1": 0x0112}
    assert index.promises.ask(request(objects=("1.2",)), NOW + 2)
    assert (row_of(index).failed, row_of(index).objects) == (None, ((CT, "1.2"),))


def test_what_was_found_for_an_earlier_question_is_not_written_to_a_later_one_of_its_uid(index: Index) -> None:
    index.promises.ask(request(), NOW)
    first = row_of(index)
    index.promises.told(first, NOW)
    index.promises.ask(request(), NOW + 5)
    index.promises.looked(first, {"1.1": 0x0112}, [], NOW + 6)
    index.promises.told(first, NOW + 6)
    assert (row_of(index).failed, row_of(index).told_at) == (None, None)


def test_acknowledged_answers_are_forgotten_after_a_day_and_owed_ones_never(index: Index) -> None:
    for transaction in ("1", "2"):
        index.promises.ask(request(transaction), NOW)
    index.promises.told(row_of(index), NOW)
    index.promises.ask(request("3"), NOW + 86401)
    assert index.promises.find("1") is None
    assert index.promises.find("2") is not None


@settings(max_examples=50)
@given(st.lists(st.sampled_from(["ask", "other", "look", "tell", "miss"]), max_size=12))
def test_in_any_order_of_events_an_answer_never_changes_between_its_question_and_its_acknowledgement(
    events: list[str],
) -> None:
    index = Index.open("sqlite://")
    found: dict[str, int] | None = None
    for number, event in enumerate(events):
        at, row = NOW + number, index.promises.find("1")
        is_owed = row is not None and row.told_at is None
        if event in ("ask", "other"):
            taken = index.promises.ask(request(objects=("1.1",) if event == "ask" else ("1.2",)), at)
            assert taken or is_owed
            found = found if is_owed else None
        elif row is not None and is_owed:
            if event == "look" and row.failed is None:
                found = {"1.1": number}
                index.promises.looked(row, found, [], at)
            elif event == "tell":
                index.promises.told(row, at)
            elif event == "miss":
                index.promises.missed(row, reason="away", next_try_at=at)
        now = index.promises.find("1")
        assert now is None or now.failed == found
        assert bool(index.promises.owed()) == (now is not None and now.told_at is None)
    index.close()


def test_the_same_question_again_is_due_at_once_and_what_was_tried_meanwhile_does_not_change_that(index: Index) -> None:
    index.promises.ask(request(), NOW)
    index.promises.missed(row_of(index), reason="gone", next_try_at=NOW + 900)
    (tried,) = index.promises.due(NOW + 900, 5)
    assert index.promises.ask(request(), NOW + 905)
    index.promises.missed(tried, reason="gone", next_try_at=NOW + 2700)
    index.promises.postpone([tried], next_try_at=NOW + 2700)
    assert [row.attempts for row in index.promises.due(NOW + 905, 5)] == [2]


def test_what_is_postponed_is_owed_and_was_not_tried(index: Index) -> None:
    for transaction in ("1", "2", "3"):
        index.promises.ask(request(transaction), NOW)
    index.promises.postpone(index.promises.due(NOW, 2), next_try_at=NOW + 9)
    assert len(index.promises.due(NOW, 5)) == 1
    assert len(index.promises.due(NOW + 9, 5)) == 3
    assert row_of(index).attempts == 0
