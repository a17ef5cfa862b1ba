"""What a receiver costs: CPU seconds a gigabyte of CT slices, of it and of all it starts.

Receivers are started and sent to as the comparison does it, which lies beside this repository.
"""

import importlib.util
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType

from deploy.processes import descendants, process

#: Makes the command of a receiver that listens on a port and keeps below a folder.
CommandFor = Callable[[int, str], Sequence[str]]


def comparison_at(path: Path) -> ModuleType:
    """The comparison's own functions."""
    specification = importlib.util.spec_from_file_location(path.stem, path)
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def cpu_seconds_per_gigabyte(comparison: ModuleType, command_for: CommandFor, folders: Sequence[str]) -> float:
    """Start a receiver, send it these folders, each by an association of its own, and end it."""
    work, port = tempfile.mkdtemp(prefix="receiver-cost-"), comparison.free_port()
    data = Path(work, "data")
    data.mkdir()
    with Path(work, "log").open("wb") as log:
        command = command_for(port, str(data))
        receiver = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
    try:
        comparison.wait_for(port, receiver)
        time.sleep(1.0)
        before = cpu_seconds(receiver.pid)
        load = str(Path(comparison.HERE, "cstore_load.py"))
        subprocess.run([sys.executable, load, str(port), "BENCH", *folders], capture_output=True, check=True)
        # What is still to be done for what was answered counts, too.
        time.sleep(1.0)
        sent_bytes = sum(file.stat().st_size for folder in folders for file in Path(folder).iterdir())
        return (cpu_seconds(receiver.pid) - before) / sent_bytes * 1e9
    finally:
        comparison.end(receiver)
        shutil.rmtree(work, ignore_errors=True)


def cpu_seconds(pid: int) -> float:
    """CPU time of a process so far, of what it started, and of what of that has ended."""
    itself = process(pid)
    return sum(each.cpu_seconds for each in (*([itself] if itself else []), *descendants(pid)))
