"""C-STORE into a full index beside an empty one; `make bench-index`.

The full one gets rows for as many instances as are asked for, without their files; about 1.2 KB each on the disk. Both
receivers run at once and get one instance in turns, so that what else the machine does slows both.
"""

import argparse
import json
import os
import random
import shutil
import sqlite3
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, closing
from pathlib import Path

from rich.console import Console

from deploy.receiver import CT, EXPLICIT, ct_sender, ct_slice, listens, receiver
from deploy.rig import Program, RigError, free_port
from dicom_node.archive.index import Index

_ROOT = "1.2.826.0.1.3680043.10.9"

#: The longest of C-STORE in a full index by that in an empty one.
GOAL = 1.20

_ROW_BYTES = 1200
_INSTANCES_A_STUDY = 300
_BATCH = 250_000

#: Pixel data in bytes; the small ones show the index, the large ones what a scanner sees.
_WORKLOADS = {"10 KB": 10_000, "CT slices of 525 KB": 524_288}

_ATTRIBUTES = {
    **{"Modality": "CT", "Rows": 512, "Columns": 512, "SliceThickness": 1.25, "PixelSpacing": [0.703125, 0.703125]},
    **{"ImageOrientationPatient": [1.0, 0.0, 0.0, 0.0, 1.0, 0.0], "ImagePositionPatient": [-180.0, -180.0, 112.5]},
    **{"ImageType": ["ORIGINAL", "PRIMARY", "AXIAL"], "ConvolutionKernel": ["B30f"], "Manufacturer": "DRAWN"},
    **{"FrameOfReferenceUID": f"{_ROOT}.1.1", "SeriesDescription": "THORAX 1.25", "BodyPartExamined": "CHEST"},
}

_STUDIES = """
WITH RECURSIVE n(i) AS (SELECT :first UNION ALL SELECT i + 1 FROM n WHERE i + 1 < :last)
INSERT INTO studies (study_instance_uid, state, reason, state_since, first_received_at, last_received_at, priority)
SELECT :root || '.2.' || i, 'COMMITTED', '', 1.7e9 + i, 1.7e9 + i, 1.7e9 + i, 'ROUTINE' FROM n
"""

_INSTANCES = """
WITH RECURSIVE n(i) AS (SELECT :first UNION ALL SELECT i + 1 FROM n WHERE i + 1 < :last)
INSERT INTO instances (sop_instance_uid, sha256, study_instance_uid, series_instance_uid, sop_class_uid,
    transfer_syntax_uid, path, size_bytes, received_at, calling_ae_title, conflict, attributes)
SELECT :root || '.4.' || (100000000 + i), lower(hex(randomblob(32))), :root || '.2.' || (i / :each),
    :root || '.3.' || (i / :each), :ct, :explicit,
    'studies/00/' || :root || '.2.' || (i / :each) || '/' || :root || '.3.' || (i / :each) || '/'
        || :root || '.4.' || (100000000 + i) || '.dcm',
    525000, 1.7e9 + i, 'CT1', 0, :attributes
FROM n
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Fill an index and compare; 0 when C-STORE is not slowed by more than a fifth."""
    parser = argparse.ArgumentParser(prog="python -m deploy.bench_index", description=main.__doc__)
    parser.add_argument("--rows", type=int, default=4_500_000, metavar="N")
    parser.add_argument("--instances", type=int, default=400, metavar="N", help="that are sent, of each workload")
    options = parser.parse_args(arguments)
    console = Console(width=None if sys.stdout.isatty() else 140, highlight=False)
    folder = Path(tempfile.mkdtemp(prefix="bench-index-"))
    try:
        needed = options.rows * _ROW_BYTES + (2 << 30)
        if shutil.disk_usage(folder).free < needed:
            console.print(f"not measured: {folder} has less than {needed >> 30} GB free", style="bold")
            return 1
        begun = time.monotonic()
        fill(folder / "full" / "index.sqlite", options.rows)
        size = (folder / "full" / "index.sqlite").stat().st_size / 1e9
        console.print(f"{options.rows} rows, {size:.1f} GB, in {time.monotonic() - begun:.0f} s")
        ratios = _compare(folder, options.instances, console)
    except RigError as error:
        console.print(f"bench-index: {error}", style="bold red")
        return 1
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return 0 if max(ratios) <= GOAL else 1


def fill(database: Path, rows: int) -> None:
    """An index of this version with so many instances."""
    # A receiver refuses an index of studies over an archive of none, which looks like a disk that is not mounted.
    (database.parent / "archive" / "studies" / "00" / _ROOT / _ROOT).mkdir(parents=True)
    Index.open(f"sqlite:///{database}").close()
    with closing(sqlite3.connect(database, isolation_level=None)) as connection:
        # Nobody else has it yet, and it can be made again.
        for pragma in ("journal_mode = OFF", "synchronous = OFF", "cache_size = -262144"):
            connection.execute(f"PRAGMA {pragma}")
        named: dict[str, str | int] = {"root": _ROOT, "each": _INSTANCES_A_STUDY, "ct": CT, "explicit": EXPLICIT}
        named["attributes"] = json.dumps(_ATTRIBUTES)
        studies = -(-rows // _INSTANCES_A_STUDY)
        connection.execute(_STUDIES, {"first": 0, "last": studies, **named})
        for first in range(0, rows, _BATCH):
            connection.execute(_INSTANCES, {"first": first, "last": min(first + _BATCH, rows), **named})
        connection.execute("PRAGMA journal_mode = WAL")


def _compare(folder: Path, instances: int, console: Console) -> list[float]:
    """The median time of a C-STORE into the full index by that into the empty one, by workload."""
    ports = {name: free_port() for name in ("empty", "full")}
    receivers: list[Program] = []
    ratios = []
    try:
        for name, port in ports.items():
            _start(receivers, folder, name, port)
        _store_in_turns(ports, instances // 4, 10_000)
        for workload, size in _WORKLOADS.items():
            seconds = _store_in_turns(ports, instances, size)
            empty, full = (statistics.median(seconds[name]) for name in ports)
            ratios.append(full / empty)
            console.print(
                f"{workload}, {instances} into each: median {1000 * empty:.2f} ms into the empty index, "
                f"{1000 * full:.2f} ms into the full one; full by empty {full / empty:.2f}, goal at most {GOAL:.2f}"
            )
    finally:
        for started in receivers:
            started.stop()
    return ratios


def _start(receivers: list[Program], folder: Path, name: str, port: int) -> None:
    """Start one more; it is among the receivers, to be stopped, also where it does not come to listen."""
    (folder / name).mkdir(exist_ok=True)
    started = receiver(folder / name, folder / f"{name}.log", port)
    started.start()
    receivers.append(started)
    started.wait_for(f"the receiver with the {name} index", lambda: listens(port), 300.0)


def _store_in_turns(ports: Mapping[str, int], instances: int, size: int) -> dict[str, list[float]]:
    """Seconds from each request to its answer; every instance lies elsewhere in the index."""
    pixels = os.urandom(size)
    study = f"{_ROOT}.5.{random.randrange(10**9)}"
    seconds: dict[str, list[float]] = {name: [] for name in ports}
    with ExitStack() as stack:
        senders = {name: stack.enter_context(ct_sender(port)) for name, port in ports.items()}
        for _ in range(instances):
            uid = f"{_ROOT}.4.{100000000 + random.randrange(4_500_000)}.{random.randrange(10**9)}"
            data_set = ct_slice(study, f"{study}.1", uid, pixels)
            for name, sender in senders.items():
                begun = time.perf_counter()
                if sender.store(uid, data_set) != 0x0000:
                    raise RigError("a receiver refused an instance")
                seconds[name].append(time.perf_counter() - begun)
        for sender in senders.values():
            sender.release()
    return seconds


if __name__ == "__main__":
    sys.exit(main())
