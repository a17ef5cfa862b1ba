"""Volume doubling time: how fast a nodule grew between two measurements, and what that speed means.

The classes are those of the NELSON trial (doi 10.1056/NEJMoa0906085): below 400 days suspicious, from 400 to 600
indeterminate, above that not suspicious.
"""

from dataclasses import dataclass
from enum import StrEnum
from math import log


class Speed(StrEnum):
    """What a doubling time means."""

    SUSPICIOUS = "SUSPICIOUS"
    INDETERMINATE = "INDETERMINATE"
    NOT_SUSPICIOUS = "NOT_SUSPICIOUS"


#: Shorter than so many days is suspicious; longer than so many is not.
SUSPICIOUS_BELOW_DAYS, NOT_SUSPICIOUS_ABOVE_DAYS = 400.0, 600.0

#: A smaller change of the volume lies within what two segmentations of one nodule differ by.
LEAST_CHANGE = 0.25


@dataclass(frozen=True, kw_only=True)
class VolumeMeasured:
    """A nodule's volume at one examination, and what makes two of them comparable."""

    volume_mm3: float
    slice_thickness_mm: float
    #: Name, version and checksum of what outlined it.
    segmented_by: tuple[str, str, str]


def doubling_days(earlier: VolumeMeasured, later: VolumeMeasured, days: float) -> float | None:
    """Days in which the volume doubles at the speed between both; None where it may not be told.

    That is where the slices are not equally thick, something else outlined it, no time passed, or the volume changed
    by a quarter or less. A shrinking nodule has a negative one.
    """
    if days <= 0 or earlier.volume_mm3 <= 0 or later.volume_mm3 <= 0:
        return None
    if earlier.segmented_by != later.segmented_by or earlier.slice_thickness_mm != later.slice_thickness_mm:
        return None
    if abs(later.volume_mm3 - earlier.volume_mm3) <= LEAST_CHANGE * earlier.volume_mm3:
        return None
    return days * log(2.0) / log(later.volume_mm3 / earlier.volume_mm3)


def speed_of(days: float) -> Speed:
    """What a doubling time in days means; a nodule that shrinks is not suspicious by it."""
    if days <= 0 or days > NOT_SUSPICIOUS_ABOVE_DAYS:
        return Speed.NOT_SUSPICIOUS
    return Speed.SUSPICIOUS if days < SUSPICIOUS_BELOW_DAYS else Speed.INDETERMINATE
