import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dicom_node.core.errors import NodeError
from dicom_node.parts import ChildProcess, Part, Periodic, Served, Supervisor
from tests.conftest import ROOT

PATIENCE_SECONDS = 20.0


class Recorder:
    """A part that tells what is done to it, and can die or refuse to start."""

    def __init__(self, name: str, diary: list[str], *, fails: bool = False) -> None:
        self.name, self.diary, self.fails, self.lives = name, diary, fails, False

    def start(self) -> None:
        self.diary.append(f"start {self.name}")
        if self.fails:
            raise NodeError(f"{self.name} cannot start")
        self.lives = True

    def alive(self) -> bool:
        return self.lives

    def stop(self) -> None:
        self.diary.append(f"stop {self.name}")
        self.lives = False


def wait_until(condition: Callable[[], bool]) -> None:
    until = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < until, "it did not happen"
        time.sleep(0.01)


def runs(pid: int) -> bool:
    """Whether a process runs; one that has ended but was not waited for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_parts_start_in_order_and_stop_in_reverse() -> None:
    diary: list[str] = []
    supervisor = Supervisor([Recorder(name, diary) for name in "abc"])
    supervisor.start()
    assert supervisor.health() == {"a": True, "b": True, "c": True}
    supervisor.stop()
    assert diary == ["start a", "start b", "start c", "stop c", "stop b", "stop a"]
    supervisor.stop()
    assert len(diary) == 6


def test_when_one_cannot_start_those_before_it_are_stopped_and_its_error_is_raised() -> None:
    diary: list[str] = []
    parts: list[Part] = [
        Recorder("a", diary),
        Recorder("b", diary),
        Recorder("c", diary, fails=True),
        Recorder("d", diary),
    ]
    with pytest.raises(NodeError, match="c cannot start"):
        Supervisor(parts).start()
    assert diary == ["start a", "start b", "start c", "stop b", "stop a"]


def test_a_dispensable_part_that_cannot_start_holds_nobody_up_and_is_tried_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    now = [0.0]
    diary: list[str] = []
    broker = Recorder("broker", diary, fails=True)
    supervisor = Supervisor([broker, Recorder("b", diary)], lambda: now[0], dispensable={"broker"})
    supervisor.start()
    assert supervisor.health() == {"broker": False, "b": True}
    assert vars(caplog.records[0])["reason"] == "broker cannot start"
    for _ in range(4):
        supervisor.watch()
        now[0] += 0.5
    assert diary.count("start broker") == 3, "at once, and after a second"
    broker.fails = False
    for _ in range(2):
        supervisor.watch()
        now[0] += 2
    assert supervisor.health() == {"broker": True, "b": True}
    supervisor.stop()
    assert diary[-2:] == ["stop b", "stop broker"]


def test_a_part_that_is_not_dispensable_is_never_gone_without() -> None:
    diary: list[str] = []
    supervisor = Supervisor([Recorder("a", diary), Recorder("b", diary, fails=True)], dispensable={"a"})
    with pytest.raises(NodeError, match="b cannot start"):
        supervisor.start()
    assert diary == ["start a", "start b", "stop a"]


def test_a_part_that_keeps_dying_is_started_again_after_waits_that_grow_to_a_longest() -> None:
    diary: list[str] = []
    now = [0.0]
    part = Recorder("a", diary)
    supervisor = Supervisor([part], clock=lambda: now[0])
    supervisor.start()
    waits = []
    for _ in range(9):
        part.lives = False
        died = now[0]
        while not part.lives:
            supervisor.watch()
            now[0] += 0 if part.lives else 0.5
        waits.append(now[0] - died)
    assert waits == [0, 1, 2, 4, 8, 16, 32, 60, 60]


def test_a_living_part_is_left_alone() -> None:
    diary: list[str] = []
    supervisor = Supervisor([Recorder("a", diary)])
    supervisor.start()
    for _ in range(3):
        supervisor.watch()
    assert diary == ["start a"]


def test_a_part_that_cannot_be_started_again_is_tried_again_and_the_others_go_on() -> None:
    diary: list[str] = []
    now = [0.0]
    first, second = Recorder("a", diary), Recorder("b", diary)
    supervisor = Supervisor([first, second], clock=lambda: now[0])
    supervisor.start()
    first.fails, first.lives, second.lives = True, False, False
    supervisor.watch()
    assert supervisor.health() == {"a": False, "b": True}
    first.fails = False
    supervisor.watch()
    now[0] += 1
    supervisor.watch()
    assert supervisor.health() == {"a": True, "b": True}


def test_a_part_that_had_started_well_is_started_again_at_once_however_often_it_is_killed() -> None:
    now = [0.0]
    part = Recorder("a", [])
    supervisor = Supervisor([part], clock=lambda: now[0])
    supervisor.start()
    for _ in range(4):
        part.lives = False
        supervisor.watch()
        now[0] += 10
        supervisor.watch()
        assert part.lives, "it has died soon after its start, and waited"
    for _ in range(9):
        now[0] += Supervisor.SETTLED_AFTER
        part.lives = False
        supervisor.watch()
        assert part.lives, "as at a first death, without a wait"
    now[0] += Supervisor.SETTLED_AFTER - 0.1
    part.lives = False
    supervisor.watch()
    assert not part.lives, "a second death in a row"
    now[0] += Supervisor.FIRST_WAIT
    supervisor.watch()
    assert part.lives


def test_a_part_that_takes_long_to_fail_its_start_has_not_lived() -> None:
    now = [0.0]
    diary: list[str] = []

    class Slow(Recorder):
        """Needs longer to find out that it cannot start than one that started well must live."""

        def start(self) -> None:
            now[0] += 30
            super().start()

    part = Slow("a", diary)
    supervisor = Supervisor([part], clock=lambda: now[0])
    supervisor.start()
    part.fails, part.lives = True, False
    waits = []
    for attempt in range(2, 8):
        ended = now[0]
        while len(diary) < attempt:
            supervisor.watch()
            now[0] += 0 if len(diary) == attempt else 0.5
        waits.append(now[0] - 30 - ended)
    assert waits == [0, 1, 2, 4, 8, 16]


def test_a_served_object_is_a_part() -> None:
    diary: list[str] = []
    inner = Recorder("inner", diary)
    part = Served("outer", inner.start, inner.alive, inner.stop)
    part.start()
    assert part.alive()
    part.stop()
    assert (part.name, part.alive(), diary) == ("outer", False, ["start inner", "stop inner"])


class Restless(Periodic):
    """Does not rest after a failed round, so that a test need not either."""

    REST_SECONDS = 0.0


@pytest.mark.parametrize("error", [NodeError("no"), OSError("no"), OverflowError("a defect")])
def test_rounds_go_on_after_one_that_failed(error: Exception) -> None:
    rounds: list[int] = []

    def step() -> None:
        rounds.append(len(rounds))
        if len(rounds) == 1:
            raise error

    part = Restless("work", step, 0.0)
    part.start()
    wait_until(lambda: len(rounds) > 2)
    assert part.alive()
    part.stop()
    assert not part.alive()
    after = len(rounds)
    time.sleep(0.02)
    assert len(rounds) == after


def test_who_is_woken_begins_the_next_round_at_once() -> None:
    rounds: list[int] = []
    part = Periodic("work", lambda: rounds.append(1), 3600.0)
    part.start()
    wait_until(lambda: len(rounds) == 1)
    part.wake()
    wait_until(lambda: len(rounds) == 2)
    part.stop()


def test_who_is_woken_during_a_round_begins_another_after_it() -> None:
    begun, go_on = threading.Event(), threading.Event()
    rounds: list[int] = []

    def step() -> None:
        rounds.append(1)
        begun.set()
        go_on.wait(PATIENCE_SECONDS)

    part = Periodic("work", step, 3600.0)
    part.start()
    assert begun.wait(PATIENCE_SECONDS)
    part.wake()
    go_on.set()
    wait_until(lambda: len(rounds) == 2)
    part.stop()
    assert len(rounds) == 2


def test_a_stop_does_not_wait_for_the_next_round() -> None:
    begun = threading.Event()
    part = Periodic("work", begun.set, 3600.0)
    part.start()
    assert begun.wait(PATIENCE_SECONDS)
    before = time.monotonic()
    part.stop()
    assert time.monotonic() - before < 5
    assert not part.alive()


def test_a_stop_does_not_wait_for_the_rest_after_a_failed_round() -> None:
    begun = threading.Event()

    def step() -> None:
        begun.set()
        raise NodeError("no")

    part = Periodic("work", step, 0.0)
    part.REST_SECONDS = 3600.0
    part.start()
    assert begun.wait(PATIENCE_SECONDS)
    part.stop()
    assert not part.alive()


def test_a_stop_lets_the_round_in_progress_finish() -> None:
    begun, go_on, finished = threading.Event(), threading.Event(), threading.Event()

    def step() -> None:
        begun.set()
        go_on.wait(PATIENCE_SECONDS)
        finished.set()

    part = Periodic("work", step, 3600.0)
    part.start()
    assert begun.wait(PATIENCE_SECONDS)
    threading.Timer(0.05, go_on.set).start()
    part.stop()
    assert finished.is_set()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")  # that is what is tested
def test_rounds_that_end_all_the_same_are_seen_and_begun_again() -> None:
    rounds: list[int] = []

    def step() -> None:
        rounds.append(len(rounds))
        if len(rounds) == 1:
            raise SystemExit

    part = Periodic("work", step, 0.0)
    supervisor = Supervisor([part])
    supervisor.start()
    wait_until(lambda: not part.alive())
    supervisor.watch()
    wait_until(lambda: len(rounds) > 1)
    assert supervisor.health() == {"work": True}
    supervisor.stop()


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
