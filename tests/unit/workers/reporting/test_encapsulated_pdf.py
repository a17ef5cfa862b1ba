"""The PDF says in words and pictures what the report says in codes."""

import shutil
import subprocess
import sys
from io import BytesIO
from pathlib import Path

import pytest
from pydicom import Dataset, dcmread

from dicom_node.core.outcome import outcome_of_error
from tests.unit.workers.reporting.conftest import CENTRES, Reading, reading_of
from workers.reporting.encapsulated_pdf import build_encapsulated_pdf
from workers.reporting.encoding import as_file

PDFTOTEXT = shutil.which("pdftotext")


def pdf_of(reading: Reading, **how: object) -> Dataset:
    """The object as a peer gets it."""
    report = build_encapsulated_pdf(reading.evidence, reading.findings, reading.labels, **how)  # type: ignore[arg-type]  # by name
    return dcmread(BytesIO(as_file(report)))


def text_of(report: Dataset, order: str = "-layout") -> str:
    """What stands in the document, line by line or column by column, by a reader that is not ours."""
    if PDFTOTEXT is None:
        pytest.skip("not checked: pdftotext is not installed (Debian: poppler-utils)")
    command = [PDFTOTEXT, order, "-", "-"]
    run = subprocess.run(command, input=report.EncapsulatedDocument, capture_output=True, timeout=60, check=True)
    return " ".join(run.stdout.decode().split())


def test_it_holds_a_document_of_the_length_it_says(reading: Reading) -> None:
    report = pdf_of(reading)
    document = report.EncapsulatedDocument[: report.EncapsulatedDocumentLength]

    assert (report.SOPClassUID, report.MIMETypeOfEncapsulatedDocument) == (
        "1.2.840.10008.5.1.4.1.1.104.1",
        "application/pdf",
    )
    assert document.startswith(b"%PDF-")
    assert document.rstrip().endswith(b"%%EOF")
    assert (report.VerificationFlag, report.BurnedInAnnotation) == ("UNVERIFIED", "NO")


def test_it_says_what_was_found_and_that_it_is_no_diagnosis(reading: Reading) -> None:
    text = text_of(pdf_of(reading, remarks=("5032 ml of lung were searched.",)))

    for part in (
        "AI result, not for diagnosis",
        "3 findings were marked",
        "lung_nodule 0.1.0 (Test manufacturer) read 12 slices of series 2.",
        "Nodule 1 right 8.3 x 8.1",
        "5032 ml of lung were searched.",
        "Not verified by a physician",
    ):
        assert part in text


def test_without_findings_it_says_that_nothing_was_marked(tmp_path: Path) -> None:
    text = text_of(pdf_of(reading_of(tmp_path, ())))

    assert "Nothing was marked" in text
    assert "is no diagnosis" in text


def test_of_a_failed_reading_it_says_why(tmp_path: Path) -> None:
    text = text_of(
        pdf_of(reading_of(tmp_path, ()), outcome=outcome_of_error("NotApplicable", "no lungs were found in the series"))
    )

    assert "The study was not read" in text
    assert "It came to no result: no lungs were found in the series." in text
    assert "Nothing was marked" not in text


def test_very_long_texts_and_signs_of_markup_are_no_obstacle(reading: Reading) -> None:
    text = text_of(pdf_of(reading, remarks=("A long sentence. " * 500, "W" * 2000, "a < b & <b>c</b>")))

    assert text.count("sentence.") == 500
    assert "a < b & <b>c</b>" in text
    assert text.count("AI result, not for diagnosis") >= 3


def test_the_patients_data_changes_no_byte_of_the_document(tmp_path: Path) -> None:
    plain = reading_of(tmp_path / "a", CENTRES[:1])
    other = reading_of(tmp_path / "b", CENTRES[:1], PatientName="Other^Olga", PatientID="9", StudyDate="19991231")

    assert pdf_of(plain).EncapsulatedDocument == pdf_of(other).EncapsulatedDocument


def test_another_process_writes_the_same_document(tmp_path: Path, reading: Reading) -> None:
    """No clock, no chance, and no order of a set gets into it."""
    script = (
        "import sys; sys.path.insert(0, '.')\n"
        "from pathlib import Path\n"
        "from tests.unit.workers.reporting.conftest import reading_of\n"
        "from workers.reporting.encapsulated_pdf import build_encapsulated_pdf\n"
        f"reading = reading_of(Path({str(tmp_path)!r}))\n"
        "report = build_encapsulated_pdf(reading.evidence, reading.findings, reading.labels)\n"
        "sys.stdout.buffer.write(report.EncapsulatedDocument)\n"
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, timeout=120, check=True)
    assert run.stdout == pdf_of(reading).EncapsulatedDocument


def test_its_sources_are_the_slices_that_it_shows(reading: Reading) -> None:
    named = [item.ReferencedSOPInstanceUID for item in pdf_of(reading).SourceInstanceSequence]

    assert named == [finding.outline.sop_instance_uid for finding in reading.findings]
