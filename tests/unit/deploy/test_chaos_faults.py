"""A fault counts as hit only when what it is done to is there."""

import socket
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import pytest

from deploy.chaos_faults import CountingProxy, Faults, pid_of
from deploy.chaos_plan import Act, PlannedFault, Target
from deploy.processes import Process


def process(pid: int, command: str, parent: int = 1, resident_bytes: int = 1) -> Process:
    return Process(pid=pid, parent=parent, command=command, state="S", resident_bytes=resident_bytes, cpu_seconds=0.0)


WORKER = process(2, "python -m workers work --node 1")


def test_no_other_child_of_the_worker_is_taken_for_its_reading_process() -> None:
    other = process(3, "python -c from multiprocessing.resource_tracker import main", parent=2, resident_bytes=100)
    assert pid_of(Target.CHILD, [WORKER, other]) is None
    reading = process(4, "python -m workers.reading_loop 7 2", parent=2)
    assert pid_of(Target.CHILD, [WORKER, other, reading]) == 4


@pytest.mark.parametrize("act", [Act.STALL, Act.REFUSE])
@pytest.mark.parametrize("called", [True, False])
def test_a_broken_wire_hits_only_whom_it_meets(act: Act, called: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("deploy.chaos_faults._TARGET_SECONDS", 10.0 if called else 0.2)
    fault = PlannedFault(number=1, target=Target.OUTGOING, act=act, at=0.0, seconds=0.1, after_bytes=1)
    said: list[str] = []
    with socket.create_server(("127.0.0.1", 0)) as server:
        proxy = CountingProxy(server.getsockname()[1])
        proxy.start()
        site: Any = SimpleNamespace(outgoing=proxy)
        faults = Faults(site, since_start=lambda: 5.0, say=said.append)
        faults.begin(fault)
        with socket.create_connection(("127.0.0.1", proxy.port)) if called else nullcontext():
            (one,) = faults.wait()
        proxy.stop()
    assert one.hit_at == (5.0 if called else None)
    assert ("found nothing" in said[0]) is not called
