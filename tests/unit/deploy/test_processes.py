"""Processes are found by whom they descend from, and by what stands in their environment."""

import os
import signal
import subprocess
import sys
import time

from deploy.chaos_faults import pid_of
from deploy.chaos_plan import Target
from deploy.processes import Process, descendants, holders, process, tell

#: Starts another that sleeps, says that it did, and sleeps itself.
PARENT = """
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
print(child.pid, flush=True)
time.sleep(60)
"""


def listed(pid: int, parent: int, command: str, resident_bytes: int = 1) -> Process:
    return Process(pid=pid, parent=parent, command=command, state="S", resident_bytes=resident_bytes, cpu_seconds=0.0)


def test_a_process_is_known_by_its_state_and_its_descendants() -> None:
    environment = {**os.environ, "MARK": "held by this test alone"}
    with subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, env=environment) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        assert child in {each.pid for each in descendants(os.getpid())}
        assert {each.pid for each in holders("held by this test alone")} == {parent.pid, child}
        assert tell(child, signal.SIGSTOP)
        until = time.monotonic() + 5
        while (found := process(child)) and found.state != "T" and time.monotonic() < until:
            time.sleep(0.01)
        assert found is not None
        assert found.state == "T"
        assert found.resident_bytes > 1_000_000
        for pid in (child, parent.pid):
            tell(pid, signal.SIGKILL)
    assert process(parent.pid) is None
    assert not tell(parent.pid, signal.SIGKILL)


def test_a_target_is_found_among_the_nodes_processes() -> None:
    below = [
        listed(10, 1, "/usr/bin/redis-server unixsocket:/data/redis.sock"),
        listed(11, 1, "/usr/bin/python -m workers work --config node.toml"),
        listed(12, 11, "/usr/bin/python -c from multiprocessing.resource_tracker import main", resident_bytes=5),
        listed(13, 11, "/usr/bin/python -m workers.reading_loop 7 11", resident_bytes=900),
    ]
    assert pid_of(Target.REDIS, below) == 10
    assert pid_of(Target.WORKER, below) == 11
    assert pid_of(Target.CHILD, below) == 13
    assert pid_of(Target.CHILD, below[:2]) is None
    assert pid_of(Target.WORKER, below[:1]) is None
