"""Storage commitment that we give: to peers that ask for it in every way that the standard knows."""

import logging
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydicom.uid import MRImageStorage
from pynetdicom import build_role
from pynetdicom.sop_class import (  # type: ignore[attr-defined]  # made at run time
    StorageCommitmentPushModel,
)

from dicom_node.archive.files import Archive
from dicom_node.archive.index import Index
from dicom_node.core.lifecycle import StudyState
from dicom_node.settings import Peer
from tests.instances import STUDY_UID, sop_uid
from tests.peers import free_port
from tests.promising_site import TRANSACTION, WELL_KNOWN, Scanner, Site, ask, ct_file, images, question, until

pytestmark = [
    pytest.mark.filterwarnings(r"ignore:unclosed <socket\.socket:ResourceWarning"),
    # Where both sides end an association at once, pynetdicom's reactor may end by an InvalidEventError.
    pytest.mark.filterwarnings(
        r"ignore:Exception in thread Thread-\d+ \(run_reactor\):pytest.PytestUnhandledThreadExceptionWarning"
    ),
]


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    site = Site(tmp_path, Index.open(f"sqlite:///{tmp_path / 'index.sqlite'}"), Archive(tmp_path / "archive"))
    yield site
    site.index.close()


def test_what_is_held_is_promised_over_the_association_that_asked(site: Site) -> None:
    site.hold(1, 2)
    scanner = Scanner()
    with site.serving(), scanner.asking(site.port) as association:
        assert ask(association, question(*images(1, 2))) == 0x0000
        scanner.wait()
        until(lambda: site.index.promises.owed() == {})
    assert scanner.told == [(1, TRANSACTION, [sop_uid(1), sop_uid(2)], {}, True)]


def test_what_is_missing_altered_or_of_another_class_is_named_with_its_reason(site: Site) -> None:
    site.hold(1, 2, 3, 4)
    site.path(2).unlink()
    altered = bytearray(site.path(3).read_bytes())
    altered[-1] ^= 1
    site.path(3).chmod(0o600)
    site.path(3).write_bytes(altered)
    asked = [*images(1, 2, 3), (MRImageStorage, sop_uid(4)), *images(5)]
    scanner = Scanner()
    with site.serving(), scanner.asking(site.port) as association:
        assert ask(association, question(*asked)) == 0x0000
        scanner.wait()
    lost = {sop_uid(2): 0x0112, sop_uid(3): 0x0112, sop_uid(4): 0x0119, sop_uid(5): 0x0112}
    assert scanner.told == [(2, TRANSACTION, [sop_uid(1)], lost, True)]


def test_a_peer_that_has_gone_is_told_on_an_association_that_we_open_as_its_provider(site: Site) -> None:
    site.hold(1)
    scanner = Scanner()
    with scanner.listening() as peer, site.serving(peer) as promising:
        promising.tell_here = lambda *_: False
        with scanner.asking(site.port) as association:
            assert ask(association, question(*images(1))) == 0x0000
        scanner.wait()
        until(lambda: site.index.promises.owed() == {})
    assert scanner.told == [(1, TRANSACTION, [sop_uid(1)], {}, False)]
    assert scanner.roles == [(False, True)]


def test_a_peer_that_knows_no_role_selection_is_told_all_the_same(site: Site) -> None:
    site.hold(1)
    scanner = Scanner()
    with scanner.listening(takes_role=False) as peer, site.serving(peer) as promising:
        promising.tell_here = lambda *_: False
        with scanner.asking(site.port) as association:
            assert ask(association, question(*images(1))) == 0x0000
        scanner.wait()


def test_a_peer_that_is_away_is_told_after_growing_waits_and_after_a_restart_and_once(site: Site) -> None:
    site.hold(1)
    scanner, port = Scanner(), free_port()
    peer = Peer(name="scanner", ae_title="SCANNER", host="127.0.0.1", port=port)
    with site.serving(peer) as promising:
        promising.tell_here = lambda *_: False
        with scanner.asking(site.port) as association:
            assert ask(association, question(*images(1))) == 0x0000
        until(lambda: (row := site.index.promises.find(TRANSACTION)) is not None and row.attempts == 1)
        missed = site.clock()
    first = site.index.promises.find(TRANSACTION)
    assert first is not None
    assert "does not answer" in first.reason
    assert first.failed is None, "nobody has heard anything yet"
    with site.serving(peer):
        site.later += 3
        began = site.clock()
        until(lambda: (row := site.index.promises.find(TRANSACTION)) is not None and row.attempts == 2)
    second = site.index.promises.find(TRANSACTION)
    assert second is not None
    assert second.next_try_at - began > 1.5 * (first.next_try_at - missed) - 1
    with scanner.listening(port), site.serving(peer):
        site.later += 10
        scanner.wait()
        until(lambda: site.index.promises.owed() == {})
        site.later += 10_000
        time.sleep(0.3)
    assert len(scanner.told) == 1


def test_an_answer_that_is_not_acknowledged_is_told_again_and_is_the_same_whatever_happened_since(site: Site) -> None:
    site.hold(1)
    scanner = Scanner(statuses=[0x0110, 0x0000])
    with scanner.listening() as peer, site.serving(peer) as promising:
        promising.tell_here = lambda *_: False
        with scanner.asking(site.port) as association:
            assert ask(association, question(*images(1))) == 0x0000
        until(lambda: (row := site.index.promises.find(TRANSACTION)) is not None and row.attempts == 1)
        site.path(1).unlink()
        site.later += 5
        scanner.wait(2)
        until(lambda: site.index.promises.owed() == {})
    assert scanner.told[0] == scanner.told[1]


def test_the_same_question_again_is_one_transaction_and_another_by_its_uid_is_refused(site: Site) -> None:
    site.hold(1, 2)
    scanner = Scanner()
    with site.serving() as promising, scanner.asking(site.port) as association:
        promising.tell_here, here = (lambda *_: False), promising.tell_here
        assert ask(association, question(*images(1))) == 0x0000
        assert ask(association, question(*images(1))) == 0x0000
        assert ask(association, question(*images(2))) == 0x0115
        promising.tell_here = here
        site.later += 5
        scanner.wait()
        until(lambda: site.index.promises.owed() == {})
        # Acknowledged: its UID is free.
        assert ask(association, question(*images(2))) == 0x0000
        scanner.wait(2)
    assert [kept for _, _, kept, _, _ in scanner.told] == [[sop_uid(1)], [sop_uid(2)]]


def test_a_stranger_that_has_gone_is_told_when_it_is_entered_as_a_peer(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    site.hold(1)
    scanner = Scanner()
    with caplog.at_level(logging.WARNING, "dicom_node"), site.serving() as promising:
        promising.tell_here = lambda *_: False
        with scanner.asking(site.port) as association:
            assert ask(association, question(*images(1))) == 0x0000
        until(lambda: (row := site.index.promises.find(TRANSACTION)) is not None and row.attempts == 1)
    row = site.index.promises.find(TRANSACTION)
    assert row is not None
    assert "no peer of the settings has the AE title SCANNER" in row.reason
    with scanner.listening() as peer, site.serving(peer):
        site.later += 5
        scanner.wait()


def test_people_see_that_a_peer_cannot_be_told_and_no_more_when_it_was(site: Site) -> None:
    site.hold(1)
    scanner, port = Scanner(), free_port()
    peer = Peer(name="scanner", ae_title="SCANNER", host="127.0.0.1", port=port)
    with site.serving(peer) as promising:
        promising.tell_here = lambda *_: False
        with scanner.asking(site.port) as association:
            assert ask(association, question(*images(1))) == 0x0000
        until(lambda: attempts(site) == 1)
        assert site.index.conditions.rows() == []
        for _ in range(3):
            before = attempts(site)
            site.later += 30
            until(lambda known=before: attempts(site) > known)  # type: ignore[misc]  # bound at once
        until(lambda: bool(site.index.conditions.rows()))
        (condition,) = site.index.conditions.rows()
        assert condition.reason.startswith("SCANNER cannot be told what we keep of what it sent: peer scanner")
        with scanner.listening(port):
            site.later += 100
            scanner.wait()
            until(lambda: site.index.conditions.rows() == [])


def attempts(site: Site) -> int:
    row = site.index.promises.find(TRANSACTION)
    return 0 if row is None else row.attempts


def test_what_the_peer_asks_while_we_tell_it_is_served(site: Site) -> None:
    """The answer is sent by another thread than the association's, which goes on."""
    site.hold(*range(1, 301))
    scanner = Scanner()
    asked = question(*images(*range(1, 301)))
    with site.serving(), scanner.asking(site.port) as association:
        assert ask(association, asked) == 0x0000
        scanner.wait()
        assert association.send_c_echo().Status == 0x0000
        assert association.send_c_store(ct_file(site.folder, 500)).Status == 0x0000
        assert ask(association, question(*images(500), transaction="2.25.9")) == 0x0000
        scanner.wait(2)
    assert [(kind, len(kept)) for kind, _, kept, _, _ in scanner.told] == [(1, 300), (1, 1)]


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({"action": 2}, 0x0123),
        ({"instance": "1.2.3"}, 0x0112),
        ({"asked": None}, 0x0114),
        ({"asked": question()}, 0x0115),
        ({"asked": question(*images(1), transaction="")}, 0x0115),
    ],
)
def test_a_question_that_breaks_the_rules_is_refused_by_its_status(
    site: Site, changes: dict[str, Any], status: int
) -> None:
    scanner = Scanner()
    with site.serving(), scanner.asking(site.port) as association:
        asked = changes.pop("asked", question(*images(1)))
        assert ask(association, asked, **changes) == status
    assert site.index.promises.owed() == {}


@pytest.mark.parametrize(
    ("role", "status"), [(None, 0x0000), ((True, False), 0x0000), ((True, True), 0x0000), ((False, True), 0x0211)]
)
def test_who_takes_the_role_of_the_provider_alone_cannot_ask(
    site: Site, role: tuple[bool, bool] | None, status: int
) -> None:
    site.hold(1)
    scanner = Scanner()
    roles = [] if role is None else [build_role(StorageCommitmentPushModel, scu_role=role[0], scp_role=role[1])]
    with site.serving(), scanner.asking(site.port, roles=roles) as association:
        if status == 0x0000:
            assert ask(association, question(*images(1))) == status
            scanner.wait()
        # pynetdicom would not let the provider ask.
        context = next(c for c in association.accepted_contexts if c.abstract_syntax == StorageCommitmentPushModel)
        assert context.as_scp is bool(role and role[1])
        answer, _ = association.send_n_event_report(question(*images(1)), 1, StorageCommitmentPushModel, WELL_KNOWN)
        # Nobody was asked by this transaction.
        assert answer.Status == 0x0115
        if status != 0x0000:
            context._as_scu = True
            assert ask(association, question(*images(1))) == status


def test_a_study_that_was_promised_does_not_leave_the_disk(site: Site) -> None:
    site.hold(1)
    now = site.clock()
    site.index.studies.move(STUDY_UID, StudyState.COMPLETE, cause="all here", actor="assembly", at=now)
    site.index.studies.move(STUDY_UID, StudyState.NOT_ROUTED, cause="no route", actor="assembly", at=now)
    candidates = site.index.evictions.candidates
    assert len(candidates([StudyState.NOT_ROUTED], now + 9, 5)) == 1
    scanner = Scanner()
    with site.serving(), scanner.asking(site.port) as association:
        assert ask(association, question(*images(1))) == 0x0000
        scanner.wait()
    assert candidates([StudyState.NOT_ROUTED], now + 9, 5) == []
