"""Narrative: what a report says to people, as sentences and rows, for pages that are read without a viewer for reports.

No patient data stands in it: the object that holds the page has it where viewers look for it.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from dicom_node.core.finding import Finding
from dicom_node.core.outcome import Outcome
from workers.reporting.evidence import Evidence
from workers.reporting.marked_slice import key_of
from workers.reporting.segmentation import tracking_identifier

NOT_FOR_DIAGNOSIS = "AI result, not for diagnosis"
#: Over the columns of a finding's row.
COLUMNS = ("Finding", "Side", "Axes in mm", "Mean", "mm3", "HU", "Score", "Slice")
_CAUTION = "Not verified by a physician. The algorithm may miss findings, and mark what is none."
_PRIORITY = "The absence of a mark does not lower the priority of the study."
_NOTHING = (
    "Nothing was marked. That is no diagnosis, and does not mean that there is nothing to be found: the images need to "
    "be read as if there were no such result."
)
_NO_RESULT = "Nothing is known of the images. That is no diagnosis: they need to be read as ever."


@dataclass(frozen=True, kw_only=True)
class Narrative:
    """A reading in words."""

    #: One line: how it ended.
    headline: str
    #: What was read and by what, what came of it, and what to beware of.
    sentences: tuple[str, ...]
    #: One for each finding, as COLUMNS says.
    rows: tuple[tuple[str, ...], ...]


def narrative(
    evidence: Evidence, findings: tuple[Finding, ...], remarks: tuple[str, ...] = (), outcome: Outcome | None = None
) -> Narrative:
    """Put a reading into words; how it ended, or None for one that ended as it should."""
    algorithm, count = evidence.algorithm, len(evidence.volume.headers)
    series = evidence.header.get("SeriesNumber")
    what = f"{count} slices of series {series}" if series is not None else f"{count} slices of one series"
    by = f"{algorithm.name} {algorithm.version} ({algorithm.manufacturer})"
    unread = outcome is not None and not outcome.was_read
    said = () if outcome is None else tuple(_ended(outcome))
    positive = outcome is not None and any(statement.is_positive for statement in outcome.statements)
    if unread:
        sentences = (f"{by} was to read {what}.", *said, _NO_RESULT, *remarks)
    else:
        nothing = () if findings or positive else (_NOTHING,)
        sentences = (f"{by} read {what}.", *said, *nothing, *remarks, _CAUTION)
    return Narrative(
        headline=_headline(len(findings), outcome),
        sentences=(*sentences, _PRIORITY),
        rows=tuple(_row(evidence, finding) for finding in findings),
    )


def _ended(outcome: Outcome) -> Iterator[str]:
    """What was said of the images as a whole; why it came to nothing, or not to everything, and that in codes too."""
    yield from (f"{statement.concept.meaning}: {statement.text}." for statement in outcome.statements)
    if not outcome.reason:
        return
    missing = "Not everything was read" if outcome.was_read else "It came to no result"
    yield f"{missing}: {outcome.reason.rstrip('.')}."
    coded = [outcome.summary.meaning, *([] if outcome.quality is None else [outcome.quality.meaning])]
    yield f"In codes: {'; '.join(coded)}."


def _headline(count: int, outcome: Outcome | None) -> str:
    if outcome is not None and not outcome.was_read:
        return "The study was not read"
    if not count and outcome is not None:
        positive = [statement.concept.meaning for statement in outcome.statements if statement.is_positive]
        if positive:
            return f"Suspected in the image as a whole: {', '.join(positive)}"
    return {0: "Nothing was marked", 1: "1 finding was marked"}.get(count, f"{count} findings were marked")


def _row(evidence: Evidence, finding: Finding) -> tuple[str, ...]:
    side = finding.laterality.meaning.lower() if finding.laterality else "not told"
    return (
        tracking_identifier(finding),
        side,
        f"{finding.long_axis.length_mm:.1f} x {finding.short_axis.length_mm:.1f}",
        f"{finding.mean_diameter_mm:.1f}",
        f"{finding.volume_mm3:.0f}",
        f"{finding.mean_hu:.0f}",
        f"{finding.score:.2f}",
        evidence.place_in_words(key_of(evidence, finding)).removeprefix("slice "),
    )
