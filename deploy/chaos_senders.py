"""The senders of a chaos run: scanners that send a study again until all of it was accepted; and their ledger."""

import random
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path

from pydicom import dcmread

from deploy.chaos_plan import Kind
from deploy.chaos_studies import WrittenStudy
from dicom_node.archive.file_meta import open_data_set
from dicom_node.core.errors import DeliveryError
from dicom_node.scu.storage import FileToSend, store
from dicom_node.settings import Peer

STORESCU = "/usr/bin/storescu"

#: How long a sender waits for an answer, and for an association.
_ANSWER_SECONDS, _ASSOCIATION_SECONDS = 20, 10
#: A scanner that was refused sends again after so long.
_AGAIN_SECONDS = (0.5, 3.0)
#: Late images wait for a report, but not for ever.
_REPORT_SECONDS = 120.0
_POLL_SECONDS = 0.1


@dataclass(frozen=True, kw_only=True)
class Content:
    """One instance as it was sent."""

    sop_instance_uid: str
    #: Of the data set.
    sha256: str


@dataclass(kw_only=True)
class Sent:
    """What became of one study's sending; times are seconds since 1970."""

    study: WrittenStudy
    #: When each content was first answered with success.
    accepted: dict[Content, float] = field(default_factory=dict)
    #: Sendings that broke or were refused.
    broken: int = 0
    #: Whether all that was to be sent was accepted.
    finished: bool = False

    @property
    def evidence_complete_at(self) -> float:
        """When the last new instance that counts as evidence was accepted."""
        first: dict[str, float] = {}
        for content, at in self.accepted.items():
            if content.sop_instance_uid in self.study.evidence:
                first[content.sop_instance_uid] = min(at, first.get(content.sop_instance_uid, at))
        return max(first.values(), default=0.0)


class Ledger:
    """Every study's Sent, by Study Instance UID; safe to share between threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._studies: dict[str, Sent] = {}
        self._contents: dict[Path, Content] = {}

    def open(self, study: WrittenStudy) -> None:
        """A study is about to be sent."""
        contents = {path: content_of(path) for path in {*study.files, *study.late}}
        with self._lock:
            self._studies[study.study_instance_uid] = Sent(study=study)
            self._contents |= contents

    def accepted(self, study: WrittenStudy, path: Path, at: float) -> None:
        """The node answered 0x0000 to this file."""
        with self._lock:
            self._studies[study.study_instance_uid].accepted.setdefault(self._contents[path], at)

    def broke(self, study: WrittenStudy) -> None:
        """A sending did not come to its end."""
        with self._lock:
            self._studies[study.study_instance_uid].broken += 1

    def finished(self, study: WrittenStudy) -> None:
        """All of the study was accepted."""
        with self._lock:
            self._studies[study.study_instance_uid].finished = True

    def studies(self) -> dict[str, Sent]:
        """Everything so far, as copies."""
        with self._lock:
            return {uid: replace(sent, accepted=dict(sent.accepted)) for uid, sent in self._studies.items()}


def content_of(path: Path) -> Content:
    """A file's instance: its UID and its data set's digest."""
    _, file = open_data_set(path)
    with file:
        digest = sha256(file.read()).hexdigest()
    uid = str(dcmread(path, stop_before_pixels=True).SOPInstanceUID)
    return Content(sop_instance_uid=uid, sha256=digest)


class Scanner:
    """Sends studies to one peer, so many at a time, as scanners do: all again, until all is accepted."""

    def __init__(
        self,
        peer: Peer,
        ledger: Ledger,
        *,
        at_once: int,
        reported: Callable[[str], bool],
        being_read: Callable[[str], bool],
        ending: threading.Event,
    ) -> None:
        """`reported` says whether a study has its result, `being_read` whether it waits for it or is read.

        `ending` lets every sender give up.
        """
        self._peer = peer
        self._ledger = ledger
        self._reported = reported
        self._being_read = being_read
        self._ending = ending
        self._lines = threading.BoundedSemaphore(at_once)
        self._send = _by_storescu if shutil.which(STORESCU) else _by_ourselves

    def bring(self, study: WrittenStudy) -> None:
        """Send a study and whatever is to follow it; returns when all is accepted or the run ends."""
        rng = random.Random(study.planned.seed)
        self._ledger.open(study)
        parts = [study.files]
        if study.late:
            parts.append(study.late)
        elif study.planned.kind is Kind.TWICE:
            parts.append(study.files)
        for number, files in enumerate(parts):
            if number:
                self._wait_between(study, rng)
            if not self._send_all(study, files, rng):
                return
        self._ledger.finished(study)

    def _wait_between(self, study: WrittenStudy, rng: random.Random) -> None:
        if study.planned.kind is Kind.TWICE:
            self._ending.wait(rng.uniform(0.0, 8.0))
            return
        until = time.monotonic() + _REPORT_SECONDS
        while time.monotonic() < until and not self._is_time(study):
            if self._ending.wait(_POLL_SECONDS):
                return

    def _is_time(self, study: WrittenStudy) -> bool:
        """Whether what comes late may come now: what was to meet the reading and did not comes after it."""
        uid = study.study_instance_uid
        return self._reported(uid) or (study.planned.late_while_read and self._being_read(uid))

    def _send_all(self, study: WrittenStudy, files: Sequence[Path], rng: random.Random) -> bool:
        """Send these files over one association, again and again until one association took them all."""
        name = f"SCANNER{study.planned.number % 7}"
        while not self._ending.is_set():
            accepted = 0
            with self._lines:
                for path in self._send(self._peer, files, name):
                    self._ledger.accepted(study, path, time.time())
                    accepted += 1
            if accepted == len(files):
                return True
            self._ledger.broke(study)
            self._ending.wait(rng.uniform(*_AGAIN_SECONDS))
        return False


def _by_storescu(peer: Peer, files: Sequence[Path], ae_title: str) -> Iterator[Path]:
    """Send by DCMTK and yield each file that was answered with success; it ends with the first that was not."""
    where = [peer.host, str(peer.port), *map(str, files)]
    titles = ["-aet", ae_title, "-aec", peer.ae_title]
    waits = ["-to", str(_ASSOCIATION_SECONDS), "-ta", str(_ASSOCIATION_SECONDS), "-td", str(_ANSWER_SECONDS)]
    command = [STORESCU, "-v", "-R", *titles, *waits, *where]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as sending:
        yield from successes(sending.stdout or ())


def successes(lines: Iterator[str] | Sequence[str]) -> Iterator[Path]:
    """The files that storescu's output says were answered with 0x0000."""
    path = None
    for line in lines:
        _, sending, name = line.rstrip("\n").partition("I: Sending file: ")
        if sending:
            path = Path(name)
        elif line.startswith("I: Received Store Response (Success)") and path is not None:
            yield path
            path = None


def _by_ourselves(peer: Peer, files: Sequence[Path], ae_title: str) -> Iterator[Path]:
    """The same by our own sender, where DCMTK is not installed."""
    try:
        for sent in store(peer, map(FileToSend.read, files), ae_title=ae_title, timeout_seconds=float(_ANSWER_SECONDS)):
            if sent.error is not None or sent.answer != "accepted (0x0000)":
                return
            yield sent.file.path
    except DeliveryError:
        return
