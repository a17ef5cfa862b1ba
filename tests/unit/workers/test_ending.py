"""A worker that was asked to end, or whose node is gone."""

import os
import signal
from collections.abc import Mapping, Sequence
from typing import Any

from workers.ending import Ending
from workers.heartbeat import FAULTY


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
