"""Rejection note: a Key Object Selection that tells who holds a result that it is not to be used (PS3.16 TID 2010).

Its title says why: rejected for quality (113001) or for the safety of patients (113037), as IHE's Imaging Object Change
Management names them; its description has the reason in words.
"""

import datetime
from collections.abc import Sequence
from dataclasses import dataclass

from highdicom.ko import KeyObjectSelection, KeyObjectSelectionDocument
from pydicom import Dataset
from pydicom.uid import UID, ExplicitVRLittleEndian

from dicom_node.core.algorithm import AlgorithmIdentification
from dicom_node.core.codes import PROCESSING_EQUIPMENT, REJECTED_FOR_QUALITY, REJECTED_FOR_SAFETY
from dicom_node.core.errors import EvidenceInvalid
from dicom_node.core.implementation import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from dicom_node.core.uid import derived_uid
from workers.reporting.equipment import observer
from workers.reporting.evidence import UTF_8, blank_patient, concept, zone_of

REJECTION_SERIES_NUMBER = 9009


@dataclass(frozen=True, kw_only=True)
class Rejection:
    """Why objects are taken back, when, and how often that was done in their study."""

    safety: bool
    reason: str
    #: With a time zone.
    asked_at: datetime.datetime
    #: From 1.
    number: int


def build_rejection_note(rejection: Rejection, objects: Sequence[Dataset]) -> KeyObjectSelectionDocument:
    """The note over some objects of one study, given without their pixels; it is of their patient and study.

    The same rejection of the same objects always writes the same note. Raises EvidenceInvalid without an object.
    """
    if not objects:
        raise EvidenceInvalid("there is nothing to reject")
    first = objects[0]
    title = REJECTED_FOR_SAFETY if rejection.safety else REJECTED_FOR_QUALITY
    uids = sorted(str(ds.SOPInstanceUID) for ds in objects)
    parts = (title.value, rejection.reason, str(rejection.number), *uids)
    asked = rejection.asked_at.astimezone(zone_of(first)).replace(tzinfo=None, microsecond=0)
    references = [_reference(ds) for ds in objects]
    content = KeyObjectSelection(
        document_title=concept(title),
        referenced_objects=references,
        observer_device_context=observer(_algorithm(first)),
        description=rejection.reason,
    )
    note = KeyObjectSelectionDocument(
        evidence=references,
        content=content,
        series_instance_uid=derived_uid(str(first.StudyInstanceUID), "rejection series"),
        series_number=REJECTION_SERIES_NUMBER,
        sop_instance_uid=derived_uid(str(first.StudyInstanceUID), "rejection", *parts),
        instance_number=rejection.number,
        manufacturer=str(first.get("Manufacturer") or ""),
        transfer_syntax_uid=ExplicitVRLittleEndian,
        content_date=asked.date(),
        content_time=asked.time(),
        series_description="AI result withdrawn",
    )
    _complete(note, first, rejection)
    return note


def _complete(note: Dataset, first: Dataset, rejection: Rejection) -> None:
    """Give the note the patient, the study and the algorithm of what it rejects, and times that no clock changes."""
    note.copy_patient_and_study_information(first)
    character_set = first.get("SpecificCharacterSet") if rejection.reason.isascii() else UTF_8
    note.pop("SpecificCharacterSet", None)
    if character_set:
        note.SpecificCharacterSet = character_set
    for keyword in ("ManufacturerModelName", "SoftwareVersions", "DeviceSerialNumber", "TimezoneOffsetFromUTC"):
        if keyword in first:
            note[keyword] = first[keyword]
    note.ContributingEquipmentSequence = _equipment(first)
    note.SeriesDate, note.SeriesTime = note.ContentDate, note.ContentTime
    note.InstanceCreationDate, note.InstanceCreationTime = note.ContentDate, note.ContentTime
    note.file_meta.ImplementationClassUID = UID(IMPLEMENTATION_CLASS_UID)
    note.file_meta.ImplementationVersionName = IMPLEMENTATION_VERSION_NAME


def _equipment(ds: Dataset) -> list[Dataset]:
    """The algorithm behind an object, as its Contributing Equipment names it."""
    return [
        item
        for item in ds.get("ContributingEquipmentSequence", [])
        if item.PurposeOfReferenceCodeSequence[0].CodeValue == PROCESSING_EQUIPMENT.value
    ]


def _algorithm(ds: Dataset) -> AlgorithmIdentification:
    """The algorithm that wrote an object, in the object's own words."""
    (item, *_) = _equipment(ds)
    return AlgorithmIdentification(
        name=str(item.ManufacturerModelName),
        version=str(item.SoftwareVersions),
        manufacturer=str(item.Manufacturer),
        device_uid=str(item.DeviceUID),
        checksum=str(item.get("DeviceSerialNumber") or ""),
    )


def _reference(ds: Dataset) -> Dataset:
    """An object with what a reference to it needs, and no patient: no library on the way judges or logs one."""
    reference = blank_patient()
    for keyword in ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "Rows", "Columns"):
        if keyword in ds:
            reference[keyword] = ds[keyword]
    return reference
