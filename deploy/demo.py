"""The demo: a chest CT goes in by C-STORE, and a structured report and a segmentation come back, over the real wire."""

import argparse
import json
import math
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

from pydicom import Dataset, dcmread
from rich.console import Console
from rich.table import Table

from deploy.rig import RigError, RunningNode, Sending, clean, little_pacs, time_shares
from dicom_node.accounts import FIRST_ADMIN
from dicom_node.archive.jobs import JobRow
from dicom_node.core.errors import NodeError, UnreadableInstance
from dicom_node.core.lifecycle import StudyState
from dicom_node.scu.storage import FileToSend

OUTPUT = Path("demo-output")
MEDIA_STORAGE_DIRECTORY = "1.2.840.10008.1.3.10"
ENDS = (StudyState.DELIVERED, StudyState.FAILED, StudyState.NOT_ROUTED)
#: A reading on a slow machine without a GPU.
PATIENCE_SECONDS = 900.0
#: How long the link to the page holds.
LINK_SECONDS = 3600.0


def main() -> int:
    """Run the demo; 0 only when the results arrived and passed their checks."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--study", type=Path, metavar="DIR", help="send this folder's study instead of a phantom")
    parser.add_argument("--keep", action="store_true", help="leave the node running until Ctrl-C")
    options = parser.parse_args()
    console = Console(width=None if sys.stdout.isatty() else 140)
    try:
        return _run(options.study, options.keep, console)
    except NodeError as error:
        console.print(f"demo: {error}", style="bold red", highlight=False)
        return 1


def _run(study: Path | None, keep: bool, console: Console) -> int:
    if study is not None:
        _check_study(study)
    output = clean(OUTPUT)
    source, truth = _source(study, output, console)
    pacs = little_pacs(output / "pacs")
    console.print(f"[2/5] starting {pacs.name} as the PACS, and the node")
    pacs.start()
    node = RunningNode(output / "node", pacs.peer)
    try:
        node.start()
        console.print(f"[3/5] sending the study by C-STORE to port {node.port}")
        sending = node.send(source)
        uid = _study_uid(source)
        console.print(f"[4/5] {sending.instances} instances are stored; waiting for the report")
        row = node.wait_for(uid, ENDS, PATIENCE_SECONDS)
        if row.state is not StudyState.DELIVERED:
            raise RigError(f"the study ended as {row.state}: {row.reason}")
        objects = _arrived(pacs.files(uid), output / "results")
        console.print(f"[5/5] {len(objects)} object(s) came back to {pacs.name}")
        faults = _faults(objects, node, uid)
        job = node.index.jobs.of_study(uid)[-1]
        _show(console, job, truth, objects, node, sending, uid)
        for fault in faults:
            console.print(f"FAULT: {fault}", style="bold red", highlight=False)
        if keep:
            _stay(console, node)
        return 1 if faults else 0
    finally:
        node.stop()
        pacs.stop()


def _source(study: Path | None, output: Path, console: Console) -> tuple[Path, list[dict[str, Any]]]:
    """The series to send, in the output folder, and what is known to be in it."""
    source = output / "source"
    if study is not None:
        console.print(f"[1/5] taking the study in {study}")
        _copy_instances(study, source, console)
        return source, []
    console.print("[1/5] drawing a chest phantom (about half a minute)")
    phantom = output / "phantom"
    drawing = subprocess.run([sys.executable, "-m", "training.phantoms", str(phantom)], check=False)
    if drawing.returncode:
        raise RigError("the phantom could not be drawn")
    shutil.move(phantom / "series", source)
    shutil.move(phantom / "truth.json", output / "truth.json")
    shutil.rmtree(phantom)
    return source, list(json.loads((output / "truth.json").read_text())["nodules"])


def _check_study(study: Path) -> None:
    if not study.is_dir():
        raise RigError(f"{study} is no folder; give STUDY the folder of a DICOM study")
    if study.resolve().is_relative_to(OUTPUT.resolve()) or OUTPUT.resolve().is_relative_to(study.resolve()):
        raise RigError(f"{study} lies in {OUTPUT}, which every demo empties; copy the study elsewhere first")


def _copy_instances(study: Path, source: Path, console: Console) -> None:
    """Copy what can be stored; a DICOMDIR or a text beside the images stays behind, and is named."""
    source.mkdir()
    for number, path in enumerate(sorted(path for path in study.rglob("*") if path.is_file())):
        try:
            file = FileToSend.read(path)
        except UnreadableInstance as error:
            console.print(f"      left out: {error}", highlight=False)
            continue
        if file.sop_class_uid == MEDIA_STORAGE_DIRECTORY:
            console.print(f"      left out: {path.name} is a DICOMDIR", highlight=False)
            continue
        shutil.copy(path, source / f"{number:05d}.dcm")


def _study_uid(source: Path) -> str:
    first = next((path for path in sorted(source.rglob("*")) if path.is_file()), None)
    if first is None:
        raise RigError("no DICOM instance was found there; give STUDY the folder of a DICOM study")
    return str(dcmread(first, stop_before_pixels=True).StudyInstanceUID)


def _arrived(files: Sequence[bytes], folder: Path) -> list[tuple[Path, Dataset]]:
    """Write what the PACS holds to a folder, named by modality."""
    clean(folder)
    objects: list[tuple[Path, Dataset]] = []
    for data in files:
        ds = dcmread(BytesIO(data))
        path = folder / f"{ds.Modality}-{str(ds.SOPInstanceUID)[-12:]}.dcm"
        path.write_bytes(data)
        objects.append((path, ds))
    return objects


def _faults(objects: Sequence[tuple[Path, Dataset]], node: RunningNode, uid: str) -> list[str]:
    """What an outsider would find wrong with what arrived."""
    jobs = node.index.jobs.of_study(uid)
    sent = {row.sop_instance_uid for job in jobs for row in node.index.jobs.report_rows(job.job.job_uid)}
    arrived = {str(ds.SOPInstanceUID) for _, ds in objects}
    faults = [] if sent == arrived else [f"{len(sent ^ arrived)} object(s) differ between node and PACS"]
    if not any(ds.Modality == "SR" for _, ds in objects):
        faults.append("no structured report arrived")
    for path, ds in objects:
        if str(ds.StudyInstanceUID) != uid:
            faults.append(f"{path.name} is of another study")
        if ds.get("VerificationFlag", "UNVERIFIED") != "UNVERIFIED":
            faults.append(f"{path.name} claims to be verified")
        faults += _iod_faults(path)
    return faults


def _iod_faults(path: Path) -> list[str]:
    program = shutil.which("dciodvfy")
    if program is None:
        return []
    said = subprocess.run([program, "-new", str(path)], capture_output=True, text=True, check=False)
    lines = (said.stdout + said.stderr).splitlines()
    return [f"{path.name}: {line}" for line in lines if line.startswith("Error")]


def _show(
    console: Console,
    job: JobRow,
    truth: Sequence[Mapping[str, Any]],
    objects: Sequence[tuple[Path, Dataset]],
    node: RunningNode,
    sending: Sending,
    uid: str,
) -> None:
    summary = job.summary or {}
    console.print()
    console.print(findings_table(summary.get("rows", []), truth))
    if truth:
        missed = [nodule for nodule in truth if _match(nodule, summary.get("rows", [])) is None]
        console.print(f"known to be in the phantom: {len(truth)} nodules, found {len(truth) - len(missed)}")
    console.print(
        f"result           {summary.get('result')}; {summary.get('algorithm')}; AI result, not for diagnostic use"
    )
    console.print(f"triage priority  {summary.get('priority') or 'none: nothing was found'}")
    delivered = max(row.accepted_at or 0.0 for row in node.index.deliveries.of_study(uid))
    shares = time_shares(delivered - sending.ended_at, summary["steps"])
    console.print(f"time             {shares['total']:.1f} s from the last image to the result in the PACS")
    console.print(f"                 {shares['network']:.1f} s of it in the network itself")
    console.print(
        f"                 {shares['reading']:.1f} s in the rest of the reading: lungs, outlines, measurements"
    )
    console.print(
        f"                 {shares['all else']:.1f} s in all else: quiet time, queue, loading, report, delivery"
    )
    for path, ds in objects:
        console.print(f"{ds.Modality:<16} {path}", soft_wrap=True)
    console.print(f"source           {OUTPUT / 'source'}")
    if shutil.which("dciodvfy") is None:
        console.print("not checked      dciodvfy (Debian: dicom3tools) is not installed")


def findings_table(rows: Sequence[Mapping[str, Any]], truth: Sequence[Mapping[str, Any]]) -> Table:
    """Findings by number, and beside each what the phantom has there."""
    table = Table(title="Findings" + (" beside the phantom's truth" if truth else ""))
    titles = ["", "site", "centre x, y, z mm", "long mm", "short mm", "volume mm3", "mean HU", "score"]
    for title in titles + (["truth: volume mm3", "mm away"] if truth else []):
        table.add_column(title, justify="right")
    for row in rows:
        centre = ", ".join(f"{value:.1f}" for value in row["centre_mm"])
        cells = [str(row["number"]), f"{row['laterality']} {row['site']}".strip(), centre]
        cells += [str(row[key]) for key in ("long_axis_mm", "short_axis_mm", "volume_mm3", "mean_hu", "score")]
        if truth:
            known = _nearest(row, truth)
            cells += ["nothing there", "-"] if known is None else [f"{known[0]['volume_mm3']:.0f}", f"{known[1]:.1f}"]
        table.add_row(*cells)
    for nodule in truth:
        if _match(nodule, rows) is None:
            centre = ", ".join(f"{value:.1f}" for value in nodule["centre_lps_mm"])
            table.add_row("missed", nodule.get("location", ""), centre, *[""] * 5, f"{nodule['volume_mm3']:.0f}", "-")
    return table


def _nearest(row: Mapping[str, Any], truth: Sequence[Mapping[str, Any]]) -> tuple[Mapping[str, Any], float] | None:
    near = [(nodule, math.dist(row["centre_mm"], nodule["centre_lps_mm"])) for nodule in truth]
    hits = [(nodule, away) for nodule, away in near if away <= nodule["diameter_mm"] / 2]
    return min(hits, key=lambda hit: hit[1], default=None)


def _match(nodule: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    hits = [row for row in rows if math.dist(row["centre_mm"], nodule["centre_lps_mm"]) <= nodule["diameter_mm"] / 2]
    return hits[0] if hits else None


def entry_link(node: RunningNode) -> str:
    """A link to the node's page that lets its first visitor in as an admin, once and within the hour."""
    index = node.index
    index.users.add_first(FIRST_ADMIN, password="", at=time.time())
    secret = index.sessions.make_entry(FIRST_ADMIN, expires_at=time.time() + LINK_SECONDS)
    return f"http://127.0.0.1:{node.web_port}/enter/{secret}"


def _stay(console: Console, node: RunningNode) -> None:
    console.print(f"\nThe node runs: C-STORE to TRIAGE at 127.0.0.1:{node.port}")
    console.print(f"page {entry_link(node)}  (lets you in once)", soft_wrap=True, highlight=False)
    console.print(f"settings {node.config}, log {node.program.log}; Ctrl-C ends it")
    try:
        while node.program.process is not None and node.program.process.poll() is None:
            time.sleep(0.5)
    except KeyboardInterrupt:
        console.print("stopping")


if __name__ == "__main__":
    sys.exit(main())
