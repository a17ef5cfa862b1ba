"""Tiny studies sent at a fixed rate, and a peer that takes every result: what stands around a node under load."""

import os
import random
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from io import BytesIO
from pathlib import Path

import numpy as np
from pydicom import dcmread

from deploy.chaos_senders import STORESCU, successes
from deploy.rig import Program, free_port
from dicom_node.settings import Peer
from training.ct_series import write_ct_series

STORESCP = "/usr/bin/storescp"
#: A volume has three slices at least.
INSTANCES = 3
#: Studies that one association carries: 4 associations a second at 20 studies a second.
STUDIES_PER_ASSOCIATION = 5
_SENDERS = 2


class Sink:
    """DCMTK's storescp, which accepts everything and keeps nothing: the cheapest peer there is."""

    name = "storescp"

    def __init__(self, folder: Path) -> None:
        self.peer = Peer(name="pacs", ae_title="SINK", host="127.0.0.1", port=free_port(), results=True)
        folder.mkdir(parents=True, exist_ok=True)
        command = [STORESCP, "--ignore", "--promiscuous", "-aet", self.peer.ae_title, str(self.peer.port)]
        self.program = Program(command, folder / "storescp.log")

    def start(self) -> None:
        """Start; it listens at once."""
        self.program.start()

    def stop(self) -> None:
        """End."""
        self.program.stop()

    def files(self, _study_instance_uid: str) -> list[bytes]:
        """It keeps none."""
        return []


class Template:
    """A tiny series as bytes in which only the UIDs change: thousands of studies cost no drawing."""

    def __init__(self, folder: Path) -> None:
        voxels = np.full((INSTANCES, 8, 8), -800, dtype=np.int16)
        paths = write_ct_series(voxels, spacing_mm=(2.0, 2.0, 2.0), folder=folder)
        self._slices = [_with_uids(path, _marks(number)) for number, path in enumerate(paths)]

    def write(self, folder: Path, number: int) -> list[Path]:
        """The files of one study under UIDs of its own."""
        folder.mkdir(parents=True)
        paths = []
        for k, data in enumerate(self._slices):
            for old, new in zip(_marks(k), _marks(k, number + 1), strict=True):
                data = data.replace(old.encode(), new.encode())
            path = folder / f"{k}.dcm"
            path.write_bytes(data)
            paths.append(path)
        return paths


#: Of the 2.25 arc, all of one length, so that one can stand where another stood; another root for each run.
_ROOT = 10**38 + random.SystemRandom().randrange(10**17) * 10**20


def _marks(k: int, study: int = 0) -> tuple[str, str, str, str]:
    """Study, series, frame of reference and SOP instance of a study's slice; study 0 is the template."""
    base = _ROOT + study * 1000
    return f"2.25.{base}", f"2.25.{base + 1}", f"2.25.{base + 2}", f"2.25.{base + 10 + k}"


def _with_uids(path: Path, uids: tuple[str, str, str, str]) -> bytes:
    ds = dcmread(path)
    ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.FrameOfReferenceUID, ds.SOPInstanceUID = uids
    ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
    buffer = BytesIO()
    ds.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


#: DCMTK's programs read a dictionary of five thousand lines when they start, which takes longer than what they send.
#: The files say themselves of what kind their elements are: those of commands and of files' headers are enough.
_DICTIONARIES = "share/libdcmtk*/dicom.dic"
_NEEDED = ("(0000,", "(0002,")


def _small_dictionary(path: Path) -> dict[str, str]:
    """The environment of a sender that reads no more of DCMTK's dictionary than it needs."""
    found = sorted(Path("/usr").glob(_DICTIONARIES))
    if not found:
        return {}
    lines = found[-1].read_text(encoding="utf-8").splitlines(keepends=True)
    path.write_text("".join(line for line in lines if line.startswith(_NEEDED)), encoding="utf-8")
    return {"DCMDICTPATH": str(path)}


class Senders:
    """Send studies at a rate, several of them over each association."""

    def __init__(self, node: Peer, batches: Sequence[Sequence[Path]], rate: float, folder: Path) -> None:
        """`folder` is there, and takes what the senders need."""
        self._node = node
        self._environment = os.environ | _small_dictionary(folder / "sender.dic")
        self._batches = list(enumerate(batches))
        self._seconds_per_batch = STUDIES_PER_ASSOCIATION / rate
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._run, daemon=True) for _ in range(_SENDERS)]
        self._began = 0.0
        self.accepted = 0

    def start(self) -> None:
        """Begin with the first batch."""
        self._began = time.monotonic()
        for thread in self._threads:
            thread.start()

    def running(self) -> bool:
        """Whether some still send."""
        return any(thread.is_alive() for thread in self._threads)

    def _run(self) -> None:
        while True:
            with self._lock:
                if not self._batches:
                    return
                number, files = self._batches.pop(0)
            time.sleep(max(0.0, self._began + number * self._seconds_per_batch - time.monotonic()))
            taken = sum(1 for _ in self._sent(files))
            with self._lock:
                self.accepted += taken

    def _sent(self, files: Sequence[Path]) -> Iterator[Path]:
        node = self._node
        command = [STORESCU, "-v", "-R", "-aet", "SCANNER", "-aec", node.ae_title, node.host, str(node.port)]
        with subprocess.Popen(
            [*command, *map(str, files)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=self._environment,
        ) as sending:
            yield from successes(sending.stdout or ())
