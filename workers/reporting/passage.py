"""Passage: objects on their way through the gate, each with its file and with what must keep it from being sent."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from pydicom import Dataset

from dicom_node.core.form import TRAITS, Form
from workers.reporting.encoding import as_file
from workers.reporting.evidence import Evidence
from workers.reporting.forms import Part
from workers.reporting.gate import find_faults, note_faults
from workers.reporting.iod import IodChecks
from workers.reporting.report import Report


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
    files = {part: as_file(dataset) for part, dataset in report.objects.items()}
    # The program takes a label map for a segmentation of before Label Map IOD: there no segment was numbered 0.
    with IodChecks({part: file for part, file in files.items() if part.form is not Form.LABEL_MAP}) as outside:
        faults = find_faults(report, files, evidence)
        for part, dataset in report.objects.items():
            found = tuple(("iod", fault) for fault in outside.faults(part, dataset, evidence.volume.headers))
            faults[part] = (*faults.get(part, ()), *found)
    for part in report.objects:
        named = TRAITS[part.form].refers_to
        if named is not None and faults.get(Part(named)):
            faults[part] = (*faults[part], ("parts", f"{named}, which it refers to, must not be sent"))
    return tuple(
        Checked(form=part.form, dataset=dataset, file=files[part], fault=_in_words(part.form, faults[part]))
        for part, dataset in report.objects.items()
    )


def check_note(note: Dataset, rejected: Sequence[Dataset]) -> Checked:
    """A rejection note with what is wrong with it, given the objects that it rejects."""
    file = as_file(note)
    with IodChecks({Part(Form.REJECTION): file}) as outside:
        faults = [("note", fault) for fault in note_faults(file, rejected)]
        faults += [("iod", fault) for fault in outside.faults(Part(Form.REJECTION), note, rejected)]
    return Checked(form=Form.REJECTION, dataset=note, file=file, fault=_in_words(Form.REJECTION, faults))


def _in_words(form: Form, faults: Iterable[tuple[str, str]]) -> str:
    return "; ".join(f"{form} breaks the rule '{rule}': {fault}" for rule, fault in faults)
