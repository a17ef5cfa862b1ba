"""Chaos: studies come in while processes are killed and stopped, the disk fills and connections break; `make chaos`.

The real node, its own Redis and worker, and a PACS behind proxies. The plan is a pure function of the seed. Exit status
0 only if every study of the plan was judged, enough faults hit, no accepted study was lost, none was reported twice,
none is stuck once everything is healed, none changed its state untold, no program ended by itself save on a full disk,
and no process of a node outlives it. A study of which every attempt met a fault is asked for again, as a person would.
"""

import argparse
import json
import math
import os
import random
import statistics
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.table import Table

from deploy.chaos_plan import LATE, REPORTED, plan_run
from deploy.chaos_result import Result, harmed, inexcusable, least_hits, shortcomings
from deploy.chaos_run import Run, orthanc_is_installed
from deploy.chaos_studies import template_count
from deploy.rig import clean
from deploy.small_disk import unmount
from dicom_node.core.errors import NodeError

OUTPUT = Path("chaos-output")
_MOST_SHOWN = 20


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the plan of a seed; 0 when nothing was lost, reported twice or stuck."""
    options = _options(arguments)
    console = Console(width=None if sys.stdout.isatty() else 140, highlight=False)
    unmount(OUTPUT / "disk")
    folder = clean(OUTPUT).resolve()
    plan = plan_run(
        options.seed,
        studies=options.studies,
        faults=options.faults,
        seconds_per_study=options.seconds_per_study,
        templates=template_count(),
    )
    console.print(
        f"seed {plan.seed}: {len(plan.studies)} studies and {len(plan.faults)} faults in {plan.seconds:.0f} s"
    )
    try:
        orthanc = options.pacs == "orthanc"
        run = Run(plan, folder, orthanc=orthanc, least_hits=options.least_hits, say=console.print)
        result = run.go(options.patience)
    except NodeError as error:
        console.print(f"chaos: {error}", style="bold red")
        return 1
    (OUTPUT / "chaos.json").write_text(json.dumps({"seed": plan.seed, **asdict(result)}, indent=2))
    _show(console, result)
    console.print(f"again: {_command(options)}", soft_wrap=True)
    return 1 if shortcomings(result) else 0


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m deploy.chaos", description=main.__doc__)
    parser.add_argument("--seed", type=int, default=None, help="which plan; default: one by chance, printed")
    parser.add_argument("--studies", type=int, default=200, metavar="N")
    parser.add_argument("--faults", type=int, default=105, metavar="N")
    parser.add_argument("--least-hits", type=int, metavar="N", help="faults that must hit; default: 20 of 21")
    parser.add_argument("--seconds-per-study", type=float, default=4.5, metavar="S", help="how fast studies come")
    parser.add_argument("--patience", type=float, default=600.0, metavar="S", help="for the last study, once healed")
    choices = ("orthanc", "own")
    default = choices[0] if orthanc_is_installed() else choices[1]
    parser.add_argument("--pacs", choices=choices, default=default, help="Orthanc, or our own receive-only node")
    options = parser.parse_args(arguments)
    if options.seed is None:
        options.seed = random.SystemRandom().randrange(1_000_000)
    if options.least_hits is None:
        options.least_hits = least_hits(options.faults)
    return options


def _command(options: argparse.Namespace) -> str:
    words = (f"--{name.replace('_', '-')} {value}" for name, value in vars(options).items())
    return f"python -m deploy.chaos {' '.join(words)}"


def _show(console: Console, result: Result) -> None:
    if any(harmed(outcome) for outcome in result.outcomes):
        console.print(_bad_table(result))
    console.print(_faults_table(result))
    console.print(_studies_table(result))
    if not result.real_disk:
        console.print("the disk was not filled to the last byte: no small one could be mounted here")
    console.print(f"{result.pacs} as the PACS; {os.cpu_count()} CPUs; logs, index and all figures are in {OUTPUT}/")
    console.print(f"{result.seconds:.0f} s, {result.healing_seconds:.0f} s of them after the last fault was mended")
    found = shortcomings(result)
    for said in found:
        console.print(f"NOT GOOD: {said}", style="bold red")
    if not found:
        console.print("good: nothing was lost, reported twice, stuck or changed untold")


def _studies_table(result: Result) -> Table:
    """What became of all studies."""
    outcomes = result.outcomes
    readable = [outcome for outcome in outcomes if outcome.kind in REPORTED]
    table = Table(title="What became of the studies", title_justify="left", show_header=False)
    table.add_column(justify="left")
    table.add_column(justify="right")
    table.add_column(justify="left")

    def row(name: str, value: object, note: str = "", *, good: bool = True) -> None:
        table.add_row(name, str(value), note, style="" if good else "bold red")

    states = Counter(outcome.state for outcome in outcomes)
    broken = sum(outcome.broken_sendings for outcome in outcomes)
    instances = sum(outcome.accepted for outcome in outcomes)
    row("planned", result.planned)
    judged = "must be all" if result.unjudged else ""
    row("sent and judged", len(outcomes), judged, good=not result.unjudged)
    row(
        "accepted whole",
        sum(o.finished for o in outcomes),
        f"{instances} instances answered 0x0000; {broken} sendings broke and came again",
    )
    row("to be reported", len(readable), "the others: no route wants them, or a slice is missing for ever")
    row("reported", sum(bool(outcome.reports) for outcome in outcomes), "a structured report is at the PACS")
    delivered = states["DELIVERED"] + states["COMMITTED"]
    row("delivered", delivered, "all objects accepted by the PACS")
    if result.committing:
        row("committed", states["COMMITTED"], "the PACS said that it keeps them")
    row("answered without", states["NOT_ROUTED"], "NOT_ROUTED, with the reason")
    row(
        "failed", states["FAILED"], f"with the reason; {sum(outcome.dead_letters for outcome in outcomes)} dead letters"
    )
    row("asked for again", len(result.asked_again), "a fault met every attempt of theirs")
    _late_rows(row, result)
    for name, found in (
        ("lost", sum(bool(outcome.lost) for outcome in outcomes)),
        ("reported twice", sum(bool(outcome.twice) for outcome in outcomes)),
        ("stuck", sum(outcome.stuck for outcome in outcomes)),
        ("changed untold", sum(bool(outcome.untold) for outcome in outcomes)),
    ):
        row(name, found, "must be 0", good=not found)
    row("processes left over", len(result.left_over), "must be 0", good=not result.left_over)
    ends = len(inexcusable(result))
    row("unasked ends", ends, f"must be 0; {len(result.unasked_ends) - ends} more on a full disk", good=not ends)
    times = sorted(outcome.seconds for outcome in readable if outcome.seconds is not None)
    if times:
        row("median time to result", f"{statistics.median(times):.1f} s", "from the last image accepted to the report")
        row("p99 time to result", f"{percentile(times, 0.99):.1f} s", f"n = {len(times)}")
    return table


def _late_rows(row: Callable[[str, object, str], None], result: Result) -> None:
    """When what came late came, and what later reports say they replace."""
    met = Counter(state for outcome in result.outcomes if outcome.kind in LATE for state in outcome.reopened_from)
    late = sum(outcome.kind in LATE for outcome in result.outcomes)
    row("with late images", late, ", ".join(f"{count} x {state}" for state, count in sorted(met.items())))
    absent = sum(len(outcome.never_accepted) for outcome in result.outcomes)
    row("replaced, never held", absent, "reports that a later one names, and that the PACS never accepted")


def _faults_table(result: Result) -> Table:
    """Faults by kind; those that hit and those that found nothing to be done to."""
    table = Table(title="Faults", title_justify="left")
    for title in ("done to", "what", "hit", "missed"):
        table.add_column(title, justify="right" if title in ("hit", "missed") else "left")
    kinds = sorted({(done.fault.target, done.fault.act) for done in result.faults})
    for target, act in kinds:
        of_kind = [done for done in result.faults if (done.fault.target, done.fault.act) == (target, act)]
        hit = sum(done.hit for done in of_kind)
        table.add_row(target, act, str(hit), str(len(of_kind) - hit or ""))
    enough = result.hits >= result.least_hits
    least = f"all; at least {result.least_hits} must hit"
    style = "bold" if enough else "bold red"
    table.add_row("", least, str(result.hits), str(len(result.faults) - result.hits), style=style)
    return table


def _bad_table(result: Result) -> Table:
    table = Table(title="Studies that came to harm", title_justify="left", style="red")
    for title in ("", "kind", "state", "what is wrong"):
        table.add_column(title)
    bad = [outcome for outcome in result.outcomes if harmed(outcome)]
    for outcome in bad[:_MOST_SHOWN]:
        wrong = [*outcome.lost, *outcome.twice, *outcome.untold]
        if outcome.stuck:
            wrong.append(f"stuck: {outcome.reason}")
        elif outcome.lost:
            wrong.append(f"reason: {outcome.reason}")
        table.add_row(
            str(outcome.number), outcome.kind, outcome.state, f"{outcome.study_instance_uid}\n" + "\n".join(wrong)
        )
    return table


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that so large a share of all values does not exceed; the values in rising order."""
    return values[max(0, math.ceil(share * len(values)) - 1)]


if __name__ == "__main__":
    sys.exit(main())
