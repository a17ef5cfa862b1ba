"""Forms beside segmentation and structured report: one row each, with what builds it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset

from dicom_node.core.finding import Finding
from dicom_node.core.form import Form
from workers.reporting.evidence import Evidence


@dataclass(frozen=True, kw_only=True)
class Material:
    """What a further form is built from."""

    evidence: Evidence
    findings: tuple[Finding, ...]
    #: [k, j, i]: the number of a finding in its voxels.
    labels: NDArray[np.uint8]
    #: None without findings.
    segmentation: Dataset | None
    structured_report: Dataset


@dataclass(frozen=True, kw_only=True)
class Builder:
    """What writes one form."""

    build: Callable[[Material], Dataset]
    #: Whether there is nothing to write without findings.
    needs_findings: bool


#: By form, in the order in which they are built.
BUILDERS: Mapping[Form, Builder] = MappingProxyType({})
