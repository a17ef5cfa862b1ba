"""Following: the findings of a reading beside those of the patient's latest earlier study that can be compared."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from pydicom import Dataset

from dicom_node.archive.files import Archive
from dicom_node.core.algorithm import AlgorithmIdentification
from dicom_node.core.change import Change, Size, Trend, contrast_given
from dicom_node.core.finding import Finding
from dicom_node.core.form import Form
from dicom_node.core.lung_rads import Course
from dicom_node.core.prior import EarlierStudies, Unread
from workers.correspondence import BOTH, Correspondence, Place, correspondence, lungs_compared
from workers.earlier_study import EarlierStudy, in_other_forms, opened
from workers.layout import Layout, place_of
from workers.reporting.prior_report import outlined_by

log = logging.getLogger(__name__)

#: A nodule that is not marked in slices thicker than this, or than half of it, may have been there all the same
#: (Lung-RADS v2022 asks for 2.5 mm or less).
_SHOWN_BY_MM, _SHOWN_SLICES = 2.5, 2.0

#: By whether the reading failed: what is said of one study, of several, and of what to do.
_UNREAD = {
    False: ("is", "are", " not compared, since not received and read yet: read this one again after that."),
    True: ("is", "are", " not compared: the reading failed, or its report did not pass its checks."),
}
_TRENDS = {Trend.INCREASED: "increase in size", Trend.DECREASED: "decrease in size"}


@dataclass(frozen=True, kw_only=True)
class Followed:
    """Findings with what an earlier study says of them, and that study's report; None where none was compared."""

    findings: tuple[Finding, ...]
    report: Dataset | None = None
    #: The same in other forms.
    others: Mapping[Form, Dataset] = field(default_factory=dict)
    #: Sentences for the report.
    remarks: tuple[str, ...] = ()
    #: The highest number that any finding's name has had.
    highest: int = 0


def follow(
    findings: tuple[Finding, ...],
    layout: Layout | None,
    header: Dataset,
    algorithm: AlgorithmIdentification,
    known: EarlierStudies,
    archive: Archive,
) -> Followed:
    """Compare findings with those of the first prior that can be; what cannot be is named, and why.

    `layout` is that of the scan, None where the algorithm does not tell where it looked, and `header` one of its
    images'.
    """
    if layout is None:
        return _uncompared(findings, known)
    passed: list[str] = []
    for number, prior in enumerate(known.priors):
        earlier = opened(prior, layout, header, algorithm, archive)
        if isinstance(earlier, EarlierStudy):
            found = _compared(findings, layout, algorithm, earlier)
            # What is earlier than the one that is compared would not be compared in its place.
            later = _unread([one for one in known.unread if one.behind <= number])
            return replace(found, others=in_other_forms(prior, archive), remarks=(*later, *passed, *found.remarks))
        log.info("an earlier study is not compared", extra={"reason": earlier})
        passed.append(f"An earlier study under this Patient ID was not compared: {earlier}.")
    return _uncompared(findings, known, (*_unread(known.unread), *passed))


def _unread(studies: Sequence[Unread]) -> Iterator[str]:
    """That earlier studies are here without a report: one that is silent of them would pass for the first."""
    for has_failed, (one, several, then) in _UNREAD.items():
        count = sum(study.has_failed is has_failed for study in studies)
        if count:
            log.info("earlier studies are not compared", extra={"reason": "they have no report", "studies": count})
            which = f"An earlier study under this Patient ID {one}"
            yield f"{which if count == 1 else f'{count} earlier studies under this Patient ID {several}'}{then}"


def _uncompared(findings: tuple[Finding, ...], known: EarlierStudies, remarks: tuple[str, ...] = ()) -> Followed:
    """Findings of which no earlier study tells anything; where there is one, none is of a first screening."""
    if known.priors or known.unread:
        findings = tuple(replace(one, is_compared=True, course=None) for one in findings)
    return Followed(findings=findings, remarks=remarks, highest=len(findings))


def _compared(
    findings: tuple[Finding, ...], layout: Layout, algorithm: AlgorithmIdentification, earlier: EarlierStudy
) -> Followed:
    places = [earlier.layout.findings[uid].place for uid in earlier.uids]
    found = correspondence(places, [place_of(one) for one in findings], earlier.layout.lungs, layout.lungs)
    highest = max(earlier.layout.highest, len(places))
    named: list[Finding] = []
    for number, finding in enumerate(findings):
        if number in found.pairs:
            named.append(_same(finding, earlier.uids[found.pairs[number]], layout, algorithm, earlier))
            continue
        highest += 1
        course = None if number in found.doubtful_later else _course(finding, layout, algorithm, earlier)
        name = f"{finding.concept.meaning} {highest}"
        named.append(replace(finding, tracking_identifier=name, is_compared=True, course=course))
    compared = lungs_compared(earlier.layout.lungs, layout.lungs)
    unclear = {
        number
        for number, one in enumerate(findings)
        if number in found.doubtful_later or not _is_in(place_of(one), compared)
    }
    remarks = (
        f"Compared with the report on the study of {earlier.day}, {_days_before(earlier.days)}.",
        *_agents(earlier.layout.contrast, layout.contrast),
        *(_in_words(one, earlier.day, is_unclear=number in unclear) for number, one in enumerate(named)),
        *_gone(found, earlier, layout, algorithm),
    )
    return Followed(findings=tuple(named), report=earlier.report, remarks=tuple(filter(None, remarks)), highest=highest)


def _same(
    finding: Finding, uid: str, layout: Layout, algorithm: AlgorithmIdentification, earlier: EarlierStudy
) -> Finding:
    """A finding that was there before, under the name that it had."""
    name, before = earlier.layout.findings[uid].name, earlier.layout
    how = (before.thickness_mm, before.kernel, before.measured_by, before.contrast)
    then = earlier.measured[uid].size(earlier.report, *how)
    change = None
    if then is not None:
        now = _size(finding, layout, algorithm)
        change = Change(earlier=then, later=now, days=earlier.days, name=name, date=earlier.on.strftime("%Y%m%d"))
    return replace(
        finding,
        tracking_identifier=name,
        tracking_uid=uid,
        change=change,
        doubling_days=None if change is None else change.doubled_within_days,
        is_compared=True,
        course=None if change is None else change.course,
    )


def _size(finding: Finding, layout: Layout, algorithm: AlgorithmIdentification) -> Size:
    """A finding's size, as its report will say it."""
    return Size(
        mean_diameter_mm=round(finding.mean_diameter_mm, 1),
        volume_mm3=round(finding.volume_mm3),
        solid_diameter_mm=None if finding.solid_diameter_mm is None else round(finding.solid_diameter_mm, 1),
        method=finding.border.value,
        slice_thickness_mm=layout.thickness_mm,
        kernel=layout.kernel,
        contrast=layout.contrast,
        outlined_by=(algorithm.name, algorithm.version, algorithm.checksum),
        measured_by=layout.measured_by,
    )


def _is_in(place: Place, compared: Sequence[str]) -> bool:
    """Whether a finding lies in what of two scans was compared; of a side that is not told, in whatever was."""
    return place.side in compared or (bool(compared) and (compared == (BOTH,) or not place.side))


def _is_shown(scan: Layout, diameter_mm: float) -> bool:
    """Whether the slices of a scan are thin enough for what is so large."""
    return scan.thickness_mm <= min(_SHOWN_BY_MM, diameter_mm / _SHOWN_SLICES)


def _is_read_alike(layout: Layout, algorithm: AlgorithmIdentification, earlier: EarlierStudy) -> bool:
    """Whether both scans were read by the same version and settings."""
    by, before = (algorithm.name, algorithm.version, algorithm.checksum), earlier.layout
    alike = (before.settings, before.measured_by) == (layout.settings, layout.measured_by)
    return alike and outlined_by(earlier.report) == by


def _course(
    finding: Finding, layout: Layout, algorithm: AlgorithmIdentification, earlier: EarlierStudy
) -> Course | None:
    """NEW where the earlier scan, read by the same algorithm, shows the place well enough, else nothing that is sure.

    Even so it was not marked then, which is less than that it was not there. Of a first screening none is: there was an
    earlier one, and what it does not tell makes no nodule harmless.
    """
    side, before = place_of(finding).side, earlier.layout
    if side not in lungs_compared(before.lungs, layout.lungs):
        return None
    there = before.lungs[side].out_of_average_lung(layout.lungs[side].in_average_lung(np.array([finding.centre])))
    x, y, z = (float(value) for value in there[0])
    is_read_alike = _is_read_alike(layout, algorithm, earlier) and not before.is_partial
    was_seen = _is_shown(before, finding.mean_diameter_mm) and is_read_alike and before.covers((x, y, z))
    return Course.NEW if was_seen else None


def _agents(then: str, now: str) -> Iterator[str]:
    """What to beware of where contrast agent was given at one of both examinations."""
    if when := contrast_given(then, now):
        yield (
            f"Caution: contrast agent was given {when}: densities do not compare, nor does what of a nodule is solid, "
            "and volumes differ a little for that alone."
        )


def _days_before(days: int) -> str:
    return "of the same day" if days == 0 else f"{days} day{'s' if days > 1 else ''} before"


def _in_words(finding: Finding, day: str, *, is_unclear: bool) -> str:
    """What became of a finding, as a sentence."""
    change, name = finding.change, finding.name
    if finding.tracking_uid and change is None:
        return f"{name} was there on {day}; its size then is not told."
    if change is None:
        if is_unclear:
            return f"{name} may be one that was there on {day}, or not: that is not clear."
        return f"{name} was not marked on {day}{', where that scan shows its place' if finding.is_new else ''}."
    then, now = change.earlier, change.later
    sizes = (
        f"mean diameter {then.mean_diameter_mm:.1f} mm on {day} and {now.mean_diameter_mm:.1f} mm now, "
        f"volume {then.volume_mm3:.0f} and {now.volume_mm3:.0f} mm3"
    )
    if change.caveats:
        why = " and ".join(change.caveats)
        if change.trend is None:
            return f"{name}: {sizes}; that is not called a change, since {why}."
        return f"{name}: {sizes}: {_TRENDS[change.trend]}, by more than may come of it that {why}."
    by = f"{change.diameter_mm:+.1f} mm, {change.volume_percent:+.0f} %"
    doubled = f", doubled in {change.doubling_days:.0f} days" if (change.doubling_days or 0) > 0 else ""
    if change.trend is None:
        return f"{name}: {sizes} ({by}); whether it changed is not clear."
    return f"{name}: {sizes} ({by}{doubled}): {_TRENDS.get(change.trend, 'no significant change')}."


def _gone(
    found: Correspondence, earlier: EarlierStudy, layout: Layout, algorithm: AlgorithmIdentification
) -> Iterator[str]:
    """What was there and is not found now, and why that may be so though it still is there."""
    again, compared = set(found.pairs.values()), lungs_compared(earlier.layout.lungs, layout.lungs)
    is_thicker = round(layout.thickness_mm, 1) > round(earlier.layout.thickness_mm, 1)
    for number, uid in enumerate(earlier.uids):
        if number in again:
            continue
        name, place = earlier.layout.findings[uid].name, earlier.layout.findings[uid].place
        if number in found.doubtful_earlier or not _is_in(place, compared):
            yield f"{name} of {earlier.day} may be one of those marked now: which, is not clear."
        else:
            doubts = {
                "not everything is outlined now": layout.is_partial,
                "another version or setting read that scan": not _is_read_alike(layout, algorithm, earlier),
                "slices as thick as now may not show it": is_thicker and not _is_shown(layout, place.diameter_mm),
            }
            doubt = " and ".join(words for words, holds in doubts.items() if holds)
            yield f"{name} of {earlier.day} was not found again{f', but {doubt}' if doubt else ''}."
