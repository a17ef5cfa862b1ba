"""Objects that a peer refuses, does not know, or that are damaged."""

import re

import pytest

from dicom_node.core.lifecycle import DeliveryState, StudyState
from tests.delivering_site import STUDY, WIRE_NOISE, Site, away
from tests.peers import CT, Behaviour, storage_peer
from tests.populated_index import SEG, SR, objects

pytestmark = WIRE_NOISE


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
