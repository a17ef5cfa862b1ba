"""Change: what became of a finding since an earlier examination, and what may be said of that.

Sizes are compared only where both were measured alike: by the same method, in slices as thick, of the same kind of
kernel. By attenuation a change of the volume by a quarter or less lies within what two measurements of one nodule
differ by (see `core.doubling_time`), and so does one of the mean diameter by 1.5 mm or less (Lung-RADS v2022). Where a
mask alone told the size, whose outline is less sure, only both together are a change. What is between is not judged.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from dicom_node.core.doubling_time import LEAST_CHANGE, VolumeMeasured, doubling_days
from dicom_node.core.lung_rads import GROWTH_MM, GROWTH_WITHIN_DAYS, Course, has_grown, in_tenths

#: Slices may differ in thickness by a rounding.
_SAME_THICKNESS_MM = 0.05
#: What tells sizes best, as `core.finding.Border` calls it.
_BY_ATTENUATION = "ATTENUATION"


class Trend(StrEnum):
    """How a size changed."""

    INCREASED = "INCREASED"
    DECREASED = "DECREASED"
    #: Within what two measurements of one nodule differ by.
    UNCHANGED = "UNCHANGED"


@dataclass(frozen=True, kw_only=True)
class Size:
    """A finding's size at one examination, and what makes two of them comparable."""

    mean_diameter_mm: float
    volume_mm3: float
    #: What told where it ends, as `core.finding.Border` calls it; empty: not known.
    method: str
    slice_thickness_mm: float
    #: soft or sharp, or what the scanner calls it; empty: not told.
    kernel: str
    #: Name, version and checksum of what outlined it.
    outlined_by: tuple[str, str, str]
    #: Which build of this software measured it; empty: not told.
    measured_by: str = ""
    #: Of the solid part of a part-solid nodule.
    solid_diameter_mm: float | None = None


@dataclass(frozen=True, kw_only=True)
class Change:
    """A finding beside itself at an earlier examination."""

    earlier: Size
    later: Size
    #: From the earlier study to this one.
    days: float
    #: Name by which the earlier report tells it.
    name: str
    #: YYYYMMDD, of the earlier study.
    date: str

    @property
    def diameter_mm(self) -> float:
        """By how much the mean diameter grew, of the sizes as reports say them."""
        return in_tenths(in_tenths(self.later.mean_diameter_mm) - in_tenths(self.earlier.mean_diameter_mm))

    @property
    def volume_percent(self) -> float:
        """By how much of the earlier volume it grew."""
        return (self.later.volume_mm3 / self.earlier.volume_mm3 - 1.0) * 100.0

    @property
    def caveats(self) -> tuple[str, ...]:
        """Why the sizes cannot be compared; empty where they can."""
        return tuple(_differences(self.earlier, self.later))

    @property
    def trend(self) -> Trend | None:
        """How it changed; None where that is not to be told, as of two studies of one day."""
        if self.caveats or self.days <= 0:
            return None
        diameter, volume = self.diameter_mm, self.volume_percent / 100
        signs = [_sign(diameter, GROWTH_MM), _sign(volume, LEAST_CHANGE)]
        if signs == [0, 0]:
            return Trend.UNCHANGED
        # Both must go the same way, however little the other one says.
        agree = diameter * volume > 0
        surely = self.later.method == _BY_ATTENUATION or 0 not in signs
        if not (agree and surely):
            return None
        return Trend.INCREASED if sum(signs) > 0 else Trend.DECREASED

    @property
    def doubling_days(self) -> float | None:
        """Days in which the volume doubled at that speed, negative where it shrank; None where it may not be told."""
        if self.trend not in (Trend.INCREASED, Trend.DECREASED):
            return None
        return doubling_days(_volume(self.earlier), _volume(self.later), self.days)

    @property
    def growth_mm(self) -> float | None:
        """By how much the mean diameter grew, where it surely did."""
        return self.diameter_mm if self.trend is Trend.INCREASED else None

    @property
    def course(self) -> Course | None:
        """What Lung-RADS knows of the nodule; None where its table would decide on sizes that do not compare.

        Growth of more than 1.5 mm in more than 12 months is none of the guideline's growth, and no stability either.
        """
        if self.trend is None:
            return None
        grown = has_grown(self.earlier.mean_diameter_mm, self.later.mean_diameter_mm, self.days)
        if grown:
            return Course.GROWING if self.trend is Trend.INCREASED else None
        return Course.STABLE if grown is not None or self.diameter_mm <= GROWTH_MM else None

    @property
    def solid_part_grew(self) -> bool:
        """Whether the solid part surely is new or grew, within 12 months."""
        earlier, later = self.earlier.solid_diameter_mm, self.later.solid_diameter_mm
        if self.caveats or later is None or not 0 < self.days <= GROWTH_WITHIN_DAYS:
            return False
        # Of a part that was not measured then, nobody knows that it was not there.
        return earlier is not None and bool(has_grown(earlier, later, self.days))


def _sign(value: float, least: float) -> int:
    """1 for growth, -1 for the contrary, 0 for what lies within what two measurements differ by."""
    return 0 if abs(value) <= least else (1 if value > 0 else -1)


def _volume(size: Size) -> VolumeMeasured:
    return VolumeMeasured(
        volume_mm3=size.volume_mm3, slice_thickness_mm=round(size.slice_thickness_mm, 1), segmented_by=size.outlined_by
    )


def _differences(earlier: Size, later: Size) -> Iterator[str]:
    if earlier.volume_mm3 <= 0 or later.volume_mm3 <= 0:
        yield "a volume is 0"
    if not earlier.method or earlier.method != later.method:
        yield "it was measured by another method then"
    then, now = earlier.slice_thickness_mm, later.slice_thickness_mm
    if abs(then - now) > _SAME_THICKNESS_MM:
        yield f"slices were {then:.2g} mm thick then and are {now:.2g} mm now"
    # Of a kernel that is told on neither side nobody knows that it was the same.
    if not earlier.kernel or earlier.kernel != later.kernel:
        yield f"the kernel was {earlier.kernel or 'not told'} then and is {later.kernel or 'not told'} now"
    if earlier.outlined_by != later.outlined_by:
        yield "another version outlined it then"
    if earlier.measured_by != later.measured_by:
        yield "another version of this software measured it then"
