"""What a chaos run found out: for each study whether it was lost, reported twice, or is stuck."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from io import BytesIO
from itertools import pairwise

from pydicom import Dataset, dcmread
from pydicom.errors import InvalidDicomError

from deploy.chaos_plan import REPORTED, Kind
from deploy.chaos_senders import Sent
from deploy.rig import LittlePacs, RunningNode
from dicom_node.archive.file_meta import open_data_set
from dicom_node.archive.studies import HistoryRow
from dicom_node.core.codes import NONE_SUCCEEDED
from dicom_node.core.lifecycle import JobState, StudyState

STRUCTURED_REPORT, SEGMENTATION = "SR", "SEG"


@dataclass(frozen=True, kw_only=True)
class Report:
    """A structured report at the PACS."""

    sop_instance_uid: str
    #: The instances that it is about.
    evidence: frozenset[str]
    #: The reports that it says it takes the place of.
    predecessors: frozenset[str]
    #: Other results that it refers to anywhere: its segmentation.
    results: frozenset[str] = frozenset()


@dataclass(frozen=True, kw_only=True)
class Segmentation:
    """A segmentation at the PACS."""

    sop_instance_uid: str
    #: The images that it is of.
    evidence: frozenset[str]


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """One study at the end of the run."""

    number: int
    kind: Kind
    study_instance_uid: str
    state: str
    reason: str
    accepted: int
    #: Whether all that was to be sent was.
    finished: bool
    broken_sendings: int
    reports: int
    committed: bool
    dead_letters: int
    #: What is missing, in words; empty: nothing.
    lost: tuple[str, ...]
    #: Which reports are one too many.
    twice: tuple[str, ...]
    stuck: bool
    #: Reports that a report at the PACS says it takes the place of, and that no peer was ever known to accept.
    never_accepted: tuple[str, ...]
    #: States in which the study was when further images opened it again, in their order.
    reopened_from: tuple[str, ...]
    #: Changes of state that the history does not tell of.
    untold: tuple[str, ...]
    #: From the acceptance of the last new image to the PACS' acceptance of the report about all of them.
    seconds: float | None


def finals(committing: bool) -> frozenset[StudyState]:
    """The states in which nothing more happens to a study by itself."""
    end = StudyState.COMMITTED if committing else StudyState.DELIVERED
    return frozenset({end, StudyState.NOT_ROUTED, StudyState.FAILED})


def judge(sent: Sent, node: RunningNode, pacs: LittlePacs, *, committing: bool) -> Outcome:
    """Hold one study's ledger against the node's archive and index, and the PACS."""
    uid, kind = sent.study.study_instance_uid, sent.study.planned.kind
    rows = node.index.studies.rows(uid)
    objects = [dcmread(BytesIO(data)) for data in pacs.files(uid)]
    # What says that a study was not read, after faults that outlasted its attempts, is no report about its images.
    reports = [report_of(ds) for ds in objects if ds.Modality == STRUCTURED_REPORT and not says_unread(ds)]
    segmentations = [segmentation_of(ds) for ds in objects if ds.Modality == SEGMENTATION]
    held = {str(ds.SOPInstanceUID) for ds in objects}
    state = rows[0].state if rows else None
    lost = lost_instances(sent, node)
    if kind in REPORTED:
        lost += unreported(sent, reports)
        lost += unanswered(sent, state)
    deliveries = node.index.deliveries.of_study(uid)
    accepted_at = {row.sop_instance_uid: row.accepted_at for row in deliveries if row.accepted_at}
    lost += [f"object {name} was accepted by the PACS and is not there" for name in sorted(set(accepted_at) - held)]
    lost += unheld_results(reports, held)
    history = node.index.studies.history(uid)
    jobs = node.index.jobs.of_study(uid)
    dead_letters = sum(row.dead_letter and row.job.state is JobState.FAILED for row in jobs)
    absent = frozenset[str]().union(*(report.predecessors for report in reports)) - held
    lost += [
        f"report {name}, which a later one replaces, is not at the PACS" for name in sorted(absent & set(accepted_at))
    ]
    return Outcome(
        number=sent.study.planned.number,
        kind=kind,
        study_instance_uid=uid,
        state=str(state or "not in the index"),
        reason=rows[0].reason if rows else "",
        accepted=len(sent.accepted),
        finished=sent.finished,
        broken_sendings=sent.broken,
        reports=len(reports),
        committed=state is StudyState.COMMITTED,
        dead_letters=dead_letters,
        lost=tuple(lost),
        twice=(*one_too_many(reports), *same_evidence_twice(segmentations)),
        # A dead letter that faults alone account for was asked for again: what is left gave up by itself.
        stuck=state not in finals(committing) or not sent.finished or dead_letters > 0,
        never_accepted=tuple(sorted(absent - set(accepted_at))),
        reopened_from=tuple(reopenings(history)),
        untold=tuple(untold(history, state)),
        seconds=_seconds(sent, reports, accepted_at) if kind in REPORTED else None,
    )


def lost_instances(sent: Sent, node: RunningNode) -> list[str]:
    """Accepted instances of which the archive holds no file with the same bytes, in words."""
    lost = []
    for content in sent.accepted:
        kept = [row for row in node.index.studies.find(content.sop_instance_uid) if row.sha256 == content.sha256]
        if not kept:
            lost.append(f"instance {content.sop_instance_uid} was accepted and is not in the index")
        elif _digest(node, kept[0].path) != content.sha256:
            lost.append(f"instance {content.sop_instance_uid} was accepted and its file is missing or altered")
    return lost


def unreported(sent: Sent, reports: Sequence[Report]) -> list[str]:
    """What is wrong where no report at the PACS is about exactly the study's evidence, in words."""
    accepted = {content.sop_instance_uid for content in sent.accepted} & sent.study.evidence
    if not accepted:
        return []
    if not reports:
        return ["no report is at the PACS"]
    if not any(report.evidence == accepted for report in reports):
        best = max(len(report.evidence & accepted) for report in reports)
        return [f"no report is about all {len(accepted)} images; the best is about {best}"]
    return []


def unanswered(sent: Sent, state: StudyState | None) -> list[str]:
    """What is wrong where a study that is to be reported ended otherwise, in words."""
    accepted = {content.sop_instance_uid for content in sent.accepted} & sent.study.evidence
    if accepted and state in (StudyState.NOT_ROUTED, StudyState.FAILED):
        return [f"the study is to be reported and ended {state}"]
    return []


def unheld_results(reports: Sequence[Report], held: Collection[str]) -> list[str]:
    """Results that a report at the PACS refers to and that are not there, in words."""
    return [
        f"{name}, which report {report.sop_instance_uid} refers to, is not at the PACS"
        for report in reports
        for name in sorted(report.results - set(held))
    ]


def same_evidence_twice(segmentations: Sequence[Segmentation]) -> list[str]:
    """Segmentations of the same images as another one, in words."""
    found, by_evidence = [], dict[frozenset[str], str]()
    for each in segmentations:
        first = by_evidence.setdefault(each.evidence, each.sop_instance_uid)
        if first != each.sop_instance_uid:
            found.append(f"segmentation {each.sop_instance_uid} is of the same {len(each.evidence)} images as {first}")
    return found


def reopenings(history: Sequence[HistoryRow]) -> list[str]:
    """The states in which further images found the study."""
    own = [row for row in history if not row.subject]
    return [str(row.before) for row in own if row.after == StudyState.RECEIVING != row.before]


def one_too_many(reports: Sequence[Report]) -> list[str]:
    """Reports about the same evidence as another one, and later ones that name no predecessor, in words."""
    found, by_evidence = [], dict[frozenset[str], str]()
    for report in reports:
        first = by_evidence.setdefault(report.evidence, report.sop_instance_uid)
        if first != report.sop_instance_uid:
            found.append(f"{report.sop_instance_uid} is about the same {len(report.evidence)} images as {first}")
    silent = [report for report in reports if not report.predecessors]
    if len(by_evidence) > 1 and len(silent) > 1:
        named = ", ".join(f"{report.sop_instance_uid} ({len(report.evidence)} images)" for report in silent)
        found.append(f"{len(silent)} reports name no predecessor: {named}")
    return found


def untold(history: Sequence[HistoryRow], state: StudyState | None) -> list[str]:
    """Changes of the study's state that its history leaves out, in words."""
    # Jobs and deliveries have lines of their own, under their own subject.
    own = [row for row in history if not row.subject]
    found = [
        f"{one.after} became {next_one.before} untold"
        for one, next_one in pairwise(own)
        if str(one.after) != str(next_one.before)
    ]
    if own and state is not None and str(own[-1].after) != str(state):
        found.append(f"{own[-1].after} became {state} untold")
    return found


def report_of(ds: Dataset) -> Report:
    """What a structured report says of itself in its header."""
    references = [
        (str(image.ReferencedSOPClassUID), str(image.ReferencedSOPInstanceUID))
        for name in ("CurrentRequestedProcedureEvidenceSequence", "PertinentOtherEvidenceSequence")
        for study in ds.get(name, ())
        for series in study.ReferencedSeriesSequence
        for image in series.ReferencedSOPSequence
    ]
    predecessors = [
        str(image.ReferencedSOPInstanceUID)
        for study in ds.get("PredecessorDocumentsSequence", ())
        for series in study.ReferencedSeriesSequence
        for image in series.ReferencedSOPSequence
    ]
    results = {uid for sop_class, uid in _all_references(ds) if _is_result(sop_class)}
    return Report(
        sop_instance_uid=str(ds.SOPInstanceUID),
        evidence=frozenset(uid for sop_class, uid in references if not _is_result(sop_class)),
        predecessors=frozenset(predecessors),
        results=frozenset(results - set(predecessors)),
    )


def says_unread(ds: Dataset) -> bool:
    """Whether a structured report says that no algorithm succeeded (CID 6047)."""
    values = (item.get("ConceptCodeSequence", ()) for item in _items(ds))
    return any(value.CodeValue == NONE_SUCCEEDED.value for found in values for value in found)


def segmentation_of(ds: Dataset) -> Segmentation:
    """What a segmentation says of itself: the images of its Referenced Series Sequence."""
    images = [image for series in ds.ReferencedSeriesSequence for image in series.ReferencedInstanceSequence]
    return Segmentation(
        sop_instance_uid=str(ds.SOPInstanceUID),
        evidence=frozenset(str(image.ReferencedSOPInstanceUID) for image in images),
    )


def _items(item: Dataset) -> Iterator[Dataset]:
    """Every content item of a tree."""
    yield item
    for child in item.get("ContentSequence", ()):
        yield from _items(child)


def _all_references(ds: Dataset) -> Iterator[tuple[str, str]]:
    """SOP Class and SOP Instance UID of everything that a data set refers to, at any depth."""
    if "ReferencedSOPInstanceUID" in ds:
        yield str(ds.get("ReferencedSOPClassUID", "")), str(ds.ReferencedSOPInstanceUID)
    for element in ds:
        if element.VR == "SQ":
            for item in element.value:
                yield from _all_references(item)


def _is_result(sop_class_uid: str) -> bool:
    """Segmentations (66) and structured reports (88) are no images of a scanner."""
    return sop_class_uid.startswith(("1.2.840.10008.5.1.4.1.1.66.", "1.2.840.10008.5.1.4.1.1.88."))


def _digest(node: RunningNode, path: str) -> str:
    try:
        _, file = open_data_set(node.data_dir / "archive" / path)
    except (OSError, InvalidDicomError, AttributeError):
        return ""
    with file:
        return sha256(file.read()).hexdigest()


def _seconds(sent: Sent, reports: Sequence[Report], accepted_at: Mapping[str, float]) -> float | None:
    """None where no report about all the evidence has been accepted."""
    accepted = {content.sop_instance_uid for content in sent.accepted} & sent.study.evidence
    times = [
        accepted_at[r.sop_instance_uid] for r in reports if r.evidence == accepted and r.sop_instance_uid in accepted_at
    ]
    return max(0.0, min(times) - sent.evidence_complete_at) if times else None
