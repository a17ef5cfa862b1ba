"""Segmentation: the findings' voxels as one BINARY Segmentation (PS3.3 Section A.51), one segment a finding."""

import numpy as np
from highdicom.color import CIELabColor
from highdicom.seg import SegmentAlgorithmTypeValues, SegmentationTypeValues, SegmentDescription
from highdicom.seg import Segmentation as HighdicomSegmentation
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.uid import ExplicitVRLittleEndian

from dicom_node.core.errors import EvidenceInvalid
from dicom_node.core.finding import Finding
from workers.reporting.equipment import algorithm_sequence, contributing_equipment, keep_own_equipment
from workers.reporting.evidence import Evidence, concept

SEGMENTATION_SERIES_NUMBER = 9002

#: L*, a*, b*: light and saturated enough to be told apart on grey, in the order of the segments.
_COLOURS = (
    (78.0, 12.0, 74.0),
    (72.0, -38.0, -20.0),
    (70.0, 50.0, -30.0),
    (80.0, -56.0, 52.0),
    (66.0, 58.0, 34.0),
    (82.0, -4.0, -28.0),
)


def tracking_identifier(finding: Finding) -> str:
    """What people call the finding, in the report and in the segmentation."""
    return f"{finding.concept.meaning} {finding.number}"


def tracking_uid(evidence: Evidence, finding: Finding) -> str:
    """What software calls the finding, in the report and in the segmentation."""
    return evidence.tracking_uid(finding.number)


def build_segmentation(
    evidence: Evidence, findings: tuple[Finding, ...], labels: NDArray[np.uint8]
) -> HighdicomSegmentation | None:
    """The findings' voxels, or None without findings: a segmentation has at least one frame that is not empty.

    `labels` [k, j, i] hold a finding's number in its voxels, as many as the volume has. Raises EvidenceInvalid where
    findings and labels do not belong together.
    """
    check_labels(evidence, findings, labels)
    if not findings:
        return None
    segmentation = HighdicomSegmentation(
        source_images=evidence.source_images,
        pixel_array=labels,
        segmentation_type=SegmentationTypeValues.BINARY,
        segment_descriptions=[_segment(evidence, finding) for finding in findings],
        series_instance_uid=evidence.series_uid("SEG"),
        series_number=SEGMENTATION_SERIES_NUMBER,
        sop_instance_uid=evidence.uid("SEG"),
        omit_empty_frames=True,
        transfer_syntax_uid=ExplicitVRLittleEndian,
        content_label="AI_FINDINGS",
        content_description="AI result, not for diagnostic use",
        contributing_equipment=[contributing_equipment(evidence)],
        **evidence.header_attributes(),
    )
    evidence.complete(segmentation)
    keep_own_equipment(segmentation, evidence.algorithm)
    _name_dimensions(segmentation, evidence.uid("SEG dimensions"))
    return segmentation


def check_labels(evidence: Evidence, findings: tuple[Finding, ...], labels: NDArray[np.uint8]) -> None:
    """Raise EvidenceInvalid unless the labels mark each finding, nothing else, on the volume's own grid."""
    if labels.shape != evidence.volume.voxels.shape:
        raise EvidenceInvalid(f"labels are {labels.shape}, the volume is {evidence.volume.voxels.shape}")
    marked = {int(value) for value in np.unique(labels[labels.any(axis=(1, 2))])} - {0}
    numbers = [finding.number for finding in findings]
    if numbers != list(range(1, len(findings) + 1)):
        raise EvidenceInvalid(f"findings are numbered {numbers}; segments count from 1 without a gap")
    if marked != set(numbers):
        raise EvidenceInvalid(f"labels mark {sorted(marked)}, the findings are {numbers}: each needs its voxels")


def _segment(evidence: Evidence, finding: Finding) -> SegmentDescription:
    """What one segment is, where it is, and who drew it."""
    region = concept(finding.site)
    if finding.laterality is not None:
        region.AnatomicRegionModifierSequence = [concept(finding.laterality)]
    segment = SegmentDescription(
        segment_number=finding.number,
        segment_label=tracking_identifier(finding),
        segmented_property_category=concept(finding.category),
        segmented_property_type=concept(finding.concept),
        algorithm_type=SegmentAlgorithmTypeValues.AUTOMATIC,
        algorithm_identification=algorithm_sequence(evidence.algorithm),
        tracking_id=tracking_identifier(finding),
        tracking_uid=tracking_uid(evidence, finding),
        display_color=CIELabColor(*_COLOURS[(finding.number - 1) % len(_COLOURS)]),
    )
    segment.AnatomicRegionSequence = [region]
    return segment


def _name_dimensions(segmentation: Dataset, uid: str) -> None:
    """Replace the random Dimension Organization UID, so that the same reading writes the same bytes."""
    for item in (*segmentation.DimensionOrganizationSequence, *segmentation.DimensionIndexSequence):
        item.DimensionOrganizationUID = uid
