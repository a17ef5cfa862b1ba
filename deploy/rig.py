"""A rig on this machine: a whole node as people start it, and a little PACS beside it that takes the results."""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, fields
from pathlib import Path
from random import SystemRandom
from typing import Any, Protocol

from dicom_node.archive.index import Index
from dicom_node.archive.studies import StudyRow
from dicom_node.core.errors import DeliveryError, NodeError
from dicom_node.core.lifecycle import StudyState
from dicom_node.scu.storage import FileToSend, store
from dicom_node.scu.verification import echo
from dicom_node.settings import Peer, toml_text

ORTHANC = "/usr/sbin/Orthanc"
SCANNER = "SCANNER"
#: Below those that Linux gives to whoever opens a connection, from 32768 on.
_PORTS = range(15000, 32000)


class RigError(NodeError):
    """Something of the rig did not start, or did not do its part in time."""


def free_port() -> int:
    """A port that was free a moment ago, and that the kernel gives to no connection meanwhile."""
    for port in SystemRandom().sample(_PORTS, len(_PORTS)):
        with socket.socket() as listener, suppress(OSError):
            listener.bind(("127.0.0.1", port))
            return port
    raise RigError("no port of this machine is free")


class Program:
    """A program started by hand, its output in a file."""

    def __init__(self, command: Sequence[str], log: Path, environment: Mapping[str, str] | None = None) -> None:
        self._command = list(command)
        self._environment = os.environ | dict(environment or {})
        self.log = log
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it."""
        with self.log.open("ab") as output:
            self.process = subprocess.Popen(
                self._command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=self._environment
            )

    def wait_for(self, what: str, ready: Any, seconds: float) -> None:
        """Wait until `ready()` is true; RigError with the end of the log when it does not come."""
        until = time.monotonic() + seconds
        while not ready():
            ended = self.process is not None and self.process.poll() is not None
            if ended or time.monotonic() > until:
                tail = self.log.read_text(errors="replace")[-2000:]
                raise RigError(f"{what} did not start{' and ended' if ended else ''}; its log ends:\n{tail}")
            time.sleep(0.1)

    def stop(self, seconds: float = 60.0) -> int | None:
        """Ask it to end, then make it; its exit status."""
        if self.process is None:
            return None
        self.process.terminate()
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait()


class LittlePacs(Protocol):
    """Where results go to."""

    name: str
    peer: Peer
    program: Program

    def start(self) -> None:
        """Start and answer C-ECHO."""

    def stop(self) -> None:
        """End."""

    def files(self, study_instance_uid: str) -> list[bytes]:
        """Every object of the study that arrived, as DICOM files."""


def _answers(peer: Peer) -> bool:
    """Whether a C-ECHO is answered; asked only where something listens, since a failed call leaves a socket open."""
    try:
        socket.create_connection((peer.host, peer.port), timeout=5.0).close()
        echo(peer, ae_title=SCANNER, timeout_seconds=5.0)
    except (OSError, DeliveryError):
        return False
    return True


class Orthanc:
    """Debian's Orthanc as the PACS."""

    name = "Orthanc"

    def __init__(self, folder: Path, callers: Sequence[Peer] = ()) -> None:
        """The `callers` may ask it for storage commitment; it opens an association to them for its answer."""
        self.peer = Peer(name="pacs", ae_title="ORTHANC", host="127.0.0.1", port=free_port(), results=True)
        self._web = free_port()
        folder.mkdir(parents=True, exist_ok=True)
        configuration = {
            "Name": "little PACS",
            "StorageDirectory": str(folder / "storage"),
            "IndexDirectory": str(folder / "storage"),
            "DicomAet": self.peer.ae_title,
            "DicomPort": self.peer.port,
            "HttpPort": self._web,
            "RemoteAccessAllowed": False,
            "AuthenticationEnabled": False,
            "DicomCheckCalledAet": True,
            "UnknownSopClassAccepted": True,
            "DicomModalities": {caller.name: _known_to_orthanc(caller) for caller in callers},
            "Plugins": [],
        }
        (folder / "orthanc.json").write_text(json.dumps(configuration))
        self.program = Program([ORTHANC, str(folder / "orthanc.json")], folder / "orthanc.log")

    def start(self) -> None:
        """Start and answer C-ECHO."""
        self.program.start()
        self.program.wait_for("Orthanc", lambda: _answers(self.peer), 60.0)

    def stop(self) -> None:
        """End."""
        self.program.stop()

    def files(self, study_instance_uid: str) -> list[bytes]:
        """Every object of the study that arrived, as DICOM files."""
        query = {"Level": "Instance", "Query": {"StudyInstanceUID": study_instance_uid}}
        found = json.loads(self._ask("/tools/find", json.dumps(query).encode()))
        return [self._ask(f"/instances/{identifier}/file") for identifier in found]

    def _ask(self, path: str, body: bytes | None = None) -> bytes:
        with urllib.request.urlopen(f"http://127.0.0.1:{self._web}{path}", body, timeout=30) as answer:
            return bytes(answer.read())


class ReceiveOnlyNode:
    """Our own receiver as the PACS, where no other is installed."""

    name = "receive-only node"

    def __init__(self, folder: Path) -> None:
        self.peer = Peer(name="pacs", ae_title="PACS", host="127.0.0.1", port=free_port(), results=True)
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "dicom_node", "receive", "--any-peer", "--port", str(self.peer.port)]
        self.program = Program([*command, "--data-dir", str(folder / "data")], folder / "receive.log")

    def start(self) -> None:
        """Start and answer C-ECHO."""
        self.program.start()
        self.program.wait_for("the receive-only node", lambda: _answers(self.peer), 60.0)

    def stop(self) -> None:
        """End."""
        self.program.stop()

    def files(self, study_instance_uid: str) -> list[bytes]:
        """Every object of the study that arrived, as DICOM files."""
        kept = (self._folder / "data" / "archive" / "studies").glob(f"*/{study_instance_uid}/*/*.dcm")
        return [path.read_bytes() for path in sorted(kept)]


def _known_to_orthanc(caller: Peer) -> dict[str, object]:
    return {
        "AET": caller.ae_title,
        "Host": caller.host,
        "Port": caller.port,
        "AllowEcho": True,
        "AllowFind": True,
        "AllowMove": True,
        "AllowStore": True,
        "AllowStorageCommitment": True,
    }


def little_pacs(folder: Path) -> LittlePacs:
    """Orthanc where it is installed, else our own receiver."""
    return Orthanc(folder) if Path(ORTHANC).exists() else ReceiveOnlyNode(folder)


@dataclass(frozen=True, kw_only=True)
class Sending:
    """A study on its way in."""

    instances: int
    #: Of the last C-STORE response, seconds since 1970.
    ended_at: float


class RunningNode:
    """`dicom-node serve` in a folder of its own, on free ports, with one peer for results."""

    def __init__(
        self,
        folder: Path,
        pacs: Peer | None,
        *,
        further_settings: str = "",
        port: int | None = None,
        data_dir: Path | None = None,
        minimum_free_megabytes: int = 100,
    ) -> None:
        """Its port and its data folder are chosen where they are not given; its log is in `folder`."""
        folder.mkdir(parents=True, exist_ok=True)
        self.port, self.web_port = port or free_port(), free_port()
        self.data_dir = data_dir or folder / "data"
        self.minimum_free_megabytes = minimum_free_megabytes
        self.config = folder / "node.toml"
        peer = peer_table(pacs) if pacs is not None else ""
        self.config.write_text(_SETTINGS.format(node=self, peer=peer) + further_settings)
        command = [sys.executable, "-m", "dicom_node", "serve", "--config", str(self.config)]
        self.program = Program(command, folder / "node.log")
        self._index: Index | None = None

    @property
    def peer(self) -> Peer:
        """The node as those who send to it know it."""
        return Peer(name="node", ae_title="TRIAGE", host="127.0.0.1", port=self.port)

    @property
    def index(self) -> Index:
        """The node's index, opened beside it."""
        if self._index is None:
            self._index = Index.open(f"sqlite:///{self.data_dir / 'index.sqlite'}")
        return self._index

    def listen(self) -> None:
        """Start, and return when C-ECHO is answered."""
        self.program.start()
        self.program.wait_for("the node", lambda: _answers(self.peer), 120.0)

    def start(self) -> None:
        """Start, and return when C-ECHO is answered and a worker is ready."""
        self.listen()
        self.program.wait_for("the node's worker", lambda: bool(self.index.workers.rows()), 180.0)

    def send(self, folder: Path) -> Sending:
        """Send a folder's DICOM files as a scanner would; RigError when one is not taken."""
        files = [FileToSend.read(path) for path in sorted(folder.rglob("*")) if path.is_file()]
        refused = [
            outcome.error
            for outcome in store(self.peer, files, ae_title=SCANNER, timeout_seconds=60.0)
            if outcome.error is not None
        ]
        if refused:
            raise RigError(f"the node refused {len(refused)} of {len(files)} instances: {refused[0]}")
        rows = self.index.studies.rows(limit=1)
        return Sending(instances=len(files), ended_at=rows[0].last_received_at)

    def wait_for(self, study_instance_uid: str, states: Sequence[StudyState], seconds: float) -> StudyRow:
        """The study's row once it is in one of these states; RigError when it is in none in time."""
        until = time.monotonic() + seconds
        while True:
            rows = self.index.studies.rows(study_instance_uid)
            if rows and rows[0].state in states:
                return rows[0]
            if time.monotonic() > until:
                stands = f"{rows[0].state}: {rows[0].reason}" if rows else "not in the index"
                raise RigError(f"study {study_instance_uid} is {stands}, not {' or '.join(states)} in {seconds:.0f} s")
            time.sleep(0.1)

    def stop(self) -> int | None:
        """End in order; the exit status."""
        if self._index is not None:
            self._index.close()
            self._index = None
        return self.program.stop()


_SETTINGS = """\
[node]
port = {node.port}
data_dir = "{node.data_dir}"
host = "127.0.0.1"
minimum_free_megabytes = {node.minimum_free_megabytes}

[web]
port = {node.web_port}

{peer}
"""


def peer_table(peer: Peer) -> str:
    """A peer as the settings file has it, without what is its default."""
    rows = {
        entry.name: getattr(peer, entry.name) for entry in fields(peer) if getattr(peer, entry.name) != entry.default
    }
    return "[[peers]]\n" + "".join(f"{name} = {toml_text(value)}\n" for name, value in rows.items())


def time_shares(total: float, steps: Mapping[str, float]) -> dict[str, float]:
    """Where the seconds from last image to result went: the network, the rest of the reading, all else."""
    network, reading = steps["network"], steps["reading"]
    shares = {"total": total, "network": network, "reading": reading - network, "all else": total - reading}
    return {name: round(seconds, 2) for name, seconds in shares.items()}


def clean(folder: Path) -> Path:
    """An empty folder of this name."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder
