"""Many studies and many peers: who is away holds up nobody, and is called seldom."""

import socket
import threading
import time
import tracemalloc
from collections.abc import Collection
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any

import pytest
from pydicom import Dataset
from pynetdicom import evt

from dicom_node import lane as lane_module
from dicom_node.archive.index import Index
from dicom_node.core.lifecycle import DeliveryState, StudyState
from dicom_node.core.priority import Priority
from dicom_node.scu.storage import Kind, Storing, storing
from dicom_node.settings import Peer
from tests.delivering_site import STUDY, WIRE_NOISE, Site, away
from tests.peers import Behaviour, free_port, storage_peer
from tests.populated_index import NOW, SEG, SR, objects, uid
from tests.statements import told_statements

pytestmark = WIRE_NOISE


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
