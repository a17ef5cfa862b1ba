"""The receive path beside DCMTK's storescp and Orthanc: the same bytes to each, and our ratios; `make bench-receive`.

The comparison itself is no part of this repository. Where it lies beside it, it is run twice: with a sender that costs
nothing, and with DCMTK's storescu as it comes, which waits for acknowledgements.

Measured with nothing beside it, on two cores of an Intel Xeon, against Orthanc 1.10.1 and DCMTK 3.6.7, three runs of
each receiver (median of the ratios, lowest and highest):

    workload, associations   node    by Orthanc's           goal   by storescp with fsync  goal
    CT slices, 1             353/s   1.11 (1.05 to 1.28)    2      0.49 (0.45 to 0.55)     0.9
    CT slices, 8             578/s   2.49 (2.08 to 2.50)    4      0.33 (0.33 to 0.36)     0.9
    tiny instances, 1        654/s   0.95 (0.88 to 0.96)           0.50 (0.47 to 0.54)     0.9
    tiny instances, 8        899/s   2.28 (1.83 to 2.32)           0.32 (0.31 to 0.32)     0.9
    objects of 150 MB        5.5/s   5.07 (4.94 to 5.27)           0.71 (0.66 to 1.13)     0.9
    storescu as it comes     373/s   18.0 (15.6 to 20.5)    5      16.7 (14.5 to 18.4)     5

CPU time of a gigabyte 2.8 s, 0.58 times Orthanc's (goal 0.5). So the goals with storescu are reached, and those with a
sender that costs nothing are missed. Of the 2.8 ms of a slice over one association 1.5 are CPU time; twice Orthanc's
rate would leave 1.6 for that and for the disk. On tmpfs, beside a program that computed, a slice took 1.2 ms.

On two shared cores of an AMD EPYC with a slower disk, ext4 without a journal: CT slices over one association 215/s,
1.56 times Orthanc's rate and 0.38 times that of storescp with fsync; over eight 391/s, 2.24 and 0.28 times; CPU time
of a gigabyte 4.4 s, 0.62 times Orthanc's. What follows was measured there.

What a slice costs, by a timer round each step, one association, the second of two runs, with other programs beside it:

    step                                  milliseconds    of CPU time
    wait for bytes, and read them         2.9             0.15
    announcement, room on the disk        0.1             0.06
    checksum                              0.45            0.36
    header                                0.3             0.16
    make the file and write it            0.8             0.44
    file on the disk (fsync)              4.0             0.22
    its name on the disk (fsync)          2.3             0.12
    row, and its commit (fdatasync)       4.4             0.70
    second name away, and answer          0.4             0.12

Beside a program that computes a wait for the disk takes a tick of 4 ms, however fast the disk is. So file and names are
waited for at once (`archive/disk.py`), and the threads ask for short turns (`scp/processor.py`). Old beside new, one
association: beside a run of the tests 1.47 to 1.69 times as many slices a second by the first alone (four pairs);
beside two programs that compute 1.34 to 1.85 times by the first, 1.71 to 2.51 times by both (three pairs each). With
nothing beside it 0.70 to 1.23 times (six pairs, 1.03 in the middle); tiny instances 1.20 and 1.88 times. Over eight
associations 0.72 to 1.02 times (nine pairs, 0.94 in the middle), tiny instances 0.94 and 1.01: there the waits
overlapped already, and who is not alone waits plainly; in tries in which all threads waited for file and names at once,
tiny instances had 0.76 and 0.85 times.

Two processes that receive into one archive and one index, each four of the eight associations: 0.67 to 1.51 times as
many slices a second as one (13 pairs, 1.23 in the middle), tiny instances 1.27 times (one pair). With that, Orthanc's
rate four times would still be missed; not built. On the bare disk a slice with its name and 32 KB of a log, beside
other programs, took 4.1 to 10.7 ms with three waits, 4.0 to 5.5 with two and 1.7 to 3.0 with one (four rounds): one
wait for all three is what would be worth most, and is not built, since a power cut could then leave a row without its
file.

What was measured of the versions before:

Where the CPU time of a slice goes, over one association, on that disk: 40 % in the interpreter, 39 % in the kernel,
13 % in the checksum (0.33 ms), 4 % in SQLite, by samples. Without a disk, on tmpfs, a slice takes 1.65 ms in place of
some 2.5; without the network, too, 1.3 ms, of which 0.7 are what an instance of 10 KB takes. A slice is three calls of
recv, and a commit 16 writes of its eight pages. No step stands out: of an instance of 10 KB 35 % are names and file,
20 % the row and its commit, 16 % the header.

What was changed by that, old beside new in one run, medians of four: over one association 180/s and 194/s, with 6.9
and 6.5 s of CPU time a gigabyte; over eight 198/s and 251/s, with 10.6 and 8.8 s. Of slices that come at a network's
pace (8 KiB each 82 us, no disk, four runs) each takes 3.1 ms of CPU time in place of 4.0: what is left of a long
fragment is read to where it stays, by one call that waits for all of it. An instance of 10 KB, without network and
disk, takes 0.69 ms in place of 0.81 (two runs).

Two receivers, each with four of the eight associations and an index of its own, took 1.3 to 1.6 times as many slices a
second as one in three pairs of runs with a disk, and 0.7 to 2.5 times without. In the last pair without a disk one
receiver spent 3.1 ms of CPU time on a slice, and two 1.9: several processes on one port would be worth most over eight
associations, and are not built. A lock that lets one thread compute, and that is left while the disk is waited for,
saved CPU time without a disk and was no faster, with a disk or without.

A pre-written log with one wait for the disk, with files and rows behind the answer, was built, measured and left out.
Beside a program that computes it made slices 1.8 times as fast over one association (three rounds; each wait that it
saves then costs a tick of 4 ms), 1.0 to 1.3 times in other rounds; tiny instances 0.8 to 1.0 times, on ext4 with a
journal of its own 1.5 times (one round); over eight associations nothing, or 0.9 times. For that it was not worth
what a review found: records that outlive the eviction of their study, or the checksum of a torn file that `reindex`
took for true, bring back or replace what they must not.

Over eight associations the threads' handing on of the interpreter takes the time: 50 switches an instance, a quarter
of the CPU time. What did not change that: one lock round the making of files; one, two or three
instances at once; longer turns of the interpreter. Without any wait for the disk at all (fsync that does nothing) the
node took 480 slices a second over one association, and 330 to 370 over eight.
"""

import argparse
import re
import shlex
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from deploy.receiver_cost import CommandFor, comparison_at, cpu_seconds_per_gigabyte

COMPARISON = Path(__file__).resolve().parents[2] / "shared" / "bench" / "compare_receivers.py"

#: How the workloads are called there.
WORKLOADS: Mapping[str, str] = {
    "ct": "400 CT slices, 1 association",
    "ct8": "400 CT slices, 8 associations",
    "tiny": "1600 tiny instances, 1 association",
    "tiny8": "1600 tiny instances, 8 associations",
    "big": "3 objects of 150 MB",
}

_MEDIAN = re.compile(r"median (\S+)\s+(\S+)\s+([\d.]+)/s   node/\S+\s+([\d.]+) \(([\d.]+)-([\d.]+)\)")


@dataclass(frozen=True, kw_only=True)
class Goal:
    """How much faster than a peer the node means to be."""

    peer: str
    workloads: tuple[str, ...]
    ratio: float


FREE_SENDER = (
    Goal(peer="orthanc", workloads=("ct",), ratio=2.0),
    Goal(peer="orthanc", workloads=("ct8",), ratio=4.0),
    Goal(peer="storescp+sync", workloads=tuple(WORKLOADS), ratio=0.9),
)
STORESCU = tuple(Goal(peer=peer, workloads=("ct",), ratio=5.0) for peer in ("orthanc", "storescp+sync"))


#: CPU time of a gigabyte of CT slices on one association, ours by Orthanc's, at most.
CPU_GOAL = 0.5


@dataclass(frozen=True, kw_only=True)
class Ratio:
    """The node's rate by a peer's, of the rounds of one workload."""

    workload: str
    peer: str
    median: float
    lowest: float
    highest: float


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the comparison and print the ratios; 0 when it ran, whatever they are."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3, metavar="N", help="runs of each receiver with each workload")
    parser.add_argument("--short", action="store_true", help="one run of each: some minutes, and a first answer")
    parser.add_argument("--workloads", default=",".join(WORKLOADS), help="some of these, separated by commas")
    options = parser.parse_args(arguments)
    rounds = 1 if options.short else options.rounds
    console = Console(width=None if sys.stdout.isatty() else 140)
    if not COMPARISON.exists():
        console.print(f"not measured: the comparison, {COMPARISON.name}, is not beside this repository", style="bold")
        return 0
    workloads = [name for name in options.workloads.split(",") if name in WORKLOADS]
    for title, extra, names, goals in (
        ("a sender that costs nothing", (), workloads, FREE_SENDER),
        ("DCMTK's storescu as it comes", ("--dcmtk-sender",), [name for name in workloads if name == "ct"], STORESCU),
    ):
        if names:
            console.print(f"with {title}: {', '.join(WORKLOADS[name] for name in names)}")
            ratios = list(ratios_of(_run(names, rounds, extra)))
            console.print(_table(title, ratios, goals))
    if "ct" in workloads:
        _tell_cpu(console, rounds)
    console.print("ratios of rates, ours by theirs, in interleaved runs on this machine; above 1 the node is faster")
    return 0


def _tell_cpu(console: Console, rounds: int) -> None:
    """CPU time of a gigabyte, of the node and of Orthanc."""
    comparison = comparison_at(COMPARISON)
    commands: dict[str, CommandFor] = {
        "node": lambda port, folder: shlex.split(_node_command().format(port=port, dir=folder)),
        "orthanc": comparison.orthanc_command,
    }
    root = tempfile.mkdtemp(prefix="receiver-cost-")
    try:
        folders = comparison.make_workload(root, "ct")
        costs = {
            name: [cpu_seconds_per_gigabyte(comparison, command, folders) for _ in range(rounds)]
            for name, command in commands.items()
        }
    finally:
        shutil.rmtree(root, ignore_errors=True)
    node, orthanc = (statistics.median(costs[name]) for name in ("node", "orthanc"))
    verdict = "reached" if node / orthanc <= CPU_GOAL else "missed"
    console.print(
        f"CPU time of a gigabyte of CT slices on one association: node {node:.1f} s, Orthanc {orthanc:.1f} s, "
        f"node by Orthanc {node / orthanc:.2f}, goal at most {CPU_GOAL:g}: {verdict}"
    )


def _node_command() -> str:
    program = shlex.quote(str(Path(sys.executable).with_name("dicom-node")))
    return f"{program} receive --any-peer --port {{port}} --data-dir {{dir}}"


def _run(workloads: Sequence[str], rounds: int, extra: Sequence[str]) -> Iterator[str]:
    """The comparison's lines, shown as they come."""
    command = [sys.executable, str(COMPARISON), "--node", _node_command(), "--rounds", str(rounds)]
    command += ["--workloads", ",".join(workloads), *extra]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as running:
        for line in running.stdout or ():
            print(line, end="", flush=True)
            yield line
    if running.returncode:
        raise SystemExit(f"the comparison ended with {running.returncode}")


def ratios_of(lines: Iterator[str] | Sequence[str]) -> Iterator[Ratio]:
    """What the comparison's last lines say of the node beside each peer."""
    for line in lines:
        if found := _MEDIAN.match(line):
            workload, peer, _rate, *numbers = found.groups()
            middle, lowest, highest = map(float, numbers)
            yield Ratio(workload=workload, peer=peer, median=middle, lowest=lowest, highest=highest)


def goal_of(ratio: Ratio, goals: Sequence[Goal]) -> float | None:
    """What the ratio is meant to be; None where nothing is meant."""
    wanted = [goal.ratio for goal in goals if goal.peer == ratio.peer and ratio.workload in goal.workloads]
    return max(wanted, default=None)


def _table(title: str, ratios: Sequence[Ratio], goals: Sequence[Goal]) -> Table:
    table = Table(title=f"dicom-node beside its peers, {title}", title_justify="left")
    for name in ("workload", "peer", "ratio", "lowest and highest", "goal", ""):
        table.add_column(name)
    for ratio in ratios:
        goal = goal_of(ratio, goals)
        verdict = "" if goal is None else "reached" if ratio.median >= goal else "missed"
        table.add_row(
            WORKLOADS[ratio.workload],
            ratio.peer,
            f"{ratio.median:.2f}",
            f"{ratio.lowest:.2f} to {ratio.highest:.2f}",
            "" if goal is None else f"{goal:g}",
            verdict,
        )
    return table


if __name__ == "__main__":
    sys.exit(main())
