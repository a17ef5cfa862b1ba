"""A part that goes its rounds: woken, failing, stopped in the middle."""

import threading
import time

import pytest

from dicom_node.core.errors import NodeError
from dicom_node.parts import Periodic, Supervisor
from tests.waiting import PATIENCE_SECONDS, wait_until


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
