"""An earlier study of a patient as its report and its reading have it, opened to be compared with."""

import hashlib
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from io import BytesIO

from pydicom import Dataset, dcmread

from dicom_node.archive.files import Archive
from dicom_node.core.algorithm import AlgorithmIdentification
from dicom_node.core.form import Form
from dicom_node.core.prior import Prior, PriorReport
from workers.correspondence import lungs_compared
from workers.layout import Layout
from workers.reporting.prior_report import Measured, measured_in, outlined_by, patient_of

log = logging.getLogger(__name__)

#: What a header's date or a report may be wrong by.
_UNUSABLE = (AttributeError, IndexError, KeyError, TypeError, ValueError)


@dataclass(frozen=True, kw_only=True)
class EarlierStudy:
    """An earlier study that can be compared."""

    report: Dataset
    layout: Layout
    measured: Mapping[str, Measured]
    on: date
    days: int
    #: Tracking Unique Identifiers, in the order of the report.
    uids: tuple[str, ...] = field(default=())

    @property
    def day(self) -> str:
        """When it was made, as people read it."""
        return self.on.isoformat()


def opened(
    prior: Prior, layout: Layout, header: Dataset, algorithm: AlgorithmIdentification, archive: Archive
) -> EarlierStudy | str:
    """The prior, or why it cannot be compared."""
    before = Layout.from_json(prior.layout)
    if before is None:
        return "its reading, by an earlier version, tells nothing of where its findings lie"
    content = _content(prior.report, archive)
    if isinstance(content, str):
        return content
    try:
        report = dcmread(BytesIO(content))
        measured = measured_in(report)
        on = _day(report)
        days = (_day(header) - on).days
        # The index chose it by the same rule, of what was received: this is of what is compared.
        is_theirs = patient_of(report).is_same(patient_of(header))
        is_theirs = is_theirs and report.SOPInstanceUID == prior.report.sop_instance_uid
    except _UNUSABLE:
        return "its report is not as ours are"
    if not before.findings.keys() <= measured.keys():
        # What it lacks must not pass for what was not there.
        return "its report tells less than was found then"
    if not is_theirs or days < 0 or outlined_by(report)[0] != algorithm.name:
        return "it is not surely of the same patient, of an earlier day and by the same algorithm"
    if layout.is_cut or before.is_cut or not lungs_compared(before.lungs, layout.lungs):
        return "the lungs of both scans are not alike, or not whole, so that places cannot be compared"
    return EarlierStudy(report=report, layout=before, measured=measured, on=on, days=days, uids=tuple(before.findings))


def _content(report: PriorReport, archive: Archive) -> bytes | str:
    """The file of a report, or why it cannot be used; OSError where the disk fails, which says nothing of it."""
    try:
        content = archive.path_of(report.path).read_bytes()
    except FileNotFoundError:
        log.warning("an earlier report is not in the archive")
        return "its report is not in the archive any more"
    if hashlib.sha256(content).hexdigest() != report.sha256:
        log.warning("an earlier report was altered on disk", extra={"sop_instance_uid": report.sop_instance_uid})
        return "its report was altered or cut short on disk"
    return content


def in_other_forms(prior: Prior, archive: Archive) -> Mapping[Form, Dataset]:
    """The report as other peers have it; without those that cannot be used, whose peers are told of the first."""
    found: dict[Form, Dataset] = {}
    for form, report in prior.others.items():
        try:
            content = _content(report, archive)
        except OSError as error:
            facts = {"sop_instance_uid": report.sop_instance_uid, "error": type(error).__name__}
            log.warning("an earlier report could not be read in another form", extra=facts)
            continue
        if isinstance(content, bytes):
            found[form] = dcmread(BytesIO(content))
    return found


def _day(header: Dataset) -> date:
    text = str(header.StudyDate).replace(".", "")
    return date(int(text[:4]), int(text[4:6]), int(text[6:8]))
