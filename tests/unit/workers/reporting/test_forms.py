"""All forms of a report together: what is written of each, and that the gate lets all of it pass."""

import re
from collections.abc import Callable

import pytest
from pydicom import Dataset

from deploy.conformance import STATEMENT
from dicom_node.core.form import STRUCTURED_REPORTS, TRAITS, UNREAD, Form
from tests.unit.workers.reporting.conftest import Reading
from tests.unit.workers.reporting.test_gate import (
    cut_the_pixels_short,
    lose_a_frames_source,
    move_a_frame,
    stretch_the_pixels,
    turn_the_frames,
    use_another_frame_of_reference,
)
from workers.lungs import LEFT_LUNG, RIGHT_LUNG
from workers.reporting.forms import BUILDERS, Part
from workers.reporting.passage import check_objects
from workers.reporting.rejection_note import Rejection, build_rejection_note
from workers.reporting.report import Report, build_report

#: Written also where nothing was found.
ALWAYS = {*STRUCTURED_REPORTS, Form.SECONDARY_CAPTURE, Form.PDF}


def whole(reading: Reading) -> Report:
    """A report in every form."""
    lungs = reading.labels * 0
    lungs[2:9, 4:28, 2:12], lungs[2:9, 4:28, 14:24] = RIGHT_LUNG, LEFT_LUNG
    return build_report(reading.evidence, reading.findings, reading.labels, forms=set(Form), lungs=lungs)


@pytest.fixture(scope="module")
def written(any_reading: Reading) -> Report:
    return whole(any_reading)


def test_every_object_in_every_form_passes_the_gate(any_reading: Reading, written: Report) -> None:
    checked = check_objects(written, any_reading.evidence)
    assert [(one.form, one.fault) for one in checked] == [(part.form, "") for part in written.objects]


def test_with_findings_every_form_is_written_and_without_those_that_say_so(
    any_reading: Reading, written: Report
) -> None:
    of_a_reading = {Form.SEG, *STRUCTURED_REPORTS, *BUILDERS}
    expected = of_a_reading if any_reading.findings else {*ALWAYS, Form.LUNG}
    assert {part.form for part in written.objects} == expected


def test_each_object_has_an_instance_of_its_own_and_each_form_a_series(written: Report) -> None:
    instances = [ds.SOPInstanceUID for ds in written.datasets]
    assert len(set(instances)) == len(instances)
    series: dict[str, Form] = {}
    for part, ds in written.objects.items():
        assert series.setdefault(ds.SeriesInstanceUID, part.form) is part.form


def test_each_series_of_a_study_has_a_number_of_its_own_that_the_statement_tells(reading: Reading) -> None:
    datasets = whole(reading).datasets
    rejected = [ds for ds in datasets if ds.Modality in ("SR", "SEG")]
    withdrawn = Rejection(safety=False, reason="Wrong patient", asked_at=reading.evidence.completed_at, number=1)
    note = build_rejection_note(withdrawn, rejected)
    numbers = {ds.SeriesInstanceUID: int(ds.SeriesNumber) for ds in (*datasets, note)}

    assert len(set(numbers.values())) == len(numbers) == len(Form) - len(UNREAD), (
        "an unread study's reports stand with the others"
    )
    (row,) = (line for line in STATEMENT.read_text(encoding="utf-8").splitlines() if line.startswith("| Series Number"))
    assert sorted(int(number) for number in re.findall(r"\b9\d{3}\b", row)) == sorted(numbers.values())


@pytest.mark.parametrize("form", [Form.LABEL_MAP, Form.LUNG])
@pytest.mark.parametrize(
    "break_it",
    [use_another_frame_of_reference, move_a_frame, turn_the_frames, stretch_the_pixels, lose_a_frames_source],
)
def test_every_segmentation_must_lie_on_its_source(
    reading: Reading, form: Form, break_it: Callable[[Dataset, Dataset], None]
) -> None:
    report = whole(reading)
    break_it(Dataset(), report.objects[Part(form)])
    faults = {one.form: one.fault for one in check_objects(report, reading.evidence)}
    assert f"{form} breaks the rule 'geometry'" in faults.pop(form)
    assert_held_with(form, faults)


@pytest.mark.parametrize("form", [Form.LABEL_MAP, Form.LUNG])
def test_every_segmentation_has_its_pixel_data_whole(reading: Reading, form: Form) -> None:
    report = whole(reading)
    cut_the_pixels_short(Dataset(), report.objects[Part(form)])
    faults = {one.form: one.fault for one in check_objects(report, reading.evidence)}
    assert f"{form} breaks the rule 'frames'" in faults.pop(form)
    assert_held_with(form, faults)


def assert_held_with(form: Form, faults: dict[Form, str]) -> None:
    """What refers to an object that must not be sent must not be sent either; nothing is wrong with the others."""
    for other, fault in faults.items():
        refers = TRAITS[other].refers_to is form
        assert (f"the rule 'parts': {form}, which it refers to" in fault) if refers else fault == "", other


def test_pictures_are_numbered_and_come_after_what_radiologists_read_first(reading: Reading) -> None:
    parts = list(whole(reading).objects)
    pictures = [part.number for part in parts if part.form is Form.SECONDARY_CAPTURE]
    # A page of text; then each finding on its slice, and in three planes.
    assert pictures == list(range(1, 2 * len(reading.findings) + 2))
    assert [TRAITS[part.form].rank for part in parts] == sorted(TRAITS[part.form].rank for part in parts)


def test_a_form_that_nobody_asked_for_is_not_written(reading: Reading) -> None:
    report = build_report(reading.evidence, reading.findings, reading.labels, forms={Form.SR, Form.KEY_OBJECTS})
    assert list(report.objects) == [Part(Form.SEG), Part(Form.SR), Part(Form.KEY_OBJECTS)]
