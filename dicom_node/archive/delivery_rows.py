"""Rows of the index's deliveries: what they hold, which of them count, and how a new one begins."""

import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from dicom_node.archive.settlement import stands
from dicom_node.core.form import Form, form_of
from dicom_node.core.lifecycle import DeliveryState


@dataclass(frozen=True, kw_only=True)
class DeliveryRow:
    """One object's way to one peer."""

    sop_instance_uid: str
    sop_class_uid: str
    study_instance_uid: str
    job_uid: str
    peer: str
    #: Of the object, relative to the archive's root.
    path: str
    #: Of the whole file, when it was written.
    sha256: str
    state: DeliveryState
    attempts: int
    #: How often the peer answered a failure status, also one of storage commitment.
    refusals: int
    #: Of an ACCEPTED one: when its storage commitment is asked for, again.
    next_try_at: float
    reason: str
    accepted_at: float | None
    #: None in a row of an earlier version.
    waiting_since: float | None
    #: The row has changed since this was read where it differs.
    fence: int
    #: Whether the peer is asked for storage commitment of it, now that it was accepted.
    commitment: bool
    #: Of the storage commitment that was asked for last.
    transaction_uid: str | None
    committed_at: float | None
    #: The peer that the object also goes to, since this one was away for too long; or empty.
    instead: str
    #: Planned only because another peer was away.
    alternative: bool
    form: Form


def waiting_row(uid: str, peer: str, study: str, at: float, *, alternative: bool = False) -> dict[str, Any]:
    """A new row; the fences of one that is written again under the same names must not be the old one's."""
    row: dict[str, Any] = {"sop_instance_uid": uid, "peer": peer, "study_instance_uid": study}
    row |= {"fence": secrets.randbits(30), "alternative": alternative, "waiting_since": at, "next_try_at": at}
    row |= {"attempts": 0, "refusals": 0, "reason": "", "commitment": False, "instead": ""}
    return row | {"state": DeliveryState.WAITING.value}


def counts(tables: Mapping[str, sa.Table]) -> sa.ColumnElement[bool]:
    """Whether a report of a job is still to be sent: what withdraws an earlier one is, whatever became of the job."""
    jobs, reports = tables["jobs"], tables["reports"]
    return sa.or_(sa.and_(jobs.c.current.is_(True), stands(reports)), reports.c.form == Form.REJECTION.value)


def may_be_there(tables: Mapping[str, sa.Table]) -> sa.ColumnElement[bool]:
    """Whether the peer of a delivery may have its object: it took it, or was offered it and its answer may be lost."""
    reports, deliveries = tables["reports"], tables["deliveries"]
    # Its answer may be yet to come, too; a later refusal may only say that the peer has it already.
    unsure = deliveries.c.state.in_((DeliveryState.WAITING.value, DeliveryState.FAILED.value))
    return sa.or_(deliveries.c.accepted_at.is_not(None), sa.and_(unsure, reports.c.offered_at.is_not(None)))


def is_of_current_job(tables: Mapping[str, sa.Table]) -> sa.ColumnElement[bool]:
    """Whether a delivery's object counts: what a superseded job left neither waits nor is missed."""
    jobs, reports, deliveries = (tables[name] for name in ("jobs", "reports", "deliveries"))
    current = sa.select(jobs.c.job_uid).join(reports, reports.c.job_uid == jobs.c.job_uid)
    current = current.where(reports.c.sop_instance_uid == deliveries.c.sop_instance_uid, counts(tables))
    return current.correlate(deliveries).exists()


def select_deliveries(tables: Mapping[str, sa.Table]) -> sa.Select[Any]:
    """Deliveries with what `delivery_row` takes of their reports."""
    deliveries, reports = tables["deliveries"], tables["reports"]
    columns = (reports.c.path, reports.c.sop_class_uid, reports.c.job_uid, reports.c.sha256, reports.c.form)
    return sa.select(deliveries, *columns).join(reports, reports.c.sop_instance_uid == deliveries.c.sop_instance_uid)


def delivery_row(row: Mapping[Any, Any]) -> DeliveryRow:
    """A delivery of such a row."""
    fields = {name: row[name] for name in DeliveryRow.__dataclass_fields__}
    terms = {"state": DeliveryState(row["state"]), "form": form_of(row["form"], row["sop_class_uid"])}
    return DeliveryRow(**{**fields, **terms})
