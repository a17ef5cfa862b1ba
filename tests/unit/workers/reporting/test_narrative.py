"""What pages without codes say is what the report says."""

from dataclasses import replace

import pytest

from dicom_node.core import codes
from dicom_node.core.form import Form
from dicom_node.core.outcome import Outcome, Statement
from tests.unit.workers.reporting.conftest import Reading, reading_of
from tests.unit.workers.reporting.test_encapsulated_pdf import pdf_of, text_of
from workers.reporting.narrative import narrative
from workers.reporting.report import build_report

SUSPECTED = Outcome(
    summary=codes.ALL_SUCCEEDED_WITH_FINDINGS,
    statements=(
        Statement(concept=codes.NODULE, text="estimate 0.91 of 0 to 1; at or above the threshold", is_positive=True),
    ),
)
RULED_OUT = Outcome(
    summary=codes.ALL_SUCCEEDED_WITHOUT_FINDINGS,
    statements=(
        Statement(concept=codes.NODULE, text="estimate 0.02 of 0 to 1; below the threshold", is_positive=False),
    ),
)


@pytest.fixture(scope="module")
def unmarked(tmp_path_factory: pytest.TempPathFactory) -> Reading:
    return reading_of(tmp_path_factory.mktemp("unmarked"), ())


def test_what_is_suspected_in_the_image_as_a_whole_is_the_headline_and_not_denied(unmarked: Reading) -> None:
    told = narrative(unmarked.evidence, (), outcome=SUSPECTED)
    assert told.headline == "Suspected in the image as a whole: Nodule"
    assert "Nodule: estimate 0.91 of 0 to 1; at or above the threshold." in told.sentences
    assert not any("Nothing was marked" in sentence for sentence in told.sentences)


def test_what_is_not_suspected_is_told_and_marks_nothing(unmarked: Reading) -> None:
    told = narrative(unmarked.evidence, (), outcome=RULED_OUT)
    assert told.headline == "Nothing was marked"
    assert "Nodule: estimate 0.02 of 0 to 1; below the threshold." in told.sentences
    assert any("is no diagnosis" in sentence for sentence in told.sentences)


def test_findings_stay_the_headline_beside_what_is_said_of_the_whole(reading: Reading) -> None:
    told = narrative(reading.evidence, reading.findings, outcome=SUSPECTED)
    assert told.headline == "3 findings were marked"
    assert any(sentence.startswith("Nodule: estimate 0.91") for sentence in told.sentences)


def test_the_document_says_it_too(unmarked: Reading) -> None:
    text = text_of(pdf_of(unmarked, outcome=SUSPECTED))
    assert "Suspected in the image as a whole: Nodule" in text
    assert "Nothing was marked" not in text


def test_the_picture_of_a_suspicion_is_another_than_that_of_none(unmarked: Reading) -> None:
    def page(outcome: Outcome) -> bytes:
        forms = {Form.SR, Form.SECONDARY_CAPTURE}
        report = build_report(unmarked.evidence, (), unmarked.labels, forms=forms, outcome=outcome)
        (picture,) = (ds for part, ds in report.objects.items() if part.form is Form.SECONDARY_CAPTURE)
        return bytes(picture.PixelData)

    silent = replace(SUSPECTED, statements=())
    assert page(SUSPECTED) != page(silent)
