"""The pipe between a worker and its reading process: what is asked, and what is answered; plain values only."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dicom_node.core.form import BY_DEFAULT, ESSENTIAL, Earlier, Form
from dicom_node.core.prior import EarlierStudies
from dicom_node.core.screening import Screening
from dicom_node.core.urgency import DEFAULT_RULES, TriageRule
from dicom_node.settings import BundleSettings

#: The step of a reading process that has nothing to do.
WAITING = "waiting"


@dataclass(frozen=True, kw_only=True)
class Begin:
    """The first message to a reading process: how it is to be set up."""

    #: Root of the archive.
    archive: Path
    bundle_dirs: tuple[Path, ...]
    device: str
    #: CPU threads of the inference; 0: as many as there are cores.
    threads: int
    #: "module:name" of the table that says which algorithm makes sense of which bundle.
    algorithms: str
    #: Whether log lines are JSON objects.
    log_as_json: bool
    #: What the settings say of single bundles.
    bundles: tuple[BundleSettings, ...] = ()
    #: How long it may take to tell on what findings' scores depended; 0: that is not told.
    explanation_seconds: float = 0.0


@dataclass(frozen=True, kw_only=True)
class SourceFile:
    """One instance in the archive."""

    #: Relative to the archive's root.
    path: str
    #: Of its data set as it was received.
    sha256: str


@dataclass(frozen=True, kw_only=True)
class ReceivedImage:
    """What the index knows of an instance."""

    sop_instance_uid: str
    sop_class_uid: str
    #: Relative to the archive's root.
    path: str


@dataclass(frozen=True, kw_only=True)
class SeriesToRead:
    """A series as it was when its job was queued, and who shall read it."""

    study_instance_uid: str
    series_instance_uid: str
    algorithm: str
    #: Digest of the instances.
    evidence: str
    #: When the last of them was received, in seconds since 1970.
    completed_at: float
    files: tuple[SourceFile, ...]


@dataclass(frozen=True, kw_only=True)
class Read:
    """Read a series; answered by Reported or Failed."""

    job_uid: str
    series: SeriesToRead
    #: Structured reports that this one may replace, the likeliest first.
    earlier: tuple[Earlier, ...] = ()
    #: What is to be written.
    forms: frozenset[Form] = BY_DEFAULT
    #: How urgent findings are.
    triage: tuple[TriageRule, ...] = DEFAULT_RULES
    #: What its route says of the examination.
    screening: Screening = "no"
    #: Those of the patient that the same algorithm read or is to read.
    earlier_studies: EarlierStudies = EarlierStudies()


@dataclass(frozen=True, kw_only=True)
class Explain:
    """Write a report that says why a series was not read; answered by Reported or Failed."""

    job_uid: str
    series: SeriesToRead
    #: The instances of the series as the index knows them: their files may not be readable.
    instances: tuple[ReceivedImage, ...]
    #: Name of a class of the error tree, and its message.
    error: str
    reason: str
    earlier: tuple[Earlier, ...] = ()
    #: In which reports on a reading would be written.
    forms: frozenset[Form] = BY_DEFAULT


@dataclass(frozen=True, kw_only=True)
class Reject:
    """Write a rejection note over some objects of a study; answered by Reported or Failed."""

    #: Names the request.
    job_uid: str
    study_instance_uid: str
    #: Of the objects, relative to the archive's root.
    paths: tuple[str, ...]
    safety: bool
    reason: str
    #: In seconds since 1970.
    asked_at: float
    #: Of the withdrawals of the study, from 1.
    number: int


@dataclass(frozen=True, kw_only=True)
class Prepare:
    """A job for this series may soon come: do what can be done before; not answered."""

    series: SeriesToRead


@dataclass(frozen=True, kw_only=True)
class Drop:
    """Nobody wants this job's report any more: its reading ends with its next beat, as Failed."""

    job_uid: str


@dataclass(frozen=True, kw_only=True)
class Ready:
    """The process can read; sent again whenever the bundles in memory changed."""

    device: str
    #: Name and version of each.
    bundles: tuple[str, ...]
    #: Names of the algorithms that can read.
    algorithms: tuple[str, ...] = ()
    #: Names of those whose bundle is there and cannot be used now.
    broken: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Beat:
    """The process moves, and is at this step."""

    step: str
    #: Bytes of the device's memory that are taken, by whomever, and all it has; None where it has none of its own.
    memory_bytes: tuple[int, int] | None = None


@dataclass(frozen=True, kw_only=True)
class ReportObject:
    """One object of a report as the file it will be."""

    study_instance_uid: str
    series_instance_uid: str
    sop_instance_uid: str
    sop_class_uid: str
    data: bytes
    form: Form
    #: Why the gate let it not pass; empty where it did.
    held: str = ""


@dataclass(frozen=True, kw_only=True)
class Reported:
    """A reading that ended in a report, in the order of delivery."""

    job_uid: str
    objects: tuple[ReportObject, ...]
    #: What people see of it before they open it; made of what JSON knows.
    summary: Mapping[str, Any]

    @property
    def is_held(self) -> bool:
        """Whether what everything else of the report rests on must not be sent."""
        return any(written.held and written.form in ESSENTIAL for written in self.objects)

    @property
    def why_held(self) -> str:
        """What is wrong with the objects that must not be sent."""
        return "; ".join(dict.fromkeys(written.held for written in self.objects if written.held))


@dataclass(frozen=True, kw_only=True)
class Failed:
    """A reading that ended without a report."""

    job_uid: str
    #: Name of a class of the error tree.
    kind: str
    message: str
    #: Whether the process is to be replaced: what it met was not foreseen, and may have left anything behind.
    last: bool = False


Request = Begin | Read | Explain | Reject | Prepare | Drop
Answer = Ready | Beat | Reported | Failed
