"""Measurement groups: what a report says of one finding (PS3.16 TID 1411 and TID 1410)."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from highdicom import sr as hd_sr
from pydicom import Dataset

from dicom_node.core import codes
from dicom_node.core.codes import Code
from dicom_node.core.errors import EvidenceInvalid
from dicom_node.core.finding import Finding, Outline
from workers.reporting.equipment import algorithm_template
from workers.reporting.evidence import Evidence, concept
from workers.reporting.segmentation import tracking_identifier, tracking_uid


@dataclass(frozen=True)
class Quantity:
    """One row of the table of measurements."""

    name: Code
    unit: Code
    value: Callable[[Finding], float]
    #: Decimals that the measurement supports: a tenth of a millimetre as Lung-RADS asks, whole HU, mm3 and percent.
    decimals: int = 0
    derivation: Code | None = None


QUANTITIES = (
    Quantity(codes.LONG_AXIS, codes.MILLIMETRE, lambda finding: finding.long_axis.length_mm, 1),
    Quantity(codes.SHORT_AXIS, codes.MILLIMETRE, lambda finding: finding.short_axis.length_mm, 1),
    Quantity(codes.DIAMETER, codes.MILLIMETRE, lambda finding: finding.mean_diameter_mm, 1, codes.MEAN),
    Quantity(codes.MAXIMUM_3D_DIAMETER, codes.MILLIMETRE, lambda finding: finding.maximum_3d_diameter_mm, 1),
    Quantity(codes.VOLUME, codes.CUBIC_MILLIMETRE, lambda finding: finding.volume_mm3),
    Quantity(
        codes.ATTENUATION_COEFFICIENT, codes.HOUNSFIELD_UNIT, lambda finding: finding.mean_hu, derivation=codes.MEAN
    ),
    Quantity(
        codes.ATTENUATION_COEFFICIENT,
        codes.HOUNSFIELD_UNIT,
        lambda finding: finding.deviation_hu,
        derivation=codes.STANDARD_DEVIATION,
    ),
    Quantity(codes.CERTAINTY_OF_FINDING, codes.PERCENT, lambda finding: finding.score * 100),
)


def volumetric_group(evidence: Evidence, finding: Finding, segmentation: Dataset) -> hd_sr.ContentSequence:
    """Everything measured of a finding, with its segment and the series it was drawn on (TID 1411)."""
    segment = hd_sr.ReferencedSegment(
        sop_class_uid=segmentation.SOPClassUID,
        sop_instance_uid=segmentation.SOPInstanceUID,
        segment_number=finding.number,
        source_series=hd_sr.SourceSeriesForSegmentation(evidence.volume.series_instance_uid),
    )
    return hd_sr.VolumetricROIMeasurementsAndQualitativeEvaluations(
        tracking_identifier=_tracking(evidence, finding),
        referenced_segment=segment,
        finding_category=concept(finding.category),
        finding_type=concept(finding.concept),
        finding_sites=[_site(finding)],
        algorithm_id=algorithm_template(evidence.algorithm),
        measurements=[_measurement(quantity, quantity.value(finding)) for quantity in QUANTITIES],
    )


def planar_group(evidence: Evidence, finding: Finding) -> hd_sr.ContentSequence:
    """The finding's outline on the slice of its largest extent, under the same Tracking Unique Identifier (TID 1410).

    OHIF shows a report only if every finding has coordinates in the image; a segment alone leaves it black.
    """
    header, frame_number = _outlined_image(evidence, finding.outline), finding.outline.frame_number
    region = hd_sr.ImageRegion(
        graphic_type=hd_sr.GraphicTypeValues.POLYLINE,
        graphic_data=np.array(finding.outline.points),
        source_image=hd_sr.SourceImageForRegion(
            referenced_sop_class_uid=header.SOPClassUID,
            referenced_sop_instance_uid=header.SOPInstanceUID,
            referenced_frame_numbers=None if frame_number is None else [frame_number],
        ),
    )
    area = Quantity(codes.AREA, codes.SQUARE_MILLIMETRE, lambda _: outline_area(finding.outline, header))
    return hd_sr.PlanarROIMeasurementsAndQualitativeEvaluations(
        tracking_identifier=_tracking(evidence, finding),
        referenced_region=region,
        finding_category=concept(finding.category),
        finding_type=concept(finding.concept),
        finding_sites=[_site(finding)],
        algorithm_id=algorithm_template(evidence.algorithm),
        measurements=[_measurement(area, area.value(finding))],
    )


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


def _measurement(quantity: Quantity, value: float) -> hd_sr.Measurement:
    text = f"{round(value, quantity.decimals) + 0.0:.{quantity.decimals}f}"
    derivation = None if quantity.derivation is None else concept(quantity.derivation)
    measurement = hd_sr.Measurement(
        name=concept(quantity.name), value=float(text), unit=concept(quantity.unit), derivation=derivation
    )
    # The library would write 523 mm3 as 523.0, which claims a precision that is not there.
    measurement[0].MeasuredValueSequence[0].NumericValue = text
    return measurement
