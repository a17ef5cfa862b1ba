"""The benchmark of the whole way: phantom studies through a whole node, and what each took; `make bench`."""

import argparse
import json
import os
import platform
import subprocess
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median

from pydicom import dcmread
from rich.console import Console
from rich.table import Table

from deploy.rig import RigError, RunningNode, clean, little_pacs, time_shares
from dicom_node.core.errors import NodeError
from dicom_node.core.lifecycle import StudyState

OUTPUT = Path("bench-output")
COLUMNS = ("total", "network", "reading", "all else", "load", "report")


def main() -> int:
    """Send the studies one after the other; 0 when each came back."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--studies", type=int, default=10, metavar="N")
    options = parser.parse_args()
    console = Console(width=None if sys.stdout.isatty() else 140)
    try:
        rows = _measure(_phantoms(options.studies, console), console)
    except NodeError as error:
        console.print(f"bench: {error}", style="bold red", highlight=False)
        return 1
    console.print(_table(rows))
    machine = f"{platform.machine()}, {os.cpu_count()} CPUs, Python {platform.python_version()}"
    console.print(f"n = {len(rows)} phantom studies (drawn, not patients), one after the other; {machine}")
    console.print(
        "total: from the last image to the last result in the PACS = network + rest of the reading + all else"
    )
    (OUTPUT / "bench.json").write_text(json.dumps({"machine": machine, "rows": rows}, indent=2))
    return 0


def _phantoms(count: int, console: Console) -> list[Path]:
    clean(OUTPUT)
    folders = [OUTPUT / f"phantom-{seed}" for seed in range(1, count + 1)]
    console.print(f"drawing {count} phantoms")

    def draw(numbered: tuple[int, Path]) -> int:
        seed, folder = numbered
        command = [sys.executable, "-m", "training.phantoms", str(folder), "--seed", str(seed)]
        return subprocess.run(command, check=False, stdout=subprocess.DEVNULL).returncode

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        if any(pool.map(draw, enumerate(folders, start=1))):
            raise RigError("a phantom could not be drawn")
    return [folder / "series" for folder in folders]


def _measure(series: Sequence[Path], console: Console) -> list[dict[str, float]]:
    pacs = little_pacs(OUTPUT / "pacs")
    node = RunningNode(OUTPUT / "node", pacs.peer)
    rows = []
    try:
        pacs.start()
        node.start()
        for number, folder in enumerate(series, start=1):
            rows.append(_one(node, folder))
            console.print(f"study {number}: {rows[-1]}", highlight=False)
    finally:
        node.stop()
        pacs.stop()
    return rows


def _one(node: RunningNode, folder: Path) -> dict[str, float]:
    uid = str(dcmread(next(iter(sorted(folder.iterdir()))), stop_before_pixels=True).StudyInstanceUID)
    sending = node.send(folder)
    row = node.wait_for(uid, (StudyState.DELIVERED, StudyState.FAILED, StudyState.NOT_ROUTED), 900.0)
    if row.state is not StudyState.DELIVERED:
        raise RigError(f"study {uid} ended as {row.state}: {row.reason}")
    summary = node.index.jobs.of_study(uid)[-1].summary or {}
    steps: Mapping[str, float] = summary["steps"]
    total = max(delivery.accepted_at or 0.0 for delivery in node.index.deliveries.of_study(uid)) - sending.ended_at
    return {**time_shares(total, steps), "load": steps["load"], "report": steps["report"]}


def _table(rows: Sequence[Mapping[str, float]]) -> Table:
    table = Table(title="From the last image to the result, in seconds")
    for title in ("", *COLUMNS):
        table.add_column(title, justify="right")
    for name, figure in (("minimum", min), ("median", median), ("maximum", max)):
        table.add_row(name, *(f"{figure([row[column] for row in rows]):.2f}" for column in COLUMNS))
    return table


if __name__ == "__main__":
    sys.exit(main())
