"""Notifications: Modality Performed Procedure Steps and Instance Availability, as their SCP (PS3.4 Annexes F and R).

What they say of the patient is not kept, nor read.
"""

import logging
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Protocol, TypeVar, cast

from pydicom import Dataset
from pydicom.uid import UID
from pynetdicom import evt
from pynetdicom.dimse_primitives import N_CREATE, N_SET
from pynetdicom.events import Event, EventHandlerType

from dicom_node.archive.header import BROKEN_BYTES
from dicom_node.core.errors import IndexUnavailable, NotificationRefused
from dicom_node.core.performed_step import PerformedStep, StepChange, StepState
from dicom_node.core.status import (
    INVALID_INSTANCE,
    INVALID_VALUE,
    MISSING_ATTRIBUTE,
    MISSING_VALUE,
    PROCESSING_FAILURE,
    RESOURCE_LIMITATION,
    SUCCESS,
    UNRECOGNISED_OPERATION,
    in_hex,
)
from dicom_node.core.uid import is_uid
from dicom_node.scp.presentation_contexts import NOTIFICATIONS, SupportedContext

log = logging.getLogger(__name__)

Told = TypeVar("Told")

MODALITY_PERFORMED_PROCEDURE_STEP, INSTANCE_AVAILABILITY = (context.sop_class_uid for context in NOTIFICATIONS)

#: PS3.4 Table F.7.2-1, what must have a value when a step is created; what may be empty may be absent here, too.
AT_CREATION = (
    *("ScheduledStepAttributesSequence", "PerformedProcedureStepID", "PerformedStationAETitle"),
    *("PerformedProcedureStepStartDate", "PerformedProcedureStepStartTime", "PerformedProcedureStepStatus", "Modality"),
)

#: PS3.4 Table R.3.2-1.
OF_AVAILABILITY = ("StudyInstanceUID", "ReferencedSeriesSequence")

#: Instance Availability (0008,0056) of what cannot be had.
_UNAVAILABLE = "UNAVAILABLE"


class Notified(Protocol):
    """Who keeps what was told, durable at return; each method raises NotificationRefused or IndexUnavailable."""

    def create_step(self, step: PerformedStep, calling_ae_title: str) -> None:
        """A step has begun."""

    def change_step(self, sop_instance_uid: str, change: StepChange, calling_ae_title: str) -> None:
        """A step goes on, or has ended."""

    def available(self, study_instance_uid: str, counts: Mapping[str, int], calling_ae_title: str) -> None:
        """A peer has so many instances of these series."""


class Notifications:
    """The part of an application entity that takes notifications."""

    def __init__(self, notified: Notified) -> None:
        self._notified = notified

    def bindings(self) -> list[EventHandlerType]:
        """Event and handler pairs, as pynetdicom takes them."""
        return [(evt.EVT_N_CREATE, self.create), (evt.EVT_N_SET, self.set)]

    def contexts(self) -> tuple[SupportedContext, ...]:
        """What is accepted."""
        return NOTIFICATIONS

    def create(self, event: Event) -> tuple[int | Dataset, Dataset | None]:
        """N-CREATE: a status, never an exception; with a SOP Instance UID of ours where the peer gave none."""
        request = cast(N_CREATE, event.request)
        given = request.AffectedSOPInstanceUID
        uid = str(given) if given else f"2.25.{uuid.uuid4().int}"
        takes = {MODALITY_PERFORMED_PROCEDURE_STEP: self._create_step, INSTANCE_AVAILABILITY: self._available}
        take = takes.get(str(event.context.abstract_syntax))
        status = _status(event, uid, lambda: _refuse_operation() if take is None else take(event, uid))
        if given or status != SUCCESS:
            return status, None
        reply = Dataset()
        reply.AffectedSOPInstanceUID = UID(uid)
        return status, reply

    def set(self, event: Event) -> tuple[int | Dataset, None]:
        """N-SET: a status, never an exception."""
        uid = str(cast(N_SET, event.request).RequestedSOPInstanceUID)
        return _status(event, uid, lambda: self._change_step(event, uid)), None

    def _create_step(self, event: Event, uid: str) -> None:
        step = _read(lambda: read_step(event.attribute_list, uid))
        self._notified.create_step(step, event.assoc.requestor.ae_title)

    def _change_step(self, event: Event, uid: str) -> None:
        change = _read(lambda: read_change(event.modification_list))
        self._notified.change_step(uid, change, event.assoc.requestor.ae_title)

    def _available(self, event: Event, _uid: str) -> None:
        study, counts = _read(lambda: read_availability(event.attribute_list))
        self._notified.available(study, counts, event.assoc.requestor.ae_title)


def read_step(attributes: Dataset, uid: str) -> PerformedStep:
    """The step that an N-CREATE begins; NotificationRefused where it breaks a rule of PS3.4 Section F.7.2.1."""
    _require(attributes, AT_CREATION)
    studies = []
    for scheduled in attributes.ScheduledStepAttributesSequence:
        _require(scheduled, ("StudyInstanceUID",))
        studies.append(_uid(scheduled.StudyInstanceUID, "Study Instance UID"))
    if _state(attributes) is not StepState.IN_PROGRESS:
        raise NotificationRefused("a step is created as IN PROGRESS", status=INVALID_VALUE)
    series = _series(attributes.get("PerformedSeriesSequence") or ())
    return PerformedStep(sop_instance_uid=uid, study_instance_uids=tuple(dict.fromkeys(studies)), series=series)


def read_change(modifications: Dataset) -> StepChange:
    """What an N-SET changes; NotificationRefused where it breaks a rule of PS3.4 Section F.7.2.2."""
    performed = modifications.get("PerformedSeriesSequence")
    reasons: Sequence[Dataset] = modifications.get("PerformedProcedureStepDiscontinuationReasonCodeSequence") or ()
    return StepChange(
        state=_state(modifications),
        series=None if performed is None else _series(performed),
        reason=_code(reasons[0]) if reasons else None,
    )


def read_availability(attributes: Dataset) -> tuple[str, dict[str, int]]:
    """Study Instance UID, and how many instances can be had of each series (PS3.4 Section R.3.2)."""
    _require(attributes, OF_AVAILABILITY)
    counts: dict[str, int] = {}
    for series in attributes.ReferencedSeriesSequence:
        _require(series, ("SeriesInstanceUID", "ReferencedSOPSequence"))
        uid = _uid(series.SeriesInstanceUID, "Series Instance UID")
        instances = series.ReferencedSOPSequence
        there = [item for item in instances if item.get("InstanceAvailability") != _UNAVAILABLE]
        counts[uid] = counts.get(uid, 0) + _distinct(there)
    return _uid(attributes.StudyInstanceUID, "Study Instance UID"), counts


def _series(performed: Iterable[Dataset]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for series in performed:
        _require(series, ("SeriesInstanceUID",))
        uid = _uid(series.SeriesInstanceUID, "Series Instance UID")
        images = series.get("ReferencedImageSequence") or ()
        others = series.get("ReferencedNonImageCompositeSOPInstanceSequence") or ()
        counts[uid] = counts.get(uid, 0) + _distinct([*images, *others])
    return counts


def _distinct(references: Iterable[Dataset]) -> int:
    return len({str(item.get("ReferencedSOPInstanceUID", "")) for item in references} - {""})


def _state(attributes: Dataset) -> StepState | None:
    value = attributes.get("PerformedProcedureStepStatus")
    if value is None:
        return None
    try:
        return StepState(str(value))
    except ValueError as error:
        raise NotificationRefused(
            "Performed Procedure Step Status is none that there is", status=INVALID_VALUE
        ) from error


def _code(item: Dataset) -> str:
    return ", ".join(str(item.get(keyword, "")) for keyword in ("CodeValue", "CodingSchemeDesignator", "CodeMeaning"))


def _uid(value: object, name: str) -> str:
    if not is_uid(str(value)):
        raise NotificationRefused(f"{name} is no UID", status=INVALID_VALUE)
    return str(value)


def _require(attributes: Dataset, keywords: Sequence[str]) -> None:
    for keyword in keywords:
        if keyword not in attributes:
            raise NotificationRefused(f"{keyword} is missing", status=MISSING_ATTRIBUTE)
        if not attributes.get(keyword):
            raise NotificationRefused(f"{keyword} is empty", status=MISSING_VALUE)


def _refuse_operation() -> None:
    raise NotificationRefused("this SOP class has no such operation", status=UNRECOGNISED_OPERATION)


def _status(event: Event, uid: str, deed: Callable[[], None]) -> int | Dataset:
    facts = {"calling_ae_title": event.assoc.requestor.ae_title, "sop_instance_uid": uid if is_uid(uid) else "no UID"}
    try:
        if not is_uid(uid):
            raise NotificationRefused("SOP Instance UID is no UID", status=INVALID_INSTANCE)
        deed()
    except NotificationRefused as refused:
        facts |= {"status": in_hex(refused.status), "reason": str(refused)}
        log.warning("notification refused", extra=facts)
        return _failure(refused)
    except IndexUnavailable as error:
        return _failure(NotificationRefused(str(error), status=RESOURCE_LIMITATION))
    # The rim: whatever goes wrong inside, the peer gets an answer and its association lives.
    except Exception:
        log.exception("a notification could not be taken", extra=facts)
        return _failure(NotificationRefused("the node failed; see its log", status=PROCESSING_FAILURE))
    return SUCCESS


def _read(read: Callable[[], Told]) -> Told:
    """What a data set says; whatever broken bytes make pydicom raise is NotificationRefused."""
    try:
        return read()
    except BROKEN_BYTES as error:
        raise NotificationRefused("the data set cannot be read; mend the sender", status=PROCESSING_FAILURE) from error


def _failure(refused: NotificationRefused) -> Dataset:
    status = Dataset()
    # LO: 64 characters (PS3.7 Table E.1-1).
    status.Status, status.ErrorComment = refused.status, str(refused)[:64]
    if refused.error_id is not None:
        status.ErrorID = refused.error_id
    return status
