"""Key Object Selection: the slices to look at first, as a document that opens them (PS3.3 Section A.35.4).

A PACS that shows nothing else of ours still jumps to these slices. The document's template has one text for all of them
and none for each (PS3.16 TID 2010), so the text names every finding with its slice.
"""

from collections.abc import Sequence

from highdicom.ko import KeyObjectSelection, KeyObjectSelectionDocument
from pydicom import Dataset
from pydicom.uid import ExplicitVRLittleEndian

from dicom_node.core.codes import OF_INTEREST
from dicom_node.core.finding import Finding
from workers.reporting.equipment import contributing_equipment, keep_own_equipment, observer
from workers.reporting.evidence import Evidence, concept
from workers.reporting.marked_slice import key_of
from workers.reporting.segmentation import tracking_identifier

KEY_OBJECT_SERIES_NUMBER = 9004


def build_key_object_selection(
    evidence: Evidence, findings: tuple[Finding, ...], others: Sequence[Dataset] = ()
) -> KeyObjectSelectionDocument | None:
    """The slice of largest extent of each finding, then other objects of the report; None without findings.

    Nothing is of interest in a study without findings, and a document must refer to something.
    """
    if not findings:
        return None
    keys = list(dict.fromkeys(key_of(evidence, finding) for finding in findings))
    content = KeyObjectSelection(
        document_title=concept(OF_INTEREST),
        referenced_objects=[*(evidence.slices[k] for k in keys), *others],
        observer_device_context=observer(evidence.algorithm),
        description=_description(evidence, findings),
    )
    _refer_to_frames(content, evidence, keys)
    document = KeyObjectSelectionDocument(
        evidence=[*(evidence.slices[k] for k in keys), *others],
        content=content,
        series_instance_uid=evidence.series_uid("KO"),
        series_number=KEY_OBJECT_SERIES_NUMBER,
        sop_instance_uid=evidence.uid("KO"),
        transfer_syntax_uid=ExplicitVRLittleEndian,
        contributing_equipment=[contributing_equipment(evidence)],
        **evidence.header_attributes("key objects"),
    )
    evidence.complete(document)
    keep_own_equipment(document, evidence.algorithm)
    return document


def _refer_to_frames(content: KeyObjectSelection, evidence: Evidence, keys: Sequence[int]) -> None:
    """Name the frames, where slices are frames of one instance."""
    images = [item for item in content[0].ContentSequence if item.ValueType == "IMAGE"]
    for item, k in zip(images, keys, strict=False):
        item.ReferencedSOPSequence = [evidence.reference(k)]


def _description(evidence: Evidence, findings: tuple[Finding, ...]) -> str:
    lines = ["AI result, not for diagnostic use."]
    for finding in findings:
        k = key_of(evidence, finding)
        axes = f"{finding.long_axis.length_mm:.1f} x {finding.short_axis.length_mm:.1f} mm"
        lines.append(f"{tracking_identifier(finding)}: {axes}, {evidence.place_in_words(k)}.")
    return "\n".join(lines)
