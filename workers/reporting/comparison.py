"""Comparison: rules on what a report says of an earlier study, against the report on that study itself.

A change that is told wrongly harms, and so does one that is told of another patient. Nothing of the algorithm's own
comparing is used here: numbers are those of both reports, and the codes follow from them.
"""

from collections.abc import Iterator, Mapping

from pydicom import Dataset

from dicom_node.core import codes
from dicom_node.core.codes import Code
from dicom_node.core.doubling_time import LEAST_CHANGE
from dicom_node.core.lung_rads import GROWTH_MM
from workers.reporting.content_tree import is_named, text_of
from workers.reporting.measurement_group import BIDIRECTIONAL
from workers.reporting.prior_report import Measured, measured_in, patient_of
from workers.reporting.tracked import MEASUREMENT_GROUP, TRACKING_UID
from workers.reporting.uids import PERTINENT_OTHER_EVIDENCE
from workers.reporting.written_report import WrittenReport

TRACKING_IDENTIFIER = Code("112039", "DCM", "Tracking Identifier")

#: What rounding may change of a number of tenths and of a whole one, and of a share of so small a volume.
_TENTH, _ONE = 0.051, 0.51
#: Numbers that only a report with a prior may have.
_SINCE = (codes.DIAMETER_CHANGE, codes.VOLUME_CHANGE, codes.DOUBLING_TIME, codes.DAYS_SINCE_PRIOR)
_OF_PRIOR = (codes.PRIOR_DIAMETER, codes.PRIOR_VOLUME, *_SINCE)


def prior_faults(written: WrittenReport) -> Iterator[str]:
    """A report names the prior that it was compared with, of an earlier study of this patient, and repeats it rightly.

    Without a prior it says nothing of one.
    """
    prior = written.evidence.prior
    expected = set() if prior is None else {str(prior.SOPInstanceUID)}
    listed = written.report_uids.referenced(PERTINENT_OTHER_EVIDENCE)
    if listed != expected:
        yield f"its other evidence is {sorted(listed)}, and should be {sorted(expected)}"
    named = [str(item.ReferencedSOPSequence[0].ReferencedSOPInstanceUID) for item in written.named(codes.PRIOR_REPORT)]
    if set(named) != expected:
        yield f"it names {named} as what it was compared with, and should name {sorted(expected)}"
    if prior is not None:
        yield from _other(prior, written)
    sizes = {} if prior is None else measured_in(prior)
    for group in written.named(MEASUREMENT_GROUP):
        uid = text_of(group, TRACKING_UID)
        yield from (f"{uid}: {fault}" for fault in _group_faults(group, sizes.get(uid), has_prior=prior is not None))


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
    said = next((item.ConceptCodeSequence[0].CodeValue for item in _children(group, codes.CHANGE)), "")
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
    yield from _changed(numbers, said)


def _repeated(numbers: Mapping[Code, float], earlier: Measured) -> Iterator[str]:
    known = ((codes.PRIOR_DIAMETER, earlier.mean_diameter_mm), (codes.PRIOR_VOLUME, earlier.volume_mm3))
    for name, expected in known:
        if name in numbers and numbers[name] != expected:
            yield f"{name.meaning.lower()} is {numbers[name]:g}, and the earlier report says {expected}"


def _changed(numbers: Mapping[Code, float], said: str) -> Iterator[str]:
    """Whether differences are those of the numbers, and the word for them fits."""
    if not {codes.DIAMETER, codes.VOLUME, codes.PRIOR_DIAMETER, codes.PRIOR_VOLUME} <= numbers.keys():
        if said:
            yield "it calls a change what has no numbers"
        return
    by_mm = numbers[codes.DIAMETER] - numbers[codes.PRIOR_DIAMETER]
    share = numbers[codes.VOLUME] / numbers[codes.PRIOR_VOLUME] - 1
    told_mm, told_percent = numbers.get(codes.DIAMETER_CHANGE, 0.0), numbers.get(codes.VOLUME_CHANGE, 0.0)
    is_told = bool(told_mm or told_percent or said)
    if is_told and abs(told_mm - by_mm) > _TENTH:
        yield f"a change of {told_mm:g} mm is not that of its diameters, {by_mm:+.1f} mm"
    if is_told and abs(told_percent - 100 * share) > _ONE:
        yield f"a change of {told_percent:g} % is not that of its volumes, {100 * share:+.0f} %"
    grew, shrank = (by_mm > 0 and share > 0), (by_mm < 0 and share < 0)
    is_within = abs(by_mm) <= GROWTH_MM + _TENTH and abs(share) <= LEAST_CHANGE
    fits = {
        codes.INCREASE_IN_SIZE.value: grew and not is_within,
        codes.DECREASE_IN_SIZE.value: shrank and not is_within,
        codes.NO_SIGNIFICANT_CHANGE.value: is_within,
    }
    if said and not fits.get(said, False):
        yield f"it says {said} of a change by {by_mm:+.1f} mm and {100 * share:+.0f} %"
    doubling = numbers.get(codes.DOUBLING_TIME)
    if doubling is not None and (doubling > 0) is not (share > 0):
        yield f"a doubling time of {doubling:g} days contradicts a change of {100 * share:+.0f} %"


def _children(group: Dataset, name: Code) -> list[Dataset]:
    return [item for item in group.ContentSequence if is_named(item, name)]


def _number(group: Dataset, name: Code) -> float | None:
    found = (item for item in _children(group, name) if "MeasuredValueSequence" in item)
    return next((float(item.MeasuredValueSequence[0].NumericValue) for item in found), None)
