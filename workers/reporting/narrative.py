"""Narrative: what a report says to people, as sentences and rows, for pages that are read without a viewer for reports.

No patient data stands in it: the object that holds the page has it where viewers look for it.
"""

from dataclasses import dataclass

from dicom_node.core.finding import Finding
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
    evidence: Evidence, findings: tuple[Finding, ...], remarks: tuple[str, ...] = (), failure: str = ""
) -> Narrative:
    """Put a reading into words; `failure` is why it came to no result, empty where it did."""
    algorithm, count = evidence.algorithm, len(evidence.volume.headers)
    series = evidence.header.get("SeriesNumber")
    what = f"{count} slices of series {series}" if series is not None else f"{count} slices of one series"
    by = f"{algorithm.name} {algorithm.version} ({algorithm.manufacturer})"
    if failure:
        sentences = (f"{by} was to read {what}.", f"It came to no result: {failure.rstrip('.')}.", _NO_RESULT, *remarks)
    else:
        sentences = (f"{by} read {what}.", *(() if findings else (_NOTHING,)), *remarks, _CAUTION)
    return Narrative(
        headline=_headline(len(findings), failure),
        sentences=(*sentences, _PRIORITY),
        rows=tuple(_row(evidence, finding) for finding in findings),
    )


def _headline(count: int, failure: str) -> str:
    if failure:
        return "The reading failed"
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
