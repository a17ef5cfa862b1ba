"""A worker process around its triage: what it imports, its own look for jobs, and its messages."""

import json
import subprocess
import sys
import threading
from typing import Any

import pytest

from dicom_node.job_queue import TASK, TASK_AHEAD
from tests.conftest import ROOT
from workers.celery_app import Watch, build
from workers.tasks import register


def test_a_worker_imports_nothing_that_computes() -> None:
    program = "import json, sys, workers.celery_app; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, check=True, text=True)
    assert not {"torch", "monai", "highdicom", "scipy", "skimage", "workers.volume"} & set(json.loads(done.stdout))


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
