"""Writing: what a report replaces is looked up before it is built, and its files are checked before they leave."""

import logging
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import replace

from pydicom import Dataset, dcmread
from pydicom.errors import InvalidDicomError

from dicom_node.archive.files import Archive
from dicom_node.core.errors import UnreadableInstance
from dicom_node.core.form import STRUCTURED_REPORTS, Earlier, Form
from dicom_node.core.outcome import Outcome
from workers.pipe import ReportObject
from workers.reporting.evidence import Evidence
from workers.reporting.passage import Checked, check_objects
from workers.reporting.report import Report
from workers.reporting.structured_report import unread_uid

log = logging.getLogger(__name__)


def with_predecessors(
    evidence: Evidence, forms: Collection[Form], earlier: Sequence[Earlier], archive: Archive
) -> Evidence:
    """The evidence with the structured reports that those of a reading will replace, each in its own form.

    A report that was written before and is written again replaces what it replaced then: it is the same object.
    """
    written = [form for form in STRUCTURED_REPORTS if form in forms] or [Form.SR]
    found: dict[Form, Dataset] = {}
    for form in written:
        own = replace(evidence, form=form, first_predecessor=found.get(written[0]))
        predecessor = _replaced(own, earlier, form, archive, lambda own: own.uid(own.form))
        if predecessor is not None:
            found[form] = predecessor[0]
    main, *others = written
    predecessors = {form: found[form] for form in others if form in found}
    return replace(evidence, form=main, predecessor=found.get(main), predecessors=predecessors)


def with_all_predecessors(
    evidence: Evidence, outcome: Outcome, earlier: Sequence[Earlier], archive: Archive
) -> Evidence:
    """The same for a report that says why there is none: it replaces the last report in every form."""
    first = _replaced(evidence, earlier, Form.SR, archive, lambda own: unread_uid(own, outcome))
    if first is None:
        return evidence
    main, *others = first
    further = others or list(_last_of_further_forms(earlier, archive))
    return replace(evidence, predecessor=main, predecessors=dict(zip(STRUCTURED_REPORTS[1:], further, strict=False)))


def _last_of_further_forms(earlier: Sequence[Earlier], archive: Archive) -> Iterator[Dataset]:
    """The last reports that peers may have in other forms than the first."""
    known = [_of_form(earlier, Form.SR)]
    for form in STRUCTURED_REPORTS[1:]:
        last = _of_form(earlier, form)
        if last is None or not last.offered or any(last is one for one in known):
            continue
        known.append(last)
        if (found := _read(archive, last.path)) is not None:
            yield found


def written_objects(report: Report, evidence: Evidence) -> tuple[ReportObject, ...]:
    """The files of a report in the order of delivery, each with what the gate found wrong with it."""
    return tuple(map(sent_as, check_objects(report, evidence)))


def sent_as(checked: Checked) -> ReportObject:
    """A checked object as it is handed to the worker."""
    return ReportObject(
        study_instance_uid=str(checked.dataset.StudyInstanceUID),
        series_instance_uid=str(checked.dataset.SeriesInstanceUID),
        sop_instance_uid=str(checked.dataset.SOPInstanceUID),
        sop_class_uid=str(checked.dataset.SOPClassUID),
        data=checked.file,
        form=checked.form,
        held=checked.fault,
    )


def _of_form(earlier: Sequence[Earlier], form: Form) -> Earlier | None:
    """The likeliest in a form; where no peer had any in it, the likeliest of all."""
    known = (one for one in earlier if one.form in (form, Form.UNREAD))
    return next(known, earlier[0] if earlier else None)


def _replaced(
    evidence: Evidence, earlier: Sequence[Earlier], form: Form, archive: Archive, uid_of: Callable[[Evidence], str]
) -> list[Dataset] | None:
    """What the report replaces, the first first: the last one, or what that replaced where it is this very report.

    Raises UnreadableInstance where it might take the UIDs of one that peers were told to reject.
    """
    last = _of_form(earlier, form)
    ds = None if last is None else _read(archive, last.path)
    if ds is None and any(one.withdrawn and one.offered for one in earlier):
        raise UnreadableInstance(
            "the file of the report that this one replaces cannot be read, and a result of the study was withdrawn: "
            "put the file back from a copy, or what is written now may have the UIDs that peers were told to reject"
        )
    if last is None or ds is None:
        return None
    # What nobody was offered can be written again, and is nothing to refer to.
    taken_back = last.withdrawn and last.offered
    before = list(_named(ds, archive))
    candidates: list[Dataset | None] = [*before] or [None]
    for own in candidates:
        if not taken_back and uid_of(replace(evidence, predecessor=own)) == ds.SOPInstanceUID:
            return None if own is None else [own, *(other for other in before if other is not own)]
    return [ds] if last.offered else before or None


def _named(ds: Dataset, archive: Archive) -> Iterator[Dataset]:
    """The documents that a structured report says it replaces, without their content."""
    for study in ds.get("PredecessorDocumentsSequence", []):
        for series in study.ReferencedSeriesSequence:
            for document in series.ReferencedSOPSequence:
                path = archive.result_path(
                    study_uid=str(study.StudyInstanceUID),
                    series_uid=str(series.SeriesInstanceUID),
                    sop_uid=str(document.ReferencedSOPInstanceUID),
                )
                if (found := _read(archive, path)) is not None:
                    yield found


def _read(archive: Archive, path: str) -> Dataset | None:
    """A structured report."""
    try:
        return dcmread(archive.path_of(path))
    except (FileNotFoundError, InvalidDicomError) as error:
        # Better a report that refers to no earlier one than none at all.
        log.warning("the report that this one replaces cannot be read", extra={"error": type(error).__name__})
        return None
