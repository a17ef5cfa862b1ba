"""Both forms of the structured report over many findings, one, none, and a study that was not read.

What makes a viewer open each well is held here to the words of the report's own tree; what was seen of it in viewers is
in `deploy/VIEWERS.md`.
"""

import html
import re
import subprocess
from collections.abc import Callable
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import pytest
from pydicom import Dataset, dcmread

from dicom_node.core import codes
from dicom_node.core.form import Form
from dicom_node.core.outcome import outcome_of_error
from tests.unit.workers.reporting.conftest import Reading
from tests.unit.workers.reporting.test_structured_report import child, groups_of, name_of, value_of, walk
from workers.reporting.encoding import as_file
from workers.reporting.gate import check_report
from workers.reporting.report import Report, build_report, build_unread_report

FORMS = (Form.SR, Form.SR_OHIF)
WHY_NOT = outcome_of_error("InconsistentGeometry", "3 slices are missing; send the series again")


def of_reading(reading: Reading) -> dict[Form, Dataset]:
    """The report on a reading in both forms, as peers get them."""
    report = build_report(reading.evidence, reading.findings, reading.labels, forms={Form.SEG, *FORMS})
    return _files(report, reading)


def _files(report: Report, reading: Reading) -> dict[Form, Dataset]:
    files = zip(report.objects, check_report(report, reading.evidence), strict=True)
    return {part.form: dcmread(BytesIO(file)) for part, file in files}


def unread(reading: Reading) -> Dataset:
    """The report that says why there is none, which peers of both forms get."""
    reading = replace(reading, evidence=replace(reading.evidence, was_read=False))
    return _files(build_unread_report(reading.evidence, WHY_NOT), reading)[Form.UNREAD]


def title(report: Dataset) -> str:
    return str(report.ConceptNameCodeSequence[0].CodeValue)


def text_of(report: Dataset) -> str:
    (comment,) = (item for item in report.ContentSequence[-1].ContentSequence if name_of(item) == codes.COMMENT.value)
    return str(comment.TextValue)


@pytest.mark.parametrize("form", FORMS)
def test_every_finding_has_coordinates_in_its_image_and_all_its_numbers_and_without_any_there_is_readable_text(
    any_reading: Reading, form: Form
) -> None:
    report = of_reading(any_reading)[form]
    groups = [item for item in walk(report) if name_of(item) == "125007"]
    drawn = {value_of(child(group, "112040")) for group in groups if any("GraphicData" in item for item in walk(group))}
    assert len(drawn) == len(any_reading.findings)
    assert {value_of(child(group, "112040")) for group in groups} == drawn
    numbered = groups_of(report, "1411") if groups else []
    assert len(numbered) == len(any_reading.findings)
    for group in numbered:
        told = {name_of(item) for item in group.ContentSequence if item.ValueType == "NUM"}
        assert {codes.LONG_AXIS.value, codes.SHORT_AXIS.value, codes.DIAMETER.value, codes.VOLUME.value} <= told
    assert title(report) == ("126000" if any_reading.findings else "126001")
    assert text_of(report).startswith("AI result, not for diagnostic use.")
    (ended,) = (item for item in walk(report) if name_of(item) == codes.PROCESSING_SUMMARY.value)
    assert value_of(ended) == ("111242" if any_reading.findings else "111241")


def test_of_a_study_that_was_not_read_both_forms_are_one_text_that_says_why(reading: Reading) -> None:
    report = unread(reading)
    assert title(report) == "126001"
    assert not [item for item in walk(report) if name_of(item) in ("125007", "126010")]
    assert "3 slices are missing; send the series again" in text_of(report)


@pytest.mark.parametrize("form", FORMS)
def test_the_language_of_a_report_is_its_first_item(any_reading: Reading, form: Form) -> None:
    for report in (of_reading(any_reading)[form], unread(any_reading)):
        first = report.ContentSequence[0]
        assert name_of(first) == "121049"
        language = first.ConceptCodeSequence[0]
        assert (language.CodeValue, language.CodingSchemeDesignator) == ("en-US", "RFC5646")


@pytest.mark.parametrize("form", [*FORMS, Form.UNREAD])
def test_a_page_made_by_dsr2html_has_every_number_and_every_word(
    any_reading: Reading, form: Form, tmp_path: Path, program: Callable[[str], Path]
) -> None:
    report = unread(any_reading) if form is Form.UNREAD else of_reading(any_reading)[form]
    (tmp_path / "sr.dcm").write_bytes(as_file(report))
    command = [program("dsr2html"), "+U8", tmp_path / "sr.dcm", tmp_path / "sr.html"]
    made = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    # It does not look into texts in this character set, and says so.
    assert (made.returncode, [line for line in made.stderr.splitlines() if not line.startswith("W: The VR check")]) == (
        0,
        [],
    )
    page = " ".join(html.unescape(re.sub(r"<[^>]+>", " ", (tmp_path / "sr.html").read_text("utf-8"))).split())
    assert " ".join(text_of(report).split()) in page
    for item in walk(report):
        if item.get("ValueType") == "NUM":
            value, unit = item.MeasuredValueSequence[0].NumericValue, item.MeasuredValueSequence[0]
            assert f"{value} {unit.MeasurementUnitsCodeSequence[0].CodeMeaning}" in page or f"{value} " in page
