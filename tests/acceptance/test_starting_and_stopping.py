"""`dicom-node serve` starts whole, watches its parts, and ends in order."""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from deploy.rig import ReceiveOnlyNode, RunningNode
from dicom_node.core.lifecycle import StudyState
from tests.acceptance.conftest import PATIENCE_SECONDS, study_uid


@dataclass(frozen=True)
class Rig:
    """A node, and a PACS that is our own receiver: the way that the demo goes where no Orthanc is installed."""

    node: RunningNode
    pacs: ReceiveOnlyNode

    @property
    def process(self) -> subprocess.Popen[bytes]:
        """The node's own one."""
        assert self.node.program.process is not None
        return self.node.program.process


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    """Both, the node not started."""
    folder = tmp_path_factory.mktemp("rig")
    pacs = ReceiveOnlyNode(folder / "pacs")
    pacs.start()
    rig = Rig(RunningNode(folder / "node", pacs.peer), pacs)
    yield rig
    rig.node.stop()
    pacs.stop()


@pytest.fixture
def rig(pair: Rig) -> Rig:
    """Both, started; a test may end the node."""
    process = pair.node.program.process
    if process is None or process.poll() is not None:
        pair.node.start()
    return pair


def test_redis_and_worker_are_started_again_when_they_die_and_the_next_study_is_read(
    rig: Rig, part_of_phantom: Callable[..., Path]
) -> None:
    killed = _children(rig.process.pid)
    for pid in killed:
        os.kill(pid, signal.SIGKILL)
    series = part_of_phantom()
    rig.node.send(series)
    uid = study_uid(series)
    row = rig.node.wait_for(uid, (StudyState.DELIVERED, StudyState.FAILED), PATIENCE_SECONDS)
    assert row.state is StudyState.DELIVERED, row.reason
    assert len(rig.pacs.files(uid)) == 2
    assert len(set(_children(rig.process.pid)) - set(killed)) == 2


def test_a_second_node_on_the_same_folder_is_refused(rig: Rig, tmp_path: Path) -> None:
    second = RunningNode(tmp_path / "other", None)
    second.config.write_text(second.config.read_text().replace(str(second.data_dir), str(rig.node.data_dir)))
    second.program.start()
    assert second.program.process is not None
    assert second.program.process.wait(60) == 1
    assert "another node uses" in second.program.log.read_text()
    assert rig.process.poll() is None


@pytest.fixture
def begun(pair: Rig) -> Rig:
    """Both, begun; the worker of a node that is started here may still be on its way."""
    process = pair.node.program.process
    if process is None or process.poll() is not None:
        pair.node.listen()
    return pair


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_every_process_in_order_and_without_a_fault(begun: Rig, number: signal.Signals) -> None:
    rig = begun
    children = _children(rig.process.pid)
    assert len(children) == 2, "redis and one worker"
    said = len(rig.node.program.log.read_text())
    rig.process.send_signal(number)
    assert rig.process.wait(60) == 0
    assert not [pid for pid in children if _alive(pid)]
    stopped = [
        line.split('"part": "')[1].split('"')[0]
        for line in rig.node.program.log.read_text()[said:].splitlines()
        if '"a part stopped"' in line
    ]
    inner = ["stocktaking", "retention", "dispatch", "leases", "assembly", "commitment", "delivery to pacs", "delivery"]
    assert stopped == ["receiver", "promises", "web", "keying", "patience", *inner, "worker", "redis"]


def test_a_node_that_is_killed_leaves_no_process_behind(begun: Rig) -> None:
    rig = begun
    children = _children(rig.process.pid)
    assert len(children) == 2, "redis and one worker"
    rig.process.kill()
    rig.process.wait()
    until = time.monotonic() + 60
    while any(_alive(pid) for pid in children) and time.monotonic() < until:
        time.sleep(0.1)
    assert not [pid for pid in children if _alive(pid)]


def _children(pid: int) -> list[int]:
    until = time.monotonic() + 60
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
