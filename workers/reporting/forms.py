"""Forms beside segmentation and structured report: one row each, with what builds it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset

from dicom_node.core.finding import Finding
from dicom_node.core.form import Form
from dicom_node.core.outcome import Outcome
from workers.dependence import Dependence
from workers.reporting.encapsulated_pdf import build_encapsulated_pdf
from workers.reporting.evidence import Evidence
from workers.reporting.key_object_selection import build_key_object_selection
from workers.reporting.presentation_state import build_presentation_states
from workers.reporting.secondary_capture import build_secondary_captures
from workers.reporting.segmentation import LABEL_MAP, build_lung_segmentation, build_segmentation


class Part(NamedTuple):
    """One object of a report: its form, and its number among those of that form, from 1."""

    form: Form
    number: int = 1


@dataclass(frozen=True, kw_only=True)
class Material:
    """What a further form is built from."""

    evidence: Evidence
    findings: tuple[Finding, ...]
    #: [k, j, i]: the number of a finding in its voxels.
    labels: NDArray[np.uint8]
    #: Sentences for people who read the report.
    remarks: tuple[str, ...] = ()
    #: [k, j, i]: the values of `workers.lungs`; None where the algorithm has none, or nobody asked for them.
    lungs: NDArray[np.uint8] | None = None
    #: None: that of a whole reading.
    outcome: Outcome | None = None
    #: By findings' numbers, on what their scores depended, where that was told.
    explained: Mapping[int, Dependence] = field(default_factory=dict)


#: What writes one form: its objects, none where there is nothing to write.
Builder = Callable[[Material], Sequence[Dataset | None]]


def _label_map(material: Material) -> Sequence[Dataset | None]:
    return [build_segmentation(material.evidence, material.findings, material.labels, LABEL_MAP)]


def _lungs(material: Material) -> Sequence[Dataset | None]:
    return [] if material.lungs is None else [build_lung_segmentation(material.evidence, material.lungs)]


def _key_objects(material: Material) -> Sequence[Dataset | None]:
    return [build_key_object_selection(material.evidence, material.findings)]


def _presentation_states(material: Material) -> Sequence[Dataset | None]:
    return build_presentation_states(material.evidence, material.findings, material.labels)


def _told(
    material: Material,
) -> tuple[Evidence, tuple[Finding, ...], NDArray[np.uint8], tuple[str, ...], Outcome | None]:
    """What pages in words and pictures are made of."""
    return material.evidence, material.findings, material.labels, material.remarks, material.outcome


def _secondary_captures(material: Material) -> Sequence[Dataset | None]:
    return build_secondary_captures(*_told(material), material.explained)


def _pdf(material: Material) -> Sequence[Dataset | None]:
    return [build_encapsulated_pdf(*_told(material), material.explained)]


#: By form, in the order in which they are built.
BUILDERS: Mapping[Form, Builder] = MappingProxyType(
    {
        Form.LABEL_MAP: _label_map,
        Form.LUNG: _lungs,
        Form.KEY_OBJECTS: _key_objects,
        Form.PRESENTATION_STATE: _presentation_states,
        Form.SECONDARY_CAPTURE: _secondary_captures,
        Form.PDF: _pdf,
    }
)
