"""A part that is a process: watched, begun again, and never left behind."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from dicom_node.core.errors import NodeError
from dicom_node.parts import ChildProcess, Supervisor
from tests.conftest import ROOT
from tests.waiting import runs, wait_until


@pytest.fixture
def children() -> Iterator[list[ChildProcess]]:
    started: list[ChildProcess] = []
    yield started
    for child in started:
        child.stop()


def shell(children: list[ChildProcess], script: str, **options: object) -> ChildProcess:
    child = ChildProcess("child", ["/bin/sh", "-c", script], **options)  # type: ignore[arg-type]  # a test's own keywords
    children.append(child)
    return child


def test_a_child_runs_with_what_is_added_to_its_environment_until_it_is_stopped(
    children: list[ChildProcess], tmp_path: Path
) -> None:
    said = tmp_path / "said"
    child = shell(
        children,
        f'echo "$WORD $HOME" > {said}.new; mv {said}.new {said}; sleep 600',
        environment={"WORD": "hello"},
        ready=said.exists,
    )
    assert not child.alive()
    child.start()
    assert child.alive()
    assert said.read_text() == f"hello {os.environ['HOME']}\n"
    pid = child.pid
    assert pid is not None
    child.stop()
    assert not child.alive()
    assert child.pid is None
    assert not runs(pid)
    child.stop()


def test_a_child_that_ends_while_it_starts_is_an_error_with_its_status(children: list[ChildProcess]) -> None:
    with pytest.raises(NodeError, match="child ended with status 3 while it started"):
        shell(children, "exit 3", ready=lambda: False).start()


def test_a_child_that_is_never_ready_is_stopped_and_named(children: list[ChildProcess]) -> None:
    ended: list[int] = []
    child = shell(children, "sleep 600", ready=lambda: False, ready_seconds=0.1, on_exit=ended.append)
    with pytest.raises(NodeError, match="child was not ready within 0 s"):
        child.start()
    assert len(ended) == 1
    assert not runs(ended[0])


def test_a_child_that_does_not_end_when_asked_is_killed(children: list[ChildProcess], tmp_path: Path) -> None:
    deaf = tmp_path / "deaf"
    ignore = "import signal, pathlib, time; signal.signal(signal.SIGTERM, signal.SIG_IGN)"
    script = f"{ignore}; pathlib.Path({str(deaf)!r}).touch(); time.sleep(600)"
    child = ChildProcess("child", [sys.executable, "-c", script], ready=deaf.exists, stop_seconds=0.2)
    children.append(child)
    child.start()
    pid = child.pid
    assert pid is not None
    child.stop()
    assert not runs(pid)


def test_a_childs_own_children_end_with_it_also_when_they_are_deaf(
    children: list[ChildProcess], tmp_path: Path
) -> None:
    number = tmp_path / "pid"
    child = shell(
        children,
        f"(trap '' TERM; while :; do sleep 1; done) & echo $! > {number}.new; mv {number}.new {number}; wait",
        ready=number.exists,
    )
    child.start()
    grandchild = int(number.read_text())
    assert runs(grandchild)
    child.stop()
    wait_until(lambda: not runs(grandchild))


def test_a_child_that_dies_is_seen_and_started_again_and_told_of_once(children: list[ChildProcess]) -> None:
    ended: list[int] = []
    child = shell(children, "exec sleep 600", on_exit=ended.append)
    supervisor = Supervisor([child])
    supervisor.start()
    first = child.pid
    assert first is not None
    os.kill(first, signal.SIGKILL)
    wait_until(lambda: not child.alive())
    supervisor.watch()
    assert child.alive()
    assert child.pid != first
    assert ended == [first]
    second = child.pid
    supervisor.stop()
    assert ended == [first, second]


def test_a_program_that_does_not_exist_is_an_error_of_the_start_alone() -> None:
    child = ChildProcess("child", ["/no/such/program"])
    with pytest.raises(OSError, match="/no/such/program"):
        child.start()
    assert not child.alive()
    child.stop()


_PARENT = """
import pathlib, sys, time
from dicom_node.parts import ChildProcess
child = ChildProcess("sleep", ["sleep", "600"])
child.start()
file = pathlib.Path(sys.argv[1])
file.with_suffix(".new").write_text(str(child.pid))
file.with_suffix(".new").rename(file)
time.sleep(600)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux ends children with a killed parent")
def test_a_child_ends_also_with_a_parent_that_was_killed(tmp_path: Path) -> None:
    number = tmp_path / "pid"
    parent = subprocess.Popen([sys.executable, "-c", _PARENT, str(number)], cwd=ROOT)
    wait_until(number.exists)
    child = int(number.read_text())
    wait_until(lambda: Path(f"/proc/{child}/comm").read_text() == "sleep\n")
    parent.kill()
    parent.wait()
    wait_until(lambda: not runs(child))
