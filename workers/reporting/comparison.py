"""Comparison: rules on what a report says of an earlier study, against the report on that study itself.

A change that is told wrongly harms, and so does one that is told of another patient. Nothing of the algorithm's own
comparing is used here: numbers are those of both reports, and the codes follow from them.
"""

from collections.abc import Iterator, Mapping
from types import MappingProxyType

from pydicom import Dataset

from dicom_node.core import codes
from dicom_node.core.change import CONTRAST_TIMES, OTHERWISE_TIMES
from dicom_node.core.codes import Code
from dicom_node.core.doubling_time import LEAST_CHANGE
from dicom_node.core.lung_rads import GROWTH_MM, in_tenths
from workers.reporting.content_tree import is_named, text_of
from workers.reporting.measurement_group import BIDIRECTIONAL
from workers.reporting.prior_report import Measured, measured_in, outlined_by, patient_of
from workers.reporting.tracked import MEASUREMENT_GROUP, TRACKING_UID
from workers.reporting.uids import PERTINENT_OTHER_EVIDENCE
from workers.reporting.written_report import WrittenReport

TRACKING_IDENTIFIER = Code("112039", "DCM", "Tracking Identifier")

#: What rounding may change of a number of tenths and of a whole one, and of a share of so small a volume.
_TENTH, _ONE = 0.051, 0.51
#: Numbers that only a report with a prior may have.
_SINCE = (codes.DIAMETER_CHANGE, codes.VOLUME_CHANGE, codes.DOUBLING_TIME, codes.DAYS_SINCE_PRIOR)
_OF_PRIOR = (codes.PRIOR_DIAMETER, codes.PRIOR_VOLUME, *_SINCE)
#: And only where both sizes compare.
_WHERE_ALIKE = (codes.DIAMETER_CHANGE, codes.VOLUME_CHANGE, codes.DOUBLING_TIME)
#: So many times as large may a nodule be by what a report says of how it compares; by nothing: no times at all.
_TIMES = MappingProxyType(
    {"": 1.0, codes.CONTRAST_OTHERWISE.value: CONTRAST_TIMES, codes.MEASURED_OTHERWISE.value: OTHERWISE_TIMES}
)


def prior_faults(written: WrittenReport) -> Iterator[str]:
    """A report names the prior that it was compared with, of an earlier study of this patient, and repeats it rightly.

    Without a prior it says nothing of one.
    """
    prior = written.evidence.prior_in_form
    expected = set() if prior is None else {str(prior.SOPInstanceUID)}
    listed = written.report_uids.referenced(PERTINENT_OTHER_EVIDENCE)
    if listed != expected:
        yield f"its other evidence is {sorted(listed)}, and should be {sorted(expected)}"
    named = [str(item.ReferencedSOPSequence[0].ReferencedSOPInstanceUID) for item in written.named(codes.PRIOR_REPORT)]
    if set(named) != expected:
        yield f"it names {named} as what it was compared with, and should name {sorted(expected)}"
    if prior is not None:
        yield from _other(prior, written)
    sizes, now = ({}, {}) if prior is None else (measured_in(prior), measured_in(written.structured_report))
    is_same_version = prior is not None and outlined_by(prior) == outlined_by(written.structured_report)
    for group in written.named(MEASUREMENT_GROUP):
        uid = text_of(group, TRACKING_UID)
        yield from (f"{uid}: {fault}" for fault in _group_faults(group, sizes.get(uid), has_prior=prior is not None))
        if uid in sizes and not (is_same_version and sizes[uid].method == now[uid].method != ""):
            yield from (f"{uid}: {fault}" for fault in _unlike_faults(group))


def name_faults(written: WrittenReport) -> Iterator[str]:
    """No two findings have one name, for people or for software."""
    pairs = {
        (text_of(group, TRACKING_IDENTIFIER), text_of(group, TRACKING_UID))
        for group in written.named(MEASUREMENT_GROUP)
    }
    pairs = {(name, uid) for name, uid in pairs if name != BIDIRECTIONAL}
    if len({name for name, _ in pairs}) < len(pairs) or len({uid for _, uid in pairs}) < len(pairs):
        yield "two findings are tracked by one name"


def _other(prior: Dataset, written: WrittenReport) -> Iterator[str]:
    """Whether the prior is of another patient, of this study, or of a later day."""
    source = written.evidence.header
    if not patient_of(prior).is_same(patient_of(source)):
        yield "what it was compared with may be of another patient"
    if prior.StudyInstanceUID == written.evidence.volume.study_instance_uid:
        yield "what it was compared with is of the same study"
    if str(prior.StudyDate) > str(source.StudyDate):
        yield "what it was compared with is of a later day"


def _group_faults(group: Dataset, earlier: Measured | None, *, has_prior: bool) -> Iterator[str]:
    """What is wrong with what a group says of an earlier study; `earlier` is what that one's report says of it."""
    numbers = {name: value for name in (codes.DIAMETER, codes.VOLUME, *_OF_PRIOR) if (value := _number(group, name))}
    said = _code(group, codes.CHANGE)
    is_told = [name for name in _OF_PRIOR if _number(group, name) is not None]
    if earlier is None:
        if is_told or said not in ("", codes.NEW_FINDING.value):
            yield "it tells what became of a finding that no earlier report has"
        if said and not has_prior:
            yield "it calls a finding new without an earlier report"
        return
    if said == codes.NEW_FINDING.value:
        yield "it calls a finding new that the earlier report has"
    yield from _repeated(numbers, earlier)
    unlike = _code(group, codes.COMPARABILITY)
    if unlike not in _TIMES:
        yield f"it compares sizes as {unlike}, which is nothing that it may say"
        return
    yield from _changed(numbers, said, _TIMES[unlike])


def _unlike_faults(group: Dataset) -> Iterator[str]:
    """Whether a group keeps back that its sizes were measured by two methods or versions."""
    is_told = _number(group, codes.PRIOR_DIAMETER) is not None
    if is_told and _code(group, codes.COMPARABILITY) != codes.MEASURED_OTHERWISE.value:
        yield "it compares sizes without saying that they were measured otherwise then"


def _repeated(numbers: Mapping[Code, float], earlier: Measured) -> Iterator[str]:
    known = ((codes.PRIOR_DIAMETER, earlier.mean_diameter_mm), (codes.PRIOR_VOLUME, earlier.volume_mm3))
    for name, expected in known:
        if name in numbers and numbers[name] != expected:
            yield f"{name.meaning.lower()} is {numbers[name]:g}, and the earlier report says {expected}"


def _changed(numbers: Mapping[Code, float], said: str, times: float) -> Iterator[str]:
    """Whether differences are those of the numbers, and the word for them fits.

    `times` as large may a nodule be for how it was measured: of sizes that do not compare no difference is told, and
    only what is left of one when that is taken off may have a word.
    """
    if not {codes.DIAMETER, codes.VOLUME, codes.PRIOR_DIAMETER, codes.PRIOR_VOLUME} <= numbers.keys():
        if said:
            yield "it calls a change what has no numbers"
        return
    if times == 1.0:
        yield from _differences(numbers, said)
    else:
        yield from (f"it tells {name.meaning.lower()} of unlike sizes" for name in _WHERE_ALIKE if name in numbers)
    fits = {
        codes.INCREASE_IN_SIZE.value: _direction(numbers, 1 / times) > 0,
        codes.DECREASE_IN_SIZE.value: _direction(numbers, times) < 0,
        codes.NO_SIGNIFICANT_CHANGE.value: times == 1.0 and _is_within(*_by(numbers)),
    }
    if said and not fits.get(said, False):
        by_mm, share = _by(numbers)
        yield f"it says {said} of a change by {by_mm:+.1f} mm and {100 * share:+.0f} %"


def _differences(numbers: Mapping[Code, float], said: str) -> Iterator[str]:
    by_mm, share = _by(numbers)
    told_mm, told_percent = numbers.get(codes.DIAMETER_CHANGE, 0.0), numbers.get(codes.VOLUME_CHANGE, 0.0)
    is_told = bool(told_mm or told_percent or said)
    if is_told and abs(told_mm - by_mm) > _TENTH:
        yield f"a change of {told_mm:g} mm is not that of its diameters, {by_mm:+.1f} mm"
    if is_told and abs(told_percent - 100 * share) > _ONE:
        yield f"a change of {told_percent:g} % is not that of its volumes, {100 * share:+.0f} %"
    doubling = numbers.get(codes.DOUBLING_TIME)
    if doubling is not None and (doubling > 0) is not (share > 0):
        yield f"a doubling time of {doubling:g} days contradicts a change of {100 * share:+.0f} %"


def _by(numbers: Mapping[Code, float], times: float = 1.0) -> tuple[float, float]:
    """By how many mm, in tenths, and by what share a finding grew, were it now so many times as large."""
    by_mm = in_tenths(numbers[codes.DIAMETER] * times ** (1 / 3)) - numbers[codes.PRIOR_DIAMETER]
    return by_mm, numbers[codes.VOLUME] * times / numbers[codes.PRIOR_VOLUME] - 1


def _is_within(by_mm: float, share: float) -> bool:
    """Whether two measurements of one nodule may differ by so much."""
    return abs(by_mm) <= GROWTH_MM + _TENTH and abs(share) <= LEAST_CHANGE


def _direction(numbers: Mapping[Code, float], times: float) -> int:
    """1 for what grew, -1 for what shrank, were it now so many times as large; 0 for what may have done neither."""
    by_mm, share = _by(numbers, times)
    if _is_within(by_mm, share) or by_mm * share <= 0:
        return 0
    return 1 if share > 0 else -1


def _children(group: Dataset, name: Code) -> list[Dataset]:
    return [item for item in group.ContentSequence if is_named(item, name)]


def _code(group: Dataset, name: Code) -> str:
    """The value of a coded item; empty where there is none."""
    return next((str(item.ConceptCodeSequence[0].CodeValue) for item in _children(group, name)), "")


def _number(group: Dataset, name: Code) -> float | None:
    found = (item for item in _children(group, name) if "MeasuredValueSequence" in item)
    return next((float(item.MeasuredValueSequence[0].NumericValue) for item in found), None)
