"""Secondary Capture: the findings drawn into colour pictures that every PACS shows (PS3.3 Section A.8.1).

One instance a picture, not one multi-frame instance: the single-frame SOP class is the one that every PACS, viewer and
teaching file takes, and pictures of one series are paged through as frames are. The first page says in words what was
read and what came of it; for a reading without findings, or without result, it is the only one. The last pages show
each finding in three planes.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from highdicom.sc import SCImage
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.uid import ExplicitVRLittleEndian
from pydicom.valuerep import format_number_as_ds

from dicom_node.core.codes import SOURCE_IMAGE
from dicom_node.core.finding import Finding
from dicom_node.core.form import Form
from dicom_node.core.outcome import Outcome
from workers.dependence import Dependence, digest
from workers.reporting.equipment import contributing_equipment, keep_own_equipment
from workers.reporting.evidence import Evidence, concept
from workers.reporting.key_picture import DRAWING, key_picture, orientation
from workers.reporting.marked_slice import key_of, key_slices
from workers.reporting.narrative import narrative
from workers.reporting.text_page import text_pages
from workers.reporting.three_planes import three_planes

SECONDARY_CAPTURE_SERIES_NUMBER = 9006

#: More pictures than one report has: a later one of the same series counts on from the next multiple.
_NUMBERS = 1000


@dataclass(frozen=True, kw_only=True)
class _Page:
    """A picture, and the slice that it shows; a page of text shows none."""

    pixels: NDArray[np.uint8]
    k: int | None = None
    #: The size of its pixels; None where they have not all the same.
    pixel_mm: float | None = None
    #: Where its rows and columns run to; empty where parts of it lie differently.
    orientation: tuple[str, ...] = ()
    #: What else of it than the evidence makes it another object.
    own: str = ""


def build_secondary_captures(
    evidence: Evidence,
    findings: tuple[Finding, ...],
    labels: NDArray[np.uint8] | None,
    remarks: tuple[str, ...] = (),
    outcome: Outcome | None = None,
    explained: Mapping[int, Dependence] = MappingProxyType({}),
) -> tuple[SCImage, ...]:
    """A page of text, a picture of each slice of largest extent, the first finding's first, and each in three planes.

    `labels` [k, j, i] hold a finding's number in its voxels, and may be None without findings. Remarks are sentences;
    the outcome is that of a whole reading unless another is given; `explained` tells by findings' numbers on what their
    scores depended. Raises EvidenceInvalid where findings and labels do not belong together.
    """
    pages = _pages(evidence, findings, labels, remarks, outcome, explained)
    role = "SC" if outcome is None or outcome.was_read else f"{Form.UNREAD_PICTURE} {outcome.name}"
    role = f"{role} {DRAWING}"
    return tuple(
        _capture(evidence, number, page, f"{role} {number}{page.own}") for number, page in enumerate(pages, start=1)
    )


def _pages(
    evidence: Evidence,
    findings: tuple[Finding, ...],
    labels: NDArray[np.uint8] | None,
    remarks: tuple[str, ...],
    outcome: Outcome | None,
    explained: Mapping[int, Dependence],
) -> Iterator[_Page]:
    for pixels in text_pages(narrative(evidence, findings, remarks, outcome)):
        yield _Page(pixels=pixels)
    if findings and labels is not None:
        for piece in key_slices(evidence, findings, labels):
            picture = key_picture(evidence, piece)
            # One spacing for slice and close-up would have a ruler read a multiple of a nodule where it looks largest;
            # the bar that is drawn on the slice stays.
            pixel_mm = None if picture.close_ups else picture.pixel_mm
            yield _Page(pixels=picture.pixels, k=piece.k, pixel_mm=pixel_mm, orientation=orientation(evidence))
        for finding in findings:
            told = explained.get(finding.number)
            pixels = three_planes(evidence, finding, labels, told)
            yield _Page(pixels=pixels, k=key_of(evidence, finding), own=digest({finding.number: told} if told else {}))


def _capture(evidence: Evidence, number: int, page: _Page, role: str) -> SCImage:
    source = evidence.source_images[0]
    attributes = evidence.header_attributes("pictures")
    attributes["instance_number"] = (attributes["instance_number"] - 1) * _NUMBERS + number
    capture = SCImage.from_ref_dataset(
        ref_dataset=source,
        pixel_array=np.ascontiguousarray(page.pixels),
        photometric_interpretation="RGB",
        bits_allocated=8,
        coordinate_system="PATIENT",
        patient_orientation=("L", "P"),
        series_instance_uid=evidence.series_uid("SC"),
        series_number=SECONDARY_CAPTURE_SERIES_NUMBER,
        sop_instance_uid=evidence.uid(role),
        transfer_syntax_uid=ExplicitVRLittleEndian,
        contributing_equipment=[contributing_equipment(evidence)],
        **attributes,
    )
    evidence.complete(capture)
    keep_own_equipment(capture, evidence.algorithm)
    capture.DateOfSecondaryCapture, capture.TimeOfSecondaryCapture = capture.ContentDate, capture.ContentTime
    # Drawn by a program from other images, not digitised by it.
    capture.ConversionType = "SYN"
    # It tells whether the picture itself names the patient and the day (PS3.3 Section C.7.6.1): no patient data and no
    # date is ever drawn in. Whether anything at all is drawn in, it does not tell.
    capture.BurnedInAnnotation = "NO"
    # Type 2C: lungs are a pair, and both are shown.
    capture.Laterality = ""
    _derive(capture, evidence, page)
    return capture


def _derive(capture: SCImage, evidence: Evidence, page: _Page) -> None:
    """What the picture was made of, and how it lies in the patient."""
    header = evidence.header
    for keyword in ("LossyImageCompression", "LossyImageCompressionRatio", "LossyImageCompressionMethod"):
        if header.get(keyword):
            capture[keyword] = header[keyword]
    capture.DerivationDescription = "Drawn by an AI algorithm, not for diagnosis and not for measuring"
    capture.PatientOrientation = list(page.orientation)
    if page.k is None:
        return
    if page.pixel_mm is not None:
        capture.PixelSpacing = [format_number_as_ds(page.pixel_mm)] * 2
    capture.SourceImageSequence = [_source(evidence, page.k)]
    capture.ReferencedSeriesSequence = [_series(evidence, page.k)]


def _source(evidence: Evidence, k: int) -> Dataset:
    reference = evidence.reference(k)
    reference.PurposeOfReferenceCodeSequence = [concept(SOURCE_IMAGE)]
    return reference


def _series(evidence: Evidence, k: int) -> Dataset:
    """The source image in its series (PS3.3 Section C.12.2), where whoever holds the picture finds it."""
    instance = evidence.reference(k)
    instance.pop("ReferencedFrameNumber", None)
    series = Dataset()
    series.SeriesInstanceUID = evidence.volume.series_instance_uid
    series.ReferencedInstanceSequence = [instance]
    return series
