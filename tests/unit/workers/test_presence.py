"""What the index knows of a worker, in good days and bad."""

from collections.abc import Iterator

import pytest

from dicom_node.archive.index import Index
from dicom_node.core.errors import IndexUnavailable
from workers.pipe import Ready
from workers.presence import Presence

WORKER = "gpu1:1"


@pytest.fixture
def index() -> Iterator[Index]:
    index = Index.open("sqlite://")
    yield index
    index.close()


@pytest.fixture
def presence(index: Index) -> Presence:
    return Presence(index, WORKER, ("stat", "routine"), "auto")


def test_a_worker_is_in_the_index_once_it_can_read_and_what_it_can_read_is_kept_up(
    index: Index, presence: Presence
) -> None:
    assert index.workers.rows() == []
    presence.ready(Ready(device="cuda", bundles=("lung_nodule 0.1.0",)))
    (row,) = index.workers.rows()
    assert (row.worker, row.device, row.bundles, row.queues) == (
        WORKER,
        "cuda",
        ("lung_nodule 0.1.0",),
        ("stat", "routine"),
    )
    presence.ready(Ready(device="cuda", bundles=("lung_nodule 0.2.0",)))
    assert index.workers.rows()[0].bundles == ("lung_nodule 0.2.0",)
    assert index.workers.rows()[0].started_at == row.started_at
    presence.ended()
    assert index.workers.rows() == []


def test_a_worker_that_cannot_read_is_seen_without_a_bundle(index: Index, presence: Presence) -> None:
    presence.trouble("the reading process ended with status 3")
    (row,) = index.workers.rows()
    assert (row.device, row.bundles) == ("auto", ())


def test_an_index_that_is_away_hears_of_the_worker_with_its_next_news(
    index: Index, presence: Presence, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_args: object, **_kwargs: object) -> None:
        raise IndexUnavailable("the index does not answer")

    with monkeypatch.context() as patch:
        patch.setattr(index.workers, "began", away)
        presence.ready(Ready(device="cpu", bundles=()))
    assert index.workers.rows() == []
    presence.ready(Ready(device="cpu", bundles=("lung_nodule 0.1.0",)))
    assert len(index.workers.rows()) == 1


def test_a_worker_that_the_index_missed_is_told_of_by_its_heartbeat_but_not_before_it_is_ready_nor_after_its_end(
    index: Index, presence: Presence, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_args: object, **_kwargs: object) -> None:
        raise IndexUnavailable("the index does not answer")

    presence.missed()
    assert index.workers.rows() == []
    with monkeypatch.context() as patch:
        patch.setattr(index.workers, "began", away)
        presence.ready(Ready(device="cpu", bundles=("lung_nodule 0.1.0",)))
        presence.missed()
    presence.missed()
    assert [row.bundles for row in index.workers.rows()] == [("lung_nodule 0.1.0",)]
    presence.ended()
    presence.missed()
    assert index.workers.rows() == []


def test_news_of_a_worker_whose_row_is_gone_bring_it_back(index: Index, presence: Presence) -> None:
    presence.ready(Ready(device="cpu", bundles=()))
    index.workers.ended(WORKER)
    presence.ready(Ready(device="cpu", bundles=("lung_nodule 0.1.0",)))
    assert [row.bundles for row in index.workers.rows()] == [("lung_nodule 0.1.0",)]
