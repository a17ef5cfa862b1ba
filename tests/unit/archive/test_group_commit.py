"""Deeds of many threads in one transaction: each is done once or not at all, and fails for itself alone."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import sqlalchemy as sa

from dicom_node.archive.group_commit import GroupCommit
from dicom_node.archive.index import Index
from dicom_node.archive.study_rows import Added
from dicom_node.core.errors import DuplicateInstance, IndexConflict, IndexUnavailable
from tests.populated_index import NOW, instance, study_uid


class Ledger:
    """A real database, in which transactions are counted, and held up while a test wants it."""

    def __init__(self, folder: Path) -> None:
        self.index = Index.open(f"sqlite:///{folder / 'index.sqlite'}")
        self.begun = 0
        self.open = threading.Event()
        self.open.set()
        self.away = False
        #: So many transactions more are taken back when they are to commit.
        self.conflicts = 0
        #: The rests before something was done again.
        self.rests: list[float] = []
        self.group = GroupCommit(self.transaction, self.rests.append)

    @contextmanager
    def transaction(self) -> Iterator[sa.Connection]:
        self.begun += 1
        assert self.open.wait(10)
        if self.away:
            raise IndexUnavailable("the index does not answer")
        with self.index.transactions.write() as connection:
            yield connection
            if self.conflicts:
                self.conflicts -= 1
                raise IndexConflict("another change was in the way")

    def note(self, number: int) -> Callable[[sa.Connection], int]:
        def do(connection: sa.Connection) -> int:
            if number < 0:
                raise ValueError(f"{number} is refused")
            marks = self.index.transactions.tables["marks"]
            connection.execute(sa.insert(marks).values(name=f"number {number}", value=""))
            if number == 13:
                raise ValueError("13 is refused after it was written")
            return number * 2

        return do

    def noted(self) -> set[int]:
        marks = self.index.transactions.tables["marks"]
        query = sa.select(marks.c.name).where(marks.c.name.like("number %"))
        with self.index.transactions.read() as connection:
            return {int(name.split()[1]) for name in connection.execute(query).scalars()}


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    ledger = Ledger(tmp_path)
    yield ledger
    ledger.index.close()


def at_once(ledger: Ledger, numbers: list[int]) -> dict[int, object]:
    """What each deed answered or raised; all of them wait while the first one's transaction is held up."""
    return all_at_once(ledger, numbers, lambda number: ledger.group.run(ledger.note(number)))


def all_at_once(ledger: Ledger, numbers: list[int], do: Callable[[int], object]) -> dict[int, object]:
    found: dict[int, object] = {}

    def run(number: int) -> None:
        try:
            found[number] = do(number)
        except Exception as error:
            found[number] = error

    threads = [threading.Thread(target=run, args=(number,)) for number in numbers]
    ledger.open.clear()
    for thread in threads:
        thread.start()
    while len(ledger.group._waiting) < len(numbers) - 1:
        pass
    ledger.open.set()
    for thread in threads:
        thread.join(20)
    return found


def test_alone_a_deed_is_done_at_once(ledger: Ledger) -> None:
    assert ledger.group.run(ledger.note(4)) == 8
    assert ledger.noted() == {4}
    assert ledger.begun == 1


def test_what_waits_meanwhile_is_committed_together(ledger: Ledger) -> None:
    numbers = list(range(20, 40))
    assert at_once(ledger, numbers) == {number: number * 2 for number in numbers}
    assert ledger.noted() == set(numbers)
    assert ledger.begun == 2


def test_a_deed_that_fails_leaves_nothing_and_takes_no_other_with_it(ledger: Ledger) -> None:
    numbers = [*range(20, 30), -1, 13]
    found = at_once(ledger, numbers)
    assert {number: found[number] for number in range(20, 30)} == {number: number * 2 for number in range(20, 30)}
    assert all(isinstance(found[number], ValueError) for number in (-1, 13))
    assert ledger.noted() == set(range(20, 30))


def test_a_database_that_is_away_is_asked_once_for_all(ledger: Ledger) -> None:
    ledger.away = True
    found = at_once(ledger, list(range(1, 9)))
    assert all(isinstance(error, IndexUnavailable) for error in found.values())
    assert ledger.begun == 2
    ledger.away = False
    assert ledger.group.run(ledger.note(1)) == 2


def test_before_it_is_done_again_there_is_a_rest_that_grows(ledger: Ledger) -> None:
    ledger.conflicts = 3
    ledger.group.run(ledger.note(1))
    assert ledger.rests == [0.005, 0.01, 0.02]


@pytest.mark.parametrize("conflicts", [1, 2, 4])
def test_a_conflict_with_another_process_is_an_error_of_nobody(ledger: Ledger, conflicts: int) -> None:
    ledger.conflicts = conflicts
    numbers = list(range(20, 84))
    assert at_once(ledger, numbers) == {number: number * 2 for number in numbers}
    assert ledger.noted() == set(numbers)


def test_a_conflict_that_does_not_end_is_told_to_all_whom_it_concerns(ledger: Ledger) -> None:
    ledger.conflicts = 1000
    found = at_once(ledger, [20, 21, 22])
    assert all(isinstance(error, IndexConflict) for error in found.values())
    assert ledger.noted() == set()
    assert ledger.begun < 30


def test_a_leader_that_is_gone_leaves_the_others_to_themselves(ledger: Ledger) -> None:
    class Gone(BaseException):
        """Its thread ends here."""

    def go(_connection: sa.Connection) -> None:
        raise Gone

    with pytest.raises(Gone):
        ledger.group.run(go)
    assert ledger.group.run(ledger.note(5)) == 10
    assert ledger.noted() == {5}


def test_an_instance_that_is_refused_leaves_the_transaction_to_the_others(ledger: Ledger) -> None:
    ledger.index.transactions._group = ledger.group
    studies = ledger.index.studies
    for number in (3, 4):
        studies.add_instance(instance("a", number, at=NOW))
    ledger.begun = 0

    def add(number: int) -> object:
        added = instance("a", number, at=NOW)
        return studies.add_instance(replace(added, sha256="0" * 64), refuses_conflicts=True)

    found = all_at_once(ledger, list(range(1, 9)), add)
    assert {number for number in found if isinstance(found[number], DuplicateInstance)} == {3, 4}
    assert all(found[number] is Added.NEW for number in (1, 2, 5, 6, 7, 8))
    assert ledger.begun == 2


def test_instances_that_arrive_at_once_are_all_there_when_they_are_answered(tmp_path: Path) -> None:
    index = Index.open(f"sqlite:///{tmp_path / 'index.sqlite'}")
    missing: list[str] = []

    def store(name: str) -> None:
        for number in range(1, 11):
            added = instance(name, number, at=NOW)
            index.studies.add_instance(added)
            if not index.studies.find(added.sop_instance_uid):
                missing.append(added.sop_instance_uid)

    threads = [threading.Thread(target=store, args=(name,)) for name in "abcdef"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert missing == []
    assert all(len(index.studies.study(study_uid(name)).series[0].instances) == 10 for name in "abcdef")
    index.close()
