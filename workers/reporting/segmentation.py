"""Segmentation: voxels as a Segmentation (PS3.3 Section A.51), one segment a finding, and apart from it each lung.

BINARY by default, which every viewer that shows segmentations takes; Label Map Segmentation (PS3.3 Section A.51, Label
Map IOD) on demand, which is smaller where segments are many.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from highdicom.color import CIELabColor
from highdicom.seg import SegmentAlgorithmTypeValues, SegmentationTypeValues, SegmentDescription
from highdicom.seg import Segmentation as HighdicomSegmentation
from highdicom.spatial import get_volume_positions
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.uid import ExplicitVRLittleEndian
from pydicom.valuerep import format_number_as_ds

from dicom_node.core.codes import ANATOMICAL_STRUCTURE, LEFT, LUNG, RIGHT, Code
from dicom_node.core.errors import EvidenceInvalid
from dicom_node.core.finding import Finding
from workers.lungs import LEFT_LUNG, LUNG_OF_UNKNOWN_SIDE, RIGHT_LUNG
from workers.reporting.equipment import algorithm_sequence, contributing_equipment, keep_own_equipment
from workers.reporting.evidence import Evidence, concept
from workers.reporting.multi_frame import by_frame

SEGMENTATION_SERIES_NUMBER = 9002
LUNG_SERIES_NUMBER = 9008
#: From the number of a series to that of the same voxels as a label map.
_FURTHER_SERIES = 10

BINARY, LABEL_MAP = SegmentationTypeValues.BINARY, SegmentationTypeValues.LABELMAP

#: L*, a*, b*: light and saturated enough to be told apart on grey, in the order of the segments.
_COLOURS = (
    (78.0, 12.0, 74.0),
    (72.0, -38.0, -20.0),
    (70.0, 50.0, -30.0),
    (80.0, -56.0, 52.0),
    (66.0, 58.0, 34.0),
    (82.0, -4.0, -28.0),
)
#: Values of a lung mask, what each is called, its side, and its colour: pale, so that findings stand out.
_LUNGS: tuple[tuple[int, str, Code | None, CIELabColor], ...] = (
    (RIGHT_LUNG, "Right lung", RIGHT, CIELabColor(84.0, -14.0, 10.0)),
    (LEFT_LUNG, "Left lung", LEFT, CIELabColor(84.0, -4.0, -14.0)),
    (LUNG_OF_UNKNOWN_SIDE, "Lung", None, CIELabColor(84.0, 0.0, 4.0)),
)


def tracking_identifier(finding: Finding) -> str:
    """What people call the finding, in the report and in the segmentation."""
    return finding.name


def colour_of(finding: Finding) -> CIELabColor:
    """The finding's colour in every object that has colours."""
    return CIELabColor(*_COLOURS[(finding.number - 1) % len(_COLOURS)])


def tracking_uid(evidence: Evidence, finding: Finding) -> str:
    """What software calls the finding, in the report and in the segmentation."""
    return evidence.tracking_uid(finding.number)


def build_segmentation(
    evidence: Evidence,
    findings: tuple[Finding, ...],
    labels: NDArray[np.uint8],
    kind: SegmentationTypeValues = BINARY,
) -> HighdicomSegmentation | None:
    """The findings' voxels, or None without findings: a segmentation has at least one frame that is not empty.

    `labels` [k, j, i] hold a finding's number in its voxels, as many as the volume has. Raises EvidenceInvalid where
    findings and labels do not belong together.
    """
    check_labels(evidence, findings, labels)
    if not findings:
        return None
    segments = [_finding_segment(evidence, finding) for finding in findings]
    return _segmentation(evidence, labels, segments, kind=kind, role="SEG", series_number=SEGMENTATION_SERIES_NUMBER)


def build_lung_segmentation(
    evidence: Evidence, lungs: NDArray[np.uint8], kind: SegmentationTypeValues = BINARY
) -> HighdicomSegmentation | None:
    """The lungs that were searched, an object and a series of their own; None where there are none.

    `lungs` [k, j, i] hold the values of `workers.lungs` on the volume's own grid.
    """
    check_shape(evidence, lungs)
    segments: list[SegmentDescription] = []
    numbers = np.zeros(256, dtype=np.uint8)
    for value, name, side, colour in _LUNGS:
        if (lungs == value).any():
            numbers[value] = len(segments) + 1
            segments.append(_lung_segment(evidence, len(segments) + 1, name, side, colour))
    if not segments:
        return None
    # A lung that is missing leaves no gap: segments count from 1.
    return _segmentation(
        evidence, numbers[lungs], segments, kind=kind, role="lung SEG", series_number=LUNG_SERIES_NUMBER
    )


def _segmentation(
    evidence: Evidence,
    labels: NDArray[np.uint8],
    segments: Sequence[SegmentDescription],
    *,
    kind: SegmentationTypeValues,
    role: str,
    series_number: int,
) -> HighdicomSegmentation:
    own = role if kind == BINARY else f"{role} {kind.value}"
    images, planes = _drawn_on(evidence, labels)
    segmentation = HighdicomSegmentation(
        source_images=images,
        pixel_array=planes,
        segmentation_type=kind,
        segment_descriptions=segments,
        series_instance_uid=evidence.series_uid(own),
        series_number=series_number if kind == BINARY else series_number + _FURTHER_SERIES,
        sop_instance_uid=evidence.uid(own),
        omit_empty_frames=True,
        transfer_syntax_uid=ExplicitVRLittleEndian,
        content_label="AI_FINDINGS" if role == "SEG" else "AI_LUNGS",
        content_description="AI result, not for diagnostic use",
        contributing_equipment=[contributing_equipment(evidence)],
        **evidence.header_attributes("" if role == "SEG" else "lungs"),
    )
    _refer_to_all(segmentation, evidence)
    evidence.complete(segmentation)
    keep_own_equipment(segmentation, evidence.algorithm)
    _name_dimensions(segmentation, evidence.uid(f"{role} dimensions"))
    _leave_background_without_colour(segmentation)
    return segmentation


def _leave_background_without_colour(segmentation: HighdicomSegmentation) -> None:
    """Nobody draws it; and OHIF 3.13.2 gives its colour, a black that is not seen in a lung, to the first segment."""
    for item in segmentation.SegmentSequence:
        if item.SegmentNumber == 0 and "RecommendedDisplayCIELabValue" in item:
            del item.RecommendedDisplayCIELabValue


def _drawn_on(evidence: Evidence, labels: NDArray[np.uint8]) -> tuple[Sequence[Dataset], NDArray[np.uint8]]:
    """The source images that anything is marked on, with their planes [k, j, i]: the library looks long at each.

    With them the first, which stands for the series, and all frames of a multi-frame image, which is one image.
    """
    if evidence.volume.frame_numbers:
        return evidence.source_images, labels[by_frame(evidence.volume)]
    marked = _marked(labels)
    marked[0] = True
    if marked.all():
        return evidence.source_images, labels
    return [evidence.source_images[k] for k in np.flatnonzero(marked)], labels[marked]


def _refer_to_all(segmentation: Dataset, evidence: Evidence) -> None:
    """Name every image that was read, and their distance: that nothing is marked on one is a part of the result."""
    references = [_reference(image) for image in evidence.source_images]
    series = Dataset()
    series.SeriesInstanceUID, series.ReferencedInstanceSequence = evidence.volume.series_instance_uid, references
    segmentation.SourceImageSequence, segmentation.ReferencedSeriesSequence = references, [series]
    measures = segmentation.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
    measures.pop("SpacingBetweenSlices", None)
    places = [[float(value) for value in header.ImagePositionPatient] for header in evidence.volume.headers]
    orientation = [float(value) for value in evidence.header.ImageOrientationPatient]
    spacing_mm, _ = get_volume_positions(image_positions=places, image_orientation=orientation)
    if spacing_mm is not None:
        measures.SpacingBetweenSlices = format_number_as_ds(spacing_mm)
    if segmentation.get("DimensionOrganizationType") == "3D" and not _is_even(segmentation, orientation, spacing_mm):
        del segmentation.DimensionOrganizationType


def _is_even(segmentation: Dataset, orientation: Sequence[float], spacing_mm: float | None) -> bool:
    """Whether the frames themselves, of which empty ones are left out, lie as far apart as the slices do.

    Only such frames are 3D (PS3.3 Section C.7.6.17.3).
    """
    frames = segmentation.PerFrameFunctionalGroupsSequence
    places = {tuple(map(float, frame.PlanePositionSequence[0].ImagePositionPatient)) for frame in frames}
    if spacing_mm is None or len(places) < 2:
        return False
    own_mm, _ = get_volume_positions(image_positions=sorted(places), image_orientation=orientation)
    return own_mm is not None and bool(np.isclose(own_mm, spacing_mm, rtol=1e-3))


def _reference(image: Dataset) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = image.SOPClassUID, image.SOPInstanceUID
    return item


def check_labels(evidence: Evidence, findings: tuple[Finding, ...], labels: NDArray[np.uint8]) -> None:
    """Raise EvidenceInvalid unless the labels mark each finding, nothing else, on the volume's own grid."""
    check_shape(evidence, labels)
    numbers = [finding.number for finding in findings]
    if numbers != list(range(1, len(findings) + 1)):
        raise EvidenceInvalid(f"findings are numbered {numbers}; segments count from 1 without a gap")
    if not _marks_all(labels, len(numbers)):
        marked = [value for value in np.unique(labels).tolist() if value]
        raise EvidenceInvalid(f"labels mark {marked}, the findings are {numbers}: each needs its voxels")


def _marked(labels: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Which slices have anything marked: of truth values many are looked at at once, and no more than needed."""
    return np.array([plane.view(bool).any() for plane in labels])


def _marks_all(labels: NDArray[np.uint8], count: int) -> bool:
    """Whether labels mark every number from 1 to so many, and no other."""
    missing = set(range(1, count + 1))
    for k in np.flatnonzero(_marked(labels)):
        plane = labels[k]
        if plane.max() > count:
            return False
        missing -= {number for number in missing if (plane == number).any()}
    return not missing


def check_shape(evidence: Evidence, labels: NDArray[np.uint8]) -> None:
    """Raise EvidenceInvalid unless labels are on the volume's own grid."""
    if labels.shape != evidence.volume.voxels.shape:
        raise EvidenceInvalid(f"labels are {labels.shape}, the volume is {evidence.volume.voxels.shape}")


def _finding_segment(evidence: Evidence, finding: Finding) -> SegmentDescription:
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
        display_color=colour_of(finding),
    )
    segment.AnatomicRegionSequence = [region]
    return segment


def _lung_segment(
    evidence: Evidence, number: int, name: str, side: Code | None, colour: CIELabColor
) -> SegmentDescription:
    """A lung as an organ: its side modifies its type, and it needs no region (CID 7155)."""
    segment = SegmentDescription(
        segment_number=number,
        segment_label=name,
        segmented_property_category=concept(ANATOMICAL_STRUCTURE),
        segmented_property_type=concept(LUNG),
        algorithm_type=SegmentAlgorithmTypeValues.AUTOMATIC,
        algorithm_identification=algorithm_sequence(evidence.algorithm),
        tracking_id=name,
        # As of a finding: what a report replaces makes no difference to it.
        tracking_uid=replace(evidence, predecessor=None).uid(name),
        display_color=colour,
    )
    if side is not None:
        segment.SegmentedPropertyTypeCodeSequence[0].SegmentedPropertyTypeModifierCodeSequence = [concept(side)]
    return segment


def _name_dimensions(segmentation: Dataset, uid: str) -> None:
    """Replace the random Dimension Organization UID, so that the same reading writes the same bytes."""
    for item in (*segmentation.DimensionOrganizationSequence, *segmentation.DimensionIndexSequence):
        item.DimensionOrganizationUID = uid
