"""Reports on their way to peers: what goes where, in which order, and when it is delivered."""

import logging
from dataclasses import replace

import pytest
from pydicom import Dataset
from pynetdicom import evt

from dicom_node.archive.files import Archive
from dicom_node.core.expression import parse_expression
from dicom_node.core.lifecycle import DeliveryState, StudyState
from dicom_node.core.routing import Route
from dicom_node.delivery import Delivery
from dicom_node.settings import Peer, Settings
from tests.delivering_site import STUDY, WIRE_NOISE, Site, away
from tests.peers import Behaviour, free_port, storage_peer
from tests.populated_index import NOW, SEG, SR, objects

pytestmark = WIRE_NOISE


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


def test_after_a_clock_was_set_back_a_worker_whose_clock_is_late_is_still_heard(site: Site) -> None:
    """What was reported longer ago than a round looks back is found when all of it is looked through."""
    pacs = Behaviour()
    with storage_peer(pacs) as peer:
        delivery = site.delivery(peer)
        delivery.step()
        site.now -= 7200
        site.report("a", at=site.now - 100)
        delivery.step()
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
