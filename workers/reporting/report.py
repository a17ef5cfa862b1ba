"""Report: the structured report and the segmentation of one reading, built and checked together."""

from dataclasses import dataclass
from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset, dcmwrite

from dicom_node.core.finding import Finding
from workers.reporting.evidence import Evidence
from workers.reporting.segmentation import build_segmentation
from workers.reporting.structured_report import build_structured_report

_REPLACES = "This report replaces an earlier one of this study: more was received after that was written."


@dataclass(frozen=True, kw_only=True)
class Report:
    """The objects that go to the PACS."""

    structured_report: Dataset
    #: None when nothing was found.
    segmentation: Dataset | None

    @property
    def datasets(self) -> tuple[Dataset, ...]:
        """In the order of delivery: what the structured report refers to arrives before it."""
        return (self.structured_report,) if self.segmentation is None else (self.segmentation, self.structured_report)


def build_report(
    evidence: Evidence, findings: tuple[Finding, ...], labels: NDArray[np.uint8], remarks: tuple[str, ...] = ()
) -> Report:
    """Write findings, numbered from 1 as `labels` [k, j, i] mark them, as objects of the evidence's study.

    Remarks are sentences for the comment.
    Raises EvidenceInvalid where findings, labels and evidence do not belong together.
    """
    if evidence.predecessor is not None:
        remarks = (*remarks, _REPLACES)
    segmentation = build_segmentation(evidence, findings, labels)
    structured_report = build_structured_report(evidence, findings, segmentation, remarks)
    return Report(structured_report=structured_report, segmentation=segmentation)


def as_file(dataset: Dataset) -> bytes:
    """The bytes of an object in the DICOM file format (PS3.10 Section 7)."""
    with BytesIO() as file:
        dcmwrite(file, dataset, enforce_file_format=True)
        return file.getvalue()
