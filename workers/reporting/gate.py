"""The gate: what must be true of a report's objects before one of them is delivered; one rule a function.

The rules read the objects back from their bytes, as a PACS will, and trust nothing that the writers remember.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from io import BytesIO

from highdicom.ko import KeyObjectSelectionDocument
from highdicom.seg import Segmentation
from highdicom.sr import Comprehensive3DSR
from pydicom import Dataset, dcmread

from dicom_node.core import codes
from dicom_node.core.codes import Code
from dicom_node.core.errors import EvidenceInvalid
from dicom_node.core.form import STRUCTURED_REPORTS, TRAITS, Form
from workers.reporting.comparison import name_faults, prior_faults
from workers.reporting.content_tree import is_named, text_of, value_of, walk
from workers.reporting.encoding import as_file
from workers.reporting.evidence import Evidence
from workers.reporting.extent import extent_faults, own_extent_faults
from workers.reporting.forms import Part
from workers.reporting.frames import frame_faults, own_frame_faults
from workers.reporting.measurement_group import BIDIRECTIONAL
from workers.reporting.places import geometry_faults, image_faults, own_geometry_faults
from workers.reporting.report import Report
from workers.reporting.segments import Segment, segments_of
from workers.reporting.uids import (
    CONTENT,
    CURRENT_REQUESTED_PROCEDURE_EVIDENCE,
    DRAWN_ON,
    PERTINENT_OTHER_EVIDENCE,
    PREDECESSOR_DOCUMENTS,
    StandingUids,
)
from workers.reporting.written_report import WrittenReport

TRACKING_IDENTIFIER = Code("112039", "DCM", "Tracking Identifier")
TRACKING_UID = Code("112040", "DCM", "Tracking Unique Identifier")
MEASUREMENT_GROUP = Code("125007", "DCM", "Measurement Group")
REFERENCED_SEGMENT = Code("121191", "DCM", "Referenced Segment")

#: IHE AI Results, Table 6.5.3.1-1: items of the tree, and what of the Contributing Equipment item they must repeat.
_EQUAL_TO_EQUIPMENT = (
    (Code("121012", "DCM", "Device Observer UID"), "DeviceUID"),
    (Code("121014", "DCM", "Device Observer Manufacturer"), "Manufacturer"),
    (Code("121015", "DCM", "Device Observer Model Name"), "ManufacturerModelName"),
    (Code("111001", "DCM", "Algorithm Name"), "ManufacturerModelName"),
    (Code("111003", "DCM", "Algorithm Version"), "SoftwareVersions"),
)
_STATUS = (("CompletionFlag", "COMPLETE"), ("VerificationFlag", "UNVERIFIED"), ("PreliminaryFlag", "PRELIMINARY"))
_OF_THE_STUDY = ("StudyInstanceUID", "PatientID", "PatientName", "PatientBirthDate", "PatientSex", "AccessionNumber")


def check_report(report: Report, evidence: Evidence) -> tuple[bytes, ...]:
    """The files of a report that passed every rule, in the order of its data sets.

    Raises EvidenceInvalid naming the first rule that is broken; its message holds UIDs and no patient's data.
    """
    files = {part: as_file(dataset) for part, dataset in report.objects.items()}
    for faults in find_faults(report, files, evidence).values():
        for rule, fault in faults:
            raise EvidenceInvalid(f"the report breaks the rule '{rule}': {fault}; it is not sent")
    return tuple(files.values())


def find_faults(
    report: Report, files: Mapping[Part, bytes], evidence: Evidence
) -> dict[Part, tuple[tuple[str, str], ...]]:
    """What is wrong with the objects of a report, read back from their files: by object, rule and fault.

    A structured report is judged together with the segmentation that it refers to. What is wrong with the one that goes
    out first is said of the report in the evidence's form, where that refers to it.
    """
    written = {part: dcmread(BytesIO(file)) for part, file in files.items()}
    uids = {part: StandingUids(file=file) for part, file in files.items()}
    found: dict[Part, tuple[tuple[str, str], ...]] = {}
    segments = _segments(written.get(Part(Form.SEG)), evidence)
    for part, dataset in written.items():
        form = part.form
        if form is Form.SEG and TRAITS[report.form].refers_to is form:
            continue
        is_report = form in (*STRUCTURED_REPORTS, Form.UNREAD)
        named = TRAITS[form].refers_to
        with_segments = None if named is None else Part(named)
        pair = WrittenReport(
            structured_report=dataset,
            segmentation=None if with_segments is None else written.get(with_segments),
            evidence=evidence if form is report.form or not is_report else evidence.in_form(form),
            outcome=report.ended,
            report_uids=uids[part],
            segmentation_uids=None if with_segments is None else uids.get(with_segments),
            segments=segments,
        )
        is_first = form is report.form and named is Form.SEG
        rules = RULES_OF_OTHERS if not is_report else RULES if is_first else RULES_OF_FURTHER_REPORTS
        found[part] = tuple((name, fault) for name, rule in rules.items() for fault in _faults(rule, pair))
    return found


def _segments(segmentation: Dataset | None, evidence: Evidence) -> dict[str, Segment] | None:
    """The voxels of each finding, none without a segmentation; None of one that cannot be read, which is a fault."""
    if segmentation is None:
        return {}
    try:
        return segments_of(segmentation, evidence.volume)
    except (AttributeError, IndexError, KeyError, TypeError, ValueError):
        return None


def _faults(rule: Callable[[WrittenReport], Iterable[str]], written: WrittenReport) -> list[str]:
    """What a rule finds wrong; an object that lacks what the rule looks at is wrong as well."""
    try:
        return list(rule(written))
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        return [f"an object lacks what it must have ({type(error).__name__})"]


def uid_faults(written: WrittenReport) -> Iterator[str]:
    """Every UID is one, and no two objects or series share one."""
    for result, uids in zip(written.objects[::-1], (written.report_uids, written.segmentation_uids), strict=False):
        yield from (f"{keyword} of {result.Modality} is no UID" for keyword in ([] if uids is None else uids.faulty))
    for keyword in ("SOPInstanceUID", "SeriesInstanceUID"):
        known = {str(header[keyword].value) for header in written.evidence.volume.headers}
        own = [str(result[keyword].value) for result in written.objects]
        if len(set(own)) < len(own) or known & set(own):
            yield f"{keyword} is not the object's own"


def study_faults(written: WrittenReport) -> Iterator[str]:
    """Study and patient are the source's."""
    for result in written.objects:
        for keyword in _OF_THE_STUDY:
            if (result.get(keyword) or "") != (written.evidence.header.get(keyword) or ""):
                yield f"{keyword} of {result.Modality} is not that of the source"


def evidence_faults(written: WrittenReport) -> Iterator[str]:
    """The report lists all that was read, its segmentation, whatever its tree refers to, and no other (PS3.3 C.17.2.3).

    What else it listed its peer might not have.
    """
    listed = written.report_uids.referenced(CURRENT_REQUESTED_PROCEDURE_EVIDENCE)
    expected = set(written.evidence.volume.sop_instance_uids)
    if written.segmentation is not None and written.segmentation_uids is not None:
        expected.add(str(written.segmentation.SOPInstanceUID))
        drawn_on = written.segmentation_uids.referenced(*DRAWN_ON)
        yield from (f"the segmentation refers to {uid}, which was not read" for uid in sorted(drawn_on - expected))
    yield from (f"{uid} is missing from the report's evidence" for uid in sorted(expected - listed))
    yield from (f"{uid} was not read, and is the report's evidence" for uid in sorted(listed - expected))
    items = (item for items in written.items.values() for item in items)
    references = (reference for item in items for reference in item.get("ReferencedSOPSequence", []))
    used = {str(reference.ReferencedSOPInstanceUID) for reference in references}
    # What of other studies it may list, a rule of its own says.
    listed |= written.report_uids.referenced(PERTINENT_OTHER_EVIDENCE)
    yield from (f"the report refers to {uid}, which is not its evidence" for uid in sorted(used - listed))


def predecessor_faults(written: WrittenReport) -> Iterator[str]:
    """A report names the one that it replaces, of the same study, and no other (PS3.3 Section C.17.2)."""
    named = written.report_uids.referenced(PREDECESSOR_DOCUMENTS)
    expected = {str(replaced.SOPInstanceUID) for replaced in written.evidence.replaced}
    if named != expected:
        yield f"it names {sorted(named)} as what it replaces, and should name {sorted(expected)}"
    for replaced in written.evidence.replaced:
        if replaced.StudyInstanceUID != written.evidence.volume.study_instance_uid:
            yield f"{replaced.SOPInstanceUID}, which it replaces, is of another study"


def tracking_faults(written: WrittenReport) -> Iterator[str]:
    """Report and segmentation call each finding the same, and speak of the same findings (IHE AI Results)."""
    if written.segmentation is None:
        yield from _drawing_faults(written)
        return
    # A label map also describes what is marked as nothing.
    described = (s for s in written.segmentation.SegmentSequence if "TrackingUID" in s)
    segments = {int(s.SegmentNumber): (s.TrackingID, s.TrackingUID) for s in described}
    uids = {uid for _, uid in segments.values()}
    reported = set()
    for group in written.named(MEASUREMENT_GROUP):
        names = (text_of(group, TRACKING_IDENTIFIER), text_of(group, TRACKING_UID))
        # What viewers draw may bear the name of their tool; its Tracking UID is the segment's all the same.
        if names not in segments.values() and not (names[0] == BIDIRECTIONAL and names[1] in uids):
            yield f"the report tracks {names[1]}, which is no segment"
        for item in group.ContentSequence:
            if is_named(item, REFERENCED_SEGMENT):
                number = int(item.ReferencedSOPSequence[0].ReferencedSegmentNumber)
                reported.add(number)
                if segments.get(number) != names:
                    yield f"segment {number} is not tracked as its measurements are"
    yield from (f"segment {number} has no measurements" for number in sorted(segments.keys() - reported))


def _drawing_faults(written: WrittenReport) -> Iterator[str]:
    """Without a segmentation every finding is drawn on images."""
    for group in written.named(MEASUREMENT_GROUP):
        if not any("GraphicData" in item for item in walk(group)):
            yield f"{text_of(group, TRACKING_UID)} is drawn on no image, and has no segment"


def status_faults(written: WrittenReport) -> Iterator[str]:
    """No algorithm verifies, and every report says so (PS3.3 C.17.2)."""
    report = written.structured_report
    for keyword, value in _STATUS:
        if report.get(keyword) != value:
            yield f"{keyword} is not {value}"
    if "not for diagnostic use" not in _comment_of(written):
        yield "it does not say that it is not for diagnostic use"


def summary_faults(written: WrittenReport) -> Iterator[str]:
    """The summary says how the reading ended, and that there are findings exactly when there are; else also why."""
    expected = written.outcome.summary
    found = bool(written.named(MEASUREMENT_GROUP)) or any(said.is_positive for said in written.outcome.statements)
    if expected.meaning.endswith("with findings") is not found:
        yield f"the reading ended as {expected.value} ({expected.meaning}), which its findings contradict"
    if written.outcome.reason and written.outcome.reason[1:] not in _comment_of(written):
        yield "it does not say why the study was not read, or not wholly"
    said = [item.ConceptCodeSequence[0].CodeValue for item in written.named(codes.PROCESSING_SUMMARY)]
    if said != [expected.value]:
        yield f"the summary is {said}, not {expected.value} ({expected.meaning})"


def equipment_faults(written: WrittenReport) -> Iterator[str]:
    """The algorithm is the one processing equipment, described whole and alike everywhere (IHE AI Results)."""
    for result in written.objects:
        items = [
            item
            for item in result.ContributingEquipmentSequence
            if item.PurposeOfReferenceCodeSequence[0].CodeValue == codes.PROCESSING_EQUIPMENT.value
        ]
        if len(items) != 1 or not all(items[0].get(keyword) for _, keyword in _EQUAL_TO_EQUIPMENT):
            yield f"{result.Modality} does not describe its algorithm once and whole"
            continue
        for name, keyword in _EQUAL_TO_EQUIPMENT:
            said = {value_of(item) for item in written.named(name)}
            if said - {str(items[0][keyword].value)}:
                yield f"{name.meaning} differs from {keyword} of the Contributing Equipment"


def library_faults(written: WrittenReport) -> Iterator[str]:
    """Whoever reads with highdicom gets the segments and the tree that were written."""
    # Last of all rules: the library makes its own kinds of items of these very data sets.
    read = Comprehensive3DSR.from_dataset(written.structured_report, copy=False)
    if len(read.content[0].ContentSequence) != len(written.structured_report.ContentSequence):
        yield "highdicom reads another tree"
    if written.segmentation is not None:
        segmentation = Segmentation.from_dataset(written.segmentation, copy=False)
        count = sum("TrackingUID" in segment for segment in segmentation.SegmentSequence)
        if list(segmentation.segment_numbers) != list(range(1, count + 1)):
            yield "highdicom reads other segments"


def note_faults(file: bytes, rejected: Sequence[Dataset]) -> list[str]:
    """What is wrong with a rejection note: it is of the study of what it rejects, and names all of that alone."""
    note, uids = dcmread(BytesIO(file)), StandingUids(file=file)
    faults = [
        f"{keyword} is not that of what it rejects"
        for keyword in _OF_THE_STUDY
        if (note.get(keyword) or "") != (rejected[0].get(keyword) or "")
    ]
    expected = {str(ds.SOPInstanceUID) for ds in rejected}
    if uids.referenced(CURRENT_REQUESTED_PROCEDURE_EVIDENCE) != expected:
        faults.append("its evidence is not what it rejects")
    if uids.referenced(CONTENT) != expected:
        faults.append("its tree does not name what it rejects")
    try:
        KeyObjectSelectionDocument.from_dataset(note)
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        faults.append(f"highdicom cannot read it ({type(error).__name__})")
    return faults


RULES: dict[str, Callable[[WrittenReport], Iterable[str]]] = {
    "uid": uid_faults,
    "study": study_faults,
    "evidence": evidence_faults,
    "predecessor": predecessor_faults,
    "prior": prior_faults,
    "names": name_faults,
    "tracking": tracking_faults,
    "geometry": geometry_faults,
    "images": image_faults,
    "frames": frame_faults,
    "extent": extent_faults,
    "status": status_faults,
    "summary": summary_faults,
    "equipment": equipment_faults,
    "library": library_faults,
}

#: Of objects that are neither the segmentation nor a structured report.
RULES_OF_OTHERS = {
    **{name: RULES[name] for name in ("uid", "study", "equipment", "images")},
    "geometry": own_geometry_faults,
    "frames": own_frame_faults,
    "extent": own_extent_faults,
}
#: Of the same report in another form: the segmentation was judged with the first.
RULES_OF_FURTHER_REPORTS = {name: rule for name, rule in RULES.items() if name not in ("geometry", "frames")}


def _comment_of(written: WrittenReport) -> str:
    return "\n".join(str(item.get("TextValue", "")) for item in written.named(codes.COMMENT))
