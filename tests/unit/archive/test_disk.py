import errno
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

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


def test_an_error_of_the_disk_itself_is_told() -> None:
    """A disk that fails is not to be had here: the kernel's answer is given by hand."""
    waits = disk._waits()
    assert waits is not None
    queue = waits._queue()
    assert queue is not None

    def answer(_number: int, _queue: object, _least: object, _most: object, events: object, _timeout: None) -> int:
        assert events is queue.events
        for event, result in zip(queue.events, (0, -errno.EIO), strict=False):
            event.result = result
        return 2

    waits._wait, wait = answer, waits._wait
    try:
        assert waits._answers(queue, 2) == [errno.EIO]
    finally:
        waits._wait = wait
        waits._idle.append(queue)


def test_a_kernel_without_such_requests_waits_one_after_the_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, plainly: list[int]
) -> None:
    descriptors = opened(tmp_path, 2)
    # A number that no call has.
    without = disk._Waits((99_999, 99_999, 99_999, 99_999))
    monkeypatch.setattr(disk, "_waits", lambda: without)
    for _ in range(2):
        wait_for(descriptors)
    assert plainly == descriptors * 2
    list(map(os.close, descriptors))


def test_many_threads_wait_beside_each_other(tmp_path: Path, plainly: list[int]) -> None:
    descriptors = opened(tmp_path, 16)
    pairs = [descriptors[at : at + 2] for at in range(0, 16, 2)] * 8
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(wait_for, pairs))
    assert plainly == []
    list(map(os.close, descriptors))


def test_the_child_of_a_fork_asks_the_kernel_anew(tmp_path: Path) -> None:
    descriptors = opened(tmp_path, 2)
    wait_for(descriptors)
    waits = disk._waits()
    assert waits is not None
    waits._process = 0  # as a child of this process finds it
    known = list(waits._idle)
    wait_for(descriptors)
    assert waits._idle[-1] not in known
    list(map(os.close, descriptors))
