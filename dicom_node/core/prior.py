"""A prior: an earlier study of the patient that the same algorithm read, with what its findings can be followed by."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from dicom_node.core.form import Form

#: In the summary of a reading: the earlier study that its findings were compared with, and which report on it.
PRIOR_STUDY, PRIOR_REPORT = "prior_study", "prior_report"


@dataclass(frozen=True, kw_only=True)
class PriorReport:
    """A structured report on an earlier study."""

    #: Relative to the archive's root.
    path: str
    sop_instance_uid: str
    #: Of its file as it was written.
    sha256: str


@dataclass(frozen=True, kw_only=True)
class Prior:
    """An earlier study, with findings or without; nothing of the patient, since it goes from process to process."""

    study_instance_uid: str
    #: What findings are compared with.
    report: PriorReport
    #: The same in other forms, which other peers have.
    others: Mapping[Form, PriorReport] = field(default_factory=dict)
    #: What its reading left for later ones, as `workers.layout` writes it; empty: an earlier version read it.
    layout: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Unread:
    """An earlier study of which the algorithm's report is not there."""

    #: Its reading failed; else it is being received, waits or is read.
    has_failed: bool
    #: How many of the priors that go with it are of a later moment.
    behind: int


@dataclass(frozen=True, kw_only=True)
class EarlierStudies:
    """What is known of a patient's earlier studies when a later one is read."""

    #: Those that may be compared, the latest first.
    priors: tuple[Prior, ...] = ()
    unread: tuple[Unread, ...] = ()
