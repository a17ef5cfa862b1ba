import hashlib
import logging
import re
import socket
import threading
import time
import tracemalloc
from collections.abc import Collection, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from pydicom import Dataset
from pydicom.uid import UID
from pynetdicom import evt

from dicom_node import lane as lane_module
from dicom_node.archive.deliveries import DeliveryRow
from dicom_node.archive.files import Archive
from dicom_node.archive.index import Index
from dicom_node.archive.jobs import ReportRow
from dicom_node.core.expression import parse_expression
from dicom_node.core.lifecycle import DeliveryState, StudyState
from dicom_node.core.priority import Priority
from dicom_node.core.routing import Route
from dicom_node.delivery import Delivery
from dicom_node.scu.storage import Kind, Storing, storing
from dicom_node.settings import DeliverySettings, Peer, Settings
from tests.instances import ct_instance, write_instance
from tests.peers import CT, Behaviour, free_port, storage_peer
from tests.populated_index import NOW, SEG, SR, claim, instance, objects, queue, study_uid, summary, uid
from tests.statements import told_statements

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

    def report(
        self, study: str, send_to: tuple[str, ...] = (), at: float = NOW, priority: Priority = Priority.ROUTINE
    ) -> None:
        """A study with a report that lies in the archive, written a second before `at`."""
        job = queue(self.index, study, at=at - 5, priority=priority)
        if send_to:
            self.index.studies.add_instance(instance(study, 50, at=NOW - 4))
            self.index.studies.move(study_uid(study), StudyState.COMPLETE, cause="", actor="test", at=NOW - 4)
            job = replace(job, send_to=send_to)
            self.index.jobs.queue(study_uid(study), [job], cause="", actor="test", at=NOW - 4)
        lease = claim(self.index, job, at=at - 3)
        rows = [self._written(row) for row in objects(study)]
        self.index.jobs.report(lease, rows, summary=summary(2), at=at - 1)
        self.seg, self.sr = objects(study)

    def _written(self, row: ReportRow) -> ReportRow:
        path = self.archive.path_of(row.path)
        path.parent.mkdir(parents=True, exist_ok=True)
        changes = {"SOPClassUID": UID(row.sop_class_uid), "SOPInstanceUID": UID(row.sop_instance_uid)}
        write_instance(path, ct_instance(**changes))
        return replace(row, sha256=hashlib.sha256(path.read_bytes()).hexdigest())

    def delivery(self, *peers: Peer, **settings: float) -> Delivery:
        waits = DeliverySettings(**({"timeout_seconds": 5.0} | settings))  # type: ignore[arg-type]  # numbers by name
        whole = Settings(peers=peers, delivery=waits)
        return Delivery(whole, self.index, self.archive, lambda: self.now)

    def state(self, study: str = "a") -> StudyState:
        return self.index.studies.rows(study_uid(study))[0].state

    def waiting(self, peer: str) -> list[DeliveryRow]:
        """All that waits for a peer."""
        return [row for row in self.index.deliveries.unfinished() if row.peer == peer]

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


def test_a_clock_that_is_set_meanwhile_does_not_end_the_round(site: Site) -> None:
    class Setting(Behaviour):
        def store(self, event: evt.Event) -> int | Dataset:
            site.now += 3600
            return super().store(event)

    for study in "abc":
        site.report(study)
    pacs = Setting()
    with storage_peer(pacs) as peer:
        site.delivery(peer).step()
    assert len(pacs.arrived) == 6
    assert pacs.associations == 1


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
    before = site.waiting("pacs")
    waits = []
    for attempt in range(1, 6):
        delivery.step()
        absence = site.index.peers.away("pacs")
        assert absence is not None
        assert (absence.attempts, absence.since) == (attempt, NOW)
        waits.append(absence.next_try_at - site.now)
        site.now = absence.next_try_at
    for wait, middle in zip(waits, (2, 4, 8, 10, 10), strict=True):
        assert 0.8 * middle <= wait <= 1.2 * middle
    assert "does not answer; is it running" in absence.reason
    assert before == [], "nothing was planned yet"
    assert {(row.attempts, row.next_try_at) for row in site.waiting("pacs")} == {(0, NOW)}, "what waits keeps its place"


def test_nothing_is_tried_before_its_time(site: Site) -> None:
    site.report("a")
    delivery = site.delivery(away(), first_wait_seconds=10)
    delivery.step()
    before = site.index.peers.away("pacs")
    assert before is not None
    site.now += 7
    delivery.step()
    assert site.index.peers.away("pacs") == before


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
    pacs = Behaviour(statuses={SR: 0xA700})
    with storage_peer(pacs) as peer:
        delivery = site.delivery(peer, maximum_refusals=3, first_wait_seconds=1, maximum_wait_seconds=1)
        for _ in range(5):
            delivery.step()
            site.now += 5
    rows = site.rows()
    assert (rows[SR].state, rows[SR].refusals) == (DeliveryState.FAILED, 3)
    assert rows[SEG].state is DeliveryState.ACCEPTED
    assert pacs.arrived.count(site.sr.sop_instance_uid) == 3
    row = site.index.studies.rows(STUDY)[0]
    expected = "delivery to pacs failed: peer pacs answered 0xA700, out of resources; its own log may say more"
    assert (row.state, row.reason) == (StudyState.FAILED, expected)


def test_a_structured_report_never_goes_out_without_its_segmentation(site: Site) -> None:
    site.report("a")
    pacs = Behaviour(statuses={SEG: 0xA700})
    with storage_peer(pacs) as peer:
        delivery = site.delivery(peer, maximum_refusals=3, first_wait_seconds=1, maximum_wait_seconds=1)
        delivery.step()
        rows = site.rows()
        assert (rows[SR].state, rows[SR].attempts) == (DeliveryState.WAITING, 0)
        assert "held until the peer has accepted what it refers to" in rows[SR].reason
        assert rows[SR].next_try_at == rows[SEG].next_try_at
        for _ in range(4):
            site.now += 5
            delivery.step()
    rows = site.rows()
    assert {row.state for row in rows.values()} == {DeliveryState.FAILED}
    assert f"not sent without object {site.seg.sop_instance_uid} of its report" in rows[SR].reason
    assert set(pacs.arrived) == {site.seg.sop_instance_uid}
    assert site.state() is StudyState.FAILED


def test_a_segmentation_that_is_accepted_at_last_takes_its_report_along(site: Site) -> None:
    site.report("a")
    pacs = Behaviour(statuses={SEG: 0xA700})
    with storage_peer(pacs) as peer:
        delivery = site.delivery(peer)
        delivery.step()
        pacs.statuses = {}
        site.now += 3
        delivery.step()
    assert pacs.arrived == [site.seg.sop_instance_uid, site.seg.sop_instance_uid, site.sr.sop_instance_uid]
    assert site.state() is StudyState.DELIVERED


def test_a_peer_that_knows_no_segmentations_is_told_of_and_gets_no_report_alone(site: Site) -> None:
    site.report("a")
    pacs = Behaviour()
    with storage_peer(pacs, sop_classes=(SR,)) as peer:
        site.delivery(peer).step()
    rows = site.rows()
    assert (rows[SEG].state, rows[SEG].refusals) == (DeliveryState.WAITING, 1)
    assert f"did not accept SOP class {SEG}" in rows[SEG].reason
    assert (rows[SR].state, pacs.arrived) == (DeliveryState.WAITING, [])


def test_a_peer_that_takes_nothing_of_one_study_refuses_that_study_and_is_not_away(site: Site) -> None:
    site.report("a")
    with storage_peer(Behaviour(), sop_classes=(CT,)) as peer:
        site.delivery(peer).step()
    assert site.index.peers.all_away() == []
    assert site.rows()[SEG].refusals == 1
    assert "accepted none of the proposed presentation contexts" in site.rows()[SEG].reason


def test_a_peer_that_is_no_longer_in_the_settings_fails_the_delivery_by_name(site: Site) -> None:
    site.report("a", send_to=("gone",))
    site.delivery(away()).step()
    assert site.index.studies.rows(STUDY)[0].reason == "delivery to gone failed: no peer is named gone in the settings"
    assert site.state() is StudyState.FAILED


@pytest.mark.parametrize("damage", ["missing", "no DICOM file", "altered"])
def test_a_damaged_result_is_never_sent_nor_is_what_refers_to_it(site: Site, damage: str) -> None:
    site.report("a")
    site.report("b")
    path = site.archive.path_of(objects("a")[0].path)
    content = path.read_bytes()
    path.unlink()
    if damage != "missing":
        path.write_bytes(b"no DICOM file" if damage == "no DICOM file" else content[:-1] + bytes([content[-1] ^ 1]))
    pacs = Behaviour()
    with storage_peer(pacs) as peer:
        site.delivery(peer).step()
    rows = site.rows("a")
    assert {row.state for row in rows.values()} == {DeliveryState.FAILED}
    assert re.search("(missing or damaged|altered since it was written).*; requeue the study", rows[SEG].reason)
    assert "not sent without object" in rows[SR].reason
    assert (site.state("a"), site.state("b")) == (StudyState.FAILED, StudyState.DELIVERED)
    assert not {row.sop_instance_uid for row in objects("a")} & set(pacs.arrived)


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
    (absence,) = site.index.peers.all_away()
    assert (absence.peer, "correct the peer's host" in absence.reason) == (nowhere.name, True)


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

    def counted(peer: Peer, kinds: Collection[Kind], **options: Any) -> AbstractContextManager[Storing]:
        called.append(peer.name)
        return storing(peer, kinds, **options)

    monkeypatch.setattr(lane_module, "storing", counted)
    site.delivery(away(), timeout_seconds=1).step()
    assert called == ["pacs"]
    rows = [row for study in "abc" for row in site.rows(study).values()]
    assert {(row.attempts, row.state) for row in rows} == {(0, DeliveryState.WAITING)}
    site.now += 0.5
    site.delivery(away(), timeout_seconds=1).step()
    assert called == ["pacs"]


def test_what_nobody_foresaw_in_one_delivery_postpones_it_and_harms_no_other(
    site: Site, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    site.report("a")
    site.report("b")
    site.archive.path_of(objects("a")[0].path).unlink()

    def odd(archive: Archive, relative: str, sha256: str) -> None:
        if not archive.path_of(relative).exists():
            raise ZeroDivisionError("Secret^Patient")
        verify(archive, relative, sha256)

    verify = Archive.verify
    monkeypatch.setattr(Archive, "verify", odd)
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


def test_a_peer_that_returns_gets_everything_the_most_urgent_first_and_then_the_oldest(site: Site) -> None:
    names = ("oldest", "older", "newest")
    for number, name in enumerate(names):
        site.report(name, at=NOW + number)
    site.report("stat", at=NOW + 9, priority=Priority.STAT)
    port = free_port()
    delivery = site.delivery(Peer(name="pacs", ae_title="PACS", host="127.0.0.1", port=port, results=True))
    for _ in range(5):
        delivery.step()
        absence = site.index.peers.away("pacs")
        assert absence is not None
        site.now = absence.next_try_at
    pacs = Behaviour()
    with storage_peer(pacs, port=port):
        delivery.step()
    order = [row.sop_instance_uid for name in ("stat", *names) for row in objects(name)]
    assert (pacs.arrived, pacs.associations) == (order, 2), "one asks whether it is back, one carries all the others"
    assert site.index.peers.all_away() == []


@dataclass
class EndsAfterTwo(Behaviour):
    """Hangs up on each association's third object, without an answer."""

    def store(self, event: evt.Event) -> int | Dataset:
        if len(self.arrived) == 2 * self.associations:
            event.assoc.dul.socket.socket.shutdown(socket.SHUT_RDWR)
            return 0xA700
        return super().store(event)


def test_an_association_that_ends_between_two_studies_counts_as_no_attempt_of_either(site: Site) -> None:
    for study in "abc":
        site.report(study)
    pacs = EndsAfterTwo()
    with storage_peer(pacs) as peer:
        site.delivery(peer).step()
    assert {site.state(study) for study in "abc"} == {StudyState.DELIVERED}
    rows = [row for study in "abc" for row in site.rows(study).values()]
    assert {(row.attempts, row.refusals) for row in rows} == {(1, 0)}
    assert site.index.peers.all_away() == []


def test_a_peer_that_hangs_holds_up_only_its_own_lane(site: Site) -> None:
    site.report("a")
    hanging, pacs = Behaviour(hangs=threading.Event()), Behaviour()
    with storage_peer(hanging, name="hanging") as first, storage_peer(pacs) as second:
        delivery = site.delivery(first, second, timeout_seconds=1)
        delivery.oversee()
        began = time.monotonic()
        delivery.lanes[1].step()
        assert time.monotonic() - began < 0.9
        assert len(pacs.arrived) == 2
        delivery.lanes[0].step()
        assert hanging.hangs is not None
        hanging.hangs.set()
    absence = site.index.peers.away("hanging")
    assert absence is not None
    assert "gave no answer to a C-STORE" in absence.reason
    by_class = {row.sop_class_uid: row for row in site.waiting("hanging")}
    assert (by_class[SEG].attempts, by_class[SR].attempts) == (1, 0), "the second was not tried in vain"


def test_a_study_that_breaks_every_association_does_not_hold_up_the_others_for_ever(site: Site) -> None:
    site.report("poison", priority=Priority.STAT)
    site.report("a")
    pacs = Behaviour(breaks_at=uid("seg", "poison"))
    with storage_peer(pacs) as peer:
        delivery = site.delivery(peer)
        delivery.step()
        assert (site.state("a"), len(site.index.peers.all_away())) == (StudyState.REPORTED, 1)
        site.now += 2.4
        delivery.step()
    assert site.state("a") is StudyState.DELIVERED
    assert site.rows("poison")[SEG].refusals == 0


def test_a_peer_that_is_away_for_long_has_its_objects_sent_to_the_one_instead(site: Site) -> None:
    site.report("a")
    pacs, late = Behaviour(), free_port()
    with storage_peer(pacs, name="second") as second:
        first = Peer(name="pacs", ae_title="PACS", host="127.0.0.1", port=late, results=True, instead="second")
        delivery = site.delivery(first, replace(second, results=False), instead_after_seconds=60)
        delivery.step()
        site.now += 59
        delivery.step()
        assert pacs.arrived == []
        site.now += 1
        delivery.step()
        assert len(pacs.arrived) == 2
        study = site.index.studies.rows(STUDY)[0]
        assert study.state is StudyState.DELIVERED
        assert study.reason.endswith("second in place of pacs")
        causes = [line.cause for line in site.index.studies.history(STUDY) if line.subject == "delivery pacs"]
        assert any(f"object {site.sr.sop_instance_uid} goes to second too: peer pacs" in cause for cause in causes)
        returned = Behaviour()
        with storage_peer(returned, port=late):
            site.now += 999
            delivery.step()
        assert len(returned.arrived) == 2
    assert site.waiting("pacs") == []


def copied(index: Index, study: str, count: int) -> None:
    """As many reported studies more as this one, each with its job and its report's two objects, a second later."""
    tables = index.transactions.tables
    names = ("studies", "jobs", "reports")
    with index.transactions.read() as connection:
        found = {
            name: connection.execute(tables[name].select().where(tables[name].c.study_instance_uid == study)).mappings()
            for name in names
        }
        rows = {name: [dict(row) for row in found[name]] for name in names}
    later = {"studies": {}, "jobs": {}, "reports": {"written_at": NOW + 1}}
    with index.transactions.write() as connection:
        for name in names:
            uids = [key for key in rows[name][0] if key in ("study_instance_uid", "job_uid", "sop_instance_uid")]
            copies = [
                {**row, **later[name], **{key: uid(row[key], number) for key in uids}}
                for row in rows[name]
                for number in range(count)
            ]
            connection.execute(tables[name].insert(), copies)


def test_a_thousand_objects_for_a_peer_that_is_away_cost_one_association_and_few_statements(site: Site) -> None:
    site.report("a")
    copied(site.index, STUDY, 500)
    delivery = site.delivery(away(), timeout_seconds=1)
    delivery.step()
    assert len(site.waiting("pacs")) == 1002
    before = site.index.peers.away("pacs")
    assert before is not None
    assert before.attempts == 1
    calls = told_statements(site.index)
    for _ in range(4):
        delivery.step()
    assert len(calls) <= 4 * 5, calls[:8]
    assert site.index.peers.away("pacs") == before
    site.now = before.next_try_at
    tracemalloc.start()
    delivery.lanes[0].step()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1_000_000, "of all that waits, one study is looked at"
    absence = site.index.peers.away("pacs")
    assert absence is not None
    assert absence.attempts == 2


def test_what_waits_for_a_peer_that_left_the_settings_fails_after_a_restart(site: Site) -> None:
    site.report("a")
    site.delivery(away("gone")).step()
    assert site.state() is StudyState.REPORTED
    site.delivery(away("other")).step()
    assert site.index.studies.rows(STUDY)[0].reason == "delivery to gone failed: no peer is named gone in the settings"
