"""What is drawn on a frame of a multi-frame source names that frame: without a number it lies on all of them."""

from io import BytesIO

import pytest
from pydicom import Dataset, dcmread

from dicom_node.core.form import Form
from tests.factories import enhanced_ct
from tests.unit.workers.reporting.conftest import Reading, breaking, reading_of
from tests.unit.workers.reporting.test_structured_report import walk
from workers.reporting.encoding import as_file
from workers.reporting.forms import Part
from workers.reporting.passage import check_objects
from workers.reporting.report import Report, build_report

#: Every form whose tree refers to images.
TREES = (Form.SR, Form.SR_OHIF, Form.KEY_OBJECTS)


@pytest.fixture(scope="module")
def multi_frame(tmp_path_factory: pytest.TempPathFactory) -> Reading:
    return reading_of(tmp_path_factory.mktemp("enhanced"), source=enhanced_ct)


@pytest.fixture(scope="module")
def written(multi_frame: Reading) -> Report:
    """The report on it in every form with a tree; a test breaks a copy."""
    return build_report(multi_frame.evidence, multi_frame.findings, multi_frame.labels, forms={Form.SEG, *TREES})


def references(tree: Dataset, source: str) -> list[Dataset]:
    """The references to the source image in a tree."""
    found = (reference for item in walk(tree) for reference in item.get("ReferencedSOPSequence", []))
    return [reference for reference in found if reference.ReferencedSOPInstanceUID == source]


def faults(reading: Reading, report: Report) -> dict[Form, str]:
    return {one.form: one.fault for one in check_objects(report, reading.evidence)}


@pytest.mark.parametrize("form", TREES)
def test_each_item_names_the_one_frame_that_its_finding_was_drawn_on(
    multi_frame: Reading, written: Report, form: Form
) -> None:
    tree = dcmread(BytesIO(as_file(written.objects[Part(form)])))
    named = [
        reference.get("ReferencedFrameNumber")
        for reference in references(tree, multi_frame.findings[0].outline.sop_instance_uid)
    ]
    drawn_on = [finding.outline.frame_number for finding in multi_frame.findings]
    # Both axes of a finding are drawn.
    assert named == ([number for number in drawn_on for _ in range(2)] if form is Form.SR_OHIF else drawn_on)


def test_a_report_on_a_multi_frame_source_passes(multi_frame: Reading, written: Report) -> None:
    assert set(faults(multi_frame, written).values()) == {""}


@pytest.mark.parametrize("form", TREES)
@pytest.mark.parametrize("frames", [None, [2, 3], 99])
def test_a_reference_to_all_frames_to_several_or_to_an_unread_one_does_not_pass(
    multi_frame: Reading, written: Report, form: Form, frames: int | list[int] | None
) -> None:
    def name_others(tree: Dataset) -> None:
        reference = references(tree, multi_frame.findings[0].outline.sop_instance_uid)[-1]
        if frames is None:
            del reference.ReferencedFrameNumber
        else:
            reference.ReferencedFrameNumber = frames

    found = faults(multi_frame, breaking(written, form, name_others))
    assert "breaks the rule 'images'" in found.pop(form)
    assert set(found.values()) == {""}
