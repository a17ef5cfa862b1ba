"""The worklist's pages are the order of `core.reading_order` over every study, whatever is looked at for it."""

import random
import sqlite3
from collections.abc import Iterator

import pytest
import sqlalchemy as sa

from dicom_node.archive.index import Index
from dicom_node.archive.worklist import Wish, read_worklist
from dicom_node.core.lifecycle import StudyState
from dicom_node.core.priority import Priority
from dicom_node.core.reading_order import Candidate, Urgency, place, urgency_of
from tests.many_studies import fill
from tests.populated_index import NOW, uid

WAIT = 4 * 3600.0
FLAGS = ("", "", *(f"ACR Category {category} Actionable Finding" for category in (1, 2, 3)))
STATES = (StudyState.DELIVERED, StudyState.REPORTED, StudyState.WITHDRAWN, StudyState.RECEIVING)


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Index]:
    """Two hundred studies of two days, of any priority, flag and state; some times are equal."""
    index = Index.open(f"sqlite:///{tmp_path_factory.mktemp('index') / 'index.sqlite'}")
    fill(index, 200, within_seconds=2 * 86400)
    chance = random.Random(7)
    studies, jobs = (index.transactions.tables[name] for name in ("studies", "jobs"))
    with index.transactions.write() as connection:
        for number in range(200):
            of_study = studies.c.study_instance_uid == uid("many", number)
            values = {"priority": chance.choice(list(Priority)).value, "state": chance.choice(STATES).value}
            if number % 7 == 0:
                values["last_received_at"] = NOW - 1800.0 * (number // 14)  # type: ignore[assignment]  # a number
            connection.execute(sa.update(studies).where(of_study).values(**values))
            flag, of_job = chance.choice(FLAGS), jobs.c.study_instance_uid == uid("many", number)
            # As an earlier version wrote it, and as this one does.
            kept = {"flag": None if number % 3 == 0 else flag, "summary": {"priority": flag}}
            of_job &= jobs.c.current.is_(True)
            connection.execute(sa.update(jobs).where(of_job).values(**kept, current=number % 11 != 0))
    yield index
    index.close()


def by_rule(index: Index, wish: Wish) -> list[tuple[str, Urgency]]:
    """The whole list, by the rule alone."""
    studies, jobs = (index.transactions.tables[name] for name in ("studies", "jobs"))
    with index.transactions.read() as connection:
        flags = {
            row.study_instance_uid: row.summary["priority"]
            for row in connection.execute(sa.select(jobs).where(jobs.c.current.is_(True)))
        }
        rows = connection.execute(sa.select(studies).where(studies.c.last_received_at >= wish.since)).all()
    silent = (StudyState.WITHDRAWN, StudyState.RECEIVING, StudyState.COMPLETE)
    all_of_them = [
        Candidate(
            study_instance_uid=row.study_instance_uid,
            priority=Priority(row.priority),
            last_received_at=row.last_received_at,
            flags=() if row.state in silent else tuple(filter(None, [flags.get(row.study_instance_uid, "")])),
        )
        for row in rows
        if wish.state is None or row.state == wish.state
    ]
    all_of_them.sort(key=lambda one: place(one, NOW, WAIT))
    told = [(one.study_instance_uid, urgency_of(one, NOW, WAIT)) for one in all_of_them]
    return [one for one in told if wish.urgency in (None, one[1])]


@pytest.mark.parametrize("hours", [2, 6, 24, 72])
@pytest.mark.parametrize("urgency", [None, *Urgency])
@pytest.mark.parametrize("state", [None, StudyState.DELIVERED, StudyState.RECEIVING])
def test_all_pages_together_are_the_list_by_the_rule(
    index: Index, hours: int, urgency: Urgency | None, state: StudyState | None
) -> None:
    wish = Wish(since=NOW - hours * 3600, urgency=urgency, state=state)
    expected = by_rule(index, wish)
    pages = max(1, -(-len(expected) // 17))
    found: list[tuple[str, Urgency]] = []
    for page in range(pages):
        wanted = Wish(since=wish.since, urgency=urgency, state=state, page=page)
        worklist = read_worklist(index, wanted, NOW, longest_wait_seconds=WAIT, size=17)
        assert (worklist.page, worklist.pages) == (page, pages)
        assert sum(worklist.counts.values()) == len(by_rule(index, Wish(since=wish.since, state=state)))
        found += [(line.study.study_instance_uid, line.urgency) for line in worklist.lines]
    assert found == expected


def test_a_study_that_is_looked_for_is_found_at_any_age(index: Index) -> None:
    one = uid("many", 199)
    found = read_worklist(index, Wish(since=NOW, study=one), NOW, longest_wait_seconds=WAIT)
    assert [line.study.study_instance_uid for line in found.lines] == [one]


def test_the_list_is_read_by_indexes(index: Index) -> None:
    """However many studies there are, no table is looked through."""
    asked: list[str] = []
    sa.event.listen(index._engine, "connect", lambda driver, _entry: driver.set_trace_callback(asked.append))
    index._engine.dispose()
    read_worklist(index, Wish(since=NOW - 86400 * 3, page=2), NOW, longest_wait_seconds=WAIT)
    connection = sqlite3.connect(str(index._engine.url.database))
    plans = [
        (step[3], statement)
        for statement in asked
        if statement.lstrip().startswith("SELECT")
        for step in connection.execute(f"EXPLAIN QUERY PLAN {statement}")
    ]
    connection.close()
    assert len(plans) > 5
    # A list that is given in the question is no table of the index.
    assert [plan for plan in plans if plan[0].startswith("SCAN") and "VIRTUAL TABLE" not in plan[0]] == []
