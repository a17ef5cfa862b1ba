"""Report: the objects of one reading, built together: a segmentation, structured reports, and other forms of them."""

import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset

from dicom_node.core.errors import EvidenceInvalid
from dicom_node.core.finding import Finding
from dicom_node.core.form import BY_DEFAULT, STRUCTURED_REPORTS, TRAITS, Form
from dicom_node.core.outcome import Outcome, outcome_of_reading
from dicom_node.core.urgency import urgency_of
from workers.dependence import Dependence
from workers.reporting.encapsulated_pdf import build_encapsulated_pdf
from workers.reporting.evidence import Evidence
from workers.reporting.forms import BUILDERS, Material, Part
from workers.reporting.marked_slice import marked_slices
from workers.reporting.measurement_group import Marked
from workers.reporting.prior_report import measured_in
from workers.reporting.secondary_capture import build_secondary_captures
from workers.reporting.segmentation import build_segmentation
from workers.reporting.structured_report import build_structured_report
from workers.reporting.tracked import followed

log = logging.getLogger(__name__)

_REPLACES = "This report replaces an earlier one of this study."


@dataclass(frozen=True, kw_only=True)
class Report:
    """The objects that go to the PACS."""

    structured_report: Dataset
    #: None when nothing was found.
    segmentation: Dataset | None
    form: Form = Form.SR
    #: The same in further forms.
    others: Mapping[Part, Dataset] = field(default_factory=dict)
    #: None: that of a whole reading.
    outcome: Outcome | None = None
    #: Tracking Unique Identifiers of findings, by their numbers.
    tracked: Mapping[int, str] = field(default_factory=dict)

    @property
    def objects(self) -> dict[Part, Dataset]:
        """By form and number, in the order of delivery: what the structured report refers to arrives before it."""
        segmentation = {} if self.segmentation is None else {Part(Form.SEG): self.segmentation}
        objects = {**segmentation, Part(self.form): self.structured_report, **self.others}
        return dict(sorted(objects.items(), key=lambda item: TRAITS[item[0].form].rank))

    @property
    def datasets(self) -> tuple[Dataset, ...]:
        """In the order of delivery."""
        return tuple(self.objects.values())

    @property
    def ended(self) -> Outcome:
        """How the reading ended."""
        return self.outcome or outcome_of_reading(found=self.segmentation is not None)


def build_report(
    evidence: Evidence,
    findings: tuple[Finding, ...],
    labels: NDArray[np.uint8],
    remarks: tuple[str, ...] = (),
    *,
    outcome: Outcome | None = None,
    forms: Collection[Form] = BY_DEFAULT,
    lungs: NDArray[np.uint8] | None = None,
    explained: Mapping[int, Dependence] = MappingProxyType({}),
) -> Report:
    """Write findings, numbered from 1 as `labels` [k, j, i] mark them, as objects of the evidence's study.

    Remarks are sentences for the comment; `lungs` [k, j, i] are those that were searched, with a value for each;
    `explained` tells by findings' numbers on what their scores depended. A segmentation and a structured report in the
    evidence's form are always written, for the other forms rest on them. Raises EvidenceInvalid where findings, labels
    and evidence do not belong together.
    """
    ended = outcome or replace(outcome_of_reading(found=bool(findings)), urgency=urgency_of(findings))
    evidence = replace(evidence, followed=_followed(evidence, findings))
    segmentation = build_segmentation(evidence, findings, labels)
    material = Material(
        evidence=evidence,
        findings=findings,
        labels=labels,
        remarks=_said(evidence, remarks),
        lungs=lungs,
        outcome=ended,
        explained=explained,
    )
    others: dict[Part, Dataset] = {}
    for form, build in BUILDERS.items():
        built = build(material) if form in forms else ()
        written = (dataset for dataset in built if dataset is not None)
        others |= {Part(form, number): dataset for number, dataset in enumerate(written, start=1)}
    segmentations = {Form.SEG: segmentation, Form.LABEL_MAP: others.get(Part(Form.LABEL_MAP))}
    for form in STRUCTURED_REPORTS:
        if form in forms or form is evidence.form:
            own = evidence if form is evidence.form else evidence.in_form(form)
            marked = _marked(form, segmentations, material) if findings else None
            others[Part(form)] = build_structured_report(own, findings, marked, _said(own, remarks), ended)
    return Report(
        structured_report=others.pop(Part(evidence.form)),
        segmentation=segmentation,
        form=evidence.form,
        others=others,
        outcome=ended,
        tracked={finding.number: evidence.tracking_uid(finding.number) for finding in findings},
    )


def _followed(evidence: Evidence, findings: tuple[Finding, ...]) -> Mapping[int, str]:
    """Tracking UIDs by findings' numbers: that of an earlier study first, then that of the report that is replaced."""
    of_earlier = {finding.number: finding.tracking_uid for finding in findings if finding.tracking_uid}
    taken = set(of_earlier.values()) | (set() if evidence.prior is None else set(measured_in(evidence.prior)))
    # Where the replaced report took another finding for it, or this one for one of the earlier study that it is not
    # surely now, that has a new name.
    of_replaced = {
        number: evidence.uid(f"finding {number}") if uid in taken else uid
        for number, uid in followed(evidence, findings).items()
    }
    return of_replaced | of_earlier


def _marked(form: Form, segmentations: Mapping[Form, Dataset | None], material: Material) -> Marked:
    """What a structured report refers to for its findings: the segmentation that its peers get, or images alone."""
    named = TRAITS[form].refers_to
    if named is None:
        return marked_slices(material.evidence, material.findings, material.labels)
    if (found := segmentations[named]) is None:
        raise EvidenceInvalid(f"{form} refers to {named}, which is not written")
    return found


def build_unread_report(evidence: Evidence, outcome: Outcome, forms: Collection[Form] = BY_DEFAULT) -> Report:
    """Say of a study why it was not read; what was received of it is the evidence.

    A structured report, and for those who get pictures or a document of readings the same as such. One of these that
    cannot be made is left out: what there is must be said all the same.
    """
    remarks = _said(evidence, ())
    structured_report = build_structured_report(evidence, (), None, remarks, outcome)
    others: dict[Part, Dataset] = {}
    for form, (of_readings, build) in _UNREAD_BUILDERS.items():
        if of_readings not in forms:
            continue
        try:
            pages = build(evidence, remarks, outcome)
        except Exception as error:
            # Libraries that draw may raise anything, with a message that holds what stands in a header.
            extra = {"form": str(form), "error": type(error).__name__}
            log.error("a form of a report cannot be written", extra=extra)
            continue
        others |= {Part(form, number): page for number, page in enumerate(pages, start=1)}
    return Report(
        structured_report=structured_report,
        segmentation=None,
        form=Form.UNREAD,
        others=others,
        outcome=outcome,
    )


def _unread_pictures(evidence: Evidence, remarks: tuple[str, ...], outcome: Outcome) -> Sequence[Dataset]:
    return build_secondary_captures(evidence, (), None, remarks, outcome)


def _unread_pdf(evidence: Evidence, remarks: tuple[str, ...], outcome: Outcome) -> Sequence[Dataset]:
    return [build_encapsulated_pdf(evidence, (), None, remarks, outcome)]


#: What says why a study was not read beside the structured report: the form of which a peer gets it, and its builder.
_UNREAD_BUILDERS: Mapping[Form, tuple[Form, Callable[[Evidence, tuple[str, ...], Outcome], Sequence[Dataset]]]]
_UNREAD_BUILDERS = MappingProxyType(
    {
        Form.UNREAD_PICTURE: (Form.SECONDARY_CAPTURE, _unread_pictures),
        Form.UNREAD_PDF: (Form.PDF, _unread_pdf),
    }
)


def _said(evidence: Evidence, remarks: tuple[str, ...]) -> tuple[str, ...]:
    return (*remarks, _REPLACES) if evidence.replaced else remarks
