import pytest

from dicom_node.core import codes
from dicom_node.core.outcome import outcome_of_error, outcome_of_reading


@pytest.mark.parametrize(
    ("found", "incomplete", "expected"),
    [
        (True, "", "111242"),
        (False, "", "111241"),
        (True, "the lowest 40 mm were not read", "111244"),
        (False, "the lowest 40 mm were not read", "111243"),
    ],
)
def test_a_reading_is_whole_or_not_and_with_findings_or_without(found: bool, incomplete: str, expected: str) -> None:
    outcome = outcome_of_reading(found=found, incomplete=incomplete)
    assert outcome.summary.value == expected
    assert outcome.was_read
    assert outcome.reason == incomplete
    assert (outcome.quality == codes.LIMITED_QUALITY) is bool(incomplete)


@pytest.mark.parametrize("error", ["InconsistentGeometry", "UnreadableInstance"])
def test_images_that_make_no_volume_or_cannot_be_decoded_are_not_diagnostic(error: str) -> None:
    outcome = outcome_of_error(error, "3 slices are missing; send the series again.")
    assert outcome.summary.value == "111245"
    assert outcome.quality == codes.NON_DIAGNOSTIC_QUALITY
    assert outcome.reason == "3 slices are missing; send the series again"
    assert not outcome.was_read


@pytest.mark.parametrize("error", ["NotApplicable", "BundleInvalid", "Interrupted", "EvidenceInvalid", ""])
def test_what_is_not_the_images_fault_says_nothing_of_their_quality(error: str) -> None:
    outcome = outcome_of_error(error, "the network does not run")
    assert outcome.summary.value == "111245"
    assert outcome.quality is None


def test_a_reason_needs_no_more_letters_than_every_character_set_has() -> None:
    assert outcome_of_error("Interrupted", "Gerät «CUDA» hängt").reason == "Ger?t ?CUDA? h?ngt"
