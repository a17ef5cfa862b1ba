"""The index in PostgreSQL: a study's whole way over it, and what its transactions do to each other there."""

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from deploy.nothing import Nothing
from dicom_node.archive.courses import Courses
from dicom_node.archive.holdings import Holdings
from dicom_node.archive.index import Index
from dicom_node.archive.search import Search
from dicom_node.archive.tally import Tally
from dicom_node.archive.transactions import UNDERWAY_SECONDS, Transactions
from dicom_node.assembly import Assembly
from dicom_node.core.access import Role, Scope
from dicom_node.core.algorithm import AlgorithmIdentification
from dicom_node.core.errors import AccountError, IndexConflict, Interrupted
from dicom_node.core.expression import parse_expression
from dicom_node.core.lifecycle import StudyState
from dicom_node.core.priority import QUEUES
from dicom_node.core.routing import Route
from dicom_node.core.searchable import Level
from dicom_node.delivery import Delivery
from dicom_node.intake import Intake
from dicom_node.scp.application_entity import ApplicationEntity
from dicom_node.scu.storage import FileToSend, store
from dicom_node.settings import IndexSettings, NodeSettings, Peer, Settings
from tests.factories import ct_series
from tests.peers import SEG, SR, Behaviour, storage_peer
from tests.populated_index import NOW, claim, instance, receive, study_uid
from tests.postgresql import postgresql, programs
from tests.reading_here import ReadingsHere
from tests.received_study import STUDY
from tests.unit.archive.test_comparisons import compared, told, withdraw
from tests.unit.archive.test_priors import arriving, names, read, report_of, unread, waiting
from workers.heartbeat import Heartbeat
from workers.reading import Reader
from workers.readings import Limits
from workers.triage import Triage

WORKER = "here:1"
SECONDS = 30.0


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """The URL of a database; skips where PostgreSQL, or what speaks with it, is not installed."""
    if (folder := programs()) is None:
        pytest.skip("not checked: PostgreSQL is not installed (Debian: postgresql)")
    pytest.importorskip("psycopg", reason="not checked: psycopg is not installed (pip: psycopg[binary])")
    with postgresql(folder) as url:
        yield url


@pytest.fixture
def url(server: str) -> str:
    """As the server's, without tables at first."""
    engine = sa.create_engine(server)
    with engine.begin() as connection:
        connection.execute(sa.text("DROP SCHEMA public CASCADE"))
        connection.execute(sa.text("CREATE SCHEMA public"))
    engine.dispose()
    return server


@pytest.fixture
def index(url: str) -> Iterator[Index]:
    index = Index.open(url)
    yield index
    index.close()


def triage(holdings: Holdings) -> Triage:
    """A worker whose algorithm finds nothing, without a process of its own."""
    identification = AlgorithmIdentification(
        name="Nothing", version="1", manufacturer="Test", device_uid="2.25.4711", checksum="ab" * 32
    )
    reader = Reader(algorithm=Nothing(None, None), identification=identification, last_run=NoRun())  # type: ignore[arg-type]  # it looks at neither
    limits = Limits(reading_seconds=600, silence_seconds=60)
    readings = ReadingsHere(holdings.archive, {"nothing": reader})
    heartbeat = Heartbeat(
        holdings.index, WORKER, lease_seconds=30, limits=limits, pulse=lambda: readings.pulse, clock=time.time
    )
    return Triage(
        index=holdings.index,
        archive=holdings.archive,
        readings=readings,  # type: ignore[arg-type]  # a stand-in
        queue=Settings().queue,
        queues=QUEUES,
        heartbeat=heartbeat,
        worker=WORKER,
    )


class NoRun:
    """What a network would tell of its last run."""

    seconds, concession = 0.0, ""


def test_a_study_goes_the_whole_way_over_postgresql(url: str, tmp_path: Path) -> None:
    route = Route(name="any CT", algorithm="nothing", when=parse_expression('Modality == "CT"'), minimum_instances=1)
    paths = ct_series(tmp_path / "sent")
    pacs = Behaviour()
    with storage_peer(pacs, sop_classes=(SEG, SR)) as peer:
        settings = Settings(
            node=NodeSettings(host="127.0.0.1", port=0, minimum_free_megabytes=0, data_dir=tmp_path / "node"),
            index=IndexSettings(url=url),
            peers=(peer,),
            routes=(route,),
        )
        holdings = Holdings.open(settings)
        try:
            received(settings, holdings, paths)
            later = time.time() + 3600.0
            Assembly(settings, holdings.index, lambda: later).step()
            assert state(holdings.index) is StudyState.QUEUED
            triage(holdings).work_off()
            assert state(holdings.index) is StudyState.REPORTED
            Delivery(settings, holdings.index, holdings.archive, time.time).step()
            assert state(holdings.index) is StudyState.DELIVERED
        finally:
            holdings.index.close()
    assert len(pacs.arrived) == 1
    # Everything of it is in the database that was named: another process finds it there.
    again = Index.open(url)
    try:
        assert [row.sop_instance_uid for row in again.deliveries.of_study(STUDY)] == pacs.arrived
        assert {line.after for line in again.studies.history(STUDY)} >= {"RECEIVING", "QUEUED", "READING", "DELIVERED"}
    finally:
        again.close()


def received(settings: Settings, holdings: Holdings, paths: list[Path]) -> None:
    """The files are sent by C-STORE over a real association, and each is answered with success."""
    intake = Intake(archive=holdings.archive, studies=holdings.index.studies)
    entity = ApplicationEntity(settings, intake)
    entity.start()
    try:
        node = Peer(name="node", ae_title="TRIAGE", host="127.0.0.1", port=entity.port)
        sent = list(store(node, map(FileToSend.read, paths), ae_title="SCANNER", timeout_seconds=SECONDS))
    finally:
        entity.stop()
    assert [outcome.error for outcome in sent] == [None] * len(paths)


def state(index: Index) -> StudyState:
    (row,) = index.studies.rows(STUDY)
    return row.state


def at_once(deeds: Mapping[str, Callable[[], object]]) -> dict[str, object]:
    """What each deed answered or raised, each in a thread of its own."""
    found: dict[str, object] = {}

    def run(name: str) -> None:
        try:
            found[name] = deeds[name]()
        except Exception as error:
            found[name] = error

    threads = [threading.Thread(target=run, args=(name,)) for name in deeds]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(3 * SECONDS)
    return found


class Embrace:
    """Two transactions that want two rows in opposite orders, each when both have their first."""

    def __init__(self, index: Index) -> None:
        self.marks = index.transactions.tables["marks"]
        with index.transactions.write() as connection:
            for name in ("one", "two"):
                connection.execute(sa.insert(self.marks).values(name=name, value=""))
        self.both = threading.Barrier(2)

    def deed(self, *names: str) -> Callable[[sa.Connection], str]:
        first, second = names

        def do(connection: sa.Connection) -> str:
            self._touch(connection, first)
            # The second time the other has gone.
            with suppress(threading.BrokenBarrierError):
                self.both.wait(3.0)
            self._touch(connection, second)
            return first

        return do

    def _touch(self, connection: sa.Connection, name: str) -> None:
        connection.execute(sa.update(self.marks).where(self.marks.c.name == name).values(value=name))


def test_a_patients_earlier_studies_are_found_in_postgresql(index: Index) -> None:
    for name, day in (("first", "20230101"), ("second", "20230601")):
        read(index, name, day)
    read(index, "another's", "20230701", PatientBirthDate="19610413")
    waiting(index, "waits", "20230801")
    arriving(index, "comes in", "20230301")
    job = waiting(index, "this", "20240101", Modality="CT")
    assert names(index, job) == ["second", "first"]
    assert unread(index, job) == [(False, 0), (False, 1)]


def test_what_is_reported_while_it_is_looked_for_is_known_all_the_same(index: Index) -> None:
    earlier = waiting(index, "earlier", "20230601")
    job = waiting(index, "this", "20240101", Modality="CT")
    lease, rows = claim(index, earlier, at=NOW + 2), index.priors._unread.rows

    def then_reported(*asked: Any, **values: Any) -> list[dict[str, Any]]:
        found = rows(*asked, **values)
        report_of(index, lease, "earlier")
        return found

    index.priors._unread.rows = then_reported  # type: ignore[method-assign]  # another worker, between two questions
    known = index.priors.known(job, 5.0)
    assert [prior.layout["of"] for prior in known.priors] == ["earlier"]
    assert known.unread == ()


def test_studies_that_were_compared_with_a_withdrawn_one_are_told_in_postgresql(index: Index) -> None:
    read(index, "first", "20240101")
    read(index, "of the patient", "20240301")
    job = waiting(index, "second", "20240401")
    compared(index, claim(index, job, at=NOW + 8), "second", index.priors.of(job, 5.0)[-1])
    withdraw(index, "first")
    assert len(told(index, "second")) == 1
    assert told(index, "of the patient") == []


def test_of_a_report_and_the_withdrawal_of_what_it_was_compared_with_the_second_knows_the_first(index: Index) -> None:
    for number in range(5):
        patient = {"PatientID": f"T{number}"}
        first, second = f"first {number}", f"second {number}"
        read(index, first, "20240101", **patient)
        job = waiting(index, second, "20240401", **patient)
        (prior,) = index.priors.of(job, 5.0)
        reported = partial(compared, index, claim(index, job, at=NOW + 8), second, prior)
        found = at_once({"reported": reported, "withdrawn": partial(withdraw, index, first)})
        assert found["withdrawn"] is None
        is_reported = found["reported"] is None
        assert is_reported or isinstance(found["reported"], Interrupted)
        assert bool(told(index, second)) == is_reported


def test_of_two_admins_who_shut_each_other_out_at_once_one_stays_in_postgresql(index: Index) -> None:
    for number in range(10):
        ann, eve = f"ann{number}", f"eve{number}"
        for name in (ann, eve):
            index.users.add(name, role=Role.ADMIN, password="", at=NOW)
        out = partial(index.users.change, at=NOW, disabled=True)
        found = at_once({"ann": partial(out, eve, by=ann), "eve": partial(index.users.remove, ann, by=eve)})
        (refused,) = (answer for answer in found.values() if answer is not None)
        assert isinstance(refused, AccountError)
        assert len([row for row in index.users.rows() if row.name in (ann, eve) and not row.disabled]) == 1


def test_searches_count_and_tokens_end_in_postgresql(index: Index) -> None:
    receive(index, "a", at=NOW)
    found = {
        level: index.searches.find(Search(level=level, matches=(), limit=50)).found
        for level in (Level.STUDY, Level.SERIES, Level.INSTANCE)
    }
    assert {level: len(some) for level, some in found.items()} == {Level.STUDY: 1, Level.SERIES: 2, Level.INSTANCE: 4}
    (study,) = found[Level.STUDY]
    counts = [study[f"NumberOfStudyRelated{what}"] for what in ("Series", "Instances")]
    assert (counts, study["ModalitiesInStudy"]) == ([2, 4], ["CT"])
    secret = index.tokens.add("viewer", scopes=[Scope.DICOMWEB_READ], at=NOW)
    assert index.tokens.find(secret, at=NOW) is not None
    index.tokens.remove("viewer")
    assert index.tokens.find(secret, at=NOW) is None


def test_a_deadlock_is_called_by_its_name(index: Index) -> None:
    embrace = Embrace(index)

    def write(*names: str) -> str:
        with index.transactions.write() as connection:
            return embrace.deed(*names)(connection)

    found = at_once({"ours": lambda: write("one", "two"), "theirs": lambda: write("two", "one")})
    assert sum(isinstance(answer, IndexConflict) for answer in found.values()) == 1, found


def test_a_deadlock_with_another_process_is_an_error_of_none_of_64_senders(index: Index) -> None:
    embrace = Embrace(index)
    # Its own group, as that of another process.
    other = Transactions(index.transactions._writer, index.transactions.tables)
    group = index.transactions._group

    def wait_for_all(_connection: sa.Connection) -> None:
        until = time.monotonic() + SECONDS
        while len(group._waiting) < 63 and time.monotonic() < until:
            time.sleep(0.01)

    deeds: dict[str, Callable[[], object]] = {
        f"sender {number}": partial(index.studies.add_instance, instance("a", number, at=NOW)) for number in range(62)
    }
    deeds = {"leader": partial(index.transactions.together, wait_for_all), **deeds}
    deeds["ours"] = partial(index.transactions.together, embrace.deed("one", "two"))
    deeds["theirs"] = partial(other.together, embrace.deed("two", "one"))
    found = at_once(deeds)
    assert len(found) == 65
    assert not [answer for answer in found.values() if isinstance(answer, Exception)]
    (row,) = index.studies.rows(study_uid("a"))
    assert row.instances == 62


def test_senders_of_several_processes_to_one_study_lose_nothing(index: Index) -> None:
    others = [Index(index.transactions._writer) for _ in range(3)]
    deeds = {
        f"{k}.{n}": partial(one.studies.add_instance, instance("a", 20 * k + n, at=NOW))
        for k, one in enumerate(others)
        for n in range(20)
    }
    found = at_once(deeds)
    assert not [answer for answer in found.values() if isinstance(answer, Exception)]
    (row,) = index.studies.rows(study_uid("a"))
    assert row.instances == 60


def test_a_line_that_is_committed_after_a_later_one_is_counted(index: Index) -> None:
    transactions, tally = index.transactions, Tally(index, [1.0])

    def entered(connection: sa.Connection, uid: str, at: float) -> None:
        states = {"before": StudyState.COMPLETE.value, "after": StudyState.REPORTED.value}
        transactions.remark(connection, uid, **states, cause="", actor="", at=at)

    with transactions.write() as slow:
        entered(slow, study_uid(1), time.time())
        with transactions.write() as quick:
            entered(quick, study_uid(2), time.time())
        tally.look()
    tally.look()
    assert tally.entered()[StudyState.REPORTED] == 2
    with suppress(ZeroDivisionError), transactions.write() as never:
        entered(never, study_uid(3), time.time())
        raise ZeroDivisionError
    with transactions.write() as later:
        entered(later, study_uid(4), time.time() - 60.0)
    tally.look()
    assert tally.entered()[StudyState.REPORTED] == 3, "what was taken back is not waited for"


def test_an_end_that_is_committed_after_a_later_one_is_told_of(index: Index) -> None:
    transactions, courses = index.transactions, Courses(index)
    states = {"before": StudyState.QUEUED.value, "after": StudyState.FAILED.value}

    def ended(connection: sa.Connection, uid: str, ago: float) -> None:
        transactions.remark(connection, uid, **states, cause="", actor="", at=time.time() - ago)

    with transactions.write() as slow:
        ended(slow, study_uid(1), 0.0)
        with transactions.write() as quick:
            ended(quick, study_uid(2), 0.0)
        assert courses.ended(0, 10) == [], "an earlier one may yet come"
    with index.transactions.write() as connection:
        history = index.transactions.tables["history"]
        connection.execute(sa.update(history).values(at=history.c.at - UNDERWAY_SECONDS))
    assert [uid for _, uid in courses.ended(0, 10)] == [study_uid(1), study_uid(2)]
