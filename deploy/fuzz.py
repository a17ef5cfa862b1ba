"""Fuzzing: mutated PDUs and command sets against the receive path, in a process that is watched; `make fuzz`.

Exit status 0 only if the process lives, logs no fault of its own, ends every connection in time, serves the next
association, and has in the end hardly more threads, open files and memory than in the beginning. What is
found is written down, and belongs into tests/fuzz_found, which the tests play again.
"""

import argparse
import json
import random
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from deploy.fuzz_mutation import SEEDS, mutated, pdus_of, seeds
from deploy.rig import clean
from dicom_node.promise import PEERS_AT_ONCE

OUTPUT = Path("fuzz-output")

#: A connection that is not ended so long after its peer said that nothing more comes hangs.
PATIENCE_SECONDS = 20.0

#: In which the threads of an association end.
_SETTLING_SECONDS = 2.0

_ASSOCIATE_AC = 2
_SENDERS = 4
_ROUND = 1000
#: What caches and allocators may take after the first round; a leak of a kilobyte a connection is more.
_MORE_MEGABYTES = 48
#: Connections that the index opens to its database when several threads want one, and keeps.
_MORE_FILES = 24


class Hanging(Exception):
    """A connection was not ended in time."""


@dataclass(frozen=True, kw_only=True)
class Size:
    """What a process holds."""

    threads: int
    files: int
    megabytes: float


def main(arguments: Sequence[str] | None = None) -> int:
    """Play mutated associations; 0 when nothing was found."""
    parser = argparse.ArgumentParser(prog="python -m deploy.fuzz", description=main.__doc__)
    parser.add_argument(
        "--count",
        type=int,
        default=55_000,
        metavar="N",
        help="mutated associations, with about two mutated PDUs or command sets each",
    )
    parser.add_argument("--first", type=int, default=0, metavar="N", help="go on behind so many of the same seed")
    parser.add_argument("--seed", type=int, default=None, help="of the mutations; default: one by chance, printed")
    options = parser.parse_args(arguments)
    console = Console(width=None if sys.stdout.isatty() else 140, highlight=False)
    seed = random.SystemRandom().randrange(1_000_000) if options.seed is None else options.seed
    console.print(f"seed {seed}: {options.count} mutated associations from number {options.first} on")
    folder = clean(OUTPUT)
    shared_memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=shared_memory if shared_memory.is_dir() else None) as data:
        watched = Watched(Path(data), folder / "target.log")
        try:
            found = _fuzz(watched, range(options.first, options.first + options.count), seed, folder, console)
        finally:
            watched.stop()
    for fault in found[:20]:
        console.print(f"  {fault}", style="bold red")
    console.print(f"{len(found)} faults" if found else "nothing was found")
    return 1 if found else 0


class Watched:
    """The receive path in a process of its own."""

    def __init__(self, data: Path, log: Path) -> None:
        self._log, self._reading, self._read_bytes = log, threading.Lock(), 0
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "deploy.fuzz_target", str(data)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=output,
            )
        assert self._process.stdout is not None
        self.port = int(self._process.stdout.readline())

    @property
    def lives(self) -> bool:
        """Whether it runs."""
        return self._process.poll() is None

    def size(self) -> Size:
        """What it holds now."""
        folder = Path(f"/proc/{self._process.pid}")
        lines = (line.split() for line in (folder / "status").read_text().splitlines())
        status = {words[0].rstrip(":"): words[1] for words in lines if len(words) > 1}
        files = len(list((folder / "fd").iterdir()))
        return Size(threads=int(status["Threads"]), files=files, megabytes=int(status["VmRSS"]) / 1024)

    def settled(self, before: Size | None) -> Size:
        """What it holds when it serves nobody any more."""
        until = time.monotonic() + PATIENCE_SECONDS
        while True:
            size = self.size()
            if before is None or size.threads <= before.threads + PEERS_AT_ONCE:
                return size
            if time.monotonic() > until:
                return size
            time.sleep(0.1)

    def faults(self) -> list[str]:
        """Lines of its log that tell a fault of its own, and are new."""
        with self._reading, self._log.open("rb") as file:
            file.seek(self._read_bytes)
            new = file.read()
            # A line that is being written is read the next time.
            whole = new[: new.rfind(b"\n") + 1]
            self._read_bytes += len(whole)
        lines = whole.decode(errors="replace").splitlines()
        return [line for line in lines if _is_fault(line)]

    def stop(self) -> None:
        """Let it end."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(PATIENCE_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()


def play(port: int, conversation: bytes, patience_seconds: float = PATIENCE_SECONDS) -> int:
    """Send what a peer might, say that nothing more comes, and read to the end; how many bytes came.

    What follows the request of an association is sent when that was accepted. Hanging where no end comes.
    """
    pdus = pdus_of(conversation)
    request, rest = (pdus[0], b"".join(pdus[1:])) if pdus and pdus[0][:1] == b"\x01" else (conversation, b"")
    with socket.create_connection(("127.0.0.1", port), timeout=patience_seconds) as connection:
        try:
            connection.sendall(request)
            came = connection.recv(65536) if rest else b""
            if came[:1] == bytes([_ASSOCIATE_AC]):
                connection.sendall(rest)
            connection.shutdown(socket.SHUT_WR)
            size = len(came)
            while part := connection.recv(65536):
                size += len(part)
        except TimeoutError as error:
            raise Hanging(f"a connection was not ended in {patience_seconds:.0f} s") from error
        except ConnectionError:
            # It was aborted while we were sending.
            return 0
    return size


def is_served(port: int) -> bool:
    """Whether a sender that keeps to the rules is answered."""
    echo = (SEEDS / "echoscu.bin").read_bytes()
    # An association that is accepted, an answer, and a release that is confirmed.
    return play(port, echo) > 150


def _fuzz(watched: Watched, numbers: range, seed: int, folder: Path, console: Console) -> list[str]:
    known, begun = seeds(), time.monotonic()
    found: list[str] = []
    mutations = 0
    play(watched.port, b"".join(known[0]))
    # Counted while the thread of an association ends, a leak would have room.
    time.sleep(_SETTLING_SECONDS)
    idle, warm = watched.settled(None), None
    with ThreadPoolExecutor(_SENDERS) as pool:
        for done in range(0, len(numbers), _ROUND):
            some = numbers[done : done + _ROUND]
            mutants = [mutated(random.Random(f"{seed} {number}"), known) for number in some]
            mutations += sum(mutant.mutations for mutant in mutants)
            faults = pool.map(lambda n, mutant: _one(watched, n, mutant.data, folder), some, mutants)
            found += [fault for fault in faults if fault]
            size = watched.settled(idle)
            warm = warm or size
            found += _grown(idle, warm, size) if watched.lives else ["the process is gone"]
            if not found and not is_served(watched.port):
                found.append("a sender that keeps to the rules is not served")
            last = done + len(some)
            if found or last == len(numbers) or last % (10 * _ROUND) == 0:
                rate = last / (time.monotonic() - begun)
                held = f"{size.threads} threads, {size.files} files, {size.megabytes:.0f} MB"
                console.print(f"  {last:7} played, {mutations} PDUs or command sets mutated, {rate:.0f}/s: {held}")
            if found:
                break
    return found


def _one(watched: Watched, number: int, conversation: bytes, folder: Path) -> str:
    """Play one conversation; what is wrong, or nothing."""
    try:
        try:
            play(watched.port, conversation)
        except Hanging:
            # On a machine that stood still everything hangs; what hangs by its bytes hangs again.
            play(watched.port, conversation)
    except (Hanging, OSError) as error:
        fault = f"{number}: {error}"
    else:
        faults = watched.faults()
        fault = f"{number}: {faults[0][:300]}" if faults else ""
    if fault:
        (folder / f"{number}.bin").write_bytes(conversation)
    return fault


def _is_fault(line: str) -> bool:
    """Whether a line of the log tells a fault of ours: not where the library stumbled over what a peer sent."""
    try:
        record = json.loads(line)
    except ValueError:
        # What nobody caught is written as it is.
        return True
    places = record.get("traceback") or [""]
    return record["level"] in ("ERROR", "CRITICAL") or "dicom_node/" in places[-1]


def _grown(idle: Size, warm: Size, size: Size) -> list[str]:
    grown = [
        f"{name}: {getattr(size, name)} where there were {getattr(idle, name)}"
        # The threads that tell peers of storage commitment come as they are wanted, and stay.
        for name, more in (("threads", PEERS_AT_ONCE), ("files", _MORE_FILES))
        if getattr(size, name) > getattr(idle, name) + more
    ]
    if size.megabytes > warm.megabytes + _MORE_MEGABYTES:
        grown.append(f"{size.megabytes:.0f} MB where there were {warm.megabytes:.0f}")
    return grown


if __name__ == "__main__":
    sys.exit(main())
