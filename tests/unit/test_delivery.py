import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from pydicom.uid import UID

from dicom_node import delivery as delivery_module
from dicom_node.archive.deliveries import DeliveryRow
from dicom_node.archive.files import Archive
from dicom_node.archive.index import Index
from dicom_node.archive.jobs import ReportRow
from dicom_node.core.expression import parse_expression
from dicom_node.core.lifecycle import DeliveryState, StudyState
from dicom_node.core.routing import Route
from dicom_node.delivery import Delivery
from dicom_node.scu.storage import FileToSend, Sent, store
from dicom_node.settings import DeliverySettings, Peer, Settings
from tests.instances import ct_instance, write_instance
from tests.peers import Behaviour, free_port, storage_peer
from tests.populated_index import NOW, SEG, SR, claim, instance, objects, queue, study_uid, summary

pytestmark = [
    # pynetdicom leaves the socket of a refused connection to the garbage collector.
    pytest.mark.filterwarnings(r"ignore:unclosed <socket\.socket:ResourceWarning"),
    # Where both sides end an association at once, pynetdicom's reactor may end by an InvalidEventError: Evt15 in Sta13.
    pytest.mark.filterwarnings(
        r"ignore:Exception in thread Thread-\d+ \(run_reactor\):pytest.PytestUnhandledThreadExceptionWarning"
    ),
]

STUDY = study_uid("a")


@dataclass
class Site:
    """A reported study, its files, and a clock that a test turns."""

    index: Index
    archive: Archive
    now: float = NOW
    seg: ReportRow = field(init=False)
    sr: ReportRow = field(init=False)

    def report(self, study: str, send_to: tuple[str, ...] = ()) -> None:
        """A study with a report that lies in the archive."""
        job = queue(self.index, study, at=NOW - 5)
        if send_to:
            self.index.studies.add_instance(instance(study, 50, at=NOW - 4))
            self.index.studies.move(study_uid(study), StudyState.COMPLETE, cause="", actor="test", at=NOW - 4)
            job = replace(job, send_to=send_to)
            self.index.jobs.queue(study_uid(study), [job], cause="", actor="test", at=NOW - 4)
        lease = claim(self.index, job, at=NOW - 3)
        self.index.jobs.report(lease, objects(study), summary=summary(2), at=NOW - 1)
        for row in objects(study):
            path = self.archive.path_of(row.path)
            path.parent.mkdir(parents=True, exist_ok=True)
            changes = {"SOPClassUID": UID(row.sop_class_uid), "SOPInstanceUID": UID(row.sop_instance_uid)}
            write_instance(path, ct_instance(**changes))
        self.seg, self.sr = objects(study)

    def delivery(self, *peers: Peer, **settings: float) -> Delivery:
        waits = DeliverySettings(**({"timeout_seconds": 5.0} | settings))  # type: ignore[arg-type]  # numbers by name
        whole = Settings(peers=peers, delivery=waits)
        return Delivery(whole, self.index, self.archive, lambda: self.now)

    def state(self, study: str = "a") -> StudyState:
        return self.index.studies.rows(study_uid(study))[0].state

    def rows(self, study: str = "a") -> dict[str, DeliveryRow]:
        """The deliveries by SOP class, when there is one peer."""
        return {row.sop_class_uid: row for row in self.index.deliveries.of_study(study_uid(study))}


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    site = Site(Index.open("sqlite://"), Archive(tmp_path / "archive"))
    yield site
    site.index.close()


def away(name: str = "pacs") -> Peer:
    """A peer that does not run."""
    return Peer(name=name, ae_title="PACS", host="127.0.0.1", port=free_port(), results=True)


def test_segmentation_goes_before_report_in_one_association_and_the_study_is_delivered(site: Site) -> None:
    site.report("a")
    pacs = Behaviour()
    with storage_peer(pacs) as peer:
        site.delivery(peer).step()
    assert pacs.arrived == [site.seg.sop_instance_uid, site.sr.sop_instance_uid]
    assert pacs.associations == 1
    assert site.state() is StudyState.DELIVERED
    assert {row.reason for row in site.rows().values()} == {"accepted (0x0000)"}


def test_a_second_round_sends_nothing_again(site: Site) -> None:
    site.report("a")
    pacs = Behaviour()
    with storage_peer(pacs) as peer:
        for _ in range(3):
            site.delivery(peer).step()
            site.now += 1000
    assert len(pacs.arrived) == 2


def test_a_study_is_delivered_only_when_both_peers_have_it_all(site: Site) -> None:
    site.report("a")
    pacs, archive = Behaviour(), Behaviour()
    late = free_port()
    with storage_peer(pacs) as first:
        second = replace(first, name="archive", port=late)
        delivery = site.delivery(first, second)
        delivery.step()
        assert (len(pacs.arrived), site.state()) == (2, StudyState.REPORTED)
        with storage_peer(archive, name="archive", port=late):
            site.now += 3
            delivery.step()
    assert (len(pacs.arrived), len(archive.arrived)) == (2, 2)
    assert site.state() is StudyState.DELIVERED


def test_only_peers_that_take_results_get_them_unless_the_route_names_others(site: Site) -> None:
    site.report("a")
    site.report("b", send_to=("research",))
    pacs, research = Behaviour(), Behaviour()
    with storage_peer(pacs) as first, storage_peer(research, name="research") as second:
        site.delivery(first, replace(second, results=False)).step()
    assert (len(pacs.arrived), len(research.arrived)) == (2, 2)
    assert not set(pacs.arrived) & set(research.arrived)
    assert (site.state("a"), site.state("b")) == (StudyState.DELIVERED, StudyState.DELIVERED)


def test_a_route_may_name_a_peer_where_none_takes_results_by_itself(site: Site) -> None:
    site.report("a", send_to=("pacs",))
    with storage_peer(Behaviour()) as peer:
        site.delivery(replace(peer, results=False)).step()
    assert site.state() is StudyState.DELIVERED


def test_without_any_taker_the_report_stays_where_it_is(site: Site) -> None:
    site.report("a")
    site.delivery().step()
    assert (site.state(), site.index.deliveries.of_study(STUDY)) == (StudyState.REPORTED, [])


def test_a_peer_that_is_away_is_tried_after_growing_waits_up_to_the_longest(site: Site) -> None:
    site.report("a")
    delivery = site.delivery(away(), first_wait_seconds=2, maximum_wait_seconds=10, timeout_seconds=1)
    waits = []
    for attempt in range(1, 6):
        delivery.step()
        rows = list(site.rows().values())
        assert {(row.attempts, row.refusals, row.state) for row in rows} == {(attempt, 0, DeliveryState.WAITING)}
        assert len({row.next_try_at for row in rows}) == 1, "a study's objects stay together"
        waits.append(rows[0].next_try_at - site.now)
        site.now = rows[0].next_try_at
    for wait, middle in zip(waits, (2, 4, 8, 10, 10), strict=True):
        assert 0.8 * middle <= wait <= 1.2 * middle
    assert "does not answer; is it running" in rows[0].reason


def test_nothing_is_tried_before_its_time(site: Site) -> None:
    site.report("a")
    delivery = site.delivery(away(), first_wait_seconds=10)
    delivery.step()
    before = site.rows()
    site.now += 7
    delivery.step()
    assert site.rows() == before


def test_a_peer_that_comes_back_gets_everything_in_order(site: Site) -> None:
    site.report("a")
    port = free_port()
    delivery = site.delivery(Peer(name="pacs", ae_title="PACS", host="127.0.0.1", port=port, results=True))
    delivery.step()
    delivery.step()
    assert site.state() is StudyState.REPORTED
    pacs = Behaviour()
    with storage_peer(pacs, port=port):
        site.now += 10
        delivery.step()
    assert pacs.arrived == [site.seg.sop_instance_uid, site.sr.sop_instance_uid]
    assert site.state() is StudyState.DELIVERED


def test_what_was_accepted_before_an_association_broke_is_kept(site: Site) -> None:
    site.report("a")
    pacs = Behaviour(statuses={}, aborts_after=2)
    with storage_peer(pacs) as peer:
        delivery = site.delivery(peer)
        delivery.step()
        rows = site.rows()
        assert (rows[SEG].state, rows[SR].state) == (DeliveryState.ACCEPTED, DeliveryState.WAITING)
        assert (rows[SR].attempts, rows[SR].refusals) == (1, 0), "a lost connection is no refusal"
        assert site.state() is StudyState.REPORTED
        pacs.aborts_after = None
        site.now += 3
        delivery.step()
    assert pacs.arrived == [site.seg.sop_instance_uid, site.sr.sop_instance_uid, site.sr.sop_instance_uid]
    assert site.state() is StudyState.DELIVERED


def test_an_object_that_is_refused_too_often_fails_for_good_and_names_the_answer(site: Site) -> None:
    site.report("a")
    pacs = Behaviour(statuses={SEG: 0xA700})
    with storage_peer(pacs) as peer:
        delivery = site.delivery(peer, maximum_refusals=3, first_wait_seconds=1, maximum_wait_seconds=1)
        for _ in range(5):
            delivery.step()
            site.now += 5
    rows = site.rows()
    assert (rows[SEG].state, rows[SEG].refusals) == (DeliveryState.FAILED, 3)
    assert rows[SR].state is DeliveryState.ACCEPTED
    assert pacs.arrived.count(site.seg.sop_instance_uid) == 3
    row = site.index.studies.rows(STUDY)[0]
    expected = "delivery to pacs failed: peer pacs answered 0xA700, out of resources; its own log may say more"
    assert (row.state, row.reason) == (StudyState.FAILED, expected)


def test_a_peer_that_knows_no_segmentations_still_gets_the_report(site: Site) -> None:
    site.report("a")
    with storage_peer(Behaviour(), sop_classes=(SR,)) as peer:
        site.delivery(peer).step()
    rows = site.rows()
    assert (rows[SEG].state, rows[SEG].refusals) == (DeliveryState.WAITING, 1)
    assert f"did not accept SOP class {SEG}" in rows[SEG].reason
    assert rows[SR].state is DeliveryState.ACCEPTED


def test_a_peer_that_is_no_longer_in_the_settings_fails_the_delivery_by_name(site: Site) -> None:
    site.report("a", send_to=("gone",))
    site.delivery(away()).step()
    assert site.index.studies.rows(STUDY)[0].reason == "delivery to gone failed: no peer is named gone in the settings"
    assert site.state() is StudyState.FAILED


@pytest.mark.parametrize("damage", ["missing", "no DICOM file"])
def test_a_damaged_result_fails_and_does_not_hold_up_the_rest(site: Site, damage: str) -> None:
    site.report("a")
    path = site.archive.path_of(site.seg.path)
    path.unlink()
    if damage == "no DICOM file":
        path.write_bytes(b"no DICOM file")
    site.delivery(away()).step()
    rows = site.rows()
    assert (rows[SEG].state, rows[SR].state) == (DeliveryState.FAILED, DeliveryState.WAITING)
    assert "missing or damaged; requeue the study" in rows[SEG].reason
    assert site.state() is StudyState.FAILED


def test_a_peer_that_is_away_does_not_hold_up_another_study(site: Site) -> None:
    site.report("a")
    site.report("b", send_to=("research",))
    with storage_peer(Behaviour(), name="research") as research:
        site.delivery(away(), research).step()
    assert (site.state("a"), site.state("b")) == (StudyState.REPORTED, StudyState.DELIVERED)


def test_a_peer_whose_name_leads_nowhere_does_not_hold_up_another(site: Site) -> None:
    site.report("a")
    nowhere = Peer(name="a first peer", ae_title="PACS", host="no-such-host.invalid", port=104, results=True)
    pacs = Behaviour()
    with storage_peer(pacs) as peer:
        site.delivery(nowhere, peer).step()
    assert len(pacs.arrived) == 2
    reasons = {row.reason for row in site.index.deliveries.of_study(STUDY) if row.peer == nowhere.name}
    assert len(reasons) == 1
    assert "correct the peer's host" in reasons.pop()


def test_a_memory_of_nothing_but_the_index_suffices_after_a_restart(site: Site) -> None:
    site.report("a")
    port = free_port()
    peer = Peer(name="pacs", ae_title="PACS", host="127.0.0.1", port=port, results=True)
    site.delivery(peer).step()
    site.now += 100
    with storage_peer(Behaviour(), port=port):
        site.delivery(peer).step()
    assert site.state() is StudyState.DELIVERED


def test_the_log_tells_uids_and_no_names(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    site.report("a")
    with caplog.at_level(logging.INFO), storage_peer(Behaviour(statuses={SR: 0xA700})) as peer:
        site.delivery(peer).step()
    ours = [record for record in caplog.records if record.name.startswith("dicom_node")]
    assert {record.message for record in ours} == {"object delivered", "object not delivered, will be tried again"}
    assert all(vars(record)["study_instance_uid"] == STUDY for record in ours)
    assert "Secret" not in str([vars(record) for record in ours])


def test_a_peer_that_is_away_is_called_once_a_round_for_all_that_waits(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    for study in "abc":
        site.report(study)
    called: list[str] = []

    def counted(peer: Peer, files: Iterable[FileToSend], **options: Any) -> Iterator[Sent]:
        called.append(peer.name)
        return store(peer, files, **options)

    monkeypatch.setattr(delivery_module, "store", counted)
    site.delivery(away(), timeout_seconds=1).step()
    assert called == ["pacs"]
    rows = [row for study in "abc" for row in site.rows(study).values()]
    assert {(row.attempts, row.state) for row in rows} == {(1, DeliveryState.WAITING)}
    assert all("does not answer" in row.reason for row in rows)
    assert min(row.next_try_at for row in rows) > site.now


def test_what_nobody_foresaw_in_one_delivery_postpones_it_and_harms_no_other(
    site: Site, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    site.report("a")
    site.report("b")
    site.archive.path_of(objects("a")[0].path).unlink()

    def odd(path: Path) -> FileToSend:
        if not path.exists():
            raise ZeroDivisionError("Secret^Patient")
        return read(path)

    read = FileToSend.read
    monkeypatch.setattr(FileToSend, "read", odd)
    with storage_peer(Behaviour()) as peer:
        site.delivery(peer).step()
    assert (site.state("a"), site.state("b")) == (StudyState.REPORTED, StudyState.DELIVERED)
    reason = "an unexpected ZeroDivisionError while it was sent; the log has the place"
    assert {(row.state, row.reason, row.refusals) for row in site.rows("a").values()} == {
        (DeliveryState.WAITING, reason, 0)
    }
    assert [record.levelname for record in caplog.records if record.exc_info] == ["ERROR"]


@pytest.mark.parametrize(("send_to", "results", "warnings"), [((), False, 1), ((), True, 0), (("pacs",), False, 0)])
def test_that_no_peer_takes_a_routes_results_is_told_once_at_the_start(
    site: Site, caplog: pytest.LogCaptureFixture, send_to: tuple[str, ...], results: bool, warnings: int
) -> None:
    route = Route(name="chest", algorithm="lung_nodule", when=parse_expression("derived"), send_to=send_to)
    whole = Settings(peers=(replace(away(), results=results),), routes=(route,))
    delivery = Delivery(whole, site.index, site.archive, lambda: site.now)
    delivery.step()
    assert sum("no peer takes results" in record.message for record in caplog.records) == warnings
