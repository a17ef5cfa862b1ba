"""All forms of a report together: what is written of each, and that the gate lets all of it pass."""

import re
from collections.abc import Callable
from dataclasses import replace

import pytest
from pydicom import Dataset

from deploy.conformance import STATEMENT
from dicom_node.core.form import STRUCTURED_REPORTS, TRAITS, UNREAD, Form
from tests.unit.workers.reporting.conftest import Reading, breaking
from tests.unit.workers.reporting.test_gate import (
    cut_the_pixels_short,
    lose_a_frames_source,
    move_a_frame,
    stretch_the_pixels,
    turn_the_frames,
    use_another_frame_of_reference,
)
from workers.reporting.forms import BUILDERS, Part
from workers.reporting.passage import check_objects
from workers.reporting.rejection_note import Rejection, build_rejection_note
from workers.reporting.report import Report, build_report

#: Written also where nothing was found.
ALWAYS = {*STRUCTURED_REPORTS, Form.SECONDARY_CAPTURE, Form.PDF}


def test_every_object_in_every_form_passes_the_gate(any_reading: Reading, any_whole: Report) -> None:
    checked = check_objects(any_whole, any_reading.evidence)
    assert [(one.form, one.fault) for one in checked] == [(part.form, "") for part in any_whole.objects]


def test_with_findings_every_form_is_written_and_without_those_that_say_so(
    any_reading: Reading, any_whole: Report
) -> None:
    of_a_reading = {Form.SEG, *STRUCTURED_REPORTS, *BUILDERS}
    expected = of_a_reading if any_reading.findings else {*ALWAYS, Form.LUNG}
    assert {part.form for part in any_whole.objects} == expected


def test_each_object_has_an_instance_of_its_own_and_each_form_a_series(any_whole: Report) -> None:
    instances = [ds.SOPInstanceUID for ds in any_whole.datasets]
    assert len(set(instances)) == len(instances)
    series: dict[str, Form] = {}
    for part, ds in any_whole.objects.items():
        assert series.setdefault(ds.SeriesInstanceUID, part.form) is part.form


def test_each_series_of_a_study_has_a_number_of_its_own_that_the_statement_tells(
    reading: Reading, whole: Report
) -> None:
    datasets = whole.datasets
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
    reading: Reading, whole: Report, form: Form, break_it: Callable[[Dataset, Dataset], None]
) -> None:
    report = breaking(with_what_refers_to(form, whole), form, lambda segmentation: break_it(Dataset(), segmentation))
    faults = {one.form: one.fault for one in check_objects(report, reading.evidence)}
    assert f"{form} breaks the rule 'geometry'" in faults.pop(form)
    assert_held_with(form, faults)


@pytest.mark.parametrize("form", [Form.LABEL_MAP, Form.LUNG])
def test_every_segmentation_has_its_pixel_data_whole(reading: Reading, whole: Report, form: Form) -> None:
    report = breaking(whole, form, lambda segmentation: cut_the_pixels_short(Dataset(), segmentation))
    faults = {one.form: one.fault for one in check_objects(report, reading.evidence)}
    assert f"{form} breaks the rule 'frames'" in faults.pop(form)
    assert_held_with(form, faults)


def with_what_refers_to(form: Form, report: Report) -> Report:
    """Of a report in every form what is in this one, what refers to that, and what is always written."""
    kept = {part: ds for part, ds in report.others.items() if form in (part.form, TRAITS[part.form].refers_to)}
    return replace(report, others=kept)


def assert_held_with(form: Form, faults: dict[Form, str]) -> None:
    """What refers to an object that must not be sent must not be sent either; nothing is wrong with the others."""
    for other, fault in faults.items():
        refers = TRAITS[other].refers_to is form
        assert (f"the rule 'parts': {form}, which it refers to" in fault) if refers else fault == "", other


def test_pictures_are_numbered_and_come_after_what_radiologists_read_first(reading: Reading, whole: Report) -> None:
    parts = list(whole.objects)
    pictures = [part.number for part in parts if part.form is Form.SECONDARY_CAPTURE]
    # A page of text; then each finding on its slice, and in three planes.
    assert pictures == list(range(1, 2 * len(reading.findings) + 2))
    assert [TRAITS[part.form].rank for part in parts] == sorted(TRAITS[part.form].rank for part in parts)


def test_a_form_that_nobody_asked_for_is_not_written(reading: Reading) -> None:
    report = build_report(reading.evidence, reading.findings, reading.labels, forms={Form.SR, Form.KEY_OBJECTS})
    assert list(report.objects) == [Part(Form.SEG), Part(Form.SR), Part(Form.KEY_OBJECTS)]
