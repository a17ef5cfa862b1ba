"""Change: what became of a finding since an earlier examination, and what may be said of that.

Sizes compare where both were measured alike: by the same method and version, in slices as thick, of the same kind of
kernel, both with contrast agent or both without. By attenuation a change of the volume by a quarter or less lies within
what two measurements of one nodule differ by (see `core.doubling_time`), and so does one of the mean diameter by 1.5 mm
or less (Lung-RADS v2022). Where a mask alone told the size, whose outline is less sure, only both together are a
change. What is between is not judged.

Where they were measured otherwise, what is still a change when the most that methods differ by is taken off is told as
one, with its caveat: growth that is not told harms more. Nothing else is: no number, and never that nothing changed.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import StrEnum
from math import inf, isinf, log, pi

from dicom_node.core.doubling_time import LEAST_CHANGE, VolumeMeasured, doubling_days
from dicom_node.core.lung_rads import GROWTH_MM, GROWTH_WITHIN_DAYS, Course, has_grown, in_tenths

#: Slices may differ in thickness by a rounding.
_SAME_THICKNESS_MM = 0.05
#: What tells sizes best, as `core.finding.Border` calls it.
_BY_ATTENUATION = "ATTENUATION"
#: So many times as large may one nodule measure where it was measured otherwise. Algorithms of several makers called
#: one tumour's volume up to 70 % different (doi 10.1016/j.acra.2015.08.007), and six packages the same 89 small nodules
#: 57 to 95 mm3 in the median (doi 10.1007/s00330-008-1229-x): 1.7 times, and contrast agent may come on top.
OTHERWISE_TIMES = 2.0
#: And where contrast agent was given in one examination alone: 1.04 to 1.07 times (doi 10.1148/radiol.2453062116;
#: PubMed 20566809), of nodules up to 200 mm3 13 to 15 % less without it (de Jong et al., AJR 2012, 199:777-780).
CONTRAST_TIMES = 1.18
#: What measures less than so many slices may be as large as that: of drawn balls in slices of 1, 2.5 and 5 mm, with two
#: kernels, by attenuation and by the mask, the largest volume was up to 9.5 times the smallest of 5 mm, 2.6 of 6 mm and
#: 1.4 of 8 mm, and 1.7 of 5 mm without the slices of 5 mm (20 of each).
_SHOWN_SLICES = 1.5
#: What the header says where it was given, and what stands where nobody looked.
WITH_CONTRAST, NOT_KNOWN = "with", "not known"
#: Growth by less is a rounding.
_SURELY_MORE = 1.0 + 1e-9


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
    #: with or without; empty: not told. Who gave contrast agent must tell it (PS3.3 Table A.3-1), so that what is not
    #: told counts as without; `NOT_KNOWN` where nobody looked.
    contrast: str = ""
    #: Of the solid part of a part-solid nodule.
    solid_diameter_mm: float | None = None

    def scaled(self, times: float) -> "Size":
        """The same nodule, so many times as large by volume."""
        width_mm = self.mean_diameter_mm * times ** (1 / 3)
        return replace(self, mean_diameter_mm=width_mm, volume_mm3=self.volume_mm3 * times)

    @property
    def at_most(self) -> "Size":
        """How large it may have been, where its slices are too thick to tell."""
        shown_mm = _SHOWN_SLICES * self.slice_thickness_mm
        if self.mean_diameter_mm >= shown_mm:
            return self
        volume_mm3 = max(self.volume_mm3, pi / 6 * shown_mm**3)
        return replace(self, mean_diameter_mm=shown_mm, volume_mm3=volume_mm3)


@dataclass(frozen=True, kw_only=True)
class Caveat:
    """In what two measurements differ, beside the nodule itself."""

    words: str
    #: By so many times its volume may differ for that.
    times: float = OTHERWISE_TIMES


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
        """In what the measurements differ; empty where the sizes compare."""
        return tuple(caveat.words for caveat in _differences(self.earlier, self.later))

    @property
    def times(self) -> float:
        """So many times as large may the same nodule measure for these caveats; 1 where the sizes compare."""
        return max((caveat.times for caveat in _differences(self.earlier, self.later)), default=1.0)

    @property
    def trend(self) -> Trend | None:
        """How it changed; None where that is not to be told, as of two studies of one day."""
        times = self.times
        if self.days <= 0 or isinf(times):
            return None
        if times == 1.0:
            return _trend(self.earlier, self.later)
        if _trend(self._at_most(self.earlier), self.later.scaled(1 / times)) is Trend.INCREASED:
            return Trend.INCREASED
        shrank = _trend(self.earlier, self._at_most(self.later).scaled(times)) is Trend.DECREASED
        return Trend.DECREASED if shrank else None

    @property
    def doubling_days(self) -> float | None:
        """Days in which the volume doubled at that speed, negative where it shrank; None where it may not be told."""
        if self.caveats or self.trend not in (Trend.INCREASED, Trend.DECREASED):
            return None
        return doubling_days(_volume(self.earlier), _volume(self.later), self.days)

    @property
    def doubled_within_days(self) -> float | None:
        """Days within which it surely doubled, also where the sizes do not compare; None where that is not known.

        Longer than the doubling time, by what methods differ by: to judge how urgent it is, and no number to tell.
        """
        if not self.caveats or self.trend is not Trend.INCREASED:
            return self.doubling_days
        grown = self.later.scaled(1 / self.times).volume_mm3 / self._at_most(self.earlier).volume_mm3
        # What is a rounding above 1 doubles in no time that anybody could tell.
        return self.days * log(2.0) / log(grown) if grown > _SURELY_MORE else None

    @property
    def growth_mm(self) -> float | None:
        """By how much the mean diameter grew, as measured, where it surely did."""
        return self.diameter_mm if self.trend is Trend.INCREASED else None

    @property
    def course(self) -> Course | None:
        """What Lung-RADS knows of the nodule; None where its table would decide on sizes that do not tell it surely.

        Growth of more than 1.5 mm in more than 12 months is none of the guideline's growth, and no stability either.
        """
        if self.trend is None:
            return None
        later = self.later.scaled(1 / self.times)
        grown = has_grown(self._at_most(self.earlier).mean_diameter_mm, later.mean_diameter_mm, self.days)
        if grown:
            return Course.GROWING if self.trend is Trend.INCREASED else None
        if self.caveats:
            return None
        return Course.STABLE if grown is not None or self.diameter_mm <= GROWTH_MM else None

    @property
    def solid_part_grew(self) -> bool:
        """Whether the solid part surely is new or grew, within 12 months."""
        earlier, later = self.earlier.solid_diameter_mm, self.later.solid_diameter_mm
        if self.caveats or later is None or not 0 < self.days <= GROWTH_WITHIN_DAYS:
            return False
        # Of a part that was not measured then, nobody knows that it was not there.
        return earlier is not None and bool(has_grown(earlier, later, self.days))

    def _at_most(self, size: Size) -> Size:
        """As large as slices may hide, where they hide it otherwise in the other examination."""
        return size.at_most if self.times >= OTHERWISE_TIMES else size


def _trend(earlier: Size, later: Size) -> Trend | None:
    """How a nodule changed, of two sizes that compare; None where that is not clear."""
    diameter = in_tenths(in_tenths(later.mean_diameter_mm) - in_tenths(earlier.mean_diameter_mm))
    volume = later.volume_mm3 / earlier.volume_mm3 - 1.0
    signs = [_sign(diameter, GROWTH_MM), _sign(volume, LEAST_CHANGE)]
    if signs == [0, 0]:
        return Trend.UNCHANGED
    # Both must go the same way, however little the other one says.
    agree = diameter * volume > 0
    surely = earlier.method == later.method == _BY_ATTENUATION or 0 not in signs
    if not (agree and surely):
        return None
    return Trend.INCREASED if sum(signs) > 0 else Trend.DECREASED


def _sign(value: float, least: float) -> int:
    """1 for growth, -1 for the contrary, 0 for what lies within what two measurements differ by."""
    return 0 if abs(value) <= least else (1 if value > 0 else -1)


def _volume(size: Size) -> VolumeMeasured:
    return VolumeMeasured(
        volume_mm3=size.volume_mm3, slice_thickness_mm=round(size.slice_thickness_mm, 1), segmented_by=size.outlined_by
    )


def _differences(earlier: Size, later: Size) -> Iterator[Caveat]:
    if earlier.volume_mm3 <= 0 or later.volume_mm3 <= 0:
        yield Caveat(words="a volume is 0", times=inf)
    if not earlier.method or earlier.method != later.method:
        yield Caveat(words="it was measured by another method then")
    then, now = earlier.slice_thickness_mm, later.slice_thickness_mm
    if abs(then - now) > _SAME_THICKNESS_MM:
        yield Caveat(words=f"slices were {then:.2g} mm thick then and are {now:.2g} mm now")
    # Of a kernel that is told on neither side nobody knows that it was the same.
    if not earlier.kernel or earlier.kernel != later.kernel:
        kernels = (earlier.kernel or "not told", later.kernel or "not told")
        yield Caveat(words="the kernel was {} then and is {} now".format(*kernels))
    if earlier.outlined_by != later.outlined_by:
        yield Caveat(words="another version outlined it then")
    if earlier.measured_by != later.measured_by:
        yield Caveat(words="another version of this software measured it then")
    if NOT_KNOWN in (earlier.contrast, later.contrast):
        yield Caveat(words="it is not known whether contrast agent was given then")
    if when := contrast_given(earlier.contrast, later.contrast):
        yield Caveat(words=f"contrast agent was given {when}", times=CONTRAST_TIMES)


def contrast_given(then: str, now: str) -> str:
    """When it was, as people say it, in one of two examinations alone; empty where in both, in none, or not known."""
    if NOT_KNOWN in (then, now) or (then == WITH_CONTRAST) is (now == WITH_CONTRAST):
        return ""
    return "then and not now" if then == WITH_CONTRAST else "now and not then"
