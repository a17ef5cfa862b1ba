"""A supervisor and its parts: started in order, begun again when they die, stopped in reverse."""

import pytest

from dicom_node.core.errors import NodeError
from dicom_node.parts import Part, Served, Supervisor


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
