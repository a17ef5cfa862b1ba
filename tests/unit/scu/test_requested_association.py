"""An association that we ask for: its threads rest, and hear at once of what there is to do."""

import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
from pydicom import dcmread
from pynetdicom.association import Association

from dicom_node.scu.association import ProposedContext, association
from dicom_node.scu.requested_association import LOOK_SECONDS, Checkpoint
from dicom_node.settings import Peer
from tests.factories import ct_series
from tests.peers import CT, Behaviour, storage_peer

SECONDS = 10.0


class Paused:
    """What an association is to the thread that pauses."""

    def __init__(self) -> None:
        self.messages: deque[object] = deque()
        self.dimse = SimpleNamespace(msg_queue=SimpleNamespace(queue=self.messages))
        self.dul = SimpleNamespace(to_user_queue=SimpleNamespace(queue=deque[object]()), is_alive=lambda: True)
        self._is_paused = self._kill = False


def test_a_thread_that_pauses_says_so_again_when_another_takes_it_back() -> None:
    paused = Paused()
    checkpoint = Checkpoint(cast(Association, paused))
    assert checkpoint.is_set(), "nobody is held up before somebody asks for it"
    checkpoint.clear()
    thread = threading.Thread(target=checkpoint.wait)
    thread.start()
    for _ in range(3):
        paused._is_paused = False
        end = time.monotonic() + SECONDS
        while not paused._is_paused:
            assert time.monotonic() < end
            time.sleep(0.001)
    checkpoint.set()
    thread.join(SECONDS)
    assert not thread.is_alive()


def test_a_thread_that_is_held_up_again_before_it_ran_stays() -> None:
    paused = Paused()
    checkpoint = Checkpoint(cast(Association, paused))
    checkpoint.clear()
    thread = threading.Thread(target=checkpoint.wait)
    thread.start()
    time.sleep(0.01)
    paused._is_paused = True
    checkpoint.set()
    checkpoint.clear()
    time.sleep(0.01)
    # Of one that was quicker, the word is taken back.
    assert thread.is_alive() or not paused._is_paused, "it says that it pauses, and goes on"
    checkpoint.set()
    thread.join(SECONDS)
    assert not thread.is_alive()


def test_an_answer_is_its_senders_also_where_threads_run_late(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    rested = threading.Event.wait

    def late(event: threading.Event, timeout: float | None = None) -> bool:
        found = rested(event, timeout)
        if isinstance(event, Checkpoint):
            time.sleep(0.004)
        return found

    monkeypatch.setattr(threading.Event, "wait", late)
    dataset = dcmread(ct_series(tmp_path, slices=1)[0])
    with storage_peer(Behaviour()) as peer, asked(peer) as assoc:
        answers = [assoc.send_c_store(dataset) for _ in range(20)]
    assert all(answer.Status == 0x0000 for answer in answers)


def test_a_message_that_waits_already_is_not_waited_for() -> None:
    paused = Paused()
    paused.messages.append("a message")
    checkpoint = Checkpoint(cast(Association, paused))
    assert fastest(checkpoint.wait) < LOOK_SECONDS / 2


def fastest(do: Callable[[], object]) -> float:
    """Seconds of the fastest of some times: a machine that is busy for a moment says nothing."""
    taken = []
    for _ in range(10):
        began = time.monotonic()
        do()
        taken.append(time.monotonic() - began)
    return min(taken)


def asked(peer: Peer) -> AbstractContextManager[Association]:
    contexts = [ProposedContext(CT, ("1.2.840.10008.1.2.1",))]
    return association(peer, contexts, ae_title="TRIAGE", timeout_seconds=SECONDS)


def looks(thread: threading.Thread) -> int:
    """How often a thread has rested so far: each rest is a change of context that it asked for (proc(5))."""
    status = (Path("/proc/self/task") / str(thread.native_id) / "status").read_text()
    return int(status.partition("\nvoluntary_ctxt_switches:")[2].split()[0])


def test_the_threads_of_an_association_that_carries_nothing_look_seldom() -> None:
    with storage_peer(Behaviour()) as peer, asked(peer) as assoc:
        time.sleep(LOOK_SECONDS)
        threads = (assoc, assoc.dul)
        before = [looks(thread) for thread in threads]
        time.sleep(4 * LOOK_SECONDS)
        # A look of pynetdicom's own every millisecond would be a thousand.
        assert all(looks(thread) - earlier < 50 for thread, earlier in zip(threads, before, strict=True))


def test_an_association_begins_and_ends_without_waiting_for_a_look() -> None:
    def begin_and_end() -> None:
        with asked(peer):
            pass

    with storage_peer(Behaviour()) as peer:
        assert fastest(begin_and_end) < LOOK_SECONDS / 2


def test_nothing_of_an_association_is_left_open() -> None:
    with storage_peer(Behaviour()) as peer:
        for _ in range(3):
            with asked(peer):
                pass
        before = {each.name for each in Path("/proc/self/fd").iterdir()}
        for _ in range(10):
            with asked(peer):
                pass
        assert len({each.name for each in Path("/proc/self/fd").iterdir()}) <= len(before) + 2
