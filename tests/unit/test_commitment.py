import logging
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from dicom_node.archive.commitment_rows import CommitmentDue
from dicom_node.archive.index import Index
from dicom_node.commitment import SILENT_AFTER, Commitment
from dicom_node.core.errors import DeliveryError
from dicom_node.settings import AdmissionSettings, Peer, Settings
from tests.peers import Behaviour, Committing, committing_peer
from tests.populated_index import NOW, report, study_uid

PACS = Peer(name="pacs", ae_title="PACS", host="127.0.0.1", port=104, commitment=True)


@pytest.fixture
def index(tmp_path: Path) -> Iterator[Index]:
    # A file: answers come in threads of their own.
    index = Index.open(f"sqlite:///{tmp_path / 'index.sqlite'}")
    yield index
    index.close()


class Clock:
    """A clock that is set by hand."""

    now = NOW

    def __call__(self) -> float:
        return self.now


def commitment(index: Index, *peers: Peer, admitted: tuple[str, ...] = ()) -> Commitment:
    settings = Settings(peers=peers, admission=AdmissionSettings(calling_ae_titles=admitted))
    return Commitment(settings, index, lambda: NOW)


@pytest.mark.parametrize(("admitted", "warnings"), [((), 0), (("CT1", "PACS"), 0), (("CT1",), 1)])
def test_a_peer_that_may_not_call_to_answer_is_told_of_at_the_start(
    index: Index, caplog: pytest.LogCaptureFixture, admitted: tuple[str, ...], warnings: int
) -> None:
    commitment(index, PACS, admitted=admitted).start()
    told = [record for record in caplog.records if "may not call to answer" in record.message]
    assert len(told) == warnings


def test_only_peers_with_commitment_are_asked(index: Index) -> None:
    other = Peer(name="archive", ae_title="ARCHIVE", host="127.0.0.1", port=104, results=True)
    assert [lane.peer for lane in commitment(index, PACS, other).lanes] == [PACS]


def test_what_earlier_settings_asked_for_is_waived_at_the_start(index: Index, caplog: pytest.LogCaptureFixture) -> None:
    report(index, "a", at=NOW)
    index.deliveries.plan_all([(uid, ["pacs"]) for uid, *_ in index.deliveries.unplanned()], NOW)
    for row in index.deliveries.of_study(study_uid("a")):
        index.deliveries.accepted(row, reason="", at=NOW, commitment=True)
    with caplog.at_level(logging.WARNING):
        commitment(index).start()
    assert "asked for storage commitment no more" in caplog.text
    assert not any(row.commitment for row in index.deliveries.of_study(study_uid("a")))


def accept(index: Index, name: str) -> None:
    """A study's report is at the peer, which is to be asked for it."""
    report(index, name, at=NOW)
    index.deliveries.plan_all([(uid, ["pacs"]) for uid, *_ in index.deliveries.unplanned()], NOW)
    for row in index.deliveries.of_study(study_uid(name)):
        index.deliveries.accepted(row, reason="", at=NOW - 9999, commitment=True)


def asked(index: Index, names: str) -> int:
    """How many questions about these studies there were."""
    return sum(len(index.commitments.of_study(study_uid(name))) for name in names)


def test_a_silent_peer_is_asked_about_one_study_at_a_time(index: Index) -> None:
    clock = Clock()
    for name in "abcdef":
        accept(index, name)
    # Nothing listens there: a question goes out, and is not withdrawn, only by what the index is told here.
    for number, name in enumerate("abc"):
        due = next(d for d in index.commitments.due("pacs", NOW, 9) if d.study_instance_uid == study_uid(name))
        index.commitments.begin(due, f"2.25.{number}", next_try_at=NOW + 300, at=NOW)
    (lane,) = Commitment(Settings(peers=(PACS,)), index, clock).lanes
    assert lane._may_be_asked()
    clock.now += 300
    probes = []
    for _ in range(100):
        if lane._may_be_asked():
            probes.append(clock.now - NOW)
            due = index.commitments.due("pacs", clock.now, 9)[0]
            index.commitments.begin(due, f"2.25.9{len(probes)}", next_try_at=clock.now + 300, at=clock.now)
        clock.now += 100
    assert probes == [300, 600, 900, 1500, 2700, 5100, 8700]
    assert [row.condition for row in index.conditions.rows()] == ["commitment pacs"]
    assert asked(index, "abcdef") == 10


def test_the_silence_of_a_peer_that_the_settings_ask_no_more_is_forgotten_at_the_start(index: Index) -> None:
    for condition in ("commitment pacs", "commitment gone", "disk"):
        index.conditions.began(condition, reason="", at=NOW)
    commitment(index, PACS).start()
    assert {row.condition for row in index.conditions.rows()} == {"commitment pacs", "disk"}


def test_a_silent_peer_is_asked_on_by_a_clock_that_was_set_back(index: Index) -> None:
    clock = Clock()
    accept(index, "a")
    (lane,) = Commitment(Settings(peers=(PACS,)), index, clock).lanes
    for number in range(SILENT_AFTER):
        (due,) = index.commitments.due("pacs", clock.now, 9)
        index.commitments.begin(due, f"2.25.{number}", next_try_at=clock.now + 300, at=clock.now)
        clock.now += 300
    assert lane._may_be_asked()
    (due,) = index.commitments.due("pacs", clock.now, 9)
    index.commitments.begin(due, "2.25.9", next_try_at=clock.now + 300, at=clock.now)
    clock.now += 1
    assert not lane._may_be_asked()
    clock.now -= 86_400
    assert lane._may_be_asked()


@pytest.mark.parametrize("step_seconds", [-86_400.0, 86_400.0])
def test_a_round_of_questions_is_not_measured_by_a_clock_that_is_set(index: Index, step_seconds: float) -> None:
    for name in "abc":
        accept(index, name)
    with committing_peer(Behaviour(), Committing()) as peer:
        asking = replace(PACS, port=peer.port)
        clock = Clock()
        (lane,) = Commitment(Settings(peers=(asking,)), index, clock).lanes
        ask = lane._ask

        def asked_while_it_is_set(due: CommitmentDue) -> DeliveryError | None:
            error = ask(due)
            clock.now += step_seconds
            return error

        lane._ask = asked_while_it_is_set  # type: ignore[method-assign]  # the clock is set in the middle of a round
        lane.step()
    assert asked(index, "abc") == 3


def test_a_peer_that_was_away_is_asked_by_a_clock_that_was_set_back(index: Index) -> None:
    accept(index, "a")
    index.peers.missed("pacs", reason="", next_try_at=NOW + 86_400, at=NOW + 86_400)
    with committing_peer(Behaviour(), Committing()) as peer:
        (lane,) = Commitment(Settings(peers=(replace(PACS, port=peer.port),)), index, Clock()).lanes
        lane.step()
    assert asked(index, "a") == 1
    assert index.peers.away("pacs") is None
