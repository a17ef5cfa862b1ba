"""Passage: objects on their way through the gate, each with its file and with what must keep it from being sent."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from io import BytesIO

from pydicom import Dataset, dcmread

from dicom_node.core.form import Form
from workers.reporting.evidence import Evidence
from workers.reporting.gate import find_faults, note_faults
from workers.reporting.iod import IodChecks
from workers.reporting.report import Report, as_file


@dataclass(frozen=True, kw_only=True)
class Checked:
    """One object that was judged."""

    form: Form
    dataset: Dataset
    file: bytes
    #: Why it must not be sent; empty where it may.
    fault: str


def check_objects(report: Report, evidence: Evidence) -> tuple[Checked, ...]:
    """The objects of a report with what is wrong with each, in the order of its data sets."""
    files = {form: as_file(dataset) for form, dataset in report.objects.items()}
    outside = IodChecks(files)
    faults = find_faults(report, files, evidence)
    for form, dataset in report.objects.items():
        found = tuple(("iod", fault) for fault in outside.faults(form, dataset, evidence.volume.headers))
        faults[form] = (*faults.get(form, ()), *found)
    return tuple(
        Checked(form=form, dataset=dataset, file=files[form], fault=_in_words(form, faults[form]))
        for form, dataset in report.objects.items()
    )


def check_note(note: Dataset, rejected: Sequence[Dataset]) -> Checked:
    """A rejection note with what is wrong with it, given the objects that it rejects."""
    file = as_file(note)
    outside = IodChecks({Form.REJECTION: file})
    faults = [("note", fault) for fault in note_faults(dcmread(BytesIO(file)), rejected)]
    faults += [("iod", fault) for fault in outside.faults(Form.REJECTION, note, rejected)]
    return Checked(form=Form.REJECTION, dataset=note, file=file, fault=_in_words(Form.REJECTION, faults))


def _in_words(form: Form, faults: Iterable[tuple[str, str]]) -> str:
    return "; ".join(f"{form} breaks the rule '{rule}': {fault}" for rule, fault in faults)
