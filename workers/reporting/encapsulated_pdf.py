"""Encapsulated PDF: the report as a document with pictures, for a PACS that keeps documents (PS3.3 Section A.45.1)."""

from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType

from highdicom.base import SOPClass
from numpy import uint8
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.uid import EncapsulatedPDFStorage, ExplicitVRLittleEndian

from dicom_node.core.codes import IMAGING_MEASUREMENT_REPORT, SOURCE_IMAGE
from dicom_node.core.finding import Finding
from dicom_node.core.form import Form
from dicom_node.core.outcome import Outcome
from workers.dependence import Dependence, digest, in_words
from workers.reporting.document import Figure, as_pdf
from workers.reporting.equipment import contributing_equipment
from workers.reporting.evidence import Evidence, concept
from workers.reporting.key_picture import DRAWING, key_picture
from workers.reporting.marked_slice import MarkedSlice, key_slices
from workers.reporting.narrative import NOT_FOR_DIAGNOSIS, narrative
from workers.reporting.segmentation import tracking_identifier
from workers.reporting.three_planes import three_planes

PDF_SERIES_NUMBER = 9007


class EncapsulatedPDF(SOPClass):
    """An Encapsulated PDF instance; the writing library has none of its own."""


def build_encapsulated_pdf(
    evidence: Evidence,
    findings: tuple[Finding, ...],
    labels: NDArray[uint8] | None,
    remarks: tuple[str, ...] = (),
    outcome: Outcome | None = None,
    explained: Mapping[int, Dependence] = MappingProxyType({}),
) -> EncapsulatedPDF:
    """The narrative of a reading, a picture of each slice of largest extent, and each finding in three planes.

    `labels` [k, j, i] hold a finding's number in its voxels, and may be None without findings. Remarks are sentences;
    the outcome is that of a whole reading unless another is given; `explained` tells by findings' numbers on what their
    scores depended. Raises EvidenceInvalid where findings and labels do not belong together.
    """
    pieces = key_slices(evidence, findings, labels) if findings and labels is not None else ()
    figures = [*_figures(evidence, pieces), *_in_three_planes(evidence, findings, labels, explained)]
    document = as_pdf(narrative(evidence, findings, remarks, outcome), figures)
    role = "PDF" if outcome is None or outcome.was_read else f"{Form.UNREAD_PDF} {outcome.name}"
    source = evidence.source_images[0]
    report = EncapsulatedPDF(
        study_instance_uid=source.StudyInstanceUID,
        series_instance_uid=evidence.series_uid("PDF"),
        series_number=PDF_SERIES_NUMBER,
        sop_instance_uid=evidence.uid(f"{role} {DRAWING}{digest(explained)}"),
        sop_class_uid=EncapsulatedPDFStorage,
        modality="DOC",
        transfer_syntax_uid=ExplicitVRLittleEndian,
        **evidence.header_attributes("document"),
    )
    report.ContributingEquipmentSequence = [contributing_equipment(evidence)]
    evidence.complete(report)
    _hold(report, document, evidence, pieces)
    return report


def _figures(evidence: Evidence, pieces: Sequence[MarkedSlice]) -> Iterator[Figure]:
    for piece in pieces:
        names = ", ".join(mark.name for mark in piece.keys)
        yield Figure(pixels=key_picture(evidence, piece).pixels, caption=f"{names}: {evidence.place_in_words(piece.k)}")


def _in_three_planes(
    evidence: Evidence,
    findings: tuple[Finding, ...],
    labels: NDArray[uint8] | None,
    explained: Mapping[int, Dependence],
) -> Iterator[Figure]:
    if labels is None:
        return
    for finding in findings:
        told, name = explained.get(finding.number), tracking_identifier(finding)
        caption = f"{name} in three planes." if told is None else in_words(name, finding.score, told)
        yield Figure(pixels=three_planes(evidence, finding, labels, told), caption=caption)


def _hold(report: Dataset, document: bytes, evidence: Evidence, pieces: Sequence[MarkedSlice]) -> None:
    """The document, and what the standard asks to be said of it (PS3.3 Section C.24.2)."""
    # Synthesised, not scanned (PS3.3 Section C.8.6.1).
    report.ConversionType = "SYN"
    report.AcquisitionDateTime = None
    # It tells whether the pages themselves name the patient and the day; they name neither.
    report.BurnedInAnnotation = "NO"
    report.DocumentTitle = NOT_FOR_DIAGNOSIS
    report.ConceptNameCodeSequence = [concept(IMAGING_MEASUREMENT_REPORT)]
    report.VerificationFlag = "UNVERIFIED"
    report.SourceInstanceSequence = [_source(evidence, piece.k) for piece in pieces] or [_source(evidence, 0)]
    report.MIMETypeOfEncapsulatedDocument = "application/pdf"
    report.EncapsulatedDocumentLength = len(document)
    report.EncapsulatedDocument = document + b"\0" * (len(document) % 2)


def _source(evidence: Evidence, k: int) -> Dataset:
    reference = evidence.reference(k)
    reference.PurposeOfReferenceCodeSequence = [concept(SOURCE_IMAGE)]
    return reference
