"""Whatever forms a peer takes, each of its objects refers to images and to what it gets itself."""

from collections.abc import Iterator
from io import BytesIO

import pytest
from pydicom import Dataset, dcmread

from dicom_node.core.form import STRUCTURED_REPORTS, TRAITS, UNREAD, Form, forms_of
from tests.unit.core.test_form import ASKED
from tests.unit.workers.reporting.conftest import Reading, breaking
from tests.unit.workers.reporting.test_structured_report import child, groups_of, name_of, value_of, walk
from workers.reporting.encoding import as_file
from workers.reporting.forms import Part
from workers.reporting.gate import find_faults
from workers.reporting.passage import check_objects
from workers.reporting.report import Report

IN_SEGMENTS = [form for form in STRUCTURED_REPORTS if TRAITS[form].refers_to is not None]
ON_IMAGES = [form for form in STRUCTURED_REPORTS if TRAITS[form].refers_to is None]


@pytest.fixture(scope="module")
def objects(any_whole: Report) -> dict[Part, Dataset]:
    """Every form of every situation's report, as peers get it."""
    return {part: dcmread(BytesIO(as_file(ds))) for part, ds in any_whole.objects.items()}


def referred(ds: Dataset) -> set[str]:
    """The instances that an object names anywhere, but as what it replaces."""
    return {
        str(element.value)
        for top in ds
        if top.keyword != "PredecessorDocumentsSequence"
        for element in _within(top)
        if element.keyword == "ReferencedSOPInstanceUID"
    }


def _within(element: object) -> Iterator:  # type: ignore[type-arg]  # pydicom's elements are of no one type
    yield element
    if element.VR == "SQ":  # type: ignore[attr-defined]  # as above
        for item in element.value:  # type: ignore[attr-defined]  # as above
            yield from item.iterall()


def test_every_combination_of_forms_is_whole_at_its_peer(any_reading: Reading, objects: dict[Part, Dataset]) -> None:
    sources = set(any_reading.evidence.volume.sop_instance_uids)
    names = {part: referred(ds) for part, ds in objects.items()}
    for choices, sr_form in ASKED:
        got = {part for part in objects if part.form in forms_of(choices, sr_form)}
        held = sources | {str(objects[part].SOPInstanceUID) for part in got}
        for part in got:
            assert names[part] <= held, (choices, sr_form, part)


@pytest.mark.parametrize("form", IN_SEGMENTS)
def test_a_report_names_the_segments_that_its_peer_gets(whole: Report, form: Form) -> None:
    segmentation = whole.objects[Part(TRAITS[form].refers_to)]  # type: ignore[arg-type]  # such a form names one
    tracked = {s.SegmentNumber: s.TrackingUID for s in segmentation.SegmentSequence if "TrackingUID" in s}
    groups = groups_of(whole.objects[Part(form)], "1411")
    assert len(groups) == len(tracked) == 3
    for group in groups:
        (reference,) = child(group, "121191").ReferencedSOPSequence
        assert reference.ReferencedSOPInstanceUID == segmentation.SOPInstanceUID
        assert reference.ReferencedSOPClassUID == segmentation.SOPClassUID
        assert tracked[reference.ReferencedSegmentNumber] == value_of(child(group, "112040"))


def test_without_a_segmentation_a_finding_is_outlined_on_every_image_that_it_lies_on(
    reading: Reading, whole: Report
) -> None:
    volume = reading.evidence.volume
    groups = groups_of(whole.objects[Part(Form.SR_IMAGES)], "1411")
    assert len(groups) == 3
    for finding, group in zip(reading.findings, groups, strict=True):
        regions = [item for item in group.ContentSequence if name_of(item) == "111030"]
        images = [str(r.ContentSequence[0].ReferencedSOPSequence[0].ReferencedSOPInstanceUID) for r in regions]
        there = (reading.labels == finding.number).any(axis=(1, 2))
        assert set(images) == {uid for uid, marked in zip(volume.sop_instance_uids, there, strict=True) if marked}
        assert images[0] == finding.outline.sop_instance_uid, "viewers open at the first"
        assert not any(name_of(item) == "121191" for item in walk(group))


def test_for_ohif_without_a_segmentation_one_group_has_axes_and_all_numbers(whole: Report) -> None:
    portable, ohif = (whole.objects[Part(form)] for form in ON_IMAGES)
    for one, other in zip(groups_of(portable, "1411"), groups_of(ohif, "1501"), strict=True):
        numbers = [
            {(name_of(i), value_of(i)) for i in group.ContentSequence if i.ValueType == "NUM"} for group in (one, other)
        ]
        assert numbers[0] == numbers[1]
        assert value_of(child(one, "112040")) == value_of(child(other, "112040"))


@pytest.mark.parametrize("form", ON_IMAGES)
def test_a_finding_that_is_drawn_nowhere_is_held(reading: Reading, whole: Report, form: Form) -> None:
    def draw_nothing(document: Dataset) -> None:
        for group in (item for item in walk(document) if name_of(item) == "125007"):
            for item in walk(group):
                item.pop("GraphicData", None)

    report = breaking(whole, form, draw_nothing)
    faults = {one.form: one.fault for one in check_objects(report, reading.evidence)}
    assert f"{form} breaks the rule 'tracking'" in faults[form]


def test_what_is_not_its_evidence_is_noticed(reading: Reading, whole: Report) -> None:
    def list_the_segmentation(document: Dataset) -> None:
        own, other = (ds.CurrentRequestedProcedureEvidenceSequence[0] for ds in (document, whole.structured_report))
        own.ReferencedSeriesSequence.append(other.ReferencedSeriesSequence[1])

    report = breaking(whole, Form.SR_IMAGES, list_the_segmentation)
    files = {part: as_file(ds) for part, ds in report.objects.items()}
    found = find_faults(report, files, reading.evidence)[Part(Form.SR_IMAGES)]
    assert [rule for rule, _ in found] == ["evidence"]


def test_every_form_is_one_of_a_reading_or_says_why_there_is_none(objects: dict[Part, Dataset]) -> None:
    assert {part.form for part in objects}.isdisjoint(UNREAD)
