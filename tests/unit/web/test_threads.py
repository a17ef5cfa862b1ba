"""Threads that answer: also where none can be begun, and whatever a deed raises."""

import asyncio
import threading

import pytest

from dicom_node.web.threads import Threads


def stop() -> None:
    raise StopIteration


def test_a_thread_that_cannot_be_begun_costs_one_answer_and_no_place(monkeypatch: pytest.MonkeyPatch) -> None:
    threads, done = Threads(2, "test"), []

    def refuse(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    async def ask() -> int:
        return await threads.run(lambda: 7, done=lambda: done.append(1))

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        for _ in range(3):
            with pytest.raises(RuntimeError):
                asyncio.run(ask())
    assert len(done) == 3
    assert [asyncio.run(asyncio.wait_for(ask(), 10)) for _ in range(5)] == [7] * 5
    assert len(done) == 8


def test_a_deed_that_ends_by_stop_iteration_ends_the_wait_for_it() -> None:
    threads = Threads(1, "test")
    with pytest.raises(RuntimeError):
        asyncio.run(asyncio.wait_for(threads.run(stop), 10))
