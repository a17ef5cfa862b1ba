"""What the history tells is counted once: in any pieces, over restarts, and without a look at what was counted."""

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from dicom_node.archive import tally as module
from dicom_node.archive.index import Index
from dicom_node.archive.tally import Durations, Kind, Tally
from dicom_node.core.lifecycle import JobState, StudyState
from dicom_node.core.priority import Priority
from dicom_node.web.metrics import IndexCollector
from tests.populated_index import NOW, claim, complete, deliver, open_populated, queue, receive, report, study_uid

BOUNDS = (5.0, 7.9, 8.0, 13.0)


@pytest.fixture(scope="module")
def busy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Index]:
    index = open_populated(tmp_path_factory.mktemp("index"))
    yield index
    index.close()


@pytest.fixture
def empty(tmp_path: Path) -> Iterator[Index]:
    index = Index.open(f"sqlite:///{tmp_path / 'index.sqlite'}")
    yield index
    index.close()


def counted(index: Index, bounds: tuple[float, ...] = BOUNDS) -> Tally:
    tally = Tally(index, bounds)
    tally.look()
    return tally


def all_queues(tally: Tally, kind: Kind) -> tuple[int, float]:
    """How many, and how many seconds together."""
    found = [durations for (of, _), durations in tally.durations().items() if of is kind]
    return sum(one.count for one in found), sum(one.total_seconds for one in found)


def test_what_took_how_long_follows_from_the_history(busy: Index) -> None:
    # Received 2 s before complete, 1 s queued, read in 8 s, accepted 2 s later; one of the six is still on its way.
    tally = counted(busy)
    assert all_queues(tally, Kind.SERVICE) == (6, 48.0)
    assert all_queues(tally, Kind.INFERENCE) == (6, 37.5)
    assert all_queues(tally, Kind.RESULT) == (6, 66.0)
    assert all_queues(tally, Kind.DELIVERY) == (5, 65.0)
    waiting = tally.durations()[Kind.WAITING, "routine"]
    assert waiting == Durations(buckets=((5.0, 4), (7.9, 4), (8.0, 4), (13.0, 4)), count=4, total_seconds=4.0), (
        "four studies of the routine queue, one second each"
    )


def test_counts_are_by_the_queue_of_the_study(busy: Index) -> None:
    durations = counted(busy).durations()
    assert durations[Kind.SERVICE, "stat"].count == 1
    assert durations[Kind.SERVICE, "urgent"].count == 1
    assert durations[Kind.SERVICE, "routine"].buckets == ((5.0, 0), (7.9, 0), (8.0, 4), (13.0, 4))


def test_every_attempt_to_deliver_has_an_outcome(busy: Index) -> None:
    # Ten objects less two segmentations that empty reports lack; the reported study's two were postponed once each.
    outcomes = counted(busy).deliveries()
    assert outcomes["pacs", "accepted"] == sum(
        row.accepted_at is not None
        for study in busy.studies.rows()
        for row in busy.deliveries.of_study(study.study_instance_uid)
    )
    assert outcomes["pacs", "postponed"] == 2


def test_every_state_that_a_study_entered_is_counted(busy: Index) -> None:
    entered = counted(busy).entered()
    assert entered[StudyState.FAILED] == entered[StudyState.NOT_ROUTED] == entered[StudyState.COMMITTED] == 1
    assert entered[StudyState.DELIVERED] == 5
    assert entered[StudyState.WITHDRAWN] == 0


def test_a_second_look_and_another_tally_count_nothing_twice(empty: Index) -> None:
    report(empty, "a", at=NOW)
    tally = counted(empty)
    tally.look()
    assert all_queues(tally, Kind.SERVICE) == (1, 8.0)
    report(empty, "b", at=NOW)
    again = counted(empty)
    assert all_queues(again, Kind.SERVICE) == (2, 16.0)
    assert all_queues(counted(empty), Kind.SERVICE) == (2, 16.0)


def test_what_was_counted_is_not_read_again(empty: Index) -> None:
    report(empty, "a", at=NOW)
    counted(empty)
    history = empty.transactions.tables["history"]
    with empty.transactions.write() as connection:
        connection.execute(
            sa.delete(history).where(history.c.number < sa.select(sa.func.max(history.c.number)).scalar_subquery())
        )
    assert all_queues(counted(empty), Kind.SERVICE) == (1, 8.0)


def test_many_lines_are_counted_in_pieces_and_a_look_ends_in_time(
    empty: Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in "abc":
        report(empty, name, at=NOW)
    monkeypatch.setattr(module, "_LINES", 4)
    now = iter(range(0, 10_000))
    slow = Tally(empty, BOUNDS, monotonic=lambda: float(next(now)))
    slow.look()
    assert all_queues(slow, Kind.SERVICE)[0] < 3, "one piece, since every look at the clock is a second later"
    for _ in range(20):
        slow.look()
    assert all_queues(slow, Kind.SERVICE) == (3, 24.0)


def test_other_bounds_and_an_index_of_an_earlier_day_are_counted_anew(empty: Index) -> None:
    report(empty, "a", at=NOW)
    counted(empty)
    assert all_queues(counted(empty, (1.0, 2.0)), Kind.SERVICE) == (1, 8.0)
    history = empty.transactions.tables["history"]
    with empty.transactions.write() as connection:
        connection.execute(sa.delete(history))
    assert counted(empty, (1.0, 2.0)).durations() == {}


def test_an_attempt_that_failed_is_no_service_and_the_next_wait_begins_at_its_end(empty: Index) -> None:
    job = queue(empty, "a", at=NOW)
    empty.jobs.end(claim(empty, job, at=NOW + 3), JobState.QUEUED, reason="memory", at=NOW + 10)
    claim(empty, job, at=NOW + 14)
    tally = counted(empty)
    assert all_queues(tally, Kind.WAITING) == (2, 3.0 + 4.0)
    assert all_queues(tally, Kind.SERVICE) == (0, 0.0)


def test_a_study_that_a_person_asked_for_again_has_no_second_time_to_delivery(empty: Index) -> None:
    report(empty, "again", at=NOW - 100)
    deliver(empty, "again", at=NOW - 98)
    assert all_queues(counted(empty), Kind.DELIVERY) == (1, 13.0)
    empty.jobs.ask_again(study_uid("again"), actor="somebody", at=NOW)
    for state in (StudyState.REPORTED, StudyState.DELIVERED):
        empty.studies.move(study_uid("again"), state, cause="as before", actor="test", at=NOW)
    assert all_queues(counted(empty), Kind.DELIVERY) == (1, 13.0)


def test_of_nothing_there_is_nothing(empty: Index) -> None:
    receive(empty, "receiving", at=NOW)
    complete(empty, "complete", at=NOW)
    assert counted(empty).durations() == {}


def test_a_scrape_of_the_metrics_looks_through_no_table(busy: Index) -> None:
    """However many studies there are, each question is answered by an index."""
    collector = IndexCollector(busy, dict, lambda: NOW)
    list(collector.collect())
    asked: list[str] = []
    connection = sqlite3.connect(str(busy._engine.url.database))
    sa.event.listen(busy._engine, "connect", lambda driver, _entry: driver.set_trace_callback(asked.append))
    busy._engine.dispose()
    list(collector.collect())
    plans = {
        (statement, row[3])
        for statement in asked
        if statement.lstrip().startswith(("SELECT", "WITH"))
        for row in connection.execute(f"EXPLAIN QUERY PLAN {statement}")
    }
    connection.close()
    assert len(asked) > 10
    # What is small, or holds only what is counted, may be looked through.
    small = {"workers", "peers_away", "conditions", "archive_faults", "marks", "(subquery-1)", "CONSTANT"}
    small |= {"COVERING", "reports_held"}
    scans = [(step, statement) for statement, step in plans if step.startswith("SCAN")]
    assert [scan for scan in scans if not small & set(scan[0].split())] == []


def test_a_study_of_no_known_priority_waits_in_the_routine_queue(empty: Index) -> None:
    report(empty, "a", at=NOW, priority=Priority.LOW)
    assert counted(empty).durations()[Kind.SERVICE, "routine"].count == 1
