"""Asking senders what they hold and judging by it: a real index, real peers, real time."""

import json
import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from deploy.rig import Orthanc
from dicom_node import inquiry as inquiry_module
from dicom_node.archive.files import Archive
from dicom_node.archive.index import Index
from dicom_node.archive.studies import StudyRow
from dicom_node.assembly import Assembly
from dicom_node.core.errors import PeerUnreachable
from dicom_node.core.lifecycle import StudyState
from dicom_node.inquiry import Inquiry
from dicom_node.intake import Intake
from dicom_node.scp.application_entity import ApplicationEntity, Timeouts
from dicom_node.scu.storage import FileToSend, store
from dicom_node.settings import CompletenessSettings, NodeSettings, Peer, Settings
from tests.factories import ct_series, uid_for
from tests.peers import free_port
from tests.populated_index import instance, study_uid, uid
from tests.query_peers import Catalogue, query_peer
from tests.strategies import slice_at

pytestmark = [
    # pynetdicom leaves the socket of a refused connection to the garbage collector.
    pytest.mark.filterwarnings(r"ignore:unclosed <socket\.socket:ResourceWarning"),
    # Where both sides end an association at once, pynetdicom's reactor may end by an InvalidEventError: Evt15 in Sta13.
    pytest.mark.filterwarnings(
        r"ignore:Exception in thread Thread-\d+ \(run_reactor\):pytest.PytestUnhandledThreadExceptionWarning"
    ),
]

#: Not the usual ones: a busy machine must not make a peer seem slow, nor a test long.
WAITS = CompletenessSettings(question_after_seconds=0.1, question_first_wait_seconds=0.2)


@dataclass
class Site:
    """An index into which studies arrive, and the parts that ask and judge, a round at a time."""

    index: Index
    peers: list[Peer] = field(default_factory=list)
    waits: CompletenessSettings = WAITS
    #: How far the clock is set forward.
    ahead: float = 0.0
    #: Where the clock stands still.
    stopped_at: float | None = None

    def begin(self) -> None:
        settings = Settings(peers=tuple(self.peers), completeness=self.waits)
        self.inquiry = Inquiry(settings, self.index, self.now)
        self.assembly = Assembly(settings, self.index, self.now)

    def now(self) -> float:
        return time.time() + self.ahead if self.stopped_at is None else self.stopped_at

    def receive(self, study: str, *numbers: int, series: int = 2, sender: str = "PACS") -> float:
        """Slices arrive now on an association of their own; when the last one did."""
        association = uid(study, sender, *numbers, series)[:36]
        self.index.studies.association_opened(association, sender, self.now())
        for number in numbers:
            image = instance(study, number, at=self.now(), series=series, attributes=slice_at(2.5 * number))
            self.index.studies.add_instance(replace(image, calling_ae_title=sender), association)
        self.index.studies.association_ended(association, "released", self.now())
        return self.now()

    def row(self, study: str) -> StudyRow:
        return self.index.studies.rows(study_uid(study))[0]

    def causes(self, study: str) -> list[str]:
        return [line.cause for line in self.index.studies.history(study_uid(study))]

    def until(self, done: Callable[[], bool], seconds: float = 60.0) -> float:
        """Rounds until it is so; how long that took."""
        began = time.monotonic()
        while not done():
            assert time.monotonic() - began < seconds, "it did not come to be"
            self.inquiry.step()
            self.assembly.step()
            time.sleep(0.02)
        return time.monotonic() - began

    def for_a_while(self, seconds: float) -> None:
        began = time.monotonic()
        self.until(lambda: time.monotonic() - began > seconds)

    def is_past_receiving(self, study: str) -> bool:
        return self.row(study).state is not StudyState.RECEIVING


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    site = Site(Index.open(f"sqlite:///{tmp_path / 'index.sqlite'}"))
    yield site
    site.inquiry.close()
    site.index.close()


def holding(**studies: dict[int, int]) -> Catalogue:
    """A peer's catalogue: of each study by name, how many instances of which series."""
    return Catalogue(
        {
            study_uid(study): {uid("series", study, number): count for number, count in series.items()}
            for study, series in studies.items()
        }
    )


def test_a_study_is_complete_as_soon_as_its_sender_counts_no_more_than_is_here(site: Site) -> None:
    with query_peer(holding(a={2: 3})) as peer:
        site.peers.append(peer)
        site.begin()
        site.receive("a", 1, 2, 3)
        site.until(lambda: site.is_past_receiving("a"))
    assert "peer pacs counts 3 instances in 1 series; 3 are here" in site.causes("a")
    assert any(cause.startswith("all 3 instances that peer pacs counts are here") for cause in site.causes("a"))


def test_a_study_is_waited_for_while_its_sender_holds_more_and_complete_when_the_rest_is_here(site: Site) -> None:
    catalogue = holding(a={2: 4})
    with query_peer(catalogue) as peer:
        site.peers.append(peer)
        site.begin()
        site.receive("a", 1, 2, 3)
        site.until(lambda: catalogue.associations >= 4)
        site.ahead += 600.0
        site.until(lambda: catalogue.associations >= 6)
        assert site.row("a").state is StudyState.RECEIVING
        assert site.row("a").reason == "peer pacs counts 4 instances in 1 series; 3 are here"
        site.receive("a", 4)
        site.until(lambda: site.is_past_receiving("a"))


def test_a_study_of_which_a_sender_keeps_back_a_part_fails_and_is_opened_by_the_rest(site: Site) -> None:
    with query_peer(holding(a={2: 4})) as peer:
        site.peers.append(peer)
        site.begin()
        site.receive("a", 1, 2, 4)
        site.until(lambda: site.row("a").reason.startswith("peer pacs counts 4"))
        site.ahead += 3700.0
        site.until(lambda: site.is_past_receiving("a"))
        assert site.row("a").state is StudyState.FAILED
        assert "has 3 of the 4 instances that peer pacs counts" in site.row("a").reason
        assert site.row("a").reason.endswith("send the series again")
        site.receive("a", 3)
        assert site.row("a").state is StudyState.RECEIVING
        site.until(lambda: site.is_past_receiving("a"))
    assert site.row("a").state is not StudyState.FAILED
    assert any(cause.startswith("all 4 instances that peer pacs counts") for cause in site.causes("a"))


def test_a_forwarding_rule_that_sends_only_some_series_holds_up_nothing(site: Site) -> None:
    with query_peer(holding(a={2: 3, 3: 500})) as peer:
        site.peers.append(peer)
        site.begin()
        site.receive("a", 1, 2, 3)
        site.until(lambda: site.is_past_receiving("a"))
    assert any(
        "counts 500 more instances in series of which it sent nothing (1)" in cause for cause in site.causes("a")
    )


def test_a_duplicate_does_not_stand_for_an_instance_that_lacks(site: Site) -> None:
    with query_peer(holding(a={2: 4})) as peer:
        site.peers.append(peer)
        site.begin()
        site.receive("a", 1, 2, 3)
        site.receive("a", 3, 2)
        site.index.studies.add_instance(instance("a", 3, at=time.time(), sha256="c" * 64))
        site.until(lambda: "peer pacs counts 4 instances in 1 series; 3 are here" in site.causes("a"))
        site.ahead += 100.0
        site.for_a_while(0.3)
        assert site.row("a").state is StudyState.RECEIVING


def test_who_is_not_set_to_be_asked_or_did_not_send_is_not_asked(site: Site) -> None:
    asked, spared = holding(a={2: 9}), holding(a={2: 9})
    with query_peer(asked) as peer, query_peer(spared, name="other", ae_title="OTHER") as other:
        site.peers += [replace(peer, query=False), other]
        site.begin()
        site.receive("a", 1, 2, 3)
        site.until(lambda: site.is_past_receiving("a"))
    assert (asked.associations, spared.associations) == (0, 0)


def test_a_sender_is_known_by_the_further_titles_that_it_sends_under(site: Site) -> None:
    with query_peer(holding(a={2: 3})) as peer:
        site.peers.append(replace(peer, sends_as=("PACS_OUT",)))
        site.begin()
        site.receive("a", 1, 2, 3, sender="PACS_OUT")
        site.until(lambda: site.is_past_receiving("a"))
    assert any("that peer pacs counts are here" in cause for cause in site.causes("a"))


def test_a_sender_that_is_away_leaves_the_study_to_geometry_and_the_reason_says_so(site: Site) -> None:
    site.peers.append(Peer(name="pacs", ae_title="PACS", host="127.0.0.1", port=free_port(), query=True))
    site.begin()
    site.receive("a", 1, 2, 3)
    site.until(lambda: site.is_past_receiving("a"))
    (cause,) = (cause for cause in site.causes("a") if "nothing came for" in cause)
    assert "all associations ended and no slices are missing; peer pacs was asked in vain: peer pacs" in cause
    assert "does not answer; is it running" in cause


def test_a_sender_that_does_not_know_the_study_is_no_witness(site: Site) -> None:
    with query_peer(holding(b={2: 3})) as peer:
        site.peers.append(peer)
        site.begin()
        site.receive("a", 1, 2, 3)
        site.until(lambda: site.is_past_receiving("a"))
    assert "peer pacs was asked in vain: it does not hold the study" in site.causes("a")


def test_a_slow_sender_holds_up_only_its_own_studies(site: Site) -> None:
    site.waits = replace(WAITS, question_timeout_seconds=60.0)
    slow = holding(**{name: {2: 3} for name in "bcd"})
    slow.delay_seconds = 60.0
    with query_peer(slow, name="slow", ae_title="SLOW") as one, query_peer(holding(a={2: 3})) as other:
        site.peers += [one, other]
        site.begin()
        for name in "bcd":
            site.receive(name, 1, 2, 3, sender="SLOW")
        site.for_a_while(0.4)
        site.receive("a", 1, 2, 3)
        site.until(lambda: site.is_past_receiving("a"))
        assert slow.associations == 1
        assert not any(site.is_past_receiving(name) for name in "bcd")


def test_studies_of_one_sender_are_asked_about_together_and_one_failure_stands_for_all(site: Site) -> None:
    names = [f"s{number}" for number in range(6)]
    catalogue = holding(**{name: {2: 3} for name in names})
    with query_peer(catalogue) as peer:
        site.peers.append(peer)
        site.begin()
        for name in names:
            site.receive(name, 1, 2, 3)
        time.sleep(0.15)
        site.until(lambda: all(site.is_past_receiving(name) for name in names))
        assert catalogue.associations <= 3


def test_what_one_study_is_not_told_the_others_of_its_sender_do_not_wait_for(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [f"s{number}" for number in range(6)]
    attempts = []

    def unreachable(peer: Peer, **_: object) -> object:
        attempts.append(peer.name)
        raise PeerUnreachable("peer pacs does not answer")

    monkeypatch.setattr(inquiry_module, "counting", unreachable)
    site.peers.append(Peer(name="pacs", ae_title="PACS", host="127.0.0.1", port=104, query=True))
    site.begin()
    for name in names:
        site.receive(name, 1, 2, 3)
    time.sleep(0.15)
    site.inquiry.step()
    vain = "peer pacs was asked in vain: peer pacs does not answer"
    began = time.monotonic()
    while not all(vain in site.causes(name) for name in names):
        assert time.monotonic() - began < 60.0
        time.sleep(0.02)
    assert attempts == ["pacs"]


def test_a_busy_index_only_delays_the_question(
    site: Site, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(inquiry_module, "REST_SECONDS", 0.3)
    answered = site.index.arrivals.answered
    failures = []

    def failing(*args: object, **kwargs: object) -> None:
        if len(failures) < 2:
            failures.append(args)
            raise OSError("no room")
        answered(*args, **kwargs)  # type: ignore[arg-type]  # as they came

    monkeypatch.setattr(site.index.arrivals, "answered", failing)
    with query_peer(holding(a={2: 3})) as peer:
        site.peers.append(peer)
        site.begin()
        site.receive("a", 1, 2, 3)
        site.until(lambda: site.is_past_receiving("a"))
    assert len(failures) == 2
    assert [record.message for record in caplog.records].count("a peer could not be asked") == 2


def test_nothing_of_a_patient_that_a_peer_tells_reaches_the_log_or_the_index(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO), query_peer(holding(a={2: 3})) as peer:
        site.peers.append(peer)
        site.begin()
        site.receive("a", 1, 2, 3)
        site.until(lambda: site.is_past_receiving("a"))
    ours = [record for record in caplog.records if record.name.startswith("dicom_node")]
    assert any(record.message == "a peer told what it holds" for record in ours)
    assert not any("Secret" in str(vars(record)) for record in ours)
    assert "Secret" not in " ".join(site.causes("a"))


def test_with_the_usual_settings_half_a_second_of_quiet_an_answer_and_a_round_complete_a_study(site: Site) -> None:
    site.waits, site.stopped_at = CompletenessSettings(), 1000.0
    catalogue = holding(a={2: 3})
    with query_peer(catalogue) as peer:
        site.peers.append(peer)
        site.begin()
        site.receive("a", 1, 2, 3)
        site.stopped_at = 1000.49
        site.for_a_while(0.2)
        assert (catalogue.associations, site.row("a").state) == (0, StudyState.RECEIVING)
        site.stopped_at = 1000.5
        site.until(lambda: site.row("a").reason.startswith("peer pacs counts 3"))
        site.stopped_at = 1000.75
        site.until(lambda: site.is_past_receiving("a"))
    assert any("that peer pacs counts are here; nothing came for 0.8 s" in cause for cause in site.causes("a"))


def test_orthanc_sends_a_study_in_two_parts_and_its_counts_decide(
    site: Site, tmp_path: Path, program: Callable[[str], Path]
) -> None:
    program("Orthanc")
    settings = Settings(node=NodeSettings(host="127.0.0.1", port=0, minimum_free_megabytes=0))
    intake = Intake(archive=Archive(tmp_path / "archive"), studies=site.index.studies)
    entity = ApplicationEntity(settings, intake, timeouts=Timeouts(grace=2.0))
    entity.start()
    node = Peer(name="node", ae_title="TRIAGE", host="127.0.0.1", port=entity.port)
    pacs = Orthanc(tmp_path / "pacs", callers=[node])
    pacs.start()
    try:
        site.peers.append(replace(pacs.peer, query=True))
        site.begin()
        files = [FileToSend.read(path) for path in ct_series(tmp_path / "series", slices=5)]
        assert all(one.error is None for one in store(pacs.peer, files, ae_title="CT1", timeout_seconds=30.0))
        identifiers = json.loads(pacs._ask("/instances"))
        study = str(uid_for("ct series", "study"))

        def state() -> StudyState:
            return site.index.studies.rows(study)[0].state

        pacs._ask("/modalities/node/store", json.dumps(identifiers[:3]).encode())
        site.until(lambda: site.index.studies.rows(study)[0].reason.startswith("peer pacs counts 5"))
        site.ahead += 600.0
        site.for_a_while(0.5)
        assert state() is StudyState.RECEIVING
        pacs._ask("/modalities/node/store", json.dumps(identifiers[2:]).encode())
        site.until(lambda: state() is not StudyState.RECEIVING)
        causes = [line.cause for line in site.index.studies.history(study)]
        assert any(cause.startswith("all 5 instances that peer pacs counts are here") for cause in causes)
    finally:
        pacs.stop()
        entity.stop()
