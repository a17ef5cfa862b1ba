import ctypes
import errno
import os
import platform
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from dicom_node.archive import disk
from dicom_node.archive.disk import wait_for


def opened(folder: Path, count: int) -> list[int]:
    return [os.open(folder / str(number), os.O_WRONLY | os.O_CREAT) for number in range(count)]


@pytest.fixture
def plainly(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """What was waited for by a call of its own."""
    waited: list[int] = []
    fsync = os.fsync

    def noted(descriptor: int) -> None:
        waited.append(descriptor)
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", noted)
    return waited


def test_files_and_directories_are_waited_for_at_once(tmp_path: Path, plainly: list[int]) -> None:
    descriptors = [*opened(tmp_path, 3), os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)]
    for _ in range(3):
        wait_for(descriptors)
    assert plainly == []
    list(map(os.close, descriptors))


def test_one_alone_or_very_many_are_waited_for_one_after_the_other(tmp_path: Path, plainly: list[int]) -> None:
    descriptors = opened(tmp_path, 9)
    wait_for(descriptors[:1])
    wait_for(descriptors)
    assert plainly == [descriptors[0], *descriptors]
    list(map(os.close, descriptors))


def test_what_cannot_be_on_the_disk_is_an_error_whichever_it_is(tmp_path: Path) -> None:
    descriptors = opened(tmp_path, 2)
    reading, writing = os.pipe()
    for place in range(3):
        with pytest.raises(OSError, match="Invalid argument") as caught:
            wait_for([*descriptors[:place], reading, *descriptors[place:]])
        assert caught.value.errno == errno.EINVAL
    os.close(descriptors[1])
    with pytest.raises(OSError, match="Bad file descriptor"):
        wait_for(descriptors)
    list(map(os.close, (descriptors[0], reading, writing)))


def test_an_error_of_the_disk_itself_is_told(tmp_path: Path) -> None:
    """A disk that fails is not to be had here: the kernel's answer is given by hand."""
    waits = disk._Waits(disk._CALLS[platform.machine()])
    descriptors = opened(tmp_path, 2)
    waits.have(descriptors)

    def answer(_number: int, _queue: object, _least: object, _most: object, events: Any, _timeout: None) -> int:
        wait(_number, _queue, _least, _most, events, _timeout)
        events[1].result = -errno.EIO
        return 2

    waits._wait, wait = answer, waits._wait
    with pytest.raises(OSError, match="Input/output error"):
        waits.have(descriptors)
    waits._wait = wait
    waits.have(descriptors)
    list(map(os.close, descriptors))


def test_a_wait_that_a_signal_breaks_off_goes_on(tmp_path: Path) -> None:
    waits = disk._Waits(disk._CALLS[platform.machine()])
    descriptors = opened(tmp_path, 2)
    answers = iter([True, False])

    def answer(*arguments: Any) -> int:
        if next(answers):
            ctypes.set_errno(errno.EINTR)
            return -1
        return wait(*arguments)

    waits._wait, wait = answer, waits._wait
    waits.have(descriptors)
    assert next(answers, None) is None
    list(map(os.close, descriptors))


@pytest.mark.parametrize("end", [KeyboardInterrupt(), -1], ids=["broken off", "no answer"])
def test_answers_that_were_not_taken_are_those_of_no_later_wait(
    tmp_path: Path, plainly: list[int], end: KeyboardInterrupt | int
) -> None:
    waits = disk._Waits(disk._CALLS[platform.machine()])
    descriptors = opened(tmp_path, 2)

    def answer(*_arguments: Any) -> int:
        if isinstance(end, KeyboardInterrupt):
            raise end
        ctypes.set_errno(errno.EINVAL)
        return end

    waits._wait, wait = answer, waits._wait
    with pytest.raises((KeyboardInterrupt, OSError)):
        waits.have(descriptors)
    waits._wait = wait
    assert plainly == []
    waits.have(descriptors)
    assert plainly == descriptors
    list(map(os.close, descriptors))


def test_a_kernel_without_such_requests_waits_one_after_the_other(tmp_path: Path, plainly: list[int]) -> None:
    descriptors = opened(tmp_path, 2)
    # A number that no call has.
    without = disk._Waits((99_999, 99_999, 99_999))
    for _ in range(2):
        without.have(descriptors)
    assert plainly == descriptors * 2
    list(map(os.close, descriptors))


def test_who_is_not_alone_waits_one_after_the_other(tmp_path: Path, plainly: list[int]) -> None:
    waits = disk._Waits(disk._CALLS[platform.machine()])
    descriptors = opened(tmp_path, 4)
    wait = waits._wait

    def while_another_comes(*arguments: Any) -> int:
        waits.have(descriptors[2:])
        return wait(*arguments)

    waits._wait = while_another_comes
    waits.have(descriptors[:2])
    assert plainly == descriptors[2:]
    list(map(os.close, descriptors))


def test_many_threads_wait_beside_each_other(tmp_path: Path) -> None:
    descriptors = opened(tmp_path, 16)
    pairs = [descriptors[at : at + 2] for at in range(0, 16, 2)] * 8
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(wait_for, pairs))
    list(map(os.close, descriptors))


def test_the_child_of_a_fork_asks_the_kernel_anew(tmp_path: Path, plainly: list[int]) -> None:
    waits = disk._Waits(disk._CALLS[platform.machine()])
    descriptors = opened(tmp_path, 2)
    waits.have(descriptors)
    of_parent, waits._process = waits._queue, 0
    waits.have(descriptors)
    assert waits._queue is not of_parent
    assert plainly == []
    list(map(os.close, descriptors))
