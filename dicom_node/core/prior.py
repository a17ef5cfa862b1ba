"""A prior: an earlier study of the patient that the same algorithm read, with what its findings can be followed by."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

#: In the summary of a reading: the earlier study that its findings were compared with, and which report on it.
PRIOR_STUDY, PRIOR_REPORT = "prior_study", "prior_report"


@dataclass(frozen=True, kw_only=True)
class Prior:
    """An earlier study, with findings or without; nothing of the patient, since it goes from process to process."""

    study_instance_uid: str
    #: Of its structured report, relative to the archive's root.
    path: str
    sop_instance_uid: str
    #: What its reading left for later ones, as `workers.layout` writes it; empty: an earlier version read it.
    layout: Mapping[str, Any] = field(default_factory=dict)
