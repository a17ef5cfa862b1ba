"""Soak: eight senders with random aborts, while the receiver is killed and started again; `make soak`.

Whatever was answered with success must be there in the end, with its checksum and one row of the index, and nothing
half-written may be left. Exit status 0 only then; what was checked is removed then, too, and kept for a look otherwise.
"""

import argparse
import hashlib
import os
import random
import shutil
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from rich.console import Console

from deploy.receiver import ct_sender, ct_slice, listens, receiver
from deploy.rig import Program, RigError, clean, free_port
from deploy.wire import ABORTING, Refused, WireSender
from dicom_node.archive.files import Archive
from dicom_node.archive.index import Index
from dicom_node.core.errors import UnreadableInstance

OUTPUT = Path("soak-output")

SENDERS = 8

#: Sizes of pixel data in bytes, and how often each comes: those above 4 MB go to the disk as they come.
_SIZES = ((20_000, 500_000, 20), (4_500_000, 7_000_000, 1))

#: Seconds between two kills.
_KILLS = (2.0, 9.0)

_ABORT_SHARE, _AGAIN_SHARE = 0.12, 0.05

#: Counts senders that met what no receiver should answer.
FAILED = "senders that failed, or hang"
_MOST_AN_ASSOCIATION = 25

#: The most that a start may take: the machine may have stood still meanwhile.
_STARTING_SECONDS = 600.0

#: Fewer instances answered with success show nothing.
_LEAST_A_SECOND = 1.0

#: Senders that are ahead of their share rest, so that no more than this is answered with success, however fast that is.
_GIGABYTES = 20.0
_REST_SECONDS = 0.05


@dataclass(kw_only=True)
class Ledger:
    """What the senders were told; each thread adds to it."""

    #: SOP Instance UID to the checksum of the data set, of what was answered with success.
    kept: dict[str, str] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)
    #: Bytes of what was answered with success.
    size_bytes: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def keep(self, sop_instance_uid: str, data_set: bytes) -> None:
        """An instance was answered with success."""
        with self.lock:
            self.size_bytes += 0 if sop_instance_uid in self.kept else len(data_set)
            self.kept[sop_instance_uid] = hashlib.sha256(data_set).hexdigest()

    def count(self, what: str) -> None:
        """Something happened once more."""
        with self.lock:
            self.counts[what] += 1


@dataclass(frozen=True, kw_only=True)
class Course:
    """How long it goes on, and how much may be sent by when."""

    began: float
    seconds: float
    most_bytes: float

    @property
    def until(self) -> float:
        """When the senders end."""
        return self.began + self.seconds

    def is_ahead(self, size_bytes: int, now: float) -> bool:
        """Whether so many bytes are more than may be there by now."""
        return size_bytes > self.most_bytes * (now - self.began) / self.seconds


def main(arguments: Sequence[str] | None = None) -> int:
    """Send, abort, kill and start for some minutes; 0 when nothing that was answered with success is lost."""
    parser = argparse.ArgumentParser(prog="python -m deploy.soak", description=main.__doc__)
    parser.add_argument("--seconds", type=float, default=600.0, metavar="S")
    parser.add_argument("--seed", type=int, default=None, help="of aborts and kills; default: one by chance")
    parser.add_argument("--gigabytes", type=float, default=_GIGABYTES, metavar="G", help="the most that is sent")
    options = parser.parse_args(arguments)
    console = Console(width=None if sys.stdout.isatty() else 140, highlight=False)
    seed = random.SystemRandom().randrange(1_000_000) if options.seed is None else options.seed
    console.print(f"seed {seed}: {SENDERS} senders for {options.seconds:.0f} s")
    folder = clean(OUTPUT).resolve()
    ledger = Ledger()
    try:
        soak(folder, Course(began=0.0, seconds=options.seconds, most_bytes=options.gigabytes * 1e9), seed, ledger)
    except RigError as error:
        console.print(f"soak: {error}", style="bold red")
        return 1
    for what, count in sorted(ledger.counts.items()):
        console.print(f"  {count:7} {what}")
    faults = list(judge(folder / "data", ledger.kept))
    console.print(f"  {len(ledger.kept):7} instances answered with success")
    for fault in faults[:20]:
        console.print(f"  {fault}", style="bold red")
    if ledger.counts[FAILED]:
        faults.append("a sender failed or hangs, so that less was sent than was meant to be")
    is_good = not faults and len(ledger.kept) >= _LEAST_A_SECOND * options.seconds
    console.print(f"{len(faults)} faults" if faults else "each is there, whole, with one row; nothing is left over")
    if is_good:
        shutil.rmtree(folder / "data")
        console.print(f"the {ledger.size_bytes / 1e9:.1f} GB that were checked are removed again")
    else:
        console.print(f"at least {_LEAST_A_SECOND * options.seconds:.0f} instances are wanted, each without a fault")
        console.print(f"what was received is kept for a look: {folder / 'data'}")
    return 0 if is_good else 1


def soak(folder: Path, course: Course, seed: int, ledger: Ledger) -> None:
    """Let the senders send and the receiver be killed; at the end it is started once more, and ends in order."""
    port = free_port()
    running = _started(folder, port)
    course = replace(course, began=time.monotonic())
    senders = [
        threading.Thread(target=_send, args=(port, course, random.Random(f"{seed} {number}"), ledger), daemon=True)
        for number in range(SENDERS)
    ]
    rng = random.Random(f"{seed} kills")
    for sender in senders:
        sender.start()
    while (left := course.until - time.monotonic()) > 0:
        time.sleep(min(left, rng.uniform(*_KILLS)))
        assert running.process is not None
        if running.process.poll() is not None:
            raise RigError(f"the receiver ended by itself; see {running.log}")
        running.process.kill()
        running.process.wait()
        ledger.count("kills of the receiver")
        running = _started(folder, port)
    for sender in senders:
        sender.join(120)
        if sender.is_alive():
            # What was answered is judged all the same.
            ledger.count(FAILED)
    if running.stop() != 0:
        raise RigError(f"the receiver did not end in order; see {running.log}")


def judge(data_dir: Path, kept: dict[str, str]) -> Iterator[str]:
    """What is wrong with index and archive, beside what the senders were told."""
    index, archive = Index.open(f"sqlite:///{data_dir / 'index.sqlite'}"), Archive(data_dir / "archive")
    try:
        known: set[str] = set()
        for study in index.studies.rows(limit=10**9):
            for path, (uid, sha256) in _rows_of(index, study.study_instance_uid).items():
                known.add(path)
                try:
                    archive.verify(path, sha256)
                except (UnreadableInstance, OSError) as error:
                    yield f"{uid}: {error}"
        for uid, sha256 in kept.items():
            rows = index.studies.find(uid)
            if [row.sha256 for row in rows] != [sha256]:
                yield f"{uid} was answered with success and has {len(rows)} rows, or another checksum"
    finally:
        index.close()
    root = archive.path_of("")
    for file in (each for each in (root / "studies").rglob("*") if each.is_file()):
        if str(file.relative_to(root)) not in known:
            yield f"{file} is in no row"
    yield from (f"{path} is left over" for path in (root / "incoming").iterdir())


def _rows_of(index: Index, study_instance_uid: str) -> dict[str, tuple[str, str]]:
    instances = index.studies.study(study_instance_uid).series
    return {
        instance.path: (instance.sop_instance_uid, instance.sha256)
        for series in instances
        for instance in series.instances
    }


def _started(folder: Path, port: int) -> Program:
    started = receiver(folder / "data", folder / "receiver.log", port)
    started.start()
    started.wait_for("the receiver", lambda: listens(port), _STARTING_SECONDS)
    return started


def _send(port: int, course: Course, rng: random.Random, ledger: Ledger) -> None:
    """One sender: association after association, some of which break off."""
    while (now := time.monotonic()) < course.until:
        if course.is_ahead(ledger.size_bytes, now):
            time.sleep(_REST_SECONDS)
            continue
        try:
            with ct_sender(port) as sender:
                _store_some(sender, rng, ledger)
        except (OSError, Refused):
            ledger.count("associations that the receiver's end broke")
            time.sleep(0.1)
        except Exception:  # it ends here, and whoever judges must not take its silence for peace
            ledger.count(FAILED)
            raise


def _store_some(sender: WireSender, rng: random.Random, ledger: Ledger) -> None:
    study, series = _uid(rng), _uid(rng)
    for _ in range(rng.randint(1, _MOST_AN_ASSOCIATION)):
        uid = _uid(rng)
        data_set = _data_set(rng, study, series, uid)
        if rng.random() < _ABORT_SHARE:
            message = sender.message(uid, data_set)
            sender.send(message[: rng.randrange(len(message))])
            if rng.random() < 0.5:
                sender.send(ABORTING)
            ledger.count("objects broken off by their sender")
            return
        for _ in range(1 + (rng.random() < _AGAIN_SHARE)):
            status = sender.store(uid, data_set)
            if status == 0x0000:
                ledger.keep(uid, data_set)
            ledger.count(f"answers 0x{status:04X}")
    sender.release()


def _uid(rng: random.Random) -> str:
    return f"2.25.{rng.getrandbits(120)}"


def _data_set(rng: random.Random, study: str, series: str, uid: str) -> bytes:
    smallest, largest, _ = rng.choices(_SIZES, [share for _, _, share in _SIZES])[0]
    return ct_slice(study, series, uid, os.urandom(2 * rng.randrange(smallest // 2, largest // 2)))


if __name__ == "__main__":
    sys.exit(main())
