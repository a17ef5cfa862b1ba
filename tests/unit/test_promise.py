"""Telling peers what we keep: who is away is asked for once, and whatever fails in us makes no noise each round."""

import logging
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from dicom_node import promise
from dicom_node.archive.files import Archive
from dicom_node.archive.index import Index
from dicom_node.core.commitment import PromiseReport, PromiseRequest
from dicom_node.core.errors import IndexUnavailable, PeerUnreachable, ReportNotTaken
from dicom_node.intake import Intake
from dicom_node.patience import Patience
from dicom_node.promise import Promising
from dicom_node.scp.accepted_association import AcceptedAssociation
from dicom_node.scp.promise_requests import PromiseRequests
from dicom_node.settings import Peer, Settings
from tests.instances import ct_instance, received, sop_uid

CT = "1.2.840.10008.5.1.4.1.1.2"
PEER = Peer(name="gateway", ae_title="GW", host="127.0.0.1", port=1)


class Site:
    """A node's promises over a real index, with a clock that stands still unless it is moved."""

    def __init__(self, folder: Path) -> None:
        self.now = 1_700_000_000.0
        self.index = Index.open(f"sqlite:///{folder / 'index.sqlite'}")
        self.archive = Archive(folder / "archive")
        self.promising = Promising(Settings(peers=(PEER,)), self.index, self.archive, lambda: self.now)

    def ask(self, number: int, title: str = "GW") -> None:
        objects = ((CT, sop_uid(number)),)
        assert self.promising.ask(
            PromiseRequest(transaction_uid=f"1.2.{number}", calling_ae_title=title, objects=objects)
        )

    def rounds(self, count: int) -> None:
        for _ in range(count):
            self.promising.step()
            for telling in list(self.promising._telling.values()):
                telling.result()


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    site = Site(tmp_path)
    yield site
    site.promising.close()
    site.index.close()


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The associations that were opened to a peer, which is away."""
    made: list[float] = []

    def away(*_args: object, **_kwargs: object) -> None:
        made.append(0.0)
        raise PeerUnreachable("peer gateway does not answer")

    monkeypatch.setattr(promise, "tell", away)
    return made


def test_a_peer_that_is_away_is_called_once_however_many_answers_it_is_owed(
    site: Site, calls: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    for number in range(200):
        site.ask(number)
    with caplog.at_level(logging.WARNING, "dicom_node"):
        site.rounds(20)
    assert len(calls) == 1
    assert len(caplog.records) == 1
    assert site.index.promises.owed() == {"GW": 200}
    for waits in range(2, 6):
        before = site.now
        while len(calls) < waits:
            site.now += 0.5
            site.rounds(6)
        assert site.now - before > 0.75 * 2 ** (waits - 1), "each wait is longer"


def test_a_peer_that_was_away_is_called_again_also_after_the_clock_was_set_back(site: Site, calls: list[float]) -> None:
    site.ask(1)
    site.rounds(2)
    assert len(calls) == 1
    site.now -= 86400.0
    patience = Patience(Settings(peers=(PEER,)), site.index, lambda: site.now)
    for _ in range(3):
        patience.step()
        site.rounds(2)
    assert len(calls) == 2


def test_who_is_away_is_told_over_associations_of_its_own(site: Site, calls: list[float]) -> None:
    here: set[str] = set()

    def tell_here(transaction_uid: str, answer: Callable[[], PromiseReport]) -> bool:
        return transaction_uid in here and answer().transaction_uid == transaction_uid

    site.promising.tell_here = tell_here
    site.ask(1)
    site.rounds(1)
    site.ask(2)
    here.add("1.2.2")
    site.rounds(1)
    told = site.index.promises.find("1.2.2")
    assert told is not None
    assert told.told_at is not None
    assert len(calls) == 1


def test_one_answer_that_is_never_taken_keeps_no_other_back(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    def picky(_peer: Peer, answer: Callable[[], PromiseReport], **_kwargs: object) -> None:
        if answer().transaction_uid == "1.2.1":
            raise ReportNotTaken("peer gateway answered 0x0110")

    monkeypatch.setattr(promise, "tell", picky)
    for number in range(1, 6):
        site.ask(number)
    site.rounds(6)
    assert site.index.promises.owed() == {"GW": 1}


def test_an_index_that_fails_is_told_of_once_and_asked_again_after_growing_waits(
    site: Site, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    site.ask(1)
    tried: list[float] = []

    def locked(*_args: object, **_kwargs: object) -> None:
        tried.append(site.now)
        raise IndexUnavailable("the index does not answer")

    with monkeypatch.context() as patched, caplog.at_level(logging.WARNING, "dicom_node"):
        patched.setattr(site.index.promises, "find", locked)
        patched.setattr(site.index.promises, "missed", locked)
        patched.setattr(promise, "tell", lambda _peer, answer, **_kwargs: answer())
        for _ in range(100):
            site.now += 0.25
            site.rounds(1)
    assert [record.message for record in caplog.records] == ["a peer could not be answered"]
    assert 4 <= len(tried) <= 14
    monkeypatch.setattr(promise, "tell", lambda _peer, answer, **_kwargs: answer())
    site.now += 900
    site.rounds(1)
    assert site.index.promises.owed() == {}


def test_an_object_that_is_named_twice_is_read_once_and_its_studies_directory_is_locked_once(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    intake = Intake(archive=site.archive, studies=site.index.studies)
    intake.association_opened("00000000-0000-4000-8000-000000000000", "GW")
    for number in range(1, 41):
        intake.store(received(ct_instance(number, StudyInstanceUID=f"1.2.{number}")))
    read: list[str] = []
    files: list[int] = []

    def verify(path: str, _sha256: str) -> None:
        read.append(path)
        files.append(len(os.listdir("/proc/self/fd")))

    monkeypatch.setattr(site.archive, "verify", verify)
    monkeypatch.setattr(promise, "tell", lambda _peer, answer, **_kwargs: answer())
    objects = tuple((CT, sop_uid(number)) for number in range(1, 41)) * 2
    site.promising.ask(PromiseRequest(transaction_uid="1.9", calling_ae_title="GW", objects=objects))
    site.rounds(1)
    assert len(read) == 40
    spreads = {path.split("/")[1] for path in read}
    assert len(spreads) < 40, "some studies share a directory"
    assert max(files) - len(os.listdir("/proc/self/fd")) <= len(spreads)
    assert site.index.promises.owed() == {}


class Line:
    """An association that asked, and what was sent over it."""

    def __init__(self) -> None:
        self.is_established = True
        self.reports: list[str] = []
        self.deeds: list[Callable[[], None]] = []
        self.own_requests = SimpleNamespace(report=self.report)

    def after_answer(self, deed: Callable[[], None]) -> None:
        self.deeds.append(deed)

    def answer(self) -> None:
        for deed in self.deeds:
            deed()

    def report(self, _event_type: int, information: Any, **_kwargs: object) -> int:
        self.reports.append(str(information.TransactionUID))
        return 0x0000


QUESTION = PromiseRequest(transaction_uid="1.2.3", calling_ae_title="GW", objects=((CT, "1.2"),))


def report_of() -> PromiseReport:
    return PromiseReport(transaction_uid="1.2.3", objects=QUESTION.objects, failed={})


def test_who_looks_at_once_waits_until_the_question_is_answered_and_tells_it_there() -> None:
    """The round that tells may begin between the moment a question is kept and the moment its status is sent."""
    line = Line()
    told: list[bool] = []
    looking = threading.Thread(target=lambda: told.append(requests.tell_here("1.2.3", report_of)))

    def take(_request: PromiseRequest) -> bool:
        looking.start()
        return True

    requests = PromiseRequests(take, lambda: None, patience_seconds=20)
    assert requests._is_taken(QUESTION, cast(AcceptedAssociation, line))
    looking.join(0.2)
    assert (looking.is_alive(), line.reports) == (True, []), "the peer has no status yet"
    line.answer()
    looking.join(10)
    assert (told, line.reports) == ([True], ["1.2.3"])


def test_a_question_that_is_refused_takes_no_answer_away_from_who_asked_first() -> None:
    first, second = Line(), Line()
    taken = iter([True, False])
    requests = PromiseRequests(lambda _request: next(taken), lambda: None, patience_seconds=20)
    assert requests._is_taken(QUESTION, cast(AcceptedAssociation, first))
    first.answer()
    assert not requests._is_taken(QUESTION, cast(AcceptedAssociation, second))
    assert requests.tell_here("1.2.3", report_of)
    assert (first.reports, second.reports) == (["1.2.3"], [])
