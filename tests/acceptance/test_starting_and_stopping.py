"""`dicom-node serve` starts whole, watches its parts, and ends in order."""

import os
import signal
import time
from pathlib import Path

import pytest

from deploy.rig import ReceiveOnlyNode, RunningNode
from dicom_node.core.lifecycle import StudyState
from tests.acceptance.conftest import PATIENCE_SECONDS, PhantomStudy, study_uid


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_every_process_in_order_and_without_a_fault(tmp_path: Path, number: signal.Signals) -> None:
    node = RunningNode(tmp_path / "node", None)
    node.start()
    assert node.program.process is not None
    children = _children(node.program.process.pid)
    assert len(children) == 2, "redis and one worker"
    node.program.process.send_signal(number)
    assert node.program.process.wait(60) == 0
    assert not [pid for pid in children if _alive(pid)]
    stopped = [
        line.split('"part": "')[1].split('"')[0]
        for line in node.program.log.read_text().splitlines()
        if '"a part stopped"' in line
    ]
    inner = ["stocktaking", "retention", "dispatch", "leases", "assembly", "commitment", "delivery"]
    assert stopped == ["receiver", "promises", "web", "keying", *inner, "worker", "redis"]


def test_a_node_that_is_killed_leaves_no_process_behind(tmp_path: Path) -> None:
    node = RunningNode(tmp_path / "node", None)
    node.start()
    assert node.program.process is not None
    children = _children(node.program.process.pid)
    node.program.process.kill()
    node.program.process.wait()
    until = time.monotonic() + 20
    while any(_alive(pid) for pid in children) and time.monotonic() < until:
        time.sleep(0.1)
    node.stop()
    assert not [pid for pid in children if _alive(pid)]


def test_redis_and_worker_are_started_again_when_they_die_and_the_next_study_is_read(
    tmp_path: Path, phantom: PhantomStudy
) -> None:
    """The PACS is our own receiver here: the way that the demo goes where no Orthanc is installed."""
    pacs = ReceiveOnlyNode(tmp_path / "pacs")
    node = RunningNode(tmp_path / "node", pacs.peer)
    pacs.start()
    try:
        node.start()
        assert node.program.process is not None
        for pid in _children(node.program.process.pid):
            os.kill(pid, signal.SIGKILL)
        node.send(phantom.series)
        uid = study_uid(phantom.series)
        row = node.wait_for(uid, (StudyState.DELIVERED, StudyState.FAILED), PATIENCE_SECONDS)
        assert row.state is StudyState.DELIVERED, row.reason
        assert len(pacs.files(uid)) == 2
    finally:
        node.stop()
        pacs.stop()


def test_a_second_node_on_the_same_folder_is_refused(tmp_path: Path) -> None:
    first = RunningNode(tmp_path / "node", None)
    first.start()
    try:
        second = RunningNode(tmp_path / "other", None)
        second.config.write_text(second.config.read_text().replace(str(second.data_dir), str(first.data_dir)))
        second.program.start()
        assert second.program.process is not None
        assert second.program.process.wait(60) == 1
        assert "another node uses" in second.program.log.read_text()
    finally:
        first.stop()


def _children(pid: int) -> list[int]:
    until = time.monotonic() + 10
    while True:
        found = [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
        if len(found) >= 2 or time.monotonic() > until:
            return found
        time.sleep(0.1)


def _alive(pid: int) -> bool:
    try:
        return "State:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return False
