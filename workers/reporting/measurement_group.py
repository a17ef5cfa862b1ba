"""Measurement groups: what a report says of one finding (PS3.16 TID 1411, TID 1410 and TID 1501)."""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
from highdicom import sr as hd_sr
from pydicom import Dataset

from dicom_node.core import codes
from dicom_node.core.codes import Code
from dicom_node.core.errors import EvidenceInvalid
from dicom_node.core.finding import Axis, Finding, Outline, Pixel, Point
from workers.reporting.equipment import algorithm_template
from workers.reporting.evidence import Evidence, concept
from workers.reporting.marked_slice import Lines, MarkedSlice
from workers.reporting.quantities import AXES, QUALITIES, QUANTITIES, Quantity
from workers.reporting.segmentation import tracking_identifier, tracking_uid

#: Where findings are marked: in the segmentation that a peer gets or, where it gets none, on images.
Marked = Dataset | tuple[MarkedSlice, ...]


#: By this name OHIF knows an annotation of two axes, which it then draws, lists and lets the reader change.
BIDIRECTIONAL = "Cornerstone3DTools@^0.1.0:Bidirectional"
#: It compares meanings letter by letter, and these are spelt otherwise than in the standard.
_AXES = (
    (replace(codes.LONG_AXIS, meaning="Long Axis"), lambda finding: finding.long_axis),
    (replace(codes.SHORT_AXIS, meaning="Short Axis"), lambda finding: finding.short_axis),
)


def volumetric_group(evidence: Evidence, finding: Finding, marked: Marked) -> hd_sr.ContentSequence:
    """Everything measured of a finding, with its segment and the series it was drawn on (TID 1411).

    Without a segmentation, with its outlines on every image that it lies on in the segment's place.
    """
    return hd_sr.VolumetricROIMeasurementsAndQualitativeEvaluations(
        tracking_identifier=_tracking(evidence, finding),
        **_extent(evidence, finding, marked),
        finding_category=concept(finding.category),
        finding_type=concept(finding.concept),
        finding_sites=[_site(finding)],
        algorithm_id=algorithm_template(evidence.algorithm),
        measurements=list(_measurements(finding, QUANTITIES)),
        qualitative_evaluations=list(_qualities(finding)) or None,
    )


def _extent(evidence: Evidence, finding: Finding, marked: Marked) -> dict[str, Any]:
    """What was measured, as an argument of the group's: a segment, or outlines, that of the largest extent first."""
    if not isinstance(marked, Dataset):
        own = [(piece.k, mark) for piece in marked for mark in piece.marks if mark.finding == finding]
        own.sort(key=lambda place: not place[1].is_key)
        drawn = [outline for k, mark in own for outline in _outlines(evidence, k, mark.lines)]
        return {"referenced_regions": [_region(evidence, outline) for outline in drawn]}
    segment = hd_sr.ReferencedSegment(
        sop_class_uid=marked.SOPClassUID,
        sop_instance_uid=marked.SOPInstanceUID,
        segment_number=finding.number,
        source_series=hd_sr.SourceSeriesForSegmentation(evidence.volume.series_instance_uid),
    )
    return {"referenced_segment": segment}


def _outlines(evidence: Evidence, k: int, lines: Lines) -> Iterator[Outline]:
    """Lines on a slice as outlines on its image, but those of holes: what they surround was not measured."""
    for line in lines:
        column, row = line.T
        # Around a hole the points run the other way.
        if np.sum(column[:-1] * row[1:] - column[1:] * row[:-1]) > 0:
            yield Outline(
                sop_instance_uid=evidence.volume.sop_instance_uids[k],
                points=tuple((float(c), float(r)) for c, r in line),
                frame_number=evidence.volume.frame_number(k),
            )


def planar_group(evidence: Evidence, finding: Finding) -> hd_sr.ContentSequence:
    """The finding's outline on the slice of its largest extent, under the same Tracking Unique Identifier (TID 1410).

    OHIF shows a report only if every finding has coordinates in the image; a segment alone leaves it black.
    """
    header = _outlined_image(evidence, finding.outline)
    area = Quantity(codes.AREA, codes.SQUARE_MILLIMETRE, lambda _: None)
    return hd_sr.PlanarROIMeasurementsAndQualitativeEvaluations(
        tracking_identifier=_tracking(evidence, finding),
        referenced_region=_region(evidence, finding.outline),
        finding_category=concept(finding.category),
        finding_type=concept(finding.concept),
        finding_sites=[_site(finding)],
        algorithm_id=algorithm_template(evidence.algorithm),
        measurements=[_measurement(area, outline_area(finding.outline, header))],
    )


def bidirectional_group(evidence: Evidence, finding: Finding, *, alone: bool = False) -> hd_sr.ContentSequence:
    """Both axes with their ends, in the shape that OHIF draws and lists, under the same Tracking UID (TID 1501).

    Alone, without a group that refers to a segment, with everything else that was measured.
    """
    header = _outlined_image(evidence, finding.outline)
    axes = [_drawn(name, axis(finding), header, finding.outline) for name, axis in _AXES]
    further: dict[str, Any] = {}
    if alone:
        further = {
            "finding_category": concept(finding.category),
            "algorithm_id": algorithm_template(evidence.algorithm),
            "qualitative_evaluations": list(_qualities(finding)) or None,
        }
        axes += _measurements(finding, (quantity for quantity in QUANTITIES if quantity.name not in AXES))
    group = hd_sr.MeasurementsAndQualitativeEvaluations(
        tracking_identifier=hd_sr.TrackingIdentifier(uid=tracking_uid(evidence, finding), identifier=BIDIRECTIONAL),
        finding_type=concept(finding.concept),
        finding_sites=[_site(finding)],
        measurements=axes,
        **further,
    )
    comment = hd_sr.TextContentItem(concept(codes.COMMENT), label(finding), hd_sr.RelationshipTypeValues.CONTAINS)
    group[0].ContentSequence.append(comment)
    return group


def label(finding: Finding) -> str:
    """What is written beside a finding that is drawn."""
    category = "" if finding.lung_rads is None else f" Lung-RADS {finding.lung_rads}"
    return f"{tracking_identifier(finding)} (AI){category}"


def _drawn(name: Code, axis: Axis, header: Dataset, outline: Outline) -> hd_sr.Measurement:
    """An axis' length, inferred from the line between its ends in the image: OHIF wants no other child beside that."""
    line = hd_sr.CoordinatesForMeasurement(
        graphic_type=hd_sr.GraphicTypeValues.POLYLINE,
        graphic_data=np.array([pixel_of(axis.start, header), pixel_of(axis.end, header)]),
        source_image=_source_image(header, outline),
    )
    return _measurement(Quantity(name, codes.MILLIMETRE, lambda _: None, 1), axis.length_mm, line=line)


def _region(evidence: Evidence, outline: Outline) -> hd_sr.ImageRegion:
    """An outline on its image."""
    return hd_sr.ImageRegion(
        graphic_type=hd_sr.GraphicTypeValues.POLYLINE,
        graphic_data=np.array(outline.points),
        source_image=_source_image(_outlined_image(evidence, outline), outline),
    )


def _source_image(header: Dataset, outline: Outline) -> hd_sr.SourceImageForRegion:
    """The image that an outline lies on; of a multi-frame one its frame, since without it all frames are meant."""
    return hd_sr.SourceImageForRegion(
        referenced_sop_class_uid=header.SOPClassUID,
        referenced_sop_instance_uid=header.SOPInstanceUID,
        referenced_frame_numbers=None if outline.frame_number is None else [outline.frame_number],
    )


def pixel_of(place: Point, header: Dataset) -> Pixel:
    """Where a place of the patient lies in an image: column and row, (0.5, 0.5) the centre of the first pixel."""
    row, column = np.reshape([float(value) for value in header.ImageOrientationPatient], (2, 3))
    down, across = (float(value) for value in header.PixelSpacing)
    away = np.subtract(place, [float(value) for value in header.ImagePositionPatient])
    return float(away @ row) / across + 0.5, float(away @ column) / down + 0.5


def outline_area(outline: Outline, header: Dataset) -> float:
    """The area in mm2 that a closed outline surrounds, by the shoelace formula."""
    column, row = np.array(outline.points, dtype=float).T
    pixels = abs(np.sum(column[:-1] * row[1:] - column[1:] * row[:-1])) / 2
    down, across = (float(spacing) for spacing in header.PixelSpacing)
    return float(pixels * down * across)


def _outlined_image(evidence: Evidence, outline: Outline) -> Dataset:
    """The header of the image that an outline lies on; raises EvidenceInvalid where it lies on none of the series."""
    if len(outline.points) < 4 or outline.points[0] != outline.points[-1]:
        raise EvidenceInvalid("an outline is not closed: its last point must equal its first")
    if (k := evidence.volume.slice_of(outline)) is not None:
        return evidence.volume.headers[k]
    raise EvidenceInvalid(f"an outline lies on {outline.sop_instance_uid}, which is not among the evidence")


def _tracking(evidence: Evidence, finding: Finding) -> hd_sr.TrackingIdentifier:
    return hd_sr.TrackingIdentifier(uid=tracking_uid(evidence, finding), identifier=tracking_identifier(finding))


def _site(finding: Finding) -> hd_sr.FindingSite:
    laterality = None if finding.laterality is None else concept(finding.laterality)
    return hd_sr.FindingSite(concept(finding.site), laterality=laterality)


def _measurements(finding: Finding, quantities: Iterable[Quantity]) -> Iterator[hd_sr.Measurement]:
    for quantity in quantities:
        if (value := quantity.value(finding)) is not None:
            border = quantity.border(finding)
            yield _measurement(quantity, value, None if border is None else quantity.methods.get(border))


def _qualities(finding: Finding) -> Iterator[hd_sr.QualitativeEvaluation]:
    for name, of in QUALITIES:
        if (value := of(finding)) is not None:
            yield hd_sr.QualitativeEvaluation(name=concept(name), value=concept(value))


def _measurement(
    quantity: Quantity,
    value: float,
    method: Code | None = None,
    line: hd_sr.CoordinatesForMeasurement | None = None,
) -> hd_sr.Measurement:
    text = f"{round(value, quantity.decimals) + 0.0:.{quantity.decimals}f}"
    derivation = quantity.derivation
    measurement = hd_sr.Measurement(
        name=concept(quantity.name),
        value=float(text),
        unit=concept(quantity.unit),
        derivation=None if derivation is None else concept(derivation),
        method=None if method is None else concept(method),
        referenced_coordinates=None if line is None else [line],
    )
    # The library would write 523 mm3 as 523.0, which claims a precision that is not there.
    measurement[0].MeasuredValueSequence[0].NumericValue = text
    return measurement
