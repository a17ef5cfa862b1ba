"""Outcome: how the reading of a series ended, in the codes and words that its report must have (CID 6047, CID 7036)."""

from dataclasses import dataclass

from dicom_node.core import codes
from dicom_node.core.codes import Code
from dicom_node.core.urgency import Urgency

#: Names of errors after which the images themselves are of no use to the algorithm.
_OF_THE_IMAGES = ("InconsistentGeometry", "UnreadableInstance")

_READ = {
    (True, True): codes.ALL_SUCCEEDED_WITH_FINDINGS,
    (True, False): codes.ALL_SUCCEEDED_WITHOUT_FINDINGS,
    (False, True): codes.NOT_ALL_SUCCEEDED_WITH_FINDINGS,
    (False, False): codes.NOT_ALL_SUCCEEDED_WITHOUT_FINDINGS,
}


@dataclass(frozen=True, kw_only=True)
class Statement:
    """What an algorithm says of an image as a whole, without a place."""

    concept: Code
    text: str
    #: Whether it is what is looked for.
    is_positive: bool


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How a reading ended."""

    #: Of CID 6047.
    summary: Code
    #: Of CID 7036; None where nothing was found out about it.
    quality: Code | None = None
    #: Why it was not read, or not wholly, as a sentence without a full stop; empty where it was.
    reason: str = ""
    #: How urgent the findings make the study; None: they do not.
    urgency: Urgency | None = None
    #: What was said of the images as a whole.
    statements: tuple[Statement, ...] = ()
    #: Marks that are none of the findings: nothing is known of them but that they are there.
    further_marks: int = 0

    @property
    def is_whole(self) -> bool:
        """Whether the findings are all that was marked, in all of the images, and nothing spoke against these."""
        return not (self.reason or self.further_marks) and self.quality is None

    @property
    def name(self) -> str:
        """What tells it from other outcomes of the same reading."""
        return f"{self.summary.value} {self.reason}"

    @property
    def was_read(self) -> bool:
        """Whether there is anything that the algorithm says of the images."""
        return self.summary != codes.NONE_SUCCEEDED


def outcome_of_reading(*, found: bool, incomplete: str = "") -> Outcome:
    """Of a reading that ended; `incomplete` says what of the series was not read."""
    quality = codes.LIMITED_QUALITY if incomplete else None
    return Outcome(summary=_READ[not incomplete, found], quality=quality, reason=incomplete)


def outcome_of_error(error: str, reason: str) -> Outcome:
    """Of one that came to nothing: the name of a class of the error tree, and its message."""
    quality = codes.NON_DIAGNOSTIC_QUALITY if error in _OF_THE_IMAGES else None
    # The report is written in the character set of its source, which may have no other letters.
    said = reason.strip().rstrip(".").encode("ascii", "replace").decode("ascii")
    return Outcome(summary=codes.NONE_SUCCEEDED, quality=quality, reason=said)
