"""Answers to storage commitment over the associations that ask for it, while those are released."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from pynetdicom.association import Association

from dicom_node.archive.files import Archive
from dicom_node.archive.index import Index
from dicom_node.core.commitment import CommitmentReport
from dicom_node.scu import storage_commitment
from dicom_node.scu.storage_commitment import CommitmentRequest
from dicom_node.settings import Peer
from tests.promising_site import SECONDS, Site, images, until

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


@dataclass
class Asking:
    """Our own side of storage commitment, with a row in the index for each answer, which it takes its time to end."""

    peer: Peer
    index: Index
    #: Seconds until the handler returns, when its row is there for all to see, unless it is to hurry.
    dawdles: float
    hurry: threading.Event = field(default_factory=threading.Event)
    #: Where the handler runs.
    taking: threading.Thread | None = None

    def ask(self, number: int, *, timeout_seconds: float = SECONDS) -> bool:
        """Ask for one object and stay until the row is there."""
        uid = f"2.25.{number + 1}"
        request = CommitmentRequest(transaction_uid=uid, objects=tuple(images(1)))
        return storage_commitment.ask(
            self.peer,
            request,
            self._take,
            ae_title="TRIAGE",
            timeout_seconds=timeout_seconds,
            linger_seconds=SECONDS,
            is_answered=lambda: uid in self._rows(),
        )

    def _take(self, report: CommitmentReport) -> bool:
        self.index.studies.association_opened(report.transaction_uid, "PACS", 1.0)
        self.taking = threading.current_thread()
        self.hurry.wait(self.dawdles)
        return True

    def _rows(self) -> set[str]:
        associations = self.index.transactions.tables["associations"]
        with self.index.transactions.read() as connection:
            return set(connection.execute(sa.select(associations.c.association_id)).scalars())


@pytest.fixture
def endings(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """How each association ended that was opened to ask for storage commitment."""
    found: list[str] = []
    opened = storage_commitment.association

    @contextmanager
    def noted(*args: Any, **kwargs: Any) -> Iterator[Association]:
        with opened(*args, **kwargs) as association:
            yield association
        found.append("released" if association.is_released else "aborted")

    monkeypatch.setattr(storage_commitment, "association", noted)
    return found


def test_a_hundred_answers_over_the_asking_associations_end_none_of_them_badly(site: Site, endings: list[str]) -> None:
    site.hold(1)
    peer = Peer(name="pacs", ae_title="TRIAGE", host="127.0.0.1", port=site.port)
    # As fast as it goes, and so that it is still in hand when its row is seen.
    asking = [Asking(peer, site.index, dawdles) for dawdles in (0.0, 0.001, 0.03)]
    answered: list[bool] = []

    def ask_all() -> None:
        answered.extend(asking[number % 3].ask(number) for number in range(100))

    with site.serving():
        thread = threading.Thread(target=ask_all, daemon=True)
        thread.start()
        thread.join(200)
        assert not thread.is_alive(), f"hangs after {len(endings)} associations"
        # Each of our answers was heard.
        until(lambda: site.index.promises.owed() == {})
    assert answered == [True] * 100
    assert endings == ["released"] * 100


def test_an_answer_that_takes_too_long_to_keep_ends_the_association_by_an_abort(site: Site, endings: list[str]) -> None:
    site.hold(1)
    peer = Peer(name="pacs", ae_title="TRIAGE", host="127.0.0.1", port=site.port)
    asking = Asking(peer, site.index, 120.0)
    with site.serving():
        began = time.monotonic()
        assert asking.ask(1, timeout_seconds=2.0)
        assert time.monotonic() - began < 60.0
        asking.hurry.set()
        assert asking.taking is not None
        asking.taking.join(SECONDS)
    assert endings == ["aborted"]
