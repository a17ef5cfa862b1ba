"""Processes of this machine, as the kernel lists them: who descends from whom, what each is, how large it is."""

import os
import signal
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, kw_only=True)
class Process:
    """A process as it was a moment ago."""

    pid: int
    parent: int
    #: Its arguments, joined by spaces.
    command: str
    #: R, S, D, T (stopped), Z (ended, and nobody has asked for its status).
    state: str
    resident_bytes: int
    #: Seconds of processor time that it has used, its ended children's included.
    cpu_seconds: float


def process(pid: int) -> Process | None:
    """The process of this number, or None where there is none any more."""
    folder = Path("/proc") / str(pid)
    try:
        # The name, in brackets, may hold spaces: what follows the last bracket does not.
        fields = (folder / "stat").read_text().rpartition(")")[2].split()
        command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    except (OSError, IndexError):
        return None
    return Process(
        pid=pid,
        parent=int(fields[1]),
        command=command,
        state=fields[0],
        resident_bytes=int(fields[21]) * _PAGE_BYTES,
        cpu_seconds=sum(map(int, fields[11:15])) / _TICKS,
    )


def descendants(pid: int) -> list[Process]:
    """Everything that descends from a process and has not ended, itself not."""
    found, parents = [], {pid}
    remaining = {each.pid: each for each in _all() if each.state != "Z"}
    while parents:
        children = [each for each in remaining.values() if each.parent in parents]
        found += children
        parents = {child.pid for child in children}
        for child in parents:
            del remaining[child]
    return found


def holders(text: str) -> list[Process]:
    """Every process in whose environment or arguments this text stands, without this one."""
    return [each for each in _all() if each.pid != os.getpid() and (text in each.command or text in _environment(each))]


def tell(pid: int, number: signal.Signals) -> bool:
    """Send a signal; False where there is no such process any more."""
    with suppress(ProcessLookupError):
        os.kill(pid, number)
        return True
    return False


def _environment(each: Process) -> str:
    try:
        return (Path("/proc") / str(each.pid) / "environ").read_bytes().decode(errors="replace")
    except OSError:
        return ""


def _all() -> Iterator[Process]:
    for name in os.listdir("/proc"):
        if name.isdigit() and (found := process(int(name))) is not None:
            yield found
