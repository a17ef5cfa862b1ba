"""The audit trail: who logged in, saw, changed or withdrew what, as DICOM audit messages (PS3.15 Section A.5).

Each message is XML by the schema of A.5.1. It names people, studies and addresses. Of the patient, whom A.5.3.6 asks
for, it has a keyed hash of the Patient ID and nothing else: a trail that leaves this machine must hold no
patient data. Whoever has the key (`hash.key` in the data folder) can tell whether a given ID is meant.
"""

import base64
import logging
import os
import secrets
import socket
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol
from xml.etree import ElementTree

from dicom_node.core.errors import IndexUnavailable

log = logging.getLogger(__name__)

#: Facility authpriv (10), severity notice (5): RFC 5424 Section 6.2.1.
_PRIORITY = 10 * 8 + 5
_KEY_BYTES = 32


@dataclass(frozen=True, kw_only=True)
class Code:
    """A code of DICOM's own terminology."""

    value: str
    meaning: str


@dataclass(frozen=True, kw_only=True)
class Event:
    """What kind of thing happened: EventID, EventTypeCode and EventActionCode (PS3.15 Section A.5.3)."""

    id: Code
    action: str
    type: Code | None = None


_AUTHENTICATION = Code(value="110114", meaning="User Authentication")
_ACCESSED = Code(value="110103", meaning="DICOM Instances Accessed")
_SECURITY = Code(value="110113", meaning="Security Alert")

LOGIN = Event(id=_AUTHENTICATION, action="E", type=Code(value="110122", meaning="Login"))
LOGOUT = Event(id=_AUTHENTICATION, action="E", type=Code(value="110123", meaning="Logout"))
SEEN = Event(id=_ACCESSED, action="R")
CHANGED = Event(id=_ACCESSED, action="U")
#: Somebody reads this trail (PS3.15 Section A.5.3.2).
LOG_USED = Event(id=Code(value="110101", meaning="Audit Log Used"), action="R")
QUERIED = Event(id=Code(value="110112", meaning="Query"), action="E")
USERS_CHANGED = Event(id=_SECURITY, action="E", type=Code(value="110137", meaning="User Security Attributes Changed"))
NODE_CHANGED = Event(id=_SECURITY, action="E", type=Code(value="110131", meaning="Software Configuration"))
#: Somebody wanted what he may not have (PS3.15 Section A.5.3.11).
RESTRICTED = Event(id=_SECURITY, action="E", type=Code(value="110132", meaning="Use of Restricted Function"))


@dataclass(frozen=True, kw_only=True)
class Happening:
    """One thing that happened."""

    event: Event
    at: float
    #: The user's or token's name; of a login that failed, the name that was given.
    user: str
    address: str = ""
    succeeded: bool = True
    #: What was done, in words without names.
    description: str = ""
    studies: Sequence[str] = ()
    #: The form of the address that was refused, without anything of the request's own; empty for what is not refused.
    resource: str = ""


class Sink(Protocol):
    """Where audit messages go."""

    def write(self, message: str, at: float) -> None:
        """Keep or send one message; OSError where that fails."""


class AuditTrail:
    """Writes messages, one after the other; one that cannot be written is an error in the log, and counted."""

    def __init__(
        self,
        sinks: Sequence[Sink],
        *,
        source: str,
        patient: Callable[[str], str] = lambda _study: "",
    ) -> None:
        """`source` is our AE title; `patient` gives the keyed hash of a study's Patient ID, empty where not known."""
        self._sinks = tuple(sinks)
        self._source = source
        self._patient = patient
        self._lock = threading.Lock()
        self.lost = 0

    def note(self, happening: Happening) -> None:
        """Let a thing that happened be known."""
        patients = {study: self._patient_of(study) for study in happening.studies}
        message = xml_of(happening, self._source, patients)
        for sink in self._sinks:
            try:
                with self._lock:
                    sink.write(message, happening.at)
            except OSError as error:
                self.lost += 1
                log.error("an audit message was not written", extra={"reason": type(error).__name__})

    def _patient_of(self, study: str) -> str:
        try:
            return self._patient(study)
        except IndexUnavailable:
            # The study says it, too: what happened is not to be lost for it.
            return ""


def xml_of(happening: Happening, source: str, patients: dict[str, str]) -> str:
    """The message (PS3.15 Section A.5.1) on one line; `patients` are hashes of Patient IDs by study."""
    root = ElementTree.Element("AuditMessage")
    event = ElementTree.SubElement(
        root,
        "EventIdentification",
        EventActionCode=happening.event.action,
        EventDateTime=_moment(happening.at),
        # Minor failure: RFC 3881 Section 5.1.4.
        EventOutcomeIndicator="0" if happening.succeeded else "4",
    )
    _code(event, "EventID", happening.event.id)
    if happening.event.type is not None:
        _code(event, "EventTypeCode", happening.event.type)
    if happening.description:
        ElementTree.SubElement(event, "EventOutcomeDescription").text = happening.description
    # Whom an alert is about asks for no alert: its requestor is who reports it.
    is_alert = happening.event == RESTRICTED
    who = _participant(root, happening.user or "unknown", is_requestor=not is_alert)
    if happening.address:
        who.set("NetworkAccessPointID", happening.address)
        # An IP address: RFC 3881 Section 5.3.3.
        who.set("NetworkAccessPointTypeCode", "2")
    if is_alert:
        _participant(root, source, is_requestor=True)
    ours = ElementTree.SubElement(root, "AuditSourceIdentification", AuditSourceID=source)
    # An application server: PS3.16 CID 404 is RFC 3881's own list.
    ElementTree.SubElement(ours, "AuditSourceTypeCode").set("csd-code", "4")
    if happening.event == LOG_USED:
        # A system object that is a security resource, named by its address: RFC 3881 Sections 5.5.1 to 5.5.4.
        _object(root, "audit", "2", "13", Code(value="12", meaning="URI"), system="RFC-3881")
    if happening.resource:
        alert = _object(root, happening.resource, "2", "13", Code(value="12", meaning="URI"), system="RFC-3881")
        described = base64.b64encode(happening.description.encode()).decode("ascii")
        ElementTree.SubElement(alert, "ParticipantObjectDetail", type="Alert Description", value=described)
    for study in happening.studies:
        _object(root, study, "2", "3", Code(value="110180", meaning="Study Instance UID"))
    for patient in sorted({patient for patient in patients.values() if patient}):
        _object(root, patient, "1", "1", Code(value="2", meaning="Patient Number"), system="RFC-3881")
    return ElementTree.tostring(root, encoding="unicode")


def _participant(root: ElementTree.Element, name: str, *, is_requestor: bool) -> ElementTree.Element:
    return ElementTree.SubElement(
        root, "ActiveParticipant", UserID=name, UserIsRequestor="true" if is_requestor else "false"
    )


def _object(
    root: ElementTree.Element, name: str, kind: str, role: str, code: Code, system: str = "DCM"
) -> ElementTree.Element:
    added = ElementTree.SubElement(
        root,
        "ParticipantObjectIdentification",
        ParticipantObjectID=name,
        ParticipantObjectTypeCode=kind,
        ParticipantObjectTypeCodeRole=role,
    )
    _code(added, "ParticipantObjectIDTypeCode", code, system)
    if kind == "1":
        added.set("ParticipantObjectSensitivity", "keyed hash of the Patient ID")
    return added


def _code(parent: ElementTree.Element, tag: str, code: Code, system: str = "DCM") -> None:
    added = ElementTree.SubElement(parent, tag)
    for name, value in (("csd-code", code.value), ("codeSystemName", system), ("originalText", code.meaning)):
        added.set(name, value)


def _moment(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def syslog_line(message: str, at: float, *, host: str, process: int) -> bytes:
    """One syslog message around an audit message (RFC 5424 Section 6; MSGID as PS3.15 Section A.6 names it)."""
    head = f"<{_PRIORITY}>1 {_moment(at)} {host[:255] or '-'} dicom-node {process} DICOM+RFC3881 - "
    return head.encode("ascii", "replace") + b"\xef\xbb\xbf" + message.encode()


class AuditFile:
    """A file a day in the data folder, one message a line, for the node's user and group alone."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def write(self, message: str, at: float) -> None:
        """Append the message."""
        self._folder.mkdir(mode=0o750, parents=True, exist_ok=True)
        day = datetime.fromtimestamp(at, UTC).date().isoformat()
        with (self._folder / f"{day}.xml").open("a", encoding="utf-8") as file:
            file.write(message + "\n")


def hash_key(data_dir: Path) -> bytes:
    """The key of the hashes: made once, kept beside the archive, readable by the node's user alone."""
    path = data_dir / "hash.key"
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return path.read_bytes()
    with os.fdopen(handle, "wb") as file:
        file.write(secrets.token_bytes(_KEY_BYTES))
    return path.read_bytes()


def host_name() -> str:
    """What syslog calls this machine."""
    return socket.gethostname()
