"""Structured report: one Comprehensive 3D SR after TID 1500, in the form that a peer's viewers show."""

from collections.abc import Iterable, Mapping
from types import MappingProxyType

from highdicom import sr as hd_sr
from pydicom import Dataset
from pydicom.uid import Comprehensive3DSRStorage

from dicom_node.core import codes
from dicom_node.core.codes import Code
from dicom_node.core.finding import Finding
from dicom_node.core.form import FOR_OHIF, Form
from dicom_node.core.outcome import Outcome, outcome_of_reading
from workers.reporting.equipment import observation_context
from workers.reporting.evidence import Evidence, concept
from workers.reporting.instance import Instance
from workers.reporting.measurement_group import Marked, bidirectional_group, planar_group, volumetric_group
from workers.reporting.summary import code_of, container_of, study_summary

#: Of a series of reports in each form; a report that says why there is none stands with the others.
SERIES_NUMBERS = MappingProxyType(
    {
        Form.SR: 9001,
        Form.SR_OHIF: 9003,
        Form.SR_LABEL_MAP: 9021,
        Form.SR_OHIF_LABEL_MAP: 9023,
        Form.SR_IMAGES: 9031,
        Form.SR_OHIF_IMAGES: 9033,
    }
)

HAS_CONCEPT_MOD = hd_sr.RelationshipTypeValues.HAS_CONCEPT_MOD


def build_structured_report(
    evidence: Evidence,
    findings: tuple[Finding, ...],
    marked: Marked | None,
    remarks: tuple[str, ...] = (),
    outcome: Outcome | None = None,
) -> Instance:
    """The report on a series, in the evidence's form: complete, unverified, preliminary; all images are its evidence.

    `marked` is what the form refers to, a segmentation or slices; None without findings. Remarks are sentences for the
    comment; the outcome is that of a whole reading unless another is given.
    """
    ended = outcome or outcome_of_reading(found=bool(findings))
    root = _content(evidence, findings, marked, remarks, ended)
    role = evidence.form if ended.was_read else Form.UNREAD
    report = Instance(
        evidence,
        sop_class_uid=Comprehensive3DSRStorage,
        modality="SR",
        series_instance_uid=evidence.series_uid(evidence.form),
        series_number=SERIES_NUMBERS[evidence.form],
        sop_instance_uid=unread_uid(evidence, ended) if role is Form.UNREAD else evidence.uid(role),
    )
    report.CompletionFlag, report.VerificationFlag, report.PreliminaryFlag = "COMPLETE", "UNVERIFIED", "PRELIMINARY"
    report.update(root)
    objects = [*evidence.source_images, *([marked] if isinstance(marked, Dataset) else [])]
    report.CurrentRequestedProcedureEvidenceSequence = documents(objects)
    if evidence.prior_in_form is not None:
        # Of another study: evidence that is none of this requested procedure's (PS3.3 Section C.17.2).
        report.PertinentOtherEvidenceSequence = documents([evidence.prior_in_form])
    if evidence.replaced:
        report.PredecessorDocumentsSequence = documents(evidence.replaced)
    # Of type 2: nobody performed or asked for anything that is known here.
    report.PerformedProcedureCodeSequence, report.ReferencedPerformedProcedureStepSequence = [], []
    return report


def documents(objects: Iterable[Dataset]) -> list[Dataset]:
    """References to objects, by their studies and series (PS3.3 Table C.17-3)."""
    studies: dict[str, dict[str, dict[str, Dataset]]] = {}
    for named in objects:
        series = studies.setdefault(named.StudyInstanceUID, {}).setdefault(named.SeriesInstanceUID, {})
        series.setdefault(named.SOPInstanceUID, named)
    return [_study(uid, series) for uid, series in studies.items()]


def _study(uid: str, series: Mapping[str, Mapping[str, Dataset]]) -> Dataset:
    study = Dataset()
    study.StudyInstanceUID, study.ReferencedSeriesSequence = uid, []
    for series_uid, instances in series.items():
        item = Dataset()
        item.SeriesInstanceUID = series_uid
        item.ReferencedSOPSequence = [_instance(named) for named in instances.values()]
        study.ReferencedSeriesSequence.append(item)
    return study


def _instance(named: Dataset) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = named.SOPClassUID, named.SOPInstanceUID
    return item


def unread_uid(evidence: Evidence, outcome: Outcome) -> str:
    """The UID of a report that says why there is none: for another reason it is another."""
    return evidence.uid(f"{Form.UNREAD} {outcome.name}")


def _content(
    evidence: Evidence,
    findings: tuple[Finding, ...],
    marked: Marked | None,
    remarks: tuple[str, ...],
    outcome: Outcome,
) -> hd_sr.ContentItem:
    """The root of the tree (TID 1500); without an image library, which is optional and would list every slice."""
    root = hd_sr.ContainerContentItem(name=concept(_title(findings)), template_id="1500")
    root.ContentSequence = hd_sr.ContentSequence()
    root.ContentSequence.extend(hd_sr.LanguageOfContentItemAndDescendants(_language()))
    root.ContentSequence.extend(observation_context(evidence.algorithm))
    procedure = procedure_of(str(evidence.header.get("Modality")), findings)
    root.ContentSequence.append(code_of(codes.PROCEDURE_REPORTED, procedure, HAS_CONCEPT_MOD))
    if marked is not None:
        measurements = container_of(codes.IMAGING_MEASUREMENTS)
        groups = _ohif_groups if evidence.form in FOR_OHIF else _portable_groups
        measurements.ContentSequence.extend(groups(evidence, findings, marked))
        root.ContentSequence.append(measurements)
    root.ContentSequence.append(study_summary(evidence, findings, outcome, remarks))
    return root


def procedure_of(modality: str, findings: tuple[Finding, ...]) -> Code:
    """What was examined: a chest, unless what was found lies elsewhere."""
    if modality in ("CR", "DX"):
        return codes.CHEST_RADIOGRAPH
    elsewhere = any(finding.site != codes.LUNG for finding in findings)
    return codes.COMPUTED_TOMOGRAPHY if elsewhere else codes.CT_CHEST


def _title(findings: tuple[Finding, ...]) -> Code:
    # OHIF 3.12 opens the first title without coordinates as a black image, which a reader takes for a fault. The second
    # is of the same context group (CID 7021) and no less true of a search for nodules; it opens as readable text.
    return codes.IMAGING_MEASUREMENT_REPORT if findings else codes.ONCOLOGY_MEASUREMENT_REPORT


def _language() -> hd_sr.CodedConcept:
    return hd_sr.CodedConcept("en-US", "RFC5646", "English (United States)")


def _portable_groups(evidence: Evidence, findings: tuple[Finding, ...], marked: Marked) -> hd_sr.ContentSequence:
    """Two groups a finding, all numbers first: OHIF joins the groups of one Tracking UID in the order they stand."""
    groups = hd_sr.ContentSequence()
    for finding in findings:
        groups.extend(volumetric_group(evidence, finding, marked))
    for finding in findings:
        groups.extend(planar_group(evidence, finding))
    return groups


def _ohif_groups(evidence: Evidence, findings: tuple[Finding, ...], marked: Marked) -> hd_sr.ContentSequence:
    """Two groups a finding, the axes first: OHIF asks the first group of a Tracking UID what tool drew it.

    Without a segmentation one group: of two with coordinates OHIF would take those of the second for the tool's.
    """
    groups = hd_sr.ContentSequence()
    has_segments = isinstance(marked, Dataset)
    for finding in findings:
        groups.extend(bidirectional_group(evidence, finding, alone=not has_segments))
        if has_segments:
            groups.extend(volumetric_group(evidence, finding, marked))
    return groups
