"""The throughput of the machinery alone: tiny studies at a fixed rate through a node whose algorithm does nothing.

`python -m deploy.throughput --rate 20 --minutes 5`; exit status 0 only if the node kept pace and memory stayed flat.
"""

import argparse
import json
import os
import resource
import shutil
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path

from rich.console import Console
from rich.table import Table

from deploy.chaos_senders import STORESCU
from deploy.nothing import NAME, write_bundle
from deploy.processes import Process, descendants, process
from deploy.rig import LittlePacs, Program, ReceiveOnlyNode, RunningNode, clean
from deploy.throughput_studies import INSTANCES, STORESCP, STUDIES_PER_ASSOCIATION, Senders, Sink, Template
from dicom_node.core.errors import NodeError
from dicom_node.core.lifecycle import StudyState

OUTPUT = Path("bench-output") / "throughput"
#: Long enough for every study to come out once none goes in any more.
_PATIENCE_SECONDS = 60.0
#: What may remain behind the rate while sending: what is on its way, and a moment of the machine's own.
_ALLOWED_BACKLOG_SECONDS = 15.0
#: Growth of one process from the end of the first quarter to the end that still counts as flat.
_FLAT_BYTES, _FLAT_SHARE = 24 << 20, 0.10

_SETTINGS = """
[completeness]
quiet_seconds_when_whole = 1.0

[worker]
# The node's own worker has the real algorithms, and nothing to do here.
queues = ["stat"]
device = "cpu"
threads = 1
bundle_dirs = ["{bundles}"]

[[routes]]
name = "nothing at all"
algorithm = "nothing"
when = 'Modality == "CT"'
minimum_instances = 1
orientation = "any"
"""
#: A worker waits for the disk and for its reading process by turns: two of them keep two processors busy.
WORKERS = 2
#: What the senders cost: this process, and the programs that it starts for each association.
SENDERS = "senders"
_DONE = (StudyState.DELIVERED, StudyState.COMMITTED)
_READ = (StudyState.REPORTED, *_DONE)


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One look at the node."""

    #: Seconds since sending began.
    at: float
    accepted: int
    complete: int
    read: int
    delivered: int
    failed: int
    #: By name of the process.
    resident_bytes: Mapping[str, int]
    cpu_seconds: Mapping[str, float]


def main(arguments: Sequence[str] | None = None) -> int:
    """Send at a rate; 0 when the node kept pace with flat memory."""
    parser = argparse.ArgumentParser(prog="python -m deploy.throughput", description=main.__doc__)
    parser.add_argument("--rate", type=float, default=20.0, metavar="R", help="studies a second")
    parser.add_argument("--minutes", type=float, default=5.0, metavar="M")
    options = parser.parse_args(arguments)
    console = Console(width=None if sys.stdout.isatty() else 140, highlight=False)
    if shutil.which(STORESCU) is None:
        console.print("throughput: DCMTK's storescu is needed as the sender (Debian: dcmtk)", style="bold red")
        return 1
    clean(OUTPUT)
    try:
        samples = _measured(options.rate, options.minutes * 60.0, console)
    except NodeError as error:
        console.print(f"throughput: {error}", style="bold red")
        return 1
    (OUTPUT / "throughput.json").write_text(json.dumps([asdict(sample) for sample in samples], indent=2))
    console.print(_pace_table(samples))
    console.print(_process_table(samples))
    faults = faults_of(samples, options.rate, options.minutes * 60.0)
    for fault in faults:
        console.print(f"NOT SUSTAINED: {fault}", style="bold red")
    console.print(
        f"{options.rate:g} studies/s of {INSTANCES} instances for {options.minutes:g} min; {os.cpu_count()} CPUs"
    )
    console.print(f"the senders and the peer share the machine; {STUDIES_PER_ASSOCIATION} studies an association")
    return 1 if faults else 0


def _measured(rate: float, seconds: float, console: Console) -> list[Sample]:
    count = int(rate * seconds) // STUDIES_PER_ASSOCIATION * STUDIES_PER_ASSOCIATION
    console.print(f"writing {count} studies")
    template = Template(OUTPUT / "template")
    studies = [template.write(OUTPUT / "studies" / f"{number:06d}", number) for number in range(count)]
    batches = [
        [path for study in studies[start : start + STUDIES_PER_ASSOCIATION] for path in study]
        for start in range(0, count, STUDIES_PER_ASSOCIATION)
    ]
    bundles = OUTPUT / "bundles"
    write_bundle(bundles)
    pacs = Sink(OUTPUT / "pacs") if Path(STORESCP).exists() else ReceiveOnlyNode(OUTPUT / "pacs")
    node = RunningNode(OUTPUT / "node", pacs.peer, further_settings=_SETTINGS.format(bundles=bundles.resolve()))
    command = [sys.executable, "-m", "deploy.nothing_worker", "--config", str(node.config)]
    workers = [Program(command, OUTPUT / f"worker-{number}.log") for number in range(1, WORKERS + 1)]
    try:
        pacs.start()
        node.start()
        for worker in workers:
            worker.start()
        workers[0].wait_for("the workers that do nothing", lambda: _can_read(node) == len(workers), 120.0)
        senders = Senders(node.peer, batches, rate, OUTPUT)
        return _followed(node, workers, pacs, senders, count, console)
    finally:
        for worker in workers:
            worker.stop()
        node.stop()
        pacs.stop()


def _can_read(node: RunningNode) -> int:
    """How many workers have the algorithm."""
    titles = (title for row in node.index.workers.rows() for title in row.bundles)
    return sum(title.startswith(f"{NAME} ") for title in titles)


def _followed(
    node: RunningNode, workers: Sequence[Program], pacs: LittlePacs, senders: Senders, count: int, console: Console
) -> list[Sample]:
    """Send everything, and look at the node until all of it is delivered or patience ends."""
    began = time.monotonic()
    names = _names(node, workers, pacs)
    senders.start()
    samples = [_sample(node, senders, names(), 0.0)]
    ended: float | None = None
    while True:
        time.sleep(5.0 if ended is None else 1.0)
        now = time.monotonic() - began
        samples.append(_sample(node, senders, names(), now))
        if len(samples) % 6 == 1:
            last = samples[-1]
            figures = f"read {last.read}, delivered {last.delivered}, failed {last.failed}"
            console.print(f"{now:5.0f} s  accepted {last.accepted}, {figures}")
        if ended is None and not senders.running():
            ended = now
        if ended is not None and (samples[-1].delivered >= count or now - ended > _PATIENCE_SECONDS):
            return samples


def _names(node: RunningNode, workers: Sequence[Program], pacs: LittlePacs) -> Callable[[], dict[str, Process]]:
    """Looks up the processes that matter, by name."""
    programs = {"node": node.program, **{f"worker {n}": worker for n, worker in enumerate(workers, start=1)}}
    programs[pacs.name] = pacs.program

    def look() -> dict[str, Process]:
        found = {}
        for name, program in programs.items():
            if program.process is not None and (main_process := process(program.process.pid)) is not None:
                found[name] = main_process
                for child in descendants(main_process.pid):
                    found[_name_of(child, name)] = child
        return found

    return look


def _name_of(child: Process, parent: str) -> str:
    if "redis-server" in child.command:
        return "Redis"
    if "spawn_main" in child.command or "reading" in child.command:
        return f"{parent}: reading process"
    return f"{parent}: idle worker" if "workers work" in child.command else f"{parent}: {child.command[-30:]}"


def _sample(node: RunningNode, senders: Senders, found: Mapping[str, Process], at: float) -> Sample:
    counts = node.index.studies.counts()
    memory = {name: each.resident_bytes for name, each in found.items()}
    used = {name: each.cpu_seconds for name, each in found.items()}
    return Sample(
        at=at,
        accepted=senders.accepted // INSTANCES,
        complete=sum(counts.values()) - counts[StudyState.RECEIVING],
        read=sum(counts[state] for state in _READ),
        delivered=sum(counts[state] for state in _DONE),
        failed=counts[StudyState.FAILED] + counts[StudyState.NOT_ROUTED],
        resident_bytes=memory,
        cpu_seconds={**used, SENDERS: _own_seconds()},
    )


def _own_seconds() -> float:
    """Processor time of this process and of its children that have ended: the programs that send."""
    used = [resource.getrusage(whose) for whose in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


def faults_of(samples: Sequence[Sample], rate: float, seconds: float) -> list[str]:
    """Why the rate was not sustained; nothing when it was."""
    faults, last = [], samples[-1]
    count = int(rate * seconds) // STUDIES_PER_ASSOCIATION * STUDIES_PER_ASSOCIATION
    if last.delivered < count:
        faults.append(
            f"{count - last.delivered} of {count} studies were not delivered in the end; {last.failed} failed"
        )
    sending = [sample for sample in samples if sample.at <= seconds]
    behind = max(rate * sample.at - sample.delivered for sample in sending)
    if behind > rate * _ALLOWED_BACKLOG_SECONDS:
        faults.append(f"deliveries were up to {behind / rate:.0f} s behind the rate")
    early = next((sample for sample in sending if sample.at >= seconds / 4), samples[0])
    for name, before in early.resident_bytes.items():
        after = last.resident_bytes.get(name, 0)
        if after - before > max(_FLAT_BYTES, _FLAT_SHARE * before):
            faults.append(f"{name} grew from {before >> 20} to {after >> 20} MiB")
    return faults


def _pace_table(samples: Sequence[Sample]) -> Table:
    """Studies a second in each half minute, and what waits at its end."""
    table = Table(title="Studies a second", title_justify="left")
    for title in ("until", "received", "complete", "read", "delivered", "on their way"):
        table.add_column(title, justify="right")
    marks = _marks_of(samples, 30.0)
    for before, after in pairwise(marks):
        seconds = max(after.at - before.at, 1e-9)
        figures = [
            f"{(getattr(after, name) - getattr(before, name)) / seconds:.1f}"
            for name in ("accepted", "complete", "read", "delivered")
        ]
        table.add_row(f"{after.at:.0f} s", *figures, str(after.accepted - after.delivered - after.failed))
    return table


def _marks_of(samples: Sequence[Sample], seconds: float) -> list[Sample]:
    """The samples at each so many seconds, and the last."""
    marks, due = [], 0.0
    for sample in samples:
        if sample.at >= due:
            marks.append(sample)
            due = sample.at + seconds - 1.0
    return marks if marks[-1] is samples[-1] else [*marks, samples[-1]]


def _process_table(samples: Sequence[Sample]) -> Table:
    """Memory at the start, after a quarter and at the end; share of one processor, and its time for each study."""
    table = Table(title="Processes", title_justify="left")
    for title in ("", "MiB at start", "at a quarter", "at the end", "CPU", "ms a study"):
        table.add_column(title, justify="right" if title else "left")
    first, last = samples[0], samples[-1]
    quarter = samples[len(samples) // 4]
    used = {name: seconds - first.cpu_seconds.get(name, 0.0) for name, seconds in last.cpu_seconds.items()}
    for name, seconds in (*used.items(), ("all together", sum(used.values()))):
        memory = [_mebibytes(sample, name) for sample in (first, quarter, last)]
        table.add_row(name, *memory, f"{seconds / max(last.at, 1e-9):.0%}", f"{ms_a_study(seconds, last):.1f}")
    return table


def ms_a_study(cpu_seconds: float, last: Sample) -> float:
    """Milliseconds of processor time for each study that came out at the other end."""
    return 1000.0 * cpu_seconds / max(last.delivered, 1)


def _mebibytes(sample: Sample, name: str) -> str:
    return f"{sample.resident_bytes[name] / 2**20:.0f}" if name in sample.resident_bytes else ""


if __name__ == "__main__":
    sys.exit(main())
