"""Summary: what a report says of the study as a whole (PS3.16 TID 1500, container of qualitative evaluations).

As a measurement group it would be legal, too, and turn OHIF's view of the whole report black.
"""

from collections.abc import Iterator

from highdicom import sr as hd_sr
from pydicom import Dataset

from dicom_node.core import codes
from dicom_node.core.codes import Code
from dicom_node.core.finding import Finding
from dicom_node.core.lung_rads import MANAGEMENT, of_exam
from dicom_node.core.outcome import Outcome
from dicom_node.core.urgency import is_abnormal
from workers.reporting.evidence import Evidence, concept
from workers.reporting.quantities import LUNG_RADS

CONTAINS = hd_sr.RelationshipTypeValues.CONTAINS
INFERRED_FROM = hd_sr.RelationshipTypeValues.INFERRED_FROM

#: What every report ends with.
LIMITS = (
    "Not verified by a physician; it may miss findings, and mark what is none. The absence of a mark does not lower "
    "the priority of the study."
)


def study_summary(
    evidence: Evidence, findings: tuple[Finding, ...], outcome: Outcome, remarks: tuple[str, ...]
) -> hd_sr.ContainerContentItem:
    """How the processing went, how urgent the study is and why, its category, what to do, and a comment in words."""
    container = container_of(codes.QUALITATIVE_EVALUATIONS)
    container.ContentSequence.extend(_processing(outcome))
    container.ContentSequence.extend(text_of(said.concept, said.text) for said in outcome.statements)
    container.ContentSequence.extend(_urgency(outcome))
    container.ContentSequence.extend(_recommendation(findings, outcome))
    if evidence.prior_in_form is not None:
        container.ContentSequence.append(_prior(evidence.prior_in_form))
    container.ContentSequence.append(text_of(codes.COMMENT, _comment(evidence, findings, outcome, remarks)))
    return container


def container_of(name: Code) -> hd_sr.ContainerContentItem:
    """An empty container that another one contains."""
    container = hd_sr.ContainerContentItem(name=concept(name), relationship_type=CONTAINS)
    container.ContentSequence = hd_sr.ContentSequence()
    return container


def code_of(name: Code, value: Code, relationship: hd_sr.RelationshipTypeValues = CONTAINS) -> hd_sr.CodeContentItem:
    """A coded item."""
    return hd_sr.CodeContentItem(name=concept(name), value=concept(value), relationship_type=relationship)


def text_of(name: Code, value: str, relationship: hd_sr.RelationshipTypeValues = CONTAINS) -> hd_sr.TextContentItem:
    """An item in words."""
    return hd_sr.TextContentItem(concept(name), value, relationship)


def _processing(outcome: Outcome) -> Iterator[hd_sr.ContentItem]:
    """How the processing went, and why not better; what the images were good for, where that was found out."""
    went = code_of(codes.PROCESSING_SUMMARY, outcome.summary)
    if outcome.reason:
        _infer(went, _sentence(outcome.reason))
    yield went
    if outcome.quality is not None:
        yield code_of(codes.IMAGE_QUALITY, outcome.quality)


def _urgency(outcome: Outcome) -> Iterator[hd_sr.ContentItem]:
    """The priority and its reason. Without one there is none: a study must not be read later for that."""
    if outcome.urgency is not None:
        judged = code_of(codes.COMMUNICATION_OF_CRITICAL_RESULTS, outcome.urgency.code)
        _infer(judged, _sentence(outcome.urgency.reason))
        yield judged


def _recommendation(findings: tuple[Finding, ...], outcome: Outcome) -> Iterator[hd_sr.ContentItem]:
    """What to do: by the guideline where the category of every finding is known, else to look; nothing for organs.

    Nor is there a category of an examination where more was marked than was measured, or the images were at fault:
    whether they suffice for one is the reader's to say (Lung-RADS 0).
    """
    abnormal = [finding for finding in findings if is_abnormal(finding)]
    if not abnormal:
        return
    category = of_exam(finding.lung_rads for finding in abnormal) if outcome.is_whole else None
    if category is None:
        yield text_of(codes.RECOMMENDATION, "A radiologist should look at the marked places.")
        return
    management = MANAGEMENT[category]
    yield code_of(codes.LUNG_RADS_ASSESSMENT, LUNG_RADS[category])
    text = f"By Lung-RADS {category}, if a radiologist agrees: {management.text}."
    yield text_of(codes.RECOMMENDATION, text)
    if management.months is not None:
        interval = hd_sr.NumContentItem(
            name=concept(codes.RECOMMENDED_INTERVAL),
            value=management.months,
            unit=concept(codes.MONTH),
            relationship_type=CONTAINS,
        )
        # The library would write 3 months as 3.0.
        interval.MeasuredValueSequence[0].NumericValue = str(management.months)
        yield interval


def _comment(evidence: Evidence, findings: tuple[Finding, ...], outcome: Outcome, remarks: tuple[str, ...]) -> str:
    algorithm, images = evidence.algorithm, len(evidence.volume.headers)
    by = f"{algorithm.name} {algorithm.version}"
    if not outcome.was_read:
        said = f"{by} did not read this study; {images} images of one series were received. It says nothing of them."
    else:
        found = ", ".join(finding.name for finding in findings) or "nothing"
        said = f"{by} read {images} images of one series and marked {found}."
    reason = (_sentence(outcome.reason),) if outcome.reason else ()
    whole = (f"{statement.concept.meaning}: {statement.text}." for statement in outcome.statements)
    return " ".join(("AI result, not for diagnostic use.", said, *reason, *whole, *remarks, LIMITS))


def _prior(report: Dataset) -> hd_sr.CompositeContentItem:
    """The report on an earlier study that findings were compared with."""
    return hd_sr.CompositeContentItem(
        name=concept(codes.PRIOR_REPORT),
        referenced_sop_class_uid=str(report.SOPClassUID),
        referenced_sop_instance_uid=str(report.SOPInstanceUID),
        relationship_type=CONTAINS,
    )


def _infer(item: hd_sr.CodeContentItem, reason: str) -> None:
    item.ContentSequence = hd_sr.ContentSequence([text_of(codes.FINDING, reason, INFERRED_FROM)])


def _sentence(reason: str) -> str:
    text = reason.strip().rstrip(".")
    return f"{text[:1].upper()}{text[1:]}."
