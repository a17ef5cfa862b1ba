"""A worker process around its triage: what it imports, what it tells of itself, and its own look for jobs."""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pytest

from dicom_node.archive.index import Index
from dicom_node.core.errors import IndexUnavailable
from dicom_node.job_queue import TASK, TASK_AHEAD
from tests.conftest import ROOT
from workers.celery_app import Ending, Presence, Watch, build
from workers.heartbeat import FAULTY
from workers.pipe import Ready
from workers.tasks import register

WORKER = "gpu1:1"


@pytest.fixture
def index() -> Iterator[Index]:
    index = Index.open("sqlite://")
    yield index
    index.close()


@pytest.fixture
def presence(index: Index) -> Presence:
    return Presence(index, WORKER, ("stat", "routine"), "auto")


def test_a_worker_imports_nothing_that_computes() -> None:
    program = "import json, sys, workers.celery_app; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, check=True, text=True)
    assert not {"torch", "monai", "highdicom", "scipy", "skimage", "workers.volume"} & set(json.loads(done.stdout))


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


class Rounds:
    """A triage of which every second call breaks."""

    def __init__(self) -> None:
        self.count = 0
        self.enough = threading.Event()

    def work_off(self) -> None:
        self.count += 1
        if self.count == 4:
            self.enough.set()
        if self.count % 2:
            raise ZeroDivisionError("Test^Tess")


def test_jobs_are_looked_for_again_and_again_whatever_went_wrong(caplog: pytest.LogCaptureFixture) -> None:
    rounds: Any = Rounds()
    watch = Watch(rounds, 0.01)
    watch.start()
    assert rounds.enough.wait(20)
    watch.stop()
    assert "looking for jobs failed" in caplog.messages
    assert "watch" not in [thread.name for thread in threading.enumerate()]


class Scene:
    """A worker that was asked to end and does not, looked at every quarter of a second; what was done at which."""

    def __init__(
        self,
        *,
        signals: Mapping[float, Sequence[int]] | None = None,
        node_dies_at: float = 1e9,
        job_ends_at: float = 0.0,
    ) -> None:
        self.now = 0.0
        self.did: list[tuple[float, str, float]] = []
        self._signals = dict(signals or {})
        self._node_dies_at, self._job_ends_at = node_dies_at, job_ends_at

    def run(self) -> list[tuple[float, str, float]]:
        """Until the process is to be ended."""
        triage: Any = self
        ending = Ending(
            triage,
            25.0,
            leave=lambda status: self._note("leave", status),
            node=7,
            end_process=lambda status: self._note("end", status),
            parent=lambda: 7 if self.now < self._node_dies_at else 1,
            clock=lambda: self.now,
        )
        told, tell = os.pipe()
        while not ending.hangs():
            self.now += 0.25
            os.write(tell, bytes(self._signals.get(self.now, ())))
            ending.look(told, 0.0)
        ending.wait(told)
        os.close(told)
        os.close(tell)
        return self.did

    @property
    def working(self) -> bool:
        return self.now < self._job_ends_at

    def stop(self, within_seconds: float) -> None:
        self._note("stop within", within_seconds)

    def _note(self, what: str, value: float) -> None:
        self.did.append((self.now, what, value))


def test_signals_of_one_second_ask_once_and_a_later_one_waits_no_longer() -> None:
    bunch = [signal.SIGTERM] * 3
    did = Scene(signals={1.0: bunch, 1.75: bunch, 2.0: [signal.SIGINT]}, job_ends_at=3.0).run()
    stops = [(at, value) for at, what, value in did if what == "stop within"]
    assert stops == [(1.0, 25.0), (2.0, 0.0)]
    assert [value for _, what, value in did if what == "leave"] == [0, 0, 1]
    assert did[-1] == (2.75 + Ending.LAST_SECONDS, "end", FAULTY), "its job has ended, and it has not"


def test_a_worker_lives_as_long_as_its_node() -> None:
    did = Scene(node_dies_at=60.0).run()
    assert did[:2] == [(60.0, "stop within", 25.0), (60.0, "leave", 0)]
    assert [what for _, what, _ in did] == ["stop within", "leave", "end"]


def test_the_job_in_hand_of_a_worker_without_a_node_is_waited_for_but_not_for_ever() -> None:
    did = Scene(node_dies_at=60.0, job_ends_at=1e9).run()
    assert did[-1] == (60.0 + 25.0 + Ending.LAYING_DOWN_SECONDS, "end", FAULTY)


def test_what_the_kernel_says_of_a_dead_node_and_what_is_seen_of_it_is_one_request() -> None:
    did = Scene(node_dies_at=60.0, signals={58.0: [signal.SIGTERM]}).run()
    assert [entry for entry in did if entry[1] == "stop within"] == [(58.0, "stop within", 25.0)]


def test_each_task_unpacks_its_message_and_calls_the_triage() -> None:
    called: list[tuple[str, dict[str, str]]] = []

    class Called:
        """Writes down what is asked of a triage."""

        def work_off(self) -> None:
            called.append(("work off", {}))

        def prepare(self, **words: str) -> None:
            called.append(("prepare", words))

    triage: Any = Called()
    app = build("memory://")
    register(app, triage)
    app.tasks[TASK](job_uid="2.25.1", study_instance_uid="2.25.2", algorithm="lung_nodule")
    words = {"study_instance_uid": "1", "series_instance_uid": "2", "algorithm": "a", "evidence": "e"}
    app.tasks[TASK_AHEAD](**words)
    assert called == [("work off", {}), ("prepare", words)]
    app.close()
