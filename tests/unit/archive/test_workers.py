from collections.abc import Iterator

import pytest

from dicom_node.archive.index import Index
from dicom_node.archive.workers import Workers
from tests.populated_index import NOW, claim, queue


@pytest.fixture
def workers() -> Iterator[Workers]:
    index = Index.open("sqlite://")
    yield index.workers
    index.close()


def began(workers: Workers, name: str, at: float = NOW) -> None:
    workers.began(name, device="cpu", bundles=["lung_nodule 0.1.0"], queues=["stat", "routine"], at=at)


def test_a_worker_is_known_from_its_beginning_to_its_end(workers: Workers) -> None:
    began(workers, "gpu1:2")
    began(workers, "gpu1:1")
    assert [row.worker for row in workers.rows()] == ["gpu1:1", "gpu1:2"]
    row = workers.rows()[0]
    assert (row.device, row.bundles, row.queues) == ("cpu", ("lung_nodule 0.1.0",), ("stat", "routine"))
    assert (row.started_at, row.heartbeat_at, row.job_uid) == (NOW, NOW, None)
    workers.ended("gpu1:1")
    assert [row.worker for row in workers.rows()] == ["gpu1:2"]


def test_a_beat_tells_when_and_of_which_job_and_only_of_this_worker(workers: Workers) -> None:
    began(workers, "gpu1:1")
    began(workers, "gpu1:2")
    workers.beat("gpu1:1", job_uid="2.25.1", at=NOW + 5)
    assert [(row.heartbeat_at, row.job_uid) for row in workers.rows()] == [(NOW + 5, "2.25.1"), (NOW, None)]
    workers.beat("gpu1:1", job_uid=None, at=NOW + 6)
    assert workers.rows()[0].job_uid is None


def test_a_worker_that_begins_again_under_its_name_begins_anew(workers: Workers) -> None:
    began(workers, "gpu1:1")
    workers.beat("gpu1:1", job_uid="2.25.1", at=NOW + 5)
    began(workers, "gpu1:1", at=NOW + 9)
    assert [(row.started_at, row.heartbeat_at, row.job_uid) for row in workers.rows()] == [(NOW + 9, NOW + 9, None)]


def test_a_beat_of_a_worker_that_is_gone_does_not_bring_it_back(workers: Workers) -> None:
    began(workers, "gpu1:1")
    workers.ended("gpu1:1")
    workers.ended("gpu1:1")
    assert not workers.beat("gpu1:1", job_uid=None, at=NOW)
    assert not workers.can("gpu1:1", device="cuda", bundles=[])
    assert workers.rows() == []


def test_workers_that_were_silent_for_a_day_are_forgotten_when_another_begins(workers: Workers) -> None:
    began(workers, "gpu1:1")
    began(workers, "gpu1:2")
    assert workers.beat("gpu1:2", job_uid=None, at=NOW + 2)
    began(workers, "gpu1:3", at=NOW + 86401)
    assert [row.worker for row in workers.rows()] == ["gpu1:2", "gpu1:3"]


def test_the_algorithms_that_no_live_worker_reads_are_those_of_waiting_jobs_alone() -> None:
    index = Index.open("sqlite://")
    assert index.workers.unread(NOW) == []
    job = queue(index, "a", at=NOW)
    assert index.workers.unread(NOW) == ["lung_nodule"]
    began(index.workers, "gpu1:1")
    assert index.workers.unread(NOW) == []
    assert index.workers.unread(NOW + 1) == ["lung_nodule"]
    claim(index, job, at=NOW)
    assert index.workers.unread(NOW + 1) == []
    index.close()


def test_a_beat_tells_what_the_reading_process_does_and_when_that_was_heard(workers: Workers) -> None:
    began(workers, "gpu1:1")
    assert (workers.rows()[0].step, workers.rows()[0].moved_at) == ("", None)
    workers.beat("gpu1:1", job_uid=None, step="network" * 20, moved_at=NOW + 3, at=NOW + 5)
    row = workers.rows()[0]
    assert (row.step, row.moved_at) == (("network" * 20)[:64], NOW + 3)


def test_what_a_worker_can_read_may_change(workers: Workers) -> None:
    began(workers, "gpu1:1")
    began(workers, "gpu1:2")
    workers.can("gpu1:1", device="cuda", bundles=["lung_nodule 0.2.0", "fracture 1.0"])
    first, second = workers.rows()
    assert (first.device, first.bundles) == ("cuda", ("lung_nodule 0.2.0", "fracture 1.0"))
    assert (second.device, second.bundles) == ("cpu", ("lung_nodule 0.1.0",))
