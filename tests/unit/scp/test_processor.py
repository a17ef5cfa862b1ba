import ctypes
import os
import platform
import struct
import threading

import pytest

from dicom_node.scp import processor
from dicom_node.scp.processor import ask_for_short_turns

#: sched_getattr.
CALLS = {"x86_64": 315, "aarch64": 275}


def of_this_thread() -> tuple[int, int]:
    """Its nice value, and its turns in nanoseconds."""
    read = ctypes.create_string_buffer(48)
    assert ctypes.CDLL(None).syscall(CALLS[platform.machine()], 0, read, 48, 0) == 0
    _, _, _, nice, _, turn, _, _ = struct.unpack("=IIQiIQQQ", read.raw)
    return nice, turn


def in_a_thread(deed: object) -> list[object]:
    """What it returns, in a thread that lives no longer."""
    came: list[object] = []
    thread = threading.Thread(target=lambda: came.append(deed()))  # type: ignore[operator]
    thread.start()
    thread.join()
    return came


@pytest.mark.skipif(platform.machine() not in CALLS, reason="the calls of this machine are not known")
def test_a_thread_gets_short_turns_for_itself_alone_and_stays_as_nice_as_it_was() -> None:
    before = of_this_thread()

    def ask() -> tuple[bool, tuple[int, int]]:
        return ask_for_short_turns(), of_this_thread()

    ((taken, (nice, turn)),) = in_a_thread(ask)  # type: ignore[misc]
    assert taken
    assert nice == before[0] == os.getpriority(os.PRIO_PROCESS, 0)
    # Kernels before 6.12 say nothing of turns.
    assert turn in (0, 100_000)
    assert of_this_thread() == before


def test_a_machine_whose_calls_are_not_known_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processor, "_CALLS", {})
    assert not ask_for_short_turns()
