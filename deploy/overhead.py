"""What the node adds: seconds from the last C-STORE response to the result at the peer, less the inference.

Small studies, one after the other, twice: from a sender that says by C-FIND how many instances it has (certain facts),
and from one that can only be waited for (quiet timers). `python -m deploy.overhead --studies 50`
"""

import argparse
import json
import os
import sys
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from statistics import median
from typing import Any

from rich.console import Console
from rich.table import Table

from deploy.chaos import percentile
from deploy.chaos_plan import Kind, PlannedStudy
from deploy.chaos_run import orthanc_is_installed
from deploy.chaos_studies import WrittenStudy, draw_templates, template_count, write_study
from deploy.rig import Orthanc, RigError, RunningNode, clean, free_port, little_pacs, peer_table
from dicom_node.archive.studies import StudyRow
from dicom_node.core.errors import NodeError
from dicom_node.core.lifecycle import StudyState
from dicom_node.settings import Peer

OUTPUT = Path("bench-output") / "overhead"
ENDS = (StudyState.DELIVERED, StudyState.COMMITTED, StudyState.FAILED, StudyState.NOT_ROUTED)
_PATIENCE_SECONDS = 180.0
#: A peer that is asked what it holds.
_ASKED: Mapping[str, Any] = {"query": True}
#: What other systems wait by their own documentation before they do anything; settings, not measured here.
ELSEWHERE = (
    ("Orthanc, StableAge", "60 s"),
    ("mercure, series or study complete trigger", "15 to 60 s"),
    ("MONAI Deploy informatics gateway, association timeout", "5 s"),
)
STEPS = ("arrival judged", "waiting for the worker", "loading", "network", "rest of reading", "report", "delivery")


class Source(Orthanc):
    """An Orthanc that holds studies, sends them when told to, and answers C-FIND about them."""

    def __init__(self, folder: Path, node: Peer) -> None:
        super().__init__(folder, callers=[node])
        self._node = node
        self.peer = replace(self.peer, name="source", results=False)

    def bring(self, study: WrittenStudy) -> None:
        """Take a study in, and send it to the node by C-STORE."""
        identifiers = {json.loads(self._ask("/instances", path.read_bytes()))["ParentStudy"] for path in study.files}
        self._ask(f"/modalities/{self._node.name}/store", json.dumps(sorted(identifiers)).encode())


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure both ways; 0 when every study came back."""
    parser = argparse.ArgumentParser(prog="python -m deploy.overhead", description=main.__doc__)
    parser.add_argument("--studies", type=int, default=50, metavar="N", help="of each way")
    options = parser.parse_args(arguments)
    console = Console(width=None if sys.stdout.isatty() else 140, highlight=False)
    clean(OUTPUT)
    try:
        found = _measured(options.studies, console)
    except NodeError as error:
        console.print(f"overhead: {error}", style="bold red")
        return 1
    (OUTPUT / "overhead.json").write_text(json.dumps(found, indent=2))
    console.print(_overhead_table(found))
    console.print(_steps_table(found))
    console.print(_elsewhere_table())
    console.print(f"n = {options.studies} small drawn chests each way, one after the other; {os.cpu_count()} CPUs")
    return 0


def _measured(count: int, console: Console) -> dict[str, list[dict[str, float]]]:
    """Rows of seconds by way of sending."""
    node_port = free_port()
    node_peer = Peer(name="node", ae_title="TRIAGE", host="127.0.0.1", port=node_port)
    pacs = little_pacs(OUTPUT / "pacs")
    source = _source(node_peer, console)
    further = "" if source is None else "\n" + peer_table(replace(source.peer, **_ASKED))
    node = RunningNode(OUTPUT / "node", pacs.peer, port=node_port, further_settings=further)
    templates = draw_templates(OUTPUT / "templates")

    def written(way: str, number: int) -> WrittenStudy:
        planned = PlannedStudy(
            number=number, kind=Kind.CHEST, template=number % template_count(), at=0.0,
            uid_seed=_uid_seed(way, number), seed=number,
        )  # fmt: skip
        return write_study(planned, templates, OUTPUT / "studies" / way / str(number))

    found: dict[str, list[dict[str, float]]] = {}
    try:
        pacs.start()
        if source is not None:
            source.start()
        node.start()
        if source is not None:
            found["certain facts"] = _rows(count, lambda n: written("certain", n), source.bring, node, console)
        found["quiet timers"] = _rows(count, lambda n: written("quiet", n), _sender(node), node, console)
    finally:
        node.stop()
        pacs.stop()
        if source is not None:
            source.stop()
    return found


def _source(node: Peer, console: Console) -> Source | None:
    if "query" not in {entry.name for entry in fields(Peer)}:
        console.print("certain facts are not measured: this node asks nobody what there is")
        return None
    if not orthanc_is_installed():
        console.print("certain facts are not measured: no Orthanc is installed that could be asked")
        return None
    return Source(OUTPUT / "source", node)


def _sender(node: RunningNode) -> Callable[[WrittenStudy], None]:
    def bring(study: WrittenStudy) -> None:
        node.send(study.files[0].parent)

    return bring


def _uid_seed(way: str, number: int) -> str:
    return str(uuid.uuid5(uuid.NAMESPACE_OID, f"{way} {number} {time.time()}"))


def _rows(
    count: int,
    write: Callable[[int], WrittenStudy],
    bring: Callable[[WrittenStudy], None],
    node: RunningNode,
    console: Console,
) -> list[dict[str, float]]:
    rows = []
    for number in range(1, count + 1):
        study = write(number)
        bring(study)
        row = node.wait_for(study.study_instance_uid, ENDS, _PATIENCE_SECONDS)
        if row.state not in (StudyState.DELIVERED, StudyState.COMMITTED):
            raise RigError(f"study {study.study_instance_uid} ended as {row.state}: {row.reason}")
        rows.append(_seconds(node, row))
        if number == 1 or number % 10 == 0:
            console.print(f"study {number}: {rows[-1]['total']:.2f} s")
    return rows


def _seconds(node: RunningNode, study: StudyRow) -> dict[str, float]:
    """Where the time of one study went."""
    uid = study.study_instance_uid
    job = node.index.jobs.of_study(uid)[-1]
    steps: Mapping[str, float] = (job.summary or {})["steps"]
    delivered = max(row.accepted_at or 0.0 for row in node.index.deliveries.of_study(uid))
    complete = next(row.at for row in node.index.studies.history(uid) if str(row.after) == StudyState.COMPLETE)
    began, ended = job.started_at or 0.0, job.ended_at or 0.0
    total = delivered - study.last_received_at
    reading = ended - began
    values = {
        "total": total,
        "less network": total - steps["network"],
        "less reading": total - reading,
        "arrival judged": complete - study.last_received_at,
        "waiting for the worker": began - complete,
        "loading": steps["load"],
        "network": steps["network"],
        "rest of reading": steps["reading"] - steps["network"],
        "report": reading - steps["load"] - steps["reading"],
        "delivery": delivered - ended,
    }
    return {name: round(value, 3) for name, value in values.items()}


def _overhead_table(found: Mapping[str, Sequence[Mapping[str, float]]]) -> Table:
    table = Table(title="Seconds from the last C-STORE response to the result at the peer", title_justify="left")
    for title in ("", "", "median", "p90", "maximum"):
        table.add_column(title, justify="right" if title else "left")
    names = {
        "less network": "less the network",
        "less reading": "less the whole reading",
        "total": "in all",
    }
    for way, rows in found.items():
        for key, name in names.items():
            values = sorted(row[key] for row in rows)
            figures = (median(values), percentile(values, 0.9), values[-1])
            table.add_row(way if key == "less network" else "", name, *(f"{figure:.2f}" for figure in figures))
    return table


def _steps_table(found: Mapping[str, Sequence[Mapping[str, float]]]) -> Table:
    table = Table(title="Where the time goes: medians in seconds", title_justify="left")
    table.add_column("")
    for step in STEPS:
        table.add_column(step, justify="right")
    for way, rows in found.items():
        table.add_row(way, *(f"{median([row[step] for row in rows]):.2f}" for step in STEPS))
    return table


def _elsewhere_table() -> Table:
    table = Table(
        title="What others wait by default: settings that they document, not measured here", title_justify="left"
    )
    table.add_column("")
    table.add_column("", justify="right")
    for name, wait in ELSEWHERE:
        table.add_row(name, wait)
    return table


if __name__ == "__main__":
    sys.exit(main())
