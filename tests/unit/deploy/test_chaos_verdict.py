"""The verdict of a chaos run sees what was lost, what was reported twice, and what changed untold."""

from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import pytest
from pydicom import Dataset

from deploy.chaos_plan import Kind, PlannedStudy
from deploy.chaos_senders import Content, Sent
from deploy.chaos_studies import WrittenStudy
from deploy.chaos_verdict import (
    Report,
    Segmentation,
    lost_instances,
    one_too_many,
    reopenings,
    report_of,
    same_evidence_twice,
    says_unread,
    segmentation_of,
    unanswered,
    unheld_results,
    unreported,
    untold,
)
from deploy.rig import RunningNode
from dicom_node.archive.files import Archive
from dicom_node.archive.studies import HistoryRow
from dicom_node.core.lifecycle import StudyState
from dicom_node.intake import Intake
from tests.instances import ct_instance, encoded, received, sop_uid
from tests.populated_index import SEG, SR

CT = "1.2.840.10008.5.1.4.1.1.2"


def report(name: str, *evidence: str, predecessors: frozenset[str] = frozenset()) -> Report:
    return Report(sop_instance_uid=name, evidence=frozenset(evidence), predecessors=predecessors)


def sent(*accepted: str, evidence: tuple[str, ...]) -> Sent:
    """A study of which these instances were accepted."""
    planned = PlannedStudy(number=1, kind=Kind.CHEST, template=0, at=0.0, uid_seed="", seed=0)
    study = WrittenStudy(
        planned=planned, study_instance_uid="1.2", files=(Path("a"),), late=(), evidence=frozenset(evidence)
    )
    contents = {Content(sop_instance_uid=uid, sha256=uid): float(at) for at, uid in enumerate(accepted)}
    return Sent(study=study, accepted=contents)


def history(*changes: tuple[str, str]) -> list[HistoryRow]:
    return [
        HistoryRow(at=0.0, before=StudyState(before), after=StudyState(after), cause="", actor="", subject="")
        for before, after in changes
    ]


def test_a_report_about_all_that_was_accepted_is_what_is_wanted() -> None:
    assert unreported(sent("1", "2", evidence=("1", "2")), [report("a", "1"), report("b", "1", "2")]) == []


def test_no_report_at_all_is_a_loss() -> None:
    assert unreported(sent("1", evidence=("1",)), []) == ["no report is at the PACS"]


def test_a_report_that_leaves_an_accepted_image_out_is_a_loss() -> None:
    (said,) = unreported(sent("1", "2", evidence=("1", "2")), [report("a", "1")])
    assert said == "no report is about all 2 images; the best is about 1"


def test_a_study_of_which_nothing_was_accepted_needs_no_report() -> None:
    assert unreported(sent(evidence=("1",)), []) == []


def test_two_reports_about_the_same_images_are_one_too_many() -> None:
    (said,) = one_too_many([report("a", "1", "2"), report("b", "2", "1")])
    assert said == "b is about the same 2 images as a"


def test_a_later_report_about_more_images_that_names_the_earlier_one_is_none_too_many() -> None:
    assert one_too_many([report("a", "1"), report("b", "1", "2", predecessors=frozenset({"a"}))]) == []


def test_a_later_report_that_names_no_predecessor_is_told_of() -> None:
    (said,) = one_too_many([report("a", "1"), report("b", "1", "2")])
    assert said.startswith("2 reports name no predecessor")


def test_a_history_whose_lines_follow_from_each_other_leaves_nothing_untold() -> None:
    lines = history(("RECEIVING", "COMPLETE"), ("COMPLETE", "QUEUED"))
    lines.insert(1, replace(lines[0], subject="job lung_nodule", before="QUEUED", after="READING"))
    assert untold(lines, StudyState.QUEUED) == []


@pytest.mark.parametrize(
    ("changes", "state", "said"),
    [
        ((("RECEIVING", "COMPLETE"), ("QUEUED", "READING")), "READING", "COMPLETE became QUEUED untold"),
        ((("RECEIVING", "COMPLETE"),), "FAILED", "COMPLETE became FAILED untold"),
    ],
)
def test_a_change_without_a_line_is_told_of(changes: tuple[tuple[str, str], ...], state: str, said: str) -> None:
    assert untold(history(*changes), StudyState(state)) == [said]


def test_a_report_says_itself_which_images_it_is_about_and_what_it_replaces() -> None:
    def study(*images: tuple[str, str]) -> Dataset:
        series, ds = Dataset(), Dataset()
        series.ReferencedSOPSequence = []
        for sop_class, uid in images:
            image = Dataset()
            image.ReferencedSOPClassUID, image.ReferencedSOPInstanceUID = sop_class, uid
            series.ReferencedSOPSequence.append(image)
        ds.ReferencedSeriesSequence = [series]
        return ds

    ds = Dataset()
    ds.SOPInstanceUID = "1.9"
    ds.CurrentRequestedProcedureEvidenceSequence = [study((CT, "1.1"), (CT, "1.2"), (SEG, "1.3"))]
    ds.PredecessorDocumentsSequence = [study((SR, "1.8"))]
    said = report_of(ds)
    assert said == replace(report("1.9", "1.1", "1.2", predecessors=frozenset({"1.8"})), results=frozenset({"1.3"}))


def test_a_segmentation_that_only_the_content_of_a_report_refers_to_is_seen() -> None:
    segment, item, ds = Dataset(), Dataset(), Dataset()
    segment.ReferencedSOPClassUID, segment.ReferencedSOPInstanceUID = SEG, "1.3"
    item.ReferencedSOPSequence = [segment]
    ds.SOPInstanceUID, ds.ContentSequence = "1.9", [item]
    assert report_of(ds).results == {"1.3"}


def test_a_segmentation_that_a_report_refers_to_must_be_at_the_pacs() -> None:
    written = replace(report("1.9", "1"), results=frozenset({"1.3"}))
    assert unheld_results([written], {"1.9", "1.3"}) == []
    assert unheld_results([written], {"1.9"}) == ["1.3, which report 1.9 refers to, is not at the PACS"]


def test_two_segmentations_of_the_same_images_are_one_too_many() -> None:
    def segmentation(name: str, *images: str) -> Segmentation:
        return Segmentation(sop_instance_uid=name, evidence=frozenset(images))

    assert same_evidence_twice([segmentation("a", "1"), segmentation("b", "1", "2")]) == []
    (said,) = same_evidence_twice([segmentation("a", "1", "2"), segmentation("b", "2", "1")])
    assert said == "segmentation b is of the same 2 images as a"


def test_a_segmentation_says_itself_which_images_it_is_of() -> None:
    image, series, ds = Dataset(), Dataset(), Dataset()
    image.ReferencedSOPInstanceUID = "1.1"
    series.ReferencedInstanceSequence = [image]
    ds.SOPInstanceUID, ds.ReferencedSeriesSequence = "1.3", [series]
    assert segmentation_of(ds) == Segmentation(sop_instance_uid="1.3", evidence=frozenset({"1.1"}))


@pytest.mark.parametrize("state", [StudyState.NOT_ROUTED, StudyState.FAILED])
def test_a_study_that_is_to_be_reported_and_ends_otherwise_is_a_loss(state: StudyState) -> None:
    assert unanswered(sent("1", evidence=("1",)), state) == [f"the study is to be reported and ended {state}"]
    assert unanswered(sent("1", evidence=("1",)), StudyState.COMMITTED) == []
    assert unanswered(sent(evidence=("1",)), state) == []


def test_the_state_in_which_further_images_found_a_study_is_told() -> None:
    lines = history(
        ("RECEIVING", "RECEIVING"), ("RECEIVING", "COMPLETE"), ("READING", "RECEIVING"), ("COMMITTED", "RECEIVING")
    )
    assert reopenings(lines) == ["READING", "COMMITTED"]


def test_an_accepted_instance_that_is_gone_or_altered_is_lost_and_one_that_is_kept_is_not(tmp_path: Path) -> None:
    node = RunningNode(tmp_path, None)
    archive = Archive(node.data_dir / "archive")
    intake = Intake(archive=archive, studies=node.index.studies)
    kept, altered, gone, never_indexed = range(1, 5)
    for number in (kept, altered, gone):
        intake.store(received(ct_instance(number), association_id=None))
    paths = {n: archive.path_of(node.index.studies.find(sop_uid(n))[0].path) for n in (altered, gone)}
    paths[altered].write_bytes(paths[altered].read_bytes()[:-1] + b"!")
    paths[gone].unlink()
    numbers = (kept, altered, gone, never_indexed)
    digests = {number: sha256(encoded(ct_instance(number))).hexdigest() for number in numbers}
    ledger = sent(evidence=())
    ledger.accepted = {Content(sop_instance_uid=sop_uid(n), sha256=digests[n]): 0.0 for n in numbers}
    lost = lost_instances(ledger, node)
    node.index.close()
    assert lost == [
        f"instance {sop_uid(altered)} was accepted and its file is missing or altered",
        f"instance {sop_uid(gone)} was accepted and its file is missing or altered",
        f"instance {sop_uid(never_indexed)} was accepted and is not in the index",
    ]


@pytest.mark.parametrize(("code", "expected"), [("111245", True), ("111241", False), ("111242", False)])
def test_a_report_that_says_that_nothing_was_read_is_known_by_its_code(code: str, expected: bool) -> None:
    value, item, container, root = Dataset(), Dataset(), Dataset(), Dataset()
    value.CodeValue = code
    item.ConceptCodeSequence, container.ContentSequence, root.ContentSequence = [value], [item], [container]
    assert says_unread(root) is expected
