"""Structured report: one Comprehensive 3D SR after TID 1500, in the form that most viewers show."""

from highdicom import sr as hd_sr
from pydicom import Dataset
from pydicom.uid import ExplicitVRLittleEndian

from dicom_node.core import codes
from dicom_node.core.codes import Code
from dicom_node.core.finding import Finding
from workers.reporting.equipment import contributing_equipment, keep_own_equipment, observation_context
from workers.reporting.evidence import Evidence, concept
from workers.reporting.measurement_group import planar_group, volumetric_group

STRUCTURED_REPORT_SERIES_NUMBER = 9001

CONTAINS = hd_sr.RelationshipTypeValues.CONTAINS
HAS_CONCEPT_MOD = hd_sr.RelationshipTypeValues.HAS_CONCEPT_MOD


def build_structured_report(
    evidence: Evidence, findings: tuple[Finding, ...], segmentation: Dataset | None, remarks: tuple[str, ...] = ()
) -> hd_sr.Comprehensive3DSR:
    """The report on a series: complete, unverified and preliminary; every image that was read is its evidence.

    Remarks are sentences for the comment.
    """
    root = _content(evidence, findings, segmentation, remarks)
    tree, root.ContentSequence = root.ContentSequence, hd_sr.ContentSequence()
    objects = [*evidence.source_images, *([] if segmentation is None else [segmentation])]
    report = hd_sr.Comprehensive3DSR(
        evidence=objects,
        # The root alone: of a whole tree the constructor makes two copies, and looks into each item three times, all
        # to find out whether what it refers to is among the evidence, which the gate does for itself.
        content=hd_sr.ContentSequence([root], is_root=True),
        series_instance_uid=evidence.series_uid("SR"),
        series_number=STRUCTURED_REPORT_SERIES_NUMBER,
        sop_instance_uid=evidence.uid("SR"),
        is_complete=True,
        is_final=False,
        is_verified=False,
        transfer_syntax_uid=ExplicitVRLittleEndian,
        contributing_equipment=[contributing_equipment(evidence)],
        previous_versions=None if evidence.predecessor is None else [evidence.predecessor],
        **evidence.header_attributes(),
    )
    report.ContentSequence = tree
    evidence.complete(report)
    keep_own_equipment(report, evidence.algorithm)
    return report


def _content(
    evidence: Evidence, findings: tuple[Finding, ...], segmentation: Dataset | None, remarks: tuple[str, ...]
) -> hd_sr.ContentItem:
    """The root of the tree (TID 1500); without an image library, which is optional and would list every slice."""
    root = hd_sr.ContainerContentItem(name=concept(_title(findings)), template_id="1500")
    root.ContentSequence = hd_sr.ContentSequence()
    root.ContentSequence.extend(hd_sr.LanguageOfContentItemAndDescendants(_language()))
    root.ContentSequence.extend(observation_context(evidence.algorithm))
    root.ContentSequence.append(_code(codes.PROCEDURE_REPORTED, codes.CT_CHEST, HAS_CONCEPT_MOD))
    if segmentation is not None:
        root.ContentSequence.append(_measurements(evidence, findings, segmentation))
    root.ContentSequence.append(_summary(evidence, findings, remarks))
    return root


def _title(findings: tuple[Finding, ...]) -> Code:
    # OHIF 3.12 opens the first title without coordinates as a black image, which a reader takes for a fault. The second
    # is of the same context group (CID 7021) and no less true of a search for nodules; it opens as readable text.
    return codes.IMAGING_MEASUREMENT_REPORT if findings else codes.ONCOLOGY_MEASUREMENT_REPORT


def _language() -> hd_sr.CodedConcept:
    return hd_sr.CodedConcept("en-US", "RFC5646", "English (United States)")


def _measurements(evidence: Evidence, findings: tuple[Finding, ...], segmentation: Dataset) -> hd_sr.ContentItem:
    """Two groups a finding, all numbers first: OHIF joins the groups of one Tracking UID in the order they stand."""
    container = _container(codes.IMAGING_MEASUREMENTS)
    for finding in findings:
        container.ContentSequence.extend(volumetric_group(evidence, finding, segmentation))
    for finding in findings:
        container.ContentSequence.extend(planar_group(evidence, finding))
    return container


def _summary(evidence: Evidence, findings: tuple[Finding, ...], remarks: tuple[str, ...]) -> hd_sr.ContentItem:
    """What is said of the study as a whole (TID 1500 Rows 12 to 14); as a measurement group it would blacken OHIF."""
    container = _container(codes.QUALITATIVE_EVALUATIONS)
    outcome = codes.ALL_SUCCEEDED_WITH_FINDINGS if findings else codes.ALL_SUCCEEDED_WITHOUT_FINDINGS
    container.ContentSequence.append(_code(codes.PROCESSING_SUMMARY, outcome, CONTAINS))
    if findings:
        container.ContentSequence.append(
            _code(codes.COMMUNICATION_OF_CRITICAL_RESULTS, codes.ACTIONABLE_CATEGORY_3, CONTAINS)
        )
    comment = hd_sr.TextContentItem(concept(codes.COMMENT), _comment(evidence, findings, remarks), CONTAINS)
    container.ContentSequence.append(comment)
    return container


def _comment(evidence: Evidence, findings: tuple[Finding, ...], remarks: tuple[str, ...]) -> str:
    algorithm = evidence.algorithm
    found = ", ".join(f"{finding.concept.meaning} {finding.number}" for finding in findings) or "nothing"
    sentences = (
        f"AI result, not for diagnostic use. {algorithm.name} {algorithm.version} read {len(evidence.volume.headers)} "
        f"images of one series and marked {found}.",
        *remarks,
        "Not verified by a physician; it may miss findings, and mark what is none. The absence of a mark does not "
        "lower the priority of the study.",
    )
    return " ".join(sentences)


def _container(name: Code) -> hd_sr.ContainerContentItem:
    container = hd_sr.ContainerContentItem(name=concept(name), relationship_type=CONTAINS)
    container.ContentSequence = hd_sr.ContentSequence()
    return container


def _code(name: Code, value: Code, relationship: hd_sr.RelationshipTypeValues) -> hd_sr.CodeContentItem:
    return hd_sr.CodeContentItem(name=concept(name), value=concept(value), relationship_type=relationship)
